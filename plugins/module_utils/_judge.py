# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: what is wrong with a host, from what was seen on it. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.onprem.airflow.plugins.module_utils._disks import MB, FileSystem
from ansible_collections.onprem.airflow.plugins.module_utils._problems import Problem
from ansible_collections.onprem.airflow.plugins.module_utils._settings import masked

SITE = "run `ansible-playbook onprem.airflow.site`"
Seen = t.Mapping[str, t.Any]

# --- connections: the same stages fail alike for every service -------------------------------------------------------


class Service(t.NamedTuple):
    """How a service is called, and where a person looks when it cannot be reached."""

    label: str
    start: str  # how to bring it up, on its own host
    where: str  # the variables that say where it is
    password: str = ""


SERVICES: dict[str, Service] = {
    "broker": Service(
        "RabbitMQ",
        "`systemctl start rabbitmq-server` there, and `journalctl -u rabbitmq-server`",
        "airflow_broker_host and airflow_broker_port",
        "airflow_broker_password",
    ),
    "database": Service(
        "PostgreSQL, the metadata database",
        "`systemctl start postgresql` there, and `journalctl -u 'postgresql@*'`",
        "airflow_database_host and airflow_database_port",
        "airflow_database_password",
    ),
    "results": Service(
        "PostgreSQL, the database of results",
        "`systemctl start postgresql` there, and `journalctl -u 'postgresql@*'`",
        "airflow_results_database_host and airflow_results_database_port",
        "airflow_results_database_password",
    ),
    "api": Service(
        "the API server",
        "`systemctl start airflow-api-server` there, and `journalctl -u airflow-api-server`",
        "airflow_api_url",
    ),
    "log": Service(
        "the log server of the worker",
        "`systemctl restart airflow-worker` there, and `journalctl -u airflow-worker`",
        "airflow_address",
    ),
}


def connection(kind: str, host: str, code: str, address: str, detail: str, subject: str, user: str = "") -> Problem:
    """The problem of a connection that failed with C(code), which begins with C(kind), at one of its stages."""
    service = SERVICES[kind]
    name = address.rsplit(":", 1)[0].strip("[]")
    failure = code.removeprefix(f"{kind}_")
    whom = f"{service.label} at {address}"
    texts: dict[str, tuple[str, str]] = {
        "unresolved": (
            f"the name {name} of {service.label} does not resolve on this host",
            f"make {name} resolve here (DNS or /etc/hosts), or correct {service.where} and {SITE}",
        ),
        "refused": (
            f"{whom} refuses the connection: nothing listens there",
            f"start it: {service.start}; or correct {service.where} and {SITE}",
        ),
        "timeout": (
            f"{whom} does not answer: packets are dropped on the way, or the host is gone",
            f"see that the host of {service.label} runs, and open the port from this host to {address} in every "
            "firewall between",
        ),
        "half_open": (
            f"{whom} accepts the connection and then says nothing",
            f"the process there hangs, or something else listens on that port: {service.start}",
        ),
        "tls_mismatch": (
            f"{whom} and this host disagree about TLS: one side speaks it and the other does not",
            f"make the port, and the TLS settings of this host and of {service.label}, agree",
        ),
        "certificate": (
            f"the certificate of {whom} is not trusted or not for this name: {detail}",
            f"use a certificate for {name} of an authority that this host trusts",
        ),
        "login_refused": (
            f"{whom} refuses the login of {user or 'this host'}: {detail}"
            if detail
            else f"{whom} refuses the login of {user}",
            f"{service.password} differs from that of the server, or the server does not admit this host: {SITE}, "
            "which sets both",
        ),
        "missing": (
            f"{whom} has no such database",
            f"{SITE}, which makes it; on a server of your own make it by hand",
        ),
        "vhost_missing": (
            f"{whom} has no such virtual host: {detail}",
            f"{SITE}, which makes it; on a broker of your own: `rabbitmqctl add_vhost`",
        ),
        "permission_missing": (
            f"{whom} does not give {user or 'the user'} the rights that Celery needs: {detail}",
            f"{SITE}, which grants them; on a broker of your own: `rabbitmqctl set_permissions -p VHOST "
            f"{user or 'USER'} '.*' '.*' '.*'`",
        ),
        "blocked": (
            f"{whom} takes no messages: it raised an alarm ({detail})",
            "free memory or disk space on the broker's host; `rabbitmq-diagnostics alarms` names what it lacks. It "
            "goes on by itself",
        ),
        "unconfirmed": (
            f"{whom} took a message and did not confirm it in time",
            "see the log of the broker: `journalctl -u rabbitmq-server` on its host",
        ),
        "forbidden": (
            f"{whom} refuses a signed request (403)",
            f"[api] secret_key differs between this master and that worker, or their clocks do: {SITE} and see that "
            "both have the same time",
        ),
        "error": (f"{whom} fails: {detail}", f"see its journal: {service.start.rsplit(' and ', maxsplit=1)[-1]}"),
    }
    what, fix = texts.get(failure, texts["error"])
    return Problem(code, host, what, fix, subject)


