# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: which of the problems of a cluster are consequences of others. Pure.

A rule says: when a problem with one of the codes C(causes) and one with a code of C(effects) have a key in common, the
second follows from the first. Keys are made by the functions C(by) and C(of), mostly the names of hosts. Only a problem
that was found can be a cause: without it, what would follow from it stays a problem of its own.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
import typing as t
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.onprem.airflow.plugins.module_utils._problems import CODES, Problem
from ansible_collections.onprem.airflow.plugins.module_utils._verify_compare import (
    LOOPBACK,
    MASTER,
    WORKER,
    Cluster,
    Found,
    drained_units,
    host_of,
)

EVERYWHERE = "*"
# The unit of each service, as its name begins.
BROKER_UNIT, DATABASE_UNIT, WORKER_UNIT, API_UNIT = "rabbitmq", "postgresql", "airflow-worker", "airflow-api-server"
SCHEDULER_UNIT = "airflow-scheduler"
BROKER, DATABASE = "rabbitmq", "postgresql"  # the roles
DOWN = ("unit_missing", "unit_stopped", "unit_failing")
# What is wrong with a worker that cannot work. One that the inventory does not have is no consequence of anything.
WORKER_ILL = ("worker_silent", "worker_not_consuming", "worker_queue_unexpected")
# Which connection a setting is for, as codes of its problems begin.
CONNECTIONS = {
    "celery.broker_url": "broker",
    "celery.result_backend": "results",
    "database.sql_alchemy_conn": "database",
    "core.execution_api_server_url": "api",
}
# With one of these a worker takes no tasks.
SILENCING = (
    "unreachable",
    "release_missing",
    "config_missing",
    "config_unreadable",
    *DOWN,
    "unit_outdated",
    "disk_full",
    "broker_*",
    "results_*",
    "queue_wrong_type",
    "queue_not_durable",
    "worker_silent",
    "worker_not_consuming",
)


Worker = tuple[str, str]  # a host, and the unit of a service of its worker


class Scene:
    """The problems, and what rules ask about them and the cluster."""

    def __init__(self, cluster: Cluster, found: Sequence[Found]) -> None:
        self.cluster = cluster
        self.found = found
        self.problems = [entry.problem for entry in found]
        self.queues: dict[Worker, tuple[str, ...]] = {
            (name, service.unit): service.queues
            for name in cluster.members(WORKER)
            for service in cluster.hosts[name].workers
        }
        self.served_by: dict[str, set[Worker]] = {}
        for worker, queues in self.queues.items():
            for queue in queues:
                self.served_by.setdefault(queue, set()).add(worker)
        silencing = _codes(SILENCING)
        self.silent = {
            worker for problem in self.problems if problem.code in silencing for worker in self.silenced(problem)
        }
        # These are no problem and explain none; but neither do they serve anything.
        self.silent |= {
            (name, unit) for name in cluster.members(WORKER) for unit in drained_units(cluster.report(name))
        }
        # Whom connections failed to: a host that only Ansible cannot reach may well serve the others.
        self.failed_to = {
            (problem.code.split("_")[0], target)
            for problem in self.problems
            if problem.code.split("_")[0] in ("broker", "database", "results", "api", "log")
            for target in [self.target(problem)]
            if target
        }
        self.alone = {
            role: members[0] if len(members) == 1 else ""
            for role in ("rabbitmq", "postgresql")
            for members in [cluster.members(role)]
        }

    def silenced(self, problem: Problem) -> list[Worker]:
        """The services of workers that take no tasks because of a problem."""
        if problem.code in ("queue_wrong_type", "queue_not_durable"):
            return sorted(self.served_by.get(problem.subject.partition(":")[2], ()))
        if problem.code in (*DOWN, "unit_outdated") and not _is_unit(problem, WORKER_UNIT):
            return []
        if problem.code == "disk_full" and WORKER not in self.short(problem):
            return []
        return self.workers(problem)

    def short(self, problem: Problem) -> list[str]:
        """The roles that have too little space on a file system; all of the host where it could not be looked at."""
        disks = self.cluster.report(problem.host).get("disks") or ()
        mine = [disk for disk in disks if problem.subject == f"disk:{disk['mount']}"]
        return list(mine[0]["short"]) if mine else list(self.cluster.hosts[problem.host].roles)

    def workers(self, problem: Problem) -> list[Worker]:
        """The services of a worker that a problem is about: all of the host, unless its subject tells which."""
        kind, _colon, name = problem.subject.partition(":")
        node, several, _host = name.rpartition("@")
        host = (self.target(problem) if kind == "worker" else None) or problem.host
        services = self.cluster.hosts[host].workers if host in self.cluster.hosts else ()
        meant = [
            service
            for service in services
            if (kind == "unit" and service.unit == name)
            or (kind == "queue" and name in service.queues)
            or (kind == "worker" and service.node == (node if several else "celery"))
        ]
        return [(host, service.unit) for service in meant or services]

    def target(self, problem: Problem) -> str | None:
        """The host of the inventory that a problem is about, where its subject names one."""
        kind, _colon, name = problem.subject.partition(":")
        if kind in ("broker", "database", "api", "log", "host"):
            host = self.cluster.find(name) or host_of(name)
            return problem.host if LOOPBACK.match(host) else self.cluster.find(host)
        if kind == "worker":
            return self.cluster.find(name.rpartition("@")[2])
        return None


