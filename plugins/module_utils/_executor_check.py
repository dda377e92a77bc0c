# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: one host of a running cluster, looked at part by part, for the module executor_check.

What is seen comes from L(_look), L(_probe) and L(_settings); what is wrong with it is judged by L(_judge).
"""

from __future__ import annotations

import glob
import os
import platform
import socket
import time
import typing as t
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from ansible_collections.onprem.airflow.plugins.module_utils import (
    _disks,
    _drain,
    _judge,
    _look,
    _probe,
    _schema,
    _settings,
)
from ansible_collections.onprem.airflow.plugins.module_utils._problems import Problem
from ansible_collections.onprem.airflow.plugins.module_utils._service import environment_files

KINDS = {"airflow_master": _settings.MASTER, "airflow_worker": _settings.WORKER}
WATCHDOG = "airflow-watchdog.service"
LOG_PORT = "logging.worker_log_server_port"
# What a run of all parts may take at most, in multiples of the time of one connection: the longest chain of them.
LONGEST_CHAIN = 4
# The network's part of a look that is repeated while a young worker settles.
PAUSE = 0.5


@dataclass(frozen=True)
class Options:
    """The options of the module, without C(strict)."""

    name: str
    roles: list[str]
    services: list[dict[str, t.Any]]
    queue_type: str
    management_url: str
    log_servers: list[dict[str, t.Any]]
    checks: list[str]
    nonce: str = field(repr=False)
    clock_tolerance: float
    timeout: float
    settle: float
    disk_free: int
    release: str
    home: str

    @property
    def root(self) -> str:
        """The folder that holds the releases and the link to the current one."""
        return os.path.dirname(self.release)


class Host:
    """A host, what was seen on it (C(report)) and what is wrong (C(problems)).

    C(has_libraries) says that this runs under the Python of a release, so that the network can be asked.
    """

    def __init__(self, options: Options, has_libraries: bool) -> None:
        self.options = options
        self.name = options.name
        self.has_libraries = has_libraries
        self.roles = list(options.roles) or installed_roles()
        self.kinds = [KINDS[role] for role in self.roles if role in KINDS]
        # The services of the worker, of which the first one has Airflow's own log server.
        self.services = options.services if "airflow_worker" in self.roles else []
        self.worker_units = [str(service["unit"]) for service in self.services]
        self.held = {unit: _drain.held(unit) for unit in self.worker_units}
        self.problems: list[Problem] = []
        self.report: dict[str, t.Any] = {"roles": self.roles, "skipped": [], "seconds": {}}
        self.shown: dict[str, dict[str, str]] = {}
        self.found: _settings.Effective = {}
        self.packages = _look.site_packages(options.release)
        self.by_unit: dict[str, _settings.Effective] = {}
        # What a master knows of the queues that something sends tasks to.
        self.all_queues: list[dict[str, t.Any]] = []
        self.waiting: dict[str, int] = {}
        self.dag_queues: dict[str, str] = {}

    def check(self) -> tuple[list[dict[str, str]], dict[str, t.Any]]:
        """Look at everything that the options ask for; the problems and the report as plain data."""
        began = time.monotonic()
        self._timed("services", self._services)
        ready = bool(self.kinds and self.has_libraries)
        if self.kinds and not self.has_libraries:
            check = "config" if "host" in self.options.checks else "logs"
            self.skip(check, "no release is installed, so there is no Python to look with")
        if ready:
            self._timed("config", self._config)
        if "host" in self.options.checks:
            self._timed("disks", self._disks)
        if ready and "host" in self.options.checks:
            self._timed("dags", self._dags)
            self._together(
                {"broker": self._broker, "results": self._results, "metadata": self._metadata, "api": self._api}
            )
            if _settings.MASTER in self.kinds:
                default = _settings.value_of(self.found, "operators.default_queue", "default")
                self.report["unserved"] = _judge.unserved(default, self.all_queues, self.waiting, self.dag_queues)
        if ready and "logs" in self.options.checks:
            self._timed("logs", self._logs)
        self.report["wall_seconds"] = round(time.monotonic() - began, 2)
        # Of the whole process: starting Python and importing the libraries is part of the price.
        self.report["cpu_seconds"] = round(time.process_time(), 2)
        if "host" not in self.options.checks:
            # A second look: what it needed from the first parts was told by the first one.
            self.problems = [problem for problem in self.problems if problem.check == "logs"]
            self.report.setdefault("log_servers", [])
            self.report = {key: self.report[key] for key in ("log_servers", "skipped", "wall_seconds", "cpu_seconds")}
        told = {(problem.code, problem.subject, problem.what): problem for problem in self.problems}
        return [problem.as_dict() for problem in told.values()], self.report

    def skip(self, check: str, why: str) -> None:
        """Note what was not looked at."""
        self.report["skipped"].append({"check": check, "why": why})

    def _timed(self, name: str, part: t.Callable[[], None]) -> None:
        began = time.monotonic()
        part()
        self.report["seconds"][name] = round(time.monotonic() - began, 2)

    def _together(self, parts: dict[str, t.Callable[[], None]]) -> None:
        """Run the parts that wait for the network at once; one that hangs is told and left behind."""
        calls = [lambda name=name, part=part: self._timed(name, part) for name, part in parts.items()]
        limit = LONGEST_CHAIN * self.options.timeout + self.options.settle
        for name, outcome in zip(parts, _probe.in_parallel(calls, limit), strict=True):
            check = "database" if name in ("results", "metadata") else name
            if outcome.late:
                self.skip(check, f"this part did not end within {limit:.0f} s")
            elif outcome.error is not None:
                self.problems.append(_judge.broken_part(self.name, name, outcome.error))

    @property
    def worker(self) -> _settings.Effective | None:
        """The settings of the worker's first service that has any."""
        return next((self.by_unit[unit] for unit in self.worker_units if unit in self.by_unit), None)

    @property
    def queues(self) -> list[str]:
        """All queues of the worker's services."""
        return list(dict.fromkeys(str(queue) for service in self.services for queue in service["queues"]))

    def up(self, unit: str) -> bool:
        """Whether a unit is active."""
        return self.shown.get(unit, {}).get("ActiveState") == "active"

    # --- on the host ------------------------------------------------------------------------------------------------

    def _services(self) -> None:
        names = [*(name for role in self.roles for name in _look.UNITS.get(role, ())), *self.worker_units]
        if "postgresql" in self.roles:
            names += _look.database_units() or ["postgresql.service"]
        self.shown = _look.units(names)
        seen = [_look.describe_unit({"Id": name, **self.shown.get(name, {})}, self.options.root) for name in names]
        drained = [unit for unit, text in self.held.items() if text]
        self.problems += _judge.units(self.name, seen, drained)
        self.report["units"] = [{key: value for key, value in unit.items() if key != "load"} for unit in seen]
        self.report["identity"] = {
            "hostname": socket.gethostname(),
            "fqdn": socket.getfqdn(),
            "addresses": _look.addresses(),
        }
        if self.kinds:
            target = os.path.realpath(self.options.release)
            current = os.path.basename(target) if os.path.isdir(target) else ""
            self.report["release"] = current
            judged = [unit for unit in seen if unit["name"] not in drained]
            self.problems += _judge.release(self.name, current, judged, self.options.root)
        # Asked as a master alone, a host may be a worker as well.
        if "airflow_worker" in self.roles:
            self.problems += _judge.unknown_workers(self.name, _look.running_workers(), self.worker_units)
            self.report["workers"] = [
                {
                    "unit": unit,
                    "node": f"{service['node']}@{socket.gethostname()}",
                    "queues": [str(queue) for queue in service["queues"]],
                    "drained": self.held[unit],
                    "answers": None,
                }
                for unit, service in zip(self.worker_units, self.services, strict=True)
            ]

    def _config(self) -> None:
        """Read every unit's settings as that unit has them; where two units differ, the first one's go on."""
        options, package = self.options, os.path.join(self.packages, "airflow")
        known = _settings.release_options(package)
        by_unit = self.by_unit
        for unit, shown in self.shown.items():
            if not unit.startswith("airflow-") or shown.get("LoadState") != "loaded":
                continue
            try:
                sources = _look.sources(shown, options.home)
            except (OSError, UnicodeDecodeError) as exc:
                self.problems.append(_judge.unreadable(self.name, unit, exc))
                continue
            as_user = _settings.commands_as("airflow", "airflow", sources.environment, options.timeout)
            by_unit[unit] = _settings.effective(known, sources, as_user)
            modes = _settings.file_modes([sources.config.path, *environment_files(shown)])
            wrong = _settings.problems(self.name, known, sources, by_unit[unit], [kind_of(unit)], modes)
            # Where an API server is on this very host, a worker may well call it so.
            here = _settings.MASTER in self.kinds
            self.problems += [problem for problem in wrong if not (here and problem.code == "api_url_localhost")]
            self.problems += self._outdated(unit, shown, sources.config.path)
        if not by_unit:
            self.skip("config", "no service of Airflow is installed")
            return
        # The scheduler sends the tasks; the worker's own settings count for what the worker does.
        order = [
            *sorted(set(by_unit) - set(self.worker_units), key=lambda unit: unit != "airflow-scheduler.service"),
            *(unit for unit in self.worker_units if unit in by_unit),
        ]
        self.found = by_unit[order[0]]
        shown_by_unit = {unit: _settings.shown(found, [kind_of(unit)]) for unit, found in by_unit.items()}
        for unit in self.worker_units[1:]:
            # Only the first one can have the port that API servers ask at; each has one of its own.
            shown_by_unit.get(unit, {}).pop(LOG_PORT, None)
        self.problems += _judge.units_differ(self.name, shown_by_unit)
        settings: dict[str, str] = {}
        prints: dict[str, str] = {}
        for unit in reversed(order):
            settings |= shown_by_unit[unit]
            prints |= _settings.fingerprints(by_unit[unit], options.nonce)
        self.report["settings"] = settings
        self.report["fingerprints"] = prints
        self.report["versions"] = {"python": platform.python_version(), **_look.versions(self.packages)}
        self.report["identity"] |= {
            "log_name": _look.log_name(_settings.value_of(self.found, "core.hostname_callable")),
        }
        if self.worker_units:
            unit = self.worker_units[0]
            if self.held[unit] and not self.up(unit):
                self.skip("logs", f"{unit} is drained and stopped, and with it the log server of this host")
                return
            port = number(_settings.value_of(by_unit.get(unit) or self.found, LOG_PORT), 8793)
            name = self.report["identity"]["log_name"]
            self.report["log_server"] = {"host": self.name, "name": name, "port": port}

    def _outdated(self, unit: str, shown: t.Mapping[str, str], config: str) -> list[Problem]:
        """What a unit has not read since it was written, or has not been started for since it was told to."""
        if self.held.get(unit):
            return []  # undraining starts it anew
        flag = _drain.flag(unit)
        newer = _look.changed_since_start(shown, [config, flag] if unit in self.held else [config])
        # It may be on its way down: then that it stops is the whole story.
        cut_off = flag in newer and self.up(unit)
        return _judge.outdated(self.name, unit, [path for path in newer if path != flag], cut_off)

    def _disks(self) -> None:
        """The file systems that the services write to. One that hangs, for its server is away, is left behind."""
        needed = dict.fromkeys(KINDS, self.options.disk_free * _disks.MB)
        watched = bool(self.options.disk_free and self.services) and self._watched()
        if watched and _disks.held(self.worker_units):
            needed["airflow_worker"] = int(_disks.SPARE * needed["airflow_worker"])
        logs = _settings.value_of(self.worker or self.found, "logging.base_log_folder")
        places = _disks.places(self.roles, needed, self.options.home, logs)
        (outcome,) = _probe.in_parallel([lambda: _disks.file_systems(places)], self.options.timeout)
        if outcome.error is not None:
            self.problems.append(_judge.broken_part(self.name, "disks", outcome.error))
        elif outcome.value is None:
            self.skip("services", f"a file system of this host did not answer within {self.options.timeout:g} s")
        else:
            self.report["disks"] = [disk.as_dict() for disk in outcome.value]
            self.problems += _judge.disks(self.name, outcome.value, watched)

    def _watched(self) -> bool:
        """Whether the watchdog looks after the workers of this host."""
        return _look.units([WATCHDOG]).get(WATCHDOG, {}).get("ActiveState") == "active"

    def _dags(self) -> None:
        trees = {}
        for bundle in _settings.bundles(self.found):
            name, path = str(bundle["name"]), bundle["path"]
            if path is None:
                self.skip("dags", f"the bundle {name} is fetched by Airflow itself")
            elif not os.path.isdir(path):
                self.problems += _judge.no_dags(self.name, name, path)
            else:
                trees[name] = _look.dag_tree(path)
        self.report["dags"] = {"bundles": trees, "import_errors": []}

    # --- over the network -------------------------------------------------------------------------------------------

    def _broker(self) -> None:
        """The broker, its queues, and the workers, which are asked over the broker."""
        worker = self.worker
        found = worker or self.found
        url = _settings.value_of(found, "celery.broker_url")
        options = self.options
        tls = _settings.broker_tls(found)
        try:
            nodes = _probe.broker_nodes(url, _look.tls_options(tls) if tls.active else False)
        except ValueError as exc:
            self.problems.append(
                _judge.connection("broker", self.name, "broker_error", "the broker", str(exc), "broker:")
            )
            return
        self.report["broker"] = {"nodes": [], "management": False}
        outcomes = _probe.in_parallel(
            [lambda node=node: _probe.broker(node, timeout=options.timeout) for node in nodes],  # type: ignore[misc]
            options.timeout + 1,
        )
        working = []
        for node, outcome in zip(nodes, outcomes, strict=True):
            address = f"{node.host}:{node.port}"
            seen = outcome.value or _probe.BrokerFound(code="broker_timeout", detail="no answer in time")
            self.report["broker"]["nodes"].append(
                {
                    "address": address,
                    "tls": bool(node.tls),
                    "resolve_ms": rounded(seen.resolve_ms),
                    "tcp_ms": rounded(seen.tcp_ms),
                    "login_ms": rounded(seen.login_ms),
                    "round_trip_ms": rounded(seen.round_trip_ms),
                    "problem": seen.code,
                }
            )
            if seen.code:
                subject = f"broker:{address}"
                self.problems.append(
                    _judge.connection("broker", self.name, seen.code, address, seen.detail, subject, node.user)
                )
            else:
                working.append(node)
        if not working:
            self.skip("queues", "the broker cannot be used")
            if worker:
                self.skip("worker", "the broker cannot be used, and the worker is asked over it")
            return
        listed = self._workers_and_queues(working[0], url) if worker else self._management(working[0], None)
        if self.kinds == [_settings.WORKER] or listed is None:
            return
        if worker:  # a master as well, which has to know all queues
            listed = self._management(working[0], None)
        self.all_queues = listed["queues"] if listed else []

    def _management(self, node: _probe.Node, queues: list[str] | None) -> dict[str, t.Any] | None:
        """The broker's own list of queues and consumers; None when it cannot be had."""
        if not self.options.management_url:
            return None
        seen = _look.management(
            self.options.management_url, node.user, node.password, node.vhost, queues, self.options.timeout
        )
        if seen["problem"]:
            self.problems.append(_judge.management(self.name, self.options.management_url, node.user, seen))
            return None
        self.report["broker"]["management"] = True
        self.report["queues"] = seen["queues"]
        self.report["consumers"] = seen["consumers"]
        return seen

    def _workers_and_queues(self, node: _probe.Node, url: str) -> dict[str, t.Any] | None:
        """Ask the workers and the broker who reads which queue, until they agree or young ones had their time."""
        workers = [worker for worker in self.report["workers"] if self.up(worker["unit"])]
        # What is drained has no time to wait for: it reads nothing.
        starts = [self.shown[worker["unit"]] for worker in workers if not worker["drained"]]
        begun = max((_look.seconds(shown.get("ExecMainStartTimestamp", "")) for shown in starts), default=0.0)
        patience = begun + self.options.settle
        timeout, wanted = self.options.timeout, self.queues
        listed: dict[str, t.Any] | None = None
        while True:
            before = len(self.problems)
            self._ask_workers(workers, url, node.port)
            queues = _probe.broker(node, wanted, timeout, round_trip=False)
            listed = self._management(node, wanted)
            missing = [queue.name for queue in queues.queues if queue.code == "queue_missing"]
            for worker in workers:
                pid = int(self.shown[worker["unit"]].get("MainPID") or 0)
                self.problems += _judge.worker(self.name, worker, listed["consumers"] if listed else None, pid)
            self.problems += [
                _judge.connection(
                    "broker",
                    self.name,
                    queue.code,
                    f"{node.host}:{node.port}",
                    queue.detail,
                    f"queue:{queue.name}",
                    node.user,
                )
                for queue in queues.queues
                if queue.code and queue.code != "queue_missing"
            ]
            self.problems += _judge.queues(
                self.name, wanted, self.options.queue_type, missing, listed["queues"] if listed else []
            )
            young = bool(starts) and time.time() < patience
            if not young or not any(problem.check in ("worker", "queues") for problem in self.problems[before:]):
                break
            del self.problems[before:]
            time.sleep(PAUSE)
        down = [unit for unit in self.worker_units if not self.up(unit) and not self.held[unit]]
        if down:
            ending = [unit for unit in down if self.shown.get(unit, {}).get("ActiveState") == "deactivating"]
            gone = [unit for unit in down if unit not in ending]
            texts = ["is not active", "are not active"], ["is stopping: its tasks end", "are stopping: their tasks end"]
            why = [
                f"{' and '.join(names)} {text[len(names) > 1]}"
                for names, text in zip((gone, ending), texts, strict=True)
                if names
            ]
            self.skip("worker", "; ".join(why))
        if listed is None:
            self.skip("queues", "the management plugin of the broker was not asked: types and consumers are not known")
            self.report["queues"] = [
                {
                    "name": queue.name,
                    "type": None,
                    "durable": None,
                    "messages": queue.messages,
                    "consumers": queue.consumers,
                }
                for queue in queues.queues
                if queue.code is None
            ]
        return listed

    def _ask_workers(self, workers: t.Sequence[dict[str, t.Any]], url: str, port: int) -> None:
        """Ask each worker what it does, all at once, and note it in the report."""
        timeout = self.options.timeout

        def ask(worker: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
            found = self.by_unit.get(worker["unit"]) or self.found
            settings = _look.celery_settings(_settings.celery_options(found), _settings.broker_tls(found))
            return _look.worker(url, settings, worker["node"], timeout)

        # Each is asked four things, of which the first one tells whether it answers at all.
        outcomes = _probe.in_parallel([lambda worker=worker: ask(worker) for worker in workers], 4 * timeout)  # type: ignore[misc]
        for worker, outcome in zip(workers, outcomes, strict=True):
            if outcome.error is not None:
                raise outcome.error
            worker.update(outcome.value or _look.silent_worker())
            worker["sockets"] = _look.sockets_of(int(self.shown[worker["unit"]].get("MainPID") or 0), port)

    def _login(self, kind: str, url: str) -> tuple[dict[str, t.Any], t.Any]:
        """Log in to a database; what was seen, and the connection when there is one."""
        parts = urlsplit(url)
        host, port, name = parts.hostname or "localhost", parts.port or 5432, unquote(parts.path.lstrip("/"))
        address = f"{host}:{port}/{name}"
        user = unquote(parts.username or "")
        seen = _probe.postgres(
            host,
            port,
            name,
            user,
            unquote(parts.password or ""),
            dict(parse_qsl(parts.query)),
            prefix=kind,
            timeout=self.options.timeout,
        )
        if seen.code:
            self.problems.append(
                _judge.connection(kind, self.name, seen.code, address, seen.detail, f"database:{address}", user)
            )
        elif seen.offset is not None:
            self.report.setdefault("clock", {}).update(
                database_offset=round(seen.offset, 3), uncertainty=round(seen.uncertainty or 0.0, 3)
            )
            tolerance = self.options.clock_tolerance
            self.problems += _judge.clock(
                self.name, seen.offset, seen.uncertainty or 0.0, tolerance, f"the database on {host}"
            )
        return {"address": address, "ms": rounded(seen.login_ms), "problem": seen.code}, seen.connection

    def _results(self) -> None:
        url = _settings.results_url(_settings.results_backend(self.worker or self.found))
        if not url:
            self.skip("database", "Celery's results are not kept in PostgreSQL")
            return
        described, connection = self._login("results", url)
        self.report.setdefault("databases", {})["results"] = described
        if connection:
            connection.close()

    def _metadata(self) -> None:
        if _settings.MASTER not in self.kinds:
            return
        url = _settings.results_url(_settings.value_of(self.found, "database.sql_alchemy_conn"))
        if not url:
            self.skip("database", "the metadata database is not PostgreSQL")
            return
        described, connection = self._login("database", url)
        self.report.setdefault("databases", {})["metadata"] = described
        if not connection:
            return
        chains = _schema.release_chains(os.path.join(self.packages, "airflow"))
        with connection:
            seen = _look.metadata(connection, chains, self.report["identity"]["log_name"])
        behind, unknown = _schema.compare(chains, seen["revisions"])
        described["revision"] = seen["revisions"].get("alembic_version")
        described["expected"] = _schema.head(chains.get("alembic_version", {}))
        self.problems += _judge.schema(self.name, behind, unknown, f"database:{described['address']}")
        for what, why in seen["errors"].items():
            if not behind:
                self.skip("database", f"{what}: {why}")
        self.problems += _judge.heartbeats(self.name, seen["heartbeats"], {unit: self.up(unit) for unit in self.shown})
        self.report["dags"]["import_errors"] = seen["import_errors"]
        self.problems += _judge.import_errors(self.name, seen["import_errors"])
        self.waiting, self.dag_queues = seen["waiting"], seen["dag_queues"]

    def _api(self) -> None:
        own = self.report["versions"].get("apache-airflow", "")
        if _settings.WORKER in self.kinds:
            url = _settings.execution_api_url(self.worker or self.found)
            self._ask_api(url, own)
        if _settings.MASTER not in self.kinds:
            return
        port = _settings.value_of(self.found, "api.port", "8080")
        health = _settings.value_of(self.found, "scheduler.scheduler_health_check_server_port", "8974")
        base = urlsplit(_settings.value_of(self.found, "api.base_url")).path.rstrip("/")
        endpoints = {"airflow-api-server.service": f"http://127.0.0.1:{port}{base}/api/v2/version"}
        if _settings.value_of(self.found, "scheduler.enable_health_check").lower() in ("true", "t", "1"):
            endpoints["airflow-scheduler.service"] = f"http://127.0.0.1:{health}/health"
        for unit, url in endpoints.items():
            if self.up(unit):
                seen = _probe.http(url, timeout=self.options.timeout)
                failure = seen.detail if seen.code else "" if seen.status == 200 else f"HTTP status {seen.status}"
                if failure:
                    self.problems.append(_judge.endpoint(self.name, unit, url, failure))

    def _ask_api(self, url: str, own: str) -> None:
        """The execution API as the tasks of this worker call it, and the version of the server behind it."""
        parts = urlsplit(url)
        address = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        subject = f"api:{parts.scheme}://{parts.netloc}"
        ca = _settings.value_of(self.found, "api.ssl_ca_file") or _settings.value_of(self.found, "api.ssl_cert") or None
        seen = _probe.http(url.rstrip("/") + "/health", timeout=self.options.timeout, ca=ca)
        entry = {"url": _settings.masked(url), "ms": rounded(seen.ms), "version": None, "problem": seen.code}
        self.report.setdefault("api", []).append(entry)
        code, detail = seen.code, seen.detail
        if code is None and seen.status != 200:
            code, detail = "api_error", f"{url} answers with HTTP status {seen.status}: no execution API is there"
        if code:
            entry["problem"] = code
            self.problems.append(_judge.connection("api", self.name, code, address, detail, subject))
            return
        if seen.offset is not None:
            self.report.setdefault("clock", {})["api_offset"] = round(seen.offset, 1)
        theirs = _look.version_of(_probe.http(_settings.api_version_url(url), timeout=self.options.timeout, ca=ca))
        entry["version"] = theirs
        self.problems += _judge.api_version(self.name, url, own, theirs)

    def _logs(self) -> None:
        secret = _settings.value_of(self.found, "api.secret_key")
        grace = number(_settings.value_of(self.found, "webserver.log_request_clock_grace"), 30)
        servers = self.options.log_servers
        timeout = self.options.timeout
        outcomes = _probe.in_parallel(
            [
                lambda server=server: _look.log_server(server["name"], server["port"], secret, grace, timeout)  # type: ignore[misc]
                for server in servers
            ],
            timeout + 1,
        )
        self.report["log_servers"] = []
        for server, outcome in zip(servers, outcomes, strict=True):
            late = {"name": server["name"], "port": server["port"], "ms": None, "problem": "log_timeout", "detail": ""}
            seen = outcome.value or late
            self.report["log_servers"].append(
                {"host": server["host"], **{k: v for k, v in seen.items() if k != "detail"}}
            )
            if seen["problem"]:
                address = f"{server['name']}:{server['port']}"
                subject = f"log:{server['host']}"
                self.problems.append(
                    _judge.connection("log", self.name, seen["problem"], address, seen["detail"], subject)
                )


def kind_of(unit: str) -> str:
    """What a service of Airflow belongs to."""
    return _settings.WORKER if unit.startswith("airflow-worker") else _settings.MASTER


def installed_roles(systemd: str = "/etc/systemd/system") -> list[str]:
    """What a host is, from what is installed on it."""
    found = ["postgresql"] if _look.database_units() else []
    if os.path.exists("/etc/rabbitmq/rabbitmq.conf"):
        found.append("rabbitmq")
    for role in ("airflow_master", "airflow_worker"):
        units = _look.UNITS.get(role, _look.WORKER_UNITS)
        if any(glob.glob(os.path.join(glob.escape(systemd), unit)) for unit in units):
            found.append(role)
    return found


def number(text: str, default: int) -> int:
    """A setting that is a number; one that is not is a problem of its own, told elsewhere."""
    return int(text) if text.isdigit() else default


def rounded(milliseconds: float | None) -> float | None:
    """A duration as a person reads it."""
    return None if milliseconds is None else round(milliseconds, 1)