def broken_part(host: str, part: str, error: Exception) -> Problem:
    """A part of the check itself failed; what it would have found is not known."""
    what = f"the part {part!r} of the check failed by itself: {type(error).__name__}: {masked(str(error))[:200]}"
    fix = "run it again; when it stays, report it with the versions of verify.json"
    return Problem("check_failed", host, what, fix, f"host:{host}")


def unreadable(host: str, unit: str, error: Exception) -> Problem:
    """The settings of a service cannot be read."""
    path = getattr(error, "filename", None) or "a file of its settings"
    what = f"{unit} cannot have read {path}: {getattr(error, 'strerror', None) or type(error).__name__}"
    return Problem("config_unreadable", host, what, f"{SITE} --limit {host}, which writes it anew", f"file:{path}")


# --- services -------------------------------------------------------------------------------------------------------

ENABLED = ("enabled", "enabled-runtime", "static", "indirect", "generated", "alias")


def units(host: str, seen: t.Sequence[Seen], drained: t.Collection[str] = ()) -> list[Problem]:
    """Each unit is there, active and enabled. One that is drained may be stopped, and stays so."""
    problems = []
    for unit in seen:
        name = unit["name"]
        short = name.removesuffix(".service")
        subject = f"unit:{name}"
        if unit["load"] != "loaded":
            problems.append(Problem("unit_missing", host, f"{name} does not exist", f"{SITE} --limit {host}", subject))
            continue
        if name in drained or finishing(unit):
            pass
        elif waiting(unit):
            what = f"{name} is not up: it waits for the port of its database before it starts"
            fix = (
                "see that the database runs and that this host reaches it: the unit goes on by itself. "
                f"`journalctl -u {short} -n 50` on the host tells since when"
            )
            problems.append(Problem("unit_failing", host, what, fix, subject))
        elif unit["sub"] == "auto-restart" or unit["active"] == "failed" or ended(unit):
            why = f"result {unit['result']}, exit status {unit['status']}, {unit['restarts']} restarts"
            fix = f"`journalctl -u {short} -n 50` on the host says why"
            problems.append(Problem("unit_failing", host, f"{name} does not stay up: {why}", fix, subject))
        elif unit["active"] == "activating":
            fix = f"wait until it is up; `journalctl -u {short} -n 50` on the host says what it does meanwhile"
            problems.append(Problem("unit_stopped", host, f"{name} is starting", fix, subject))
        elif unit["active"] not in ("active", "reloading"):
            state = {"inactive": "is stopped", "deactivating": "is stopping"}
            what = f"{name} {state.get(unit['active'], 'is ' + unit['active'])}"
            problems.append(Problem("unit_stopped", host, what, f"`systemctl start {short}` on the host", subject))
        if unit["enabled"] not in ENABLED:
            what = f"{name} is {unit['enabled'] or 'not enabled'}: it will not start when the host boots"
            problems.append(Problem("unit_disabled", host, what, f"`systemctl enable {short}` on the host", subject))
    return problems


def waiting(unit: Seen) -> bool:
    """Whether a service of Airflow waits for its database before it starts; see ExecStartPre of the unit."""
    return bool(unit["sub"] == "start-pre" and unit["name"].startswith("airflow-"))