Keys = Callable[[Scene, Problem], Iterable[str]]


@dataclass(frozen=True)
class Rule:
    """One reason for which problems follow from others."""

    causes: tuple[str, ...]
    effects: tuple[str, ...]
    by: Keys
    of: Keys


# --- keys ------------------------------------------------------------------------------------------------------


def here(scene: Scene, problem: Problem) -> list[str]:
    """The host that has the problem."""
    return [problem.host]


def about(scene: Scene, problem: Problem) -> list[str]:
    """The host that the problem is about."""
    target = scene.target(problem)
    return [target] if target else []


def here_or_about(scene: Scene, problem: Problem) -> list[str]:
    """Both."""
    return [problem.host, *about(scene, problem)]


def everywhere(scene: Scene, problem: Problem) -> list[str]:
    """All hosts."""
    return [EVERYWHERE]


def itself(scene: Scene, problem: Problem) -> list[str]:
    """The thing that is wrong, on whatever host."""
    return [problem.subject]


def setting(scene: Scene, problem: Problem) -> list[str]:
    """The key of the setting on this host, whatever its section: the section may be what is misspelt."""
    name = problem.subject.partition(":")[2]
    return [f"{problem.host}/{name.rpartition('.')[2]}"] if name else []


def section(scene: Scene, problem: Problem) -> list[str]:
    """The section of the setting on this host, with its key."""
    base, dot, key = problem.subject.partition(":")[2].partition(".")
    return [f"{problem.host}/{base}/{key}"] if dot else []


def meant_section(scene: Scene, problem: Problem) -> list[str]:
    """Settings that stand in a section of a misspelt name: those of a similar one whose keys are told."""
    name = problem.subject.partition(":")[2]
    if "." in name:
        return []
    keys = []
    for other in scene.problems:
        base, dot, key = other.subject.partition(":")[2].partition(".")
        if other.host == problem.host and dot and difflib.get_close_matches(name.lower(), [base], 1, 0.75):
            keys += [f"{problem.host}/{base}/{key}"] if re.search(rf"\b{re.escape(key)}\b", problem.what) else []
    return keys


def connection(scene: Scene, problem: Problem) -> list[str]:
    """The connection that a setting is for, on this host. Where nobody knows who is wrong, it explains nothing."""
    name = problem.subject.partition(":")[2]
    undecided = any(entry.together and entry.problem == problem for entry in scene.found)
    return [f"{problem.host}/{CONNECTIONS[name]}"] if name in CONNECTIONS and not undecided else []


def link(scene: Scene, problem: Problem) -> list[str]:
    """The connection that failed, on this host; for a secret the one that it is for."""
    if problem.code == "secret_differs":
        kind = CONNECTIONS.get(problem.subject.partition(":")[2])
        return [f"{problem.host}/{kind}"] if kind else []
    return [f"{problem.host}/{problem.code.split('_')[0]}"]


