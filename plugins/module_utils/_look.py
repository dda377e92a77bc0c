# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: what can be seen on a host of a running cluster. Looks only; L(_judge) says what is wrong.

Every function returns plain data and takes the time it may need; what the network does wrong comes as a value.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import socket
import subprocess
import threading
import time
import typing as t
from urllib.parse import quote

from ansible_collections.onprem.airflow.plugins.module_utils import _probe, _settings
from ansible_collections.onprem.airflow.plugins.module_utils._environment import parse
from ansible_collections.onprem.airflow.plugins.module_utils._service import (
    environment_files,
    own_files,
    parse_show,
    seconds,
)
from ansible_collections.onprem.airflow.plugins.module_utils._tree import file_digest, tree_digest

# The units of each role. PostgreSQL's is an instance named after its version; see database_units(). A host has as many
# services of a worker as the inventory says; all their names begin alike.
UNITS: dict[str, tuple[str, ...]] = {
    "airflow_master": (
        "airflow-api-server.service",
        "airflow-scheduler.service",
        "airflow-dag-processor.service",
        "airflow-triggerer.service",
    ),
    "rabbitmq": ("rabbitmq-server.service",),
}
WORKER_UNITS = ("airflow-worker.service", "airflow-worker@*.service")
SHOWN = (
    "Id LoadState ActiveState SubState Result UnitFileState NRestarts MainPID ExecMainStatus ExecMainStartTimestamp"
    " ExecStart Environment EnvironmentFiles FragmentPath DropInPaths MemoryCurrent ControlGroup"
).split()
# The names of files are told up to this number, so that the answers of many hosts stay small.
FILES_TOLD = 500
# The list of all consumers of a large cluster; each takes about 700 bytes.
MANAGEMENT_LIMIT = 64 << 20
# A file that is never logged: the log server's 404 comes only after it has accepted the signature.
NO_LOG = "onprem.airflow/executor_check"


# --- services -------------------------------------------------------------------------------------------------------


def database_clusters(root: str = "/etc/postgresql") -> list[tuple[str, str]]:
    """Version and name of every PostgreSQL cluster of this host, as Debian's packages keep their settings."""
    if not os.path.isdir(root):
        return []
    return [(version, name) for version in sorted(os.listdir(root)) for name in sorted(os.listdir(f"{root}/{version}"))]


def database_units(root: str = "/etc/postgresql") -> list[str]:
    """The unit of every PostgreSQL cluster of this host."""
    return [f"postgresql@{version}-{name}.service" for version, name in database_clusters(root)]


def units(names: t.Sequence[str]) -> dict[str, dict[str, str]]:
    """What systemd says of each unit, by name."""
    command = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(SHOWN)}", *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return parse_show(done.stdout)


def running_workers() -> list[str]:
    """Every service of a worker that runs on this host, whoever started it."""
    command = ["systemctl", "list-units", "--plain", "--no-legend", "--full", "--state=active,activating,reloading"]
    done = subprocess.run([*command, *WORKER_UNITS], capture_output=True, text=True, timeout=20, check=False)
    return sorted(line.split()[0] for line in done.stdout.splitlines() if line.split())


def describe_unit(shown: t.Mapping[str, str], root: str) -> dict[str, t.Any]:
    """The part of a unit that a report tells."""
    pid = int(shown.get("MainPID") or 0)
    memory = shown.get("MemoryCurrent", "")
    return {
        "name": shown.get("Id", ""),
        "load": shown.get("LoadState", ""),
        "active": shown.get("ActiveState", ""),
        "sub": shown.get("SubState", ""),
        "result": shown.get("Result", ""),
        "status": int(shown.get("ExecMainStatus") or 0),
        "enabled": shown.get("UnitFileState", ""),
        "restarts": int(shown.get("NRestarts") or 0),
        "pid": pid,
        "since": seconds(shown.get("ExecMainStartTimestamp", "")),
        "release": running_release(pid, root),
        "memory_mb": int(memory) >> 20 if memory.isdigit() else None,
    }