def ended(unit: Seen) -> bool:
    """Whether a service ended against all orders, and its last processes are on their way out."""
    return bool(unit["active"] == "deactivating" and unit["result"] not in ("", "success"))


def finishing(unit: Seen) -> bool:
    """Whether a worker was told to stop and its tasks go on until they are done, which may take hours.

    It is no more wrong than one that is drained, and whoever stopped it may start it again.
    """
    return bool(unit["active"] == "deactivating" and not ended(unit) and unit["name"].startswith("airflow-worker"))


NEEDS = {
    "airflow_master": "Airflow's services",
    "airflow_worker": "the worker",
    "rabbitmq": "RabbitMQ",
    "postgresql": "PostgreSQL",
}


def disks(host: str, seen: t.Iterable[FileSystem], watched: bool = False) -> list[Problem]:
    """Services have the space that they need. C(watched): a watchdog stops a worker that has not, save for /tmp."""
    problems = []
    for disk in seen:
        if not disk.short:
            continue
        folders = " and ".join(disk.folders)
        if disk.inodes == 0:
            what = (
                f"the file system {disk.mount}, with {folders}, has no inodes left, so no file can be made there "
                f"({_size(disk.free)} of {_size(disk.size)} are free)"
            )
        else:
            needs = ", ".join(f"{NEEDS[role]}: {_size(max(needed, MB))}" for role, needed in disk.short.items())
            what = (
                f"the file system {disk.mount}, with {folders}, is full: {_size(disk.free)} of {_size(disk.size)} are "
                f"free; needed by {needs}"
            )
        lack, tool = ("inodes", "df -i") if disk.inodes == 0 else ("space", "du -xm --max-depth=2")
        ends = {
            "airflow_worker": "the watchdog lets the worker take no tasks until then, and then starts it"
            if watched and disk.folders != ("/tmp",)
            else "until then tasks and their logs may be lost",
            "rabbitmq": "until then RabbitMQ takes no messages",
            "postgresql": "until then the database cannot be written to",
        }
        until = "; ".join(ends[role] for role in disk.short if role in ends)
        fix = (
            f"free {'space' if lack == 'space' else 'inodes, by removing files,'} in {folders} on the host "
            f"(`{tool} {disk.mount}` tells what takes it), or enlarge {disk.mount}. It goes on by itself once there "
            f"is space{'; ' + until if until else ''}"
        )
        problems.append(Problem("disk_full", host, what, fix, f"disk:{disk.mount}"))
    return problems


def _size(size: int) -> str:
    return f"{size // MB} MB"


def outdated(host: str, unit: str, newer: t.Sequence[str], cut_off: bool = False) -> list[Problem]:
    """A service that started before its files were last written runs with other settings than they say.

    C(cut_off): a worker that has been told to take no more tasks, to be started anew, which has not happened.
    """
    if cut_off:
        what = (
            f"{unit} was told to take no more tasks, and has not been started anew since: a rolling restart or an "
            "undrain was cut off, so it takes none"
        )
        fix = f"run `ansible-playbook onprem.airflow.restart --limit {host}`"
        return [Problem("unit_outdated", host, what, fix, f"unit:{unit}")]
    if not newer:
        return []
    what = f"{unit} was started before {', '.join(newer)} changed, and runs with what stood there before"
    return [Problem("unit_outdated", host, what, f"{SITE} --limit {host}, which restarts it", f"unit:{unit}")]


def release(host: str, current: str, seen: t.Sequence[Seen], root: str) -> list[Problem]:
    """There is a current release, and the services run it."""
    if not current:
        what = f"{root}/current leads to no release"
        return [Problem("release_missing", host, what, f"{SITE} --limit {host}", f"file:{root}/current")]
    return [
        Problem(
            "release_not_running",
            host,
            f"{unit['name']} still runs the release {unit['release']}, while current is {current}",
            f"`systemctl restart {unit['name'].removesuffix('.service')}` on the host, or {SITE} --limit {host}",
            f"unit:{unit['name']}",
        )
        for unit in seen
        if unit["pid"] and unit["release"] and unit["release"] != current
    ]