def _is_unit(problem: Problem, unit: str) -> bool:
    return problem.subject.partition(":")[2].startswith(unit)


def unit(name: str) -> Keys:
    """The host, when the problem is one of this unit."""

    def keys(scene: Scene, problem: Problem) -> list[str]:
        return [problem.host] if _is_unit(problem, name) else []

    return keys


def only_unit(name: str, role: str) -> Keys:
    """Everywhere, when the problem is one of this unit, and no other host has this role."""

    def keys(scene: Scene, problem: Problem) -> list[str]:
        return [EVERYWHERE] if _is_unit(problem, name) and scene.alone[role] == problem.host else []

    return keys


def only_host(role: str, *kinds: str) -> Keys:
    """Everywhere, when the only host of a role is away and connections to it failed: SSH alone proves nothing."""

    def keys(scene: Scene, problem: Problem) -> list[str]:
        failed = any((kind, problem.host) in scene.failed_to for kind in kinds)
        return [EVERYWHERE] if failed and scene.alone[role] == problem.host else []

    return keys


def service(scene: Scene, problem: Problem) -> list[str]:
    """The service of a worker, for problems of its unit."""
    return [f"{problem.host}/{problem.subject.partition(':')[2]}"] if _is_unit(problem, WORKER_UNIT) else []


def services(scene: Scene, problem: Problem) -> list[str]:
    """The services of a worker that the problem is about."""
    return [f"{host}/{unit}" for host, unit in scene.workers(problem)]


def log_service(scene: Scene, problem: Problem) -> list[str]:
    """The service that serves the logs of the host that the problem is about: the first one."""
    return [
        f"{name}/{known.workers[0].unit}"
        for name in about(scene, problem)
        for known in [scene.cluster.hosts[name]]
        if known.workers
    ]


def airflow_unit(scene: Scene, problem: Problem) -> list[str]:
    """Everywhere and the host, for problems of Airflow's units."""
    return [EVERYWHERE, problem.host] if _is_unit(problem, "airflow-") else []


def worker_unit(scene: Scene, problem: Problem) -> list[str]:
    """Everywhere and the host, for problems of workers' units."""
    return [EVERYWHERE, problem.host] if _is_unit(problem, WORKER_UNIT) else []


def queues_of(scene: Scene, problem: Problem) -> list[str]:
    """The queues that this worker serves and that nobody else serves who has no such problem."""
    return [
        f"queue:{queue}"
        for worker in scene.silenced(problem)
        for queue in scene.queues.get(worker, ())
        if scene.served_by[queue] <= scene.silent
    ]


def workers_of(scene: Scene, problem: Problem) -> list[str]:
    """The services that serve the queue."""
    queue = problem.subject.partition(":")[2]
    return [f"{host}/{unit}" for host, unit in sorted(scene.served_by.get(queue, ()))]


def worker_here(scene: Scene, problem: Problem) -> list[str]:
    """This host, when it is a worker."""
    return [problem.host] if WORKER in scene.cluster.hosts[problem.host].groups else []


def master_unit(scene: Scene, problem: Problem) -> list[str]:
    """This host, for problems of masters' units."""
    return [problem.host] if _is_unit(problem, "airflow-") and not _is_unit(problem, WORKER_UNIT) else []


def master_looking(scene: Scene, problem: Problem) -> list[str]:
    """This host, when it is a master: then all that it sees of others is in doubt."""
    return [f"from:{problem.host}"] if MASTER in scene.cluster.hosts[problem.host].groups else []


def seen_from(scene: Scene, problem: Problem) -> list[str]:
    """The host that looked."""
    return [f"from:{problem.host}"]


def looking_api(scene: Scene, problem: Problem) -> list[str]:
    """The same, for problems of the API server's unit."""
    return seen_from(scene, problem) if _is_unit(problem, API_UNIT) else []