def running_release(pid: int, root: str) -> str:
    """The release that a process has loaded its libraries from; empty when it has none of ours.

    Its command line names `current`, which may have been switched since; the mapped files name the real folder.
    """
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as stream:
            match = re.search(re.escape(root) + r"/releases/([^/\s]+)/", stream.read())
    except OSError:
        return ""
    return match[1] if match else ""


def changed_since_start(shown: t.Mapping[str, str], others: t.Sequence[str]) -> list[str]:
    """The files of a unit that are newer than its process."""
    started = seconds(shown.get("ExecMainStartTimestamp", ""))
    newer = []
    for path in [*own_files(shown), *others]:
        try:
            if started and os.stat(path).st_mtime > started:
                newer.append(path)
        except OSError:
            continue
    return newer


def arguments(shown: t.Mapping[str, str]) -> list[str]:
    """The command line of a unit, as written in it."""
    match = re.search(r"argv\[\]=(.*?) ; ignore_errors=", shown.get("ExecStart", ""))
    return shlex.split(match[1]) if match else []


def environment(shown: t.Mapping[str, str]) -> dict[str, str]:
    """The environment that systemd gives a unit: its own lines, then its files, of which a later one wins.

    /proc/PID/environ would be nearer to the truth, but Celery's main process writes its title over it.
    """
    values = dict(item.partition("=")[::2] for item in shlex.split(shown.get("Environment", "")))
    for path in environment_files(shown):
        try:
            with open(path, encoding="utf-8") as stream:
                values.update(parse(stream.read()))
        except OSError:
            continue
    return values


def sources(shown: t.Mapping[str, str], home: str) -> _settings.Sources:
    """Where a unit gets its settings from: airflow.cfg, its environment files, its own lines and drop-ins.

    Raises OSError or UnicodeDecodeError on a file that cannot be read.
    """
    own = environment(shown)
    config = own.get("AIRFLOW_CONFIG") or os.path.join(
        own.get("AIRFLOW_HOME", os.path.join(home, "airflow")), "airflow.cfg"
    )
    read = _settings.read_sources(config, environment_files(shown), "airflow", home)
    where = {name: read.files.get(name, f"the unit {shown.get('Id', '')}") for name in own}
    return _settings.Sources(read.config, {**read.environment, **own}, where, read.home)


# --- the release ----------------------------------------------------------------------------------------------------


def site_packages(release: str) -> str:
    """The folder with the packages of a release; empty when there is none."""
    root = os.path.join(release, "lib")
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        if name.startswith("python3"):
            return os.path.join(root, name, "site-packages")
    return ""


def versions(packages: str) -> dict[str, str]:
    """The versions of Airflow, its providers, Celery and what it talks with, from the names of their metadata."""
    found = {}
    for name in os.listdir(packages) if packages else []:
        match = re.fullmatch(r"(.+)-([^-]+)\.dist-info", name)
        if match:
            package = re.sub(r"[-_.]+", "-", match[1]).lower()
            if package.startswith("apache-airflow") or package in ("celery", "kombu", "amqp", "psycopg", "sqlalchemy"):
                found[package] = match[2]
    return dict(sorted(found.items()))


# --- names and sockets ----------------------------------------------------------------------------------------------


def log_name(hostname_callable: str) -> str:
    """The name under which Airflow records this host in a task, as airflow/utils/net.py finds it."""
    name = socket.gethostname()
    try:
        found = socket.getaddrinfo(name, None, 0, socket.SOCK_DGRAM, 0, socket.AI_CANONNAME)
    except OSError:
        found = []
    name = next((canonical for *_rest, canonical, _address in found if canonical), name)
    if hostname_callable.endswith("get_host_ip_address"):
        try:
            return socket.gethostbyname(name)
        except OSError:
            return name
    return name


def addresses() -> list[str]:
    """The IP addresses of this host, without loopback."""
    done = subprocess.run(["ip", "-json", "address"], capture_output=True, text=True, timeout=10, check=False)
    try:
        links = json.loads(done.stdout or "[]")
    except ValueError:
        return []
    return [
        item["local"]
        for link in links
        for item in link.get("addr_info", [])
        if item.get("scope") == "global" and "local" in item
    ]