# Seconds without a heartbeat after which Airflow itself counts a component as unhealthy
# ([scheduler] scheduler_health_check_threshold and its siblings).
HEARTBEAT_LIMIT = 30
JOBS = {
    "SchedulerJob": "airflow-scheduler.service",
    "DagProcessorJob": "airflow-dag-processor.service",
    "TriggererJob": "airflow-triggerer.service",
}


def heartbeats(host: str, seen: t.Mapping[str, float], up: t.Mapping[str, bool]) -> list[Problem]:
    """Each component of this master tells the database that it works. One whose unit is down is told by its unit."""
    problems = []
    for job, unit in JOBS.items():
        if not up.get(unit) or seen.get(job, HEARTBEAT_LIMIT + 1) <= HEARTBEAT_LIMIT:
            continue
        age = f"for {seen[job]:.0f} s" if job in seen else "since it started"
        what = f"{unit} is up and has written no heartbeat to the database {age}"
        fix = f"`journalctl -u {unit.removesuffix('.service')} -n 50` on the host says what it waits for"
        problems.append(Problem("health_failing", host, what, fix, f"unit:{unit}"))
    return problems


def endpoint(host: str, unit: str, url: str, failure: str) -> Problem:
    """A component of this master that is up and does not answer on its own port."""
    fix = f"`journalctl -u {unit.removesuffix('.service')} -n 50` on the host; restart it when it hangs"
    return Problem("health_failing", host, f"{unit} is up and {url} says: {failure}", fix, f"unit:{unit}")


def units_differ(host: str, settings: t.Mapping[str, t.Mapping[str, str]]) -> list[Problem]:
    """All services of a host have the same settings; a drop-in of one of them can change that."""
    problems = []
    for name in sorted({name for shown in settings.values() for name in shown}):
        values = {unit: shown[name] for unit, shown in sorted(settings.items()) if name in shown}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{unit} has {value!r}" for unit, value in values.items())
            section, key = name.rsplit(".", 1)
            what = f"the services of this host disagree about [{section}] {key}: {told}"
            fix = (
                f"take it out of the drop-in or environment file of the one that should not have it, and {SITE} "
                f"--limit {host}"
            )
            problems.append(Problem("setting_differs", host, what, fix, f"setting:{name}"))
    return problems


def management(host: str, url: str, user: str, seen: Seen) -> Problem:
    """RabbitMQ's management plugin does not tell queues and consumers."""
    what = f"RabbitMQ's management plugin at {url} does not tell {user} about queues and consumers: {seen['detail']}"
    if seen.get("status") in (401, 403):
        fix = (
            f"give {user} the tag management: {SITE}; on a broker of your own `rabbitmqctl set_user_tags {user} "
            "management`"
        )
    else:
        fix = (
            "`rabbitmq-plugins enable rabbitmq_management` on the broker, open its port, or set "
            "airflow_broker_management_url"
        )
    return Problem("management_failing", host, what, fix, f"broker:{url}")


# --- queues ---------------------------------------------------------------------------------------------------------


def queues(
    host: str, names: t.Sequence[str], wanted_type: str, missing: t.Collection[str], listed: t.Sequence[Seen]
) -> list[Problem]:
    """Every queue exists, durable and of the wanted type. C(listed) is what the broker tells of them, if anything."""
    by_name = {queue["name"]: queue for queue in listed}
    problems = []
    for name in names:
        queue, subject = by_name.get(name), f"queue:{name}"
        if name in missing:
            what = f"the queue {name} does not exist on the broker: tasks sent to it are lost or wait for ever"
            fix = "start a worker that serves it (airflow_worker_queues); a worker makes its queues when it starts"
            problems.append(Problem("queue_missing", host, what, fix, subject))
        elif queue and queue["type"] != wanted_type:
            what = (
                f"the queue {name} is a {queue['type']} queue, and airflow_queue_type is {wanted_type}: workers that "
                "declare it are refused"
            )
            fix = (
                f"let its messages be worked off, `rabbitmqctl delete_queue -p VHOST {name}` on the broker, then"
                " restart the workers, which make it anew"
            )
            problems.append(Problem("queue_wrong_type", host, what, fix, subject))
        elif queue and not queue["durable"]:
            what = f"the queue {name} is not durable: a restart of the broker loses it with its tasks"
            fix = f"`rabbitmqctl delete_queue -p VHOST {name}` when it is empty, then restart the workers"
            problems.append(Problem("queue_not_durable", host, what, fix, subject))
    return problems