def signing_key(scene: Scene, problem: Problem) -> list[str]:
    """This host, when it is the key that signs requests for logs that differs."""
    return [problem.host] if problem.subject == "setting:api.secret_key" else []


def masters_signing_key(scene: Scene, problem: Problem) -> list[str]:
    """The same, for what a master sees of others."""
    return master_looking(scene, problem) if signing_key(scene, problem) else []


def short_of_space(scene: Scene, problem: Problem) -> list[str]:
    """The roles of this host whose services have no space; everywhere, where no other host has the role."""
    keys = []
    for role in scene.short(problem):
        keys += [f"{problem.host}/{role}"]
        keys += [f"{EVERYWHERE}/{role}"] if scene.alone.get(role) == problem.host else []
    return keys


def _role_of(name: str) -> str:
    """The role of a unit."""
    if name.startswith(WORKER_UNIT):
        return WORKER
    return MASTER if name.startswith("airflow-") else name.partition("-")[0].partition("@")[0].partition(".")[0]


def needs_space_of(scene: Scene, problem: Problem) -> list[str]:
    """Hosts and roles whose services have to write for this problem not to be."""
    kind, name = problem.code.partition("_")[0], problem.subject.partition(":")[2]
    targets = [*about(scene, problem), EVERYWHERE]
    if kind in ("broker", "management"):
        return [f"{target}/{BROKER}" for target in targets]
    if kind in ("database", "results"):
        return [f"{target}/{DATABASE}" for target in targets]
    if kind == "worker":
        return [f"{host}/{WORKER}" for host, _unit in scene.workers(problem)]
    if kind == "log":
        return [f"{target}/{WORKER}" for target in about(scene, problem)]
    if kind == "api":
        return [*(f"{target}/{MASTER}" for target in about(scene, problem)), f"{EVERYWHERE}/{DATABASE}"]
    role = _role_of(name) if kind in ("unit", "health") else MASTER
    # Airflow's services end when they cannot write to their database.
    database = [] if problem.code == "unit_stopped" or role not in (MASTER, WORKER) else [f"{EVERYWHERE}/{DATABASE}"]
    return [f"{problem.host}/{role}", *database]


def way(scene: Scene, problem: Problem) -> list[str]:
    """The way between two hosts of the inventory, whoever of them looked."""
    return [" ".join(sorted((problem.host, target))) for target in about(scene, problem) if target != problem.host]


def server(scene: Scene, problem: Problem) -> list[str]:
    """How the connection of this host to a server failed, whatever database of it was meant."""
    failure = problem.code.partition("_")[2]
    return [f"{problem.host} {failure} {problem.subject.partition(':')[2].partition('/')[0]}"]


# --- the rules: the deeper the cause, the earlier --------------------------------------------------------------