def sockets_of(pid: int, port: int, proc: str = "/proc") -> list[tuple[str, int]]:
    """The near ends (address, port) of a process' established connections to a port: how the other side names them."""
    inodes = set()
    try:
        for fd in os.listdir(f"{proc}/{pid}/fd"):
            try:
                target = os.readlink(f"{proc}/{pid}/fd/{fd}")
            except OSError:
                continue
            if match := re.fullmatch(r"socket:\[(\d+)\]", target):
                inodes.add(match[1])
    except OSError:
        return []
    found = []
    for table in ("tcp", "tcp6"):
        try:
            with open(f"{proc}/{pid}/net/{table}", encoding="ascii") as stream:
                rows = [line.split() for line in stream.readlines()[1:]]
        except OSError:
            continue
        for row in rows:
            # Fields of proc(5), /proc/net/tcp: local and remote address as hexadecimal, state (01: established), inode.
            if row[9] in inodes and row[3] == "01" and int(row[2].rsplit(":", 1)[1], 16) == port:
                found.append(_socket_address(row[1]))
    return found


def _socket_address(text: str) -> tuple[str, int]:
    """C(0E4DD50A:C5F4) of /proc/net/tcp as (address, port); each group of four bytes is in the host's own order."""
    address, port = text.split(":")
    raw = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8))
    if len(raw) == 4:
        return socket.inet_ntop(socket.AF_INET, raw), int(port, 16)
    plain = socket.inet_ntop(socket.AF_INET6, raw)
    return plain.removeprefix("::ffff:") if plain.startswith("::ffff:") else plain, int(port, 16)


# --- the broker's own view ------------------------------------------------------------------------------------------


def management(
    url: str, user: str, password: str, vhost: str, queues: t.Sequence[str] | None, timeout: float
) -> dict[str, t.Any]:
    """Queues and consumers as RabbitMQ's management plugin tells them: C({problem, detail, queues, consumers}).

    Without C(queues) all of the virtual host. Celery's own (exclusive, or for delayed delivery) are left out.
    """
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    vhost = quote(vhost, safe="")
    if queues is None:
        paths = [f"queues/{vhost}", f"consumers/{vhost}"]
    else:
        paths = [f"queues/{vhost}/{quote(queue, safe='')}" for queue in queues]
    end = time.monotonic() + timeout
    answers = []
    for path in paths:
        found = _probe.http(
            f"{url.rstrip('/')}/api/{path}",
            timeout=max(0.1, end - time.monotonic()),
            headers={"Authorization": f"Basic {token}"},
            prefix="broker",
            limit=MANAGEMENT_LIMIT,
        )
        if found.code or found.status not in (200, 404):
            return {"problem": True, "detail": found.detail or f"HTTP status {found.status}", "status": found.status}
        answers.append(json.loads(found.body) if found.status == 200 else None)
    if queues is None:
        listed = [queue for queue in answers[0] or [] if not _celerys_own(queue)]
        consumers = answers[1] or []
    else:
        listed = [queue for queue in answers if queue is not None]
        consumers = [consumer for queue in listed for consumer in queue.get("consumer_details", [])]
    return {
        "problem": False,
        "queues": [
            {
                "name": queue["name"],
                "type": queue.get("type", "classic"),
                "durable": bool(queue.get("durable")),
                "messages": queue.get("messages_ready", queue.get("messages", 0)),
                "consumers": queue.get("consumers", 0),
            }
            for queue in listed
        ],
        "consumers": [
            {
                "queue": consumer["queue"]["name"],
                "host": details.get("peer_host", ""),
                "port": details.get("peer_port", 0),
            }
            for consumer in consumers
            if isinstance(details := consumer.get("channel_details"), dict)
            if consumer["queue"]["name"] in {queue["name"] for queue in listed}
        ],
    }


def _celerys_own(queue: t.Mapping[str, t.Any]) -> bool:
    name = queue["name"]
    return bool(
        queue.get("exclusive")
        or queue.get("auto_delete")
        or name.startswith(("celery_delayed_", "celeryev.", "amq.gen-"))
        or name.endswith(".celery.pidbox")
    )