def unserved(
    default: str, listed: t.Sequence[Seen], waiting: t.Mapping[str, int], dags: t.Mapping[str, str]
) -> list[dict[str, str]]:
    """Queues that something sends tasks to, with the reason; whether a worker serves them the controller knows."""
    found = {queue: f"the DAG {dag} sends tasks to it" for queue, dag in dags.items()}
    found |= {queue: f"tasks that wait for it: {count}" for queue, count in waiting.items()}
    found |= {queue["name"]: f"messages that wait in it: {queue['messages']}" for queue in listed if queue["messages"]}
    found.setdefault(default, "it is the default queue")
    return [{"queue": name, "why": why} for name, why in sorted(found.items())]


# --- the worker -----------------------------------------------------------------------------------------------------


def worker(host: str, service: Seen, consumers: t.Sequence[Seen] | None, pid: int) -> list[Problem]:
    """A worker answers, and reads exactly its queues: by its own word, and by the broker's (None: not known).

    C(service) is what was seen of it: its C(unit), C(node) and C(queues), whether it is C(drained), and its answers.
    One that is drained need not answer, and reads nothing.
    """
    seen, unit, wanted = service, service["unit"].removesuffix(".service"), service["queues"]
    subject = worker_subject(host, service["node"])
    restart = f"`systemctl restart {unit}` on the host"
    if service["drained"]:
        return _reads_although_drained(host, service)
    if not seen["answers"]:
        what = f"{unit} is up, and does not answer Celery's ping over the broker"
        fix = f"{restart}: it waits for running tasks, then starts anew"
        return [Problem("worker_silent", host, what, fix, subject)]
    if pid and seen["pid"] and pid != seen["pid"]:
        name = "this host's name" if unit == "airflow-worker" else f"the name {service['node']}"
        what = f"the worker that answers under {name} is another process ({seen['pid']}) than {unit} ({pid})"
        fix = "end the other one: two workers under one name hide each other"
        return [Problem("worker_silent", host, what, fix, subject)]
    sockets = {tuple(item) for item in seen["sockets"]}
    # Through address translation the broker sees other addresses; then only the queue's number of consumers is known.
    known = consumers is not None and any((item["host"], item["port"]) in sockets for item in consumers)
    reading = {item["queue"] for item in consumers or [] if (item["host"], item["port"]) in sockets}
    problems = []
    for queue in wanted:
        claims = queue in seen["active_queues"]
        if claims and (
            reading >= {queue} if known else consumers is None or any(i["queue"] == queue for i in consumers)
        ):
            continue
        says = "says that it reads it" if claims else "says itself that it does not read it"
        broker = " and the broker knows no such consumer" if consumers is not None and queue not in reading else ""
        who = "the worker" if unit == "airflow-worker" else f"the worker {unit}"
        what = f"{who} answers ping and takes no tasks from the queue {queue}: it {says}{broker}"
        fix = f"{restart}: it finishes its tasks and reads its queues again"
        problems.append(Problem("worker_not_consuming", host, what, fix, f"queue:{queue}"))
    for queue in sorted(set(seen["active_queues"]) - set(wanted)):
        who = "the worker" if unit == "airflow-worker" else f"the worker {unit}"
        variable = "airflow_worker_queues" if unit == "airflow-worker" else "its queues in airflow_worker_services"
        what = f"{who} takes tasks from the queue {queue}, which the inventory does not give it"
        fix = f"add {queue} to {variable} of this host, or `systemctl restart {unit}` there and {SITE}"
        problems.append(Problem("worker_queue_unexpected", host, what, fix, f"queue:{queue}"))
    return problems