RULES: tuple[Rule, ...] = (
    # A host that is away runs nothing: whoever asks it for something fails.
    Rule(("unreachable",), ("broker_*", "database_*", "results_*", "api_*", "log_*", *WORKER_ILL), here, about),
    # The broker's only host is away, and others cannot reach the broker either: the same as its service being down.
    Rule(
        ("unreachable",),
        ("broker_*", "management_*", "queue_*", "worker_silent", "worker_not_consuming"),
        only_host(BROKER, "broker"),
        everywhere,
    ),
    Rule(("unreachable",), ("unit_failing",), only_host(BROKER, "broker"), worker_unit),
    # The same for the database. Masters exit without it.
    Rule(
        ("unreachable",),
        ("database_*", "results_*", "schema_*", "health_failing", "dag_import_error"),
        only_host(DATABASE, "database", "results"),
        everywhere,
    ),
    Rule(("unreachable",), ("unit_failing",), only_host(DATABASE, "database", "results"), airflow_unit),
    # Without space a broker takes no messages or ends, a database refuses to write or ends, a worker is stopped by the
    # watchdog or loses what it writes.
    Rule(
        ("disk_full",),
        (
            *("broker_blocked", "broker_unconfirmed", "broker_error"),
            *("broker_refused", "broker_timeout", "broker_half_open", "management_failing"),
            *("database_error", "database_refused", "database_timeout", "database_half_open"),
            *("results_error", "results_refused", "results_timeout", "results_half_open"),
            *("api_error", "api_refused", "api_timeout", "api_half_open"),
            *("log_error", "log_refused", "log_timeout", "log_half_open"),
            *("unit_stopped", "unit_failing", "health_failing"),
            *("worker_silent", "worker_not_consuming"),
        ),
        short_of_space,
        needs_space_of,
    ),
    # The broker's service is down: nobody can log in, look at queues or take tasks, and workers give up and restart.
    Rule(DOWN, ("broker_*", "management_*"), unit(BROKER_UNIT), about),
    Rule(
        DOWN,
        ("broker_*", "management_*", "queue_*", "worker_silent", "worker_not_consuming"),
        only_unit(BROKER_UNIT, "rabbitmq"),
        everywhere,
    ),
    Rule(DOWN, ("unit_failing",), only_unit(BROKER_UNIT, "rabbitmq"), worker_unit),
    # The database's service is down: no login, no schema to be read, schedulers and API servers fail, imports cannot be
    # read.
    Rule(DOWN, ("database_*", "results_*"), unit(DATABASE_UNIT), about),
    Rule(
        DOWN,
        ("database_*", "results_*", "schema_*", "health_failing", "dag_import_error"),
        only_unit(DATABASE_UNIT, "postgresql"),
        everywhere,
    ),
    Rule(DOWN, ("unit_failing",), only_unit(DATABASE_UNIT, "postgresql"), airflow_unit),
    # Without a release there is no program to start, and none to ask for versions.
    Rule(("release_missing",), (*DOWN, "release_not_running", "health_failing", "version_differs"), here, here),
    # Without its settings a service does not start, or starts with Airflow's defaults: SQLite, localhost, new keys.
    Rule(
        ("config_missing", "config_unreadable", "config_generated"),
        (
            "unit_failing",
            "unit_stopped",
            "health_failing",
            "executor_wrong",
            "setting_*",
            "secret_differs",
            "api_url_localhost",
            "broker_*",
            "database_*",
            "results_*",
            "api_*",
            "worker_silent",
            "worker_not_consuming",
            "dags_missing",
        ),
        here,
        here,
    ),
    Rule(("config_missing", "config_unreadable", "config_generated"), ("log_*",), here, about),
    # A misspelt section or key leaves the default in force, an expanded or misread value another one: the host then
    # lacks the setting or differs in it.
    Rule(
        ("section_unknown", "key_unknown", "value_expanded", "value_misread", "setting_missing", "executor_wrong"),
        ("setting_differs", "setting_missing", "secret_differs", "executor_wrong", "api_url_localhost"),
        setting,
        setting,
    ),
    Rule(("section_unknown",), ("setting_differs", "setting_missing", "secret_differs"), meant_section, section),
    # On a worker localhost is the worker, not the master.
    Rule(("api_url_localhost",), ("api_*",), here, here),
    Rule(("api_url_localhost",), ("setting_differs",), setting, setting),
    # Another address than everybody else's, or none, leads nowhere.
    Rule(
        ("setting_missing", "setting_differs", "value_expanded", "value_misread"),
        ("broker_*", "database_*", "results_*", "api_*"),
        connection,
        link,
    ),
    # Another password than everybody else's, seen twice: refused at the login, which is what matters, and compared.
    Rule(("broker_login_refused", "database_login_refused", "results_login_refused"), ("secret_differs",), link, link),
    # A clock that is off makes signed requests for logs too old or too new, tokens and certificates not yet valid.
    Rule(("clock_off",), ("log_forbidden",), here, about),
    Rule(("clock_off",), ("log_forbidden",), master_looking, seen_from),
    Rule(("clock_off",), ("api_error", "api_certificate", "broker_certificate"), here, here_or_about),
    # The worker checks the signature of a request for a log with its own key.
    Rule(("secret_differs",), ("log_forbidden",), signing_key, about),
    Rule(("secret_differs",), ("log_forbidden",), masters_signing_key, seen_from),
    # A service that has not read its changed settings still works with the old ones.
    Rule(("unit_outdated",), ("worker_not_consuming", "worker_queue_unexpected"), service, services),
    Rule(("unit_outdated",), ("log_forbidden",), service, log_service),
    Rule(("unit_outdated",), ("log_forbidden",), looking_api, seen_from),
    # A service of another release than the host's own answers with that release's version.
    Rule(("release_not_running",), ("api_version_differs",), here, here_or_about),
    Rule(("release_not_running",), ("version_differs",), here, here),
    # Another release expects another schema, and its API server tells another version.
    Rule(("version_differs",), ("schema_*",), here, here),
    Rule(("version_differs",), ("api_version_differs",), here, here_or_about),
    # Airflow's services wait for, or refuse to run with, a schema that is not theirs.
    Rule(("schema_behind", "schema_unknown"), ("health_failing",), here, here),
    Rule(("schema_behind", "schema_unknown"), ("unit_failing",), here, unit("airflow-")),
    # A worker whose queue exists with other properties cannot declare it, and never begins to take tasks.
    Rule(("queue_wrong_type", "queue_not_durable"), ("unit_failing",), workers_of, service),
    Rule(("queue_wrong_type", "queue_not_durable"), WORKER_ILL, workers_of, services),
    Rule(("queue_wrong_type", "queue_not_durable"), ("log_*",), workers_of, log_service),
    # A host that cannot use the broker cannot look at it either, and its worker neither starts nor serves logs.
    Rule(("broker_*",), ("management_*", "queue_missing", "queue_wrong_type", "queue_not_durable"), here, here),
    Rule(("broker_*",), WORKER_ILL, here, here_or_about),
    Rule(("broker_*",), ("unit_failing", "unit_stopped"), here, unit(WORKER_UNIT)),
    Rule(("broker_*",), ("log_*",), worker_here, about),
    # A scheduler that waits for the broker to take a task writes no heartbeat meanwhile.
    Rule(("broker_*",), ("health_failing",), here, unit(SCHEDULER_UNIT)),
    # Both databases are on one server, and who does not reach it reaches neither.
    Rule(
        ("results_unresolved", "results_refused", "results_timeout", "results_half_open"),
        ("database_unresolved", "database_refused", "database_timeout", "database_half_open"),
        server,
        server,
    ),
    # Nor can a worker run that cannot store results.
    Rule(("results_*",), WORKER_ILL, here, here_or_about),
    Rule(("results_*",), ("unit_failing", "unit_stopped"), here, unit(WORKER_UNIT)),
    Rule(("results_*",), ("log_*",), worker_here, about),
    # A master without the metadata database: its services fail, and nothing in the database can be judged from it.
    Rule(("database_*",), ("health_failing", "schema_*", "dag_import_error"), here, here),
    Rule(
        ("database_*",),
        ("unit_failing", "unit_stopped"),
        here,
        master_unit,
    ),
    Rule(("database_*",), ("api_*",), here, about),
    # Who calls an API server that is down gets no answer.
    Rule(DOWN, ("api_*",), unit(API_UNIT), about),
    # Nor of one that hangs.
    Rule(("health_failing",), ("api_*",), unit(API_UNIT), about),
    # Cut between a worker and a master, the way is cut for both.
    Rule(("api_timeout",), ("log_timeout",), way, way),
    # The health that a master tells is that of its units.
    Rule(DOWN, ("health_failing",), unit("airflow-"), here),
    # A worker that is down answers nobody: no ping, no log.
    Rule(DOWN, WORKER_ILL, service, services),
    Rule(DOWN, ("log_*",), service, log_service),
    # A worker that does not even answer cannot be asked what it consumes.
    Rule(("worker_silent",), ("worker_not_consuming",), services, services),
    # Files that are missing altogether differ as well.
    Rule(("dags_missing",), ("dags_differ",), here, here),
    # When all workers of a queue are ill nobody serves it, and a queue that no worker ever served does not exist.
    Rule(SILENCING, ("queue_unserved", "queue_missing"), queues_of, itself),
    Rule(("queue_missing",), ("queue_unserved",), itself, itself),
)