# --- the worker as Celery sees it -----------------------------------------------------------------------------------


def tls_options(tls: _settings.BrokerTls) -> dict[str, t.Any]:
    """What Airflow gives to Celery as broker_use_ssl (airflow/providers/celery/executors/default_celery.py)."""
    import ssl

    paths = {"keyfile": tls.key, "certfile": tls.cert, "ca_certs": tls.cacert}
    return {"cert_reqs": ssl.CERT_REQUIRED, **{name: path for name, path in paths.items() if path}}


def celery_settings(extra: t.Mapping[str, t.Any], tls: _settings.BrokerTls) -> dict[str, t.Any]:
    """The settings of Celery that matter for asking a worker: how the control queues are made, and TLS."""
    wanted = ("control_queue_exclusive", "event_queue_exclusive", "control_queue_durable", "broker_connection_timeout")
    settings = {name: extra[name] for name in wanted if name in extra}
    return settings | ({"broker_use_ssl": tls_options(tls)} if tls.active else {})


# The package celery puts another module in its own place while it is imported (celery/local.py, recreate_module): a
# second thread that imports it meanwhile gets the first one, which has no Celery (seen with 5.6 on Python 3.13).
IMPORTING_CELERY = threading.Lock()


def celery(broker_url: str, settings: t.Mapping[str, t.Any]) -> t.Any:
    """An app of Celery that only asks and tells workers; several threads may make one each at the same time."""
    with IMPORTING_CELERY:
        from celery import Celery
    app = Celery("onprem.airflow", broker=broker_url, set_as_current=False)
    app.conf.update(dict(settings))
    return app


def worker(broker_url: str, settings: t.Mapping[str, t.Any], node: str, timeout: float) -> dict[str, t.Any]:
    """What a worker answers over the broker: C({answers, ping_ms, active_queues, concurrency, running, pid}).

    C(settings) are Celery's own: those for TLS, and for control queues as this broker wants them.
    """
    app = celery(broker_url, settings)
    try:
        began = time.monotonic()
        inspect = app.control.inspect(destination=[node], timeout=timeout)
        if not (inspect.ping() or {}).get(node):
            return silent_worker()
        ping = (time.monotonic() - began) * 1000
        queues = (inspect.active_queues() or {}).get(node) or []
        stats = (inspect.stats() or {}).get(node) or {}
        active = (inspect.active() or {}).get(node) or []
    finally:
        app.close()
    return {
        "answers": True,
        "ping_ms": round(ping, 1),
        "active_queues": sorted(str(queue["name"]) for queue in queues),
        "concurrency": (stats.get("pool") or {}).get("max-concurrency"),
        "running": len(active),
        "pid": stats.get("pid") or 0,
    }


def silent_worker() -> dict[str, t.Any]:
    """What is known of a worker that does not answer."""
    return {"answers": False, "active_queues": [], "concurrency": None, "running": None, "pid": 0}


# --- the metadata database ------------------------------------------------------------------------------------------

HEARTBEATS = (
    "SELECT job_type, extract(epoch FROM now() - max(latest_heartbeat)) FROM job"
    " WHERE hostname = %s AND state = 'running' GROUP BY job_type"
)
IMPORT_ERRORS = "SELECT bundle_name, filename, stacktrace FROM import_error ORDER BY 1, 2 LIMIT 50"
# Where tasks of the newest version of every DAG go; a mapped task has its queue among the arguments of all its copies.
# Our own canaries send only when they are asked to: the DAG of a queue that is gone goes some time later.
DAG_QUEUES = """
WITH newest AS (
  SELECT DISTINCT ON (s.dag_id) s.dag_id, s.data FROM serialized_dag s JOIN dag d ON d.dag_id = s.dag_id
   WHERE NOT d.is_stale AND NOT d.is_paused AND d.bundle_name IS DISTINCT FROM 'onprem-airflow-canary'
   ORDER BY s.dag_id, s.created_at DESC
), found AS (
  SELECT dag_id, jsonb_path_query(data, '$.dag.tasks[*].__var.queue') AS queue FROM newest
  UNION ALL
  SELECT dag_id, jsonb_path_query(data, '$.dag.tasks[*].__var.partial_kwargs.queue') FROM newest
)
SELECT queue #>> '{}', min(dag_id) FROM found WHERE jsonb_typeof(queue) = 'string' GROUP BY 1
"""
WAITING_QUEUES = "SELECT queue, count(*) FROM task_instance WHERE state IN ('scheduled', 'queued') GROUP BY queue"