def worker_subject(host: str, node: str) -> str:
    """A worker as the subject of a problem: by its host, which has one; one of several by its own name as well."""
    name = node.partition("@")[0]
    return f"worker:{host}" if name == "celery" else f"worker:{name}@{host}"


def _reads_although_drained(host: str, service: Seen) -> list[Problem]:
    """A worker that was told to take no more tasks and does."""
    unit = service["unit"].removesuffix(".service")
    fix = f"run `ansible-playbook onprem.airflow.drain --limit {host}` again, or onprem.airflow.undrain"
    return [
        Problem(
            "worker_queue_unexpected",
            host,
            f"{unit} is drained ({service['drained']}) and takes tasks from the queue {queue} all the same",
            fix,
            f"queue:{queue}",
        )
        for queue in service.get("active_queues") or []
    ]


def unknown_workers(host: str, running: t.Iterable[str], wanted: t.Collection[str]) -> list[Problem]:
    """A worker's service that runs here, and that the inventory does not have."""
    problems = []
    for unit in sorted(set(running) - set(wanted)):
        what = f"{unit} runs, and the inventory has no such worker here: it takes tasks that nobody wants there"
        fix = (
            "run the playbook onprem.airflow.queues, which takes it away, or put it into airflow_worker_services of "
            "the host"
        )
        problems.append(Problem("worker_unknown", host, what, fix, f"unit:{unit}"))
    return problems


# --- database, API, clock, DAGs --------------------------------------------------------------------------------------


def schema(host: str, behind: t.Sequence[str], unknown: t.Sequence[str], subject: str) -> list[Problem]:
    """The metadata database has the schema of the installed release."""
    problems = []
    if behind:
        what = f"the schema of the metadata database is behind the installed release ({'; '.join(behind)})"
        problems.append(Problem("schema_behind", host, what, f"{SITE}, which migrates it", subject))
    if unknown:
        what = (
            "the schema of the metadata database is of a newer release than the one installed here "
            f"({'; '.join(unknown)})"
        )
        fix = (
            "install the newer release here (airflow_version), or take the database back with the newer one's "
            "`airflow db downgrade`"
        )
        problems.append(Problem("schema_unknown", host, what, fix, subject))
    return problems


def api_version(host: str, url: str, own: str, theirs: str) -> list[Problem]:
    """The API server runs the same Airflow as this host."""
    if not own or not theirs or own == theirs:
        return []
    what = f"the API server at {url} runs Airflow {theirs}, this host {own}"
    return [
        Problem(
            "api_version_differs", host, what, f"{SITE} without --limit, so that all run airflow_version", f"api:{url}"
        )
    ]


def clock(host: str, offset: float, uncertainty: float, tolerance: float, against: str) -> list[Problem]:
    """The clock of this host is that of the server, as far as the round trip lets us know."""
    if abs(offset) - uncertainty <= tolerance:
        return []
    way = "ahead of" if offset > 0 else "behind"
    what = (
        f"the clock is {abs(offset):.1f} s {way} that of {against}: tokens of tasks and requests for logs are refused "
        "from 10 to 30 s on"
    )
    return [
        Problem(
            "clock_off",
            host,
            what,
            "let chrony or systemd-timesyncd set the clock of the host: `timedatectl`",
            f"host:{host}",
        )
    ]


def no_dags(host: str, bundle: str, path: str) -> list[Problem]:
    """A bundle's folder is not there."""
    what = f"the folder {path} of the DAG bundle {bundle} does not exist"
    return [Problem("dags_missing", host, what, f"{SITE} --limit {host}", f"dag:{bundle}")]


def import_errors(host: str, errors: t.Sequence[Seen]) -> list[Problem]:
    """Every DAG file could be read."""
    return [
        Problem(
            "dag_import_error",
            host,
            f"the DAG file {error['file']} of the bundle {error['bundle']} cannot be imported: {error['what']}",
            "mend the file and deploy it: `ansible-playbook onprem.airflow.deploy_dags`",
            f"dag:{error['bundle']}/{error['file']}",
        )
        for error in errors
    ]