def _codes(patterns: Iterable[str]) -> frozenset[str]:
    return frozenset(code for pattern in patterns for code in fnmatch.filter(CODES, pattern))


# Codes of one connection to one place: the same problem on several hosts even where its words differ.
_OF_A_PLACE = _codes(("broker_*", "management_*", "database_*", "results_*", "api_*"))


def assign(scene: Scene, rules: Sequence[Rule]) -> dict[int, int]:
    """{problem: its cause}, by index. Every problem has at most one; no problem causes itself."""
    cause_of: dict[int, int] = {}

    def root(index: int) -> int:
        while index in cause_of:
            index = cause_of[index]
        return index

    partners: dict[tuple[str, str, str], list[int]] = {}
    for index, entry in enumerate(scene.found):
        if entry.together:
            problem = entry.problem
            partners.setdefault((problem.code, problem.subject, problem.what), []).append(index)
    for rule in rules:
        causes, effects = _codes(rule.causes), _codes(rule.effects)
        keyed: dict[str, list[int]] = {}
        for index, problem in enumerate(scene.problems):
            if problem.code in effects and index not in cause_of:
                for key in rule.of(scene, problem):
                    keyed.setdefault(key, []).append(index)
        if not keyed:
            continue
        for index, problem in enumerate(scene.problems):
            if problem.code not in causes:
                continue
            for key in rule.by(scene, problem):
                for effect in keyed.get(key, ()):
                    # A problem and those that it only has together with others are explained as one.
                    entry = scene.found[effect]
                    named = (entry.problem.code, entry.problem.subject, entry.problem.what)
                    for member in partners[named] if entry.together else [effect]:
                        if member not in cause_of and root(index) != member:
                            cause_of[member] = index
    return cause_of