def metadata(connection: t.Any, tables: t.Iterable[str], hostname: str) -> dict[str, t.Any]:
    """What a master finds in the metadata database; why a part cannot be read is in C(errors)."""
    errors: dict[str, str] = {}

    def rows(name: str, query: str, arguments: tuple[t.Any, ...] = ()) -> list[tuple[t.Any, ...]] | None:
        try:
            return list(connection.execute(query, arguments).fetchall())
        except Exception as exc:  # psycopg's errors: a missing table, a statement that takes too long
            errors[name] = str(exc).splitlines()[0]
            return None

    revisions: dict[str, str | None] = {}
    for table in tables:
        there = rows(table, "SELECT to_regclass(%s)", (table,))
        found = rows(table, f"SELECT version_num FROM {table}") if there and there[0][0] else None
        revisions[table] = str(found[0][0]) if found else None
    return {
        "revisions": revisions,
        "heartbeats": {str(job): float(age) for job, age in rows("heartbeats", HEARTBEATS, (hostname,)) or []},
        "import_errors": [
            {"bundle": str(bundle), "file": str(name), "what": last_line(str(trace or ""))}
            for bundle, name, trace in rows("import_errors", IMPORT_ERRORS) or []
        ],
        "dag_queues": {str(queue): str(dag) for queue, dag in rows("dag_queues", DAG_QUEUES) or []},
        "waiting": {str(queue): int(count) for queue, count in rows("waiting", WAITING_QUEUES) or []},
        "errors": errors,
    }


def last_line(text: str) -> str:
    """The last line of a stack trace that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


# --- DAGs -----------------------------------------------------------------------------------------------------------


def dag_tree(path: str) -> dict[str, t.Any]:
    """The files of a bundle's folder: C({digest, count, files: {path: first eight digits of its SHA-256}})."""
    files = {}
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name not in ("__pycache__", ".git")]
        for name in names:
            full = os.path.join(folder, name)
            if os.path.isfile(full) and not name.endswith(".pyc"):
                files[os.path.relpath(full, path)] = file_digest(full)
    return {
        "digest": tree_digest(files),
        "count": len(files),
        "files": {name: files[name][:8] for name in sorted(files)} if len(files) <= FILES_TOLD else {},
    }


# --- the log servers of workers, as a master reaches them -----------------------------------------------------------


def version_of(found: _probe.HttpFound) -> str:
    """The version that an API server tells; empty when it tells none."""
    try:
        return str(json.loads(found.body)["version"]) if found.status == 200 else ""
    except (ValueError, KeyError, TypeError):
        return ""


def log_server(name: str, port: int, secret: str, valid_for: int, timeout: float) -> dict[str, t.Any]:
    """Ask a worker's log server as an API server does: by name, signed (airflow/utils/log/file_task_handler.py)."""
    import jwt

    now = int(time.time())
    claims = {"filename": NO_LOG, "aud": "task-instance-logs", "nbf": now, "iat": now, "exp": now + valid_for}
    token = jwt.encode(claims, secret, algorithm="HS512")
    host = f"[{name}]" if ":" in name else name
    url = f"http://{host}:{port}/log/{NO_LOG}"
    found = _probe.http(url, timeout=timeout, headers={"Authorization": token}, prefix="log")
    problem, detail = found.code, found.detail
    if problem is None and found.status == 403:
        problem, detail = "log_forbidden", "HTTP status 403"
    elif problem is None and found.status not in (200, 404):
        problem, detail = "log_error", f"HTTP status {found.status}"
    return {"name": name, "port": port, "ms": found.ms, "problem": problem, "detail": detail}