def explain(cluster: Cluster, found: Sequence[Found]) -> list[dict[str, t.Any]]:
    """Problems that have no cause among the others, each with its consequences; the same on several hosts is one."""
    scene = Scene(cluster, found)
    cause_of = assign(scene, RULES)
    order = {name: position for position, name in enumerate(cluster.hosts)}
    checks = list(dict.fromkeys(CODES.values()))
    merged: dict[tuple[str, ...], dict[str, t.Any]] = {}
    entry_of: dict[int, dict[str, t.Any]] = {}
    for index, problem in enumerate(scene.problems):
        if index in cause_of:
            continue
        words = () if problem.code in _OF_A_PLACE and problem.subject else (problem.what, problem.fix)
        entry = merged.setdefault(
            (problem.code, problem.subject, *words),
            {
                "code": problem.code,
                "check": problem.check,
                "hosts": [],
                "subject": problem.subject,
                "what": problem.what,
                "fix": problem.fix,
                "consequences": [],
            },
        )
        entry_of[index] = entry
        if problem.host not in entry["hosts"]:
            entry["hosts"].append(problem.host)
    seen: set[tuple[int, str, str, str]] = set()

    def place(index: int) -> tuple[int, int]:
        problem = scene.problems[index]
        return order.get(problem.host, -1), checks.index(problem.check)

    for index in sorted(cause_of, key=place):
        problem = scene.problems[index]
        top = index
        while top in cause_of:
            top = cause_of[top]
        entry = entry_of[top]
        key = (id(entry), problem.code, problem.host, problem.what)
        if key not in seen:
            seen.add(key)
            entry["consequences"].append(
                {"code": problem.code, "host": problem.host, "subject": problem.subject, "what": problem.what}
            )
    for entry in merged.values():
        entry["hosts"].sort(key=lambda name: order.get(name, -1))
    return sorted(merged.values(), key=lambda entry: _rank(entry, checks, order))


def _rank(entry: Mapping[str, t.Any], checks: Sequence[str], order: Mapping[str, int]) -> tuple[int, int, int]:
    """Hosts that are away come first, then what explains most."""
    first = order.get(entry["hosts"][0], -1)
    away = 0 if entry["code"] == "unreachable" else 1
    return (away, -len(entry["consequences"]), checks.index(entry["check"]) * 10000 + first)
