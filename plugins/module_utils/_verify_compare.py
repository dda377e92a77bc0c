# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: compares what the hosts of a cluster reported of themselves. Pure."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ansible_collections.onprem.airflow.plugins.module_utils._problems import Problem

CLUSTER = "airflow_cluster"
ROLES = ("postgresql", "rabbitmq", "airflow_master", "airflow_worker")
MASTER, WORKER = "airflow_master", "airflow_worker"

# Keys, and passwords within URLs, and the roles on whose hosts each has to be the same.
SECRETS: dict[str, tuple[str, ...]] = {
    "api.secret_key": (MASTER, WORKER),
    "api_auth.jwt_secret": (MASTER,),
    "core.fernet_key": (MASTER,),
    "celery.broker_url": (MASTER, WORKER),
    "celery.result_backend": (MASTER, WORKER),
    "database.sql_alchemy_conn": (MASTER,),
}
# Which packages have to be of the same version everywhere; others may differ without harm to the path of a task.
PACKAGES = re.compile(r"python$|apache-airflow($|-providers-|-core$|-task-sdk$)|celery$|kombu$")
# Queues that Celery makes for itself.
INTERNAL_QUEUE = re.compile(r"\.pidbox$|^celeryev\b|\.reply\.")
LOOPBACK = re.compile(r"localhost($|\.)|127\.|::1$", re.IGNORECASE)
# An HTTP server tells its time in whole seconds.
API_UNCERTAINTY = 1.0

SITE = "run onprem.airflow.site"


class Service(t.NamedTuple):
    """A service of a worker: its unit, Celery's name for it without the host, and its queues."""

    unit: str
    node: str
    queues: tuple[str, ...]


@dataclass(frozen=True)
class Host:
    """What the inventory says of a host. queues: those that it has to serve, for a worker, by any of its services."""

    name: str
    groups: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    in_run: bool = True
    services: tuple[Service, ...] = ()

    @property
    def workers(self) -> tuple[Service, ...]:
        """The services of a worker; of which the inventory says nothing is one for all queues."""
        if WORKER not in self.groups:
            return ()
        return self.services or (Service("airflow-worker.service", "celery", self.queues),)

    @property
    def roles(self) -> tuple[str, ...]:
        """What is placed on it."""
        return tuple(role for role in ROLES if role in self.groups)


@dataclass(frozen=True)
class Found:
    """A problem, and whether its hosts only have it together: none of them is known to be the wrong one."""

    problem: Problem
    together: bool = False


@dataclass
class Cluster:
    """The inventory, and what each host answered: the result of executor_check as Ansible registered it."""

    hosts: Mapping[str, Host]
    results: Mapping[str, Mapping[str, t.Any]]
    _by_address: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name in self.hosts:
            self._by_address[name.lower()] = name
        for name, host in self.hosts.items():
            self._know(name, host.addresses)
        for name in self.hosts:
            identity = self.report(name).get("identity") or {}
            self._know(name, [identity.get("hostname"), identity.get("fqdn"), identity.get("log_name")])
            self._know(name, identity.get("addresses") or [])

    def _know(self, name: str, addresses: Iterable[t.Any]) -> None:
        for address in filter(None, addresses):
            # Every host is that to itself.
            if not LOOPBACK.match(str(address)):
                self._by_address.setdefault(plain_address(str(address)), name)

    def members(self, *roles: str) -> list[str]:
        """Hosts with one of these roles, in the inventory's order."""
        return [name for name, host in self.hosts.items() if any(role in host.groups for role in roles)]

    def answered(self, name: str) -> bool:
        """Whether there is a report of the host."""
        return bool(self.report(name))

    def report(self, name: str) -> Mapping[str, t.Any]:
        """What the host reported; empty when it was left out, could not be reached or its check failed."""
        result = self.results.get(name) or {}
        host = self.hosts.get(name)
        if host is None or not host.in_run:
            return {}
        return result.get("report") or {}

    def workers(self, name: str) -> Sequence[Mapping[str, t.Any]]:
        """What a host reported of its services of a worker."""
        return self.report(name).get("workers") or ()

    def find(self, address: str) -> str | None:
        """The host of the inventory that a name or address means."""
        return self._by_address.get(plain_address(address)) if address else None

    def serves(self, queue: str) -> list[str]:
        """Workers whose inventory says that they serve a queue."""
        return [name for name in self.members(WORKER) if queue in self.hosts[name].queues]

    def drained(self, name: str, queue: str) -> bool:
        """Whether all services of this host that should serve a queue are drained."""
        meant = [service.unit for service in self.hosts[name].workers if queue in service.queues]
        return bool(meant) and set(meant) <= set(drained_units(self.report(name)))


def drained_units(report: Mapping[str, t.Any]) -> dict[str, str]:
    """The services of a worker that are drained, each with what is noted of it: since when, and by whom."""
    return {
        str(worker["unit"]): str(worker["drained"]) for worker in report.get("workers") or () if worker.get("drained")
    }


def plain_address(address: str) -> str:
    """An address in the one form in which it is compared."""
    return address.strip("[]").lower().removeprefix("::ffff:")


def host_of(address: str) -> str:
    """The host in mq1:5672, [::1]:5432/airflow, http://master1:8080/execution/ or a bare name."""
    text = address if "//" in address else f"//{address}"
    try:
        return urlsplit(text).hostname or ""
    except ValueError:
        return ""


def compare(cluster: Cluster, must_match: Mapping[str, Iterable[str]], tolerance: float) -> list[Found]:
    """Everything that only shows when hosts are laid beside each other."""
    return [
        *compare_settings(cluster, must_match),
        *compare_secrets(cluster),
        *compare_versions(cluster),
        *compare_dags(cluster),
        *compare_clocks(cluster, tolerance),
        *unserved_queues(cluster),
        *unknown_consumers(cluster),
    ]


# --- majority and outliers -------------------------------------------------------------------------------------


def found(code: str, hosts: Iterable[str], what: str, fix: str, subject: str, together: bool = False) -> list[Found]:
    """The same problem on each of the hosts."""
    return [Found(Problem(code, name, what, fix, subject), together) for name in hosts]


def some(names: Sequence[str], limit: int = 5) -> str:
    """Names joined by commas, the rest counted."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _on(names: Sequence[str]) -> str:
    """Hosts as part of a sentence."""
    return f"on {some(names, 3)}"


# --- settings and secrets --------------------------------------------------------------------------------------


def _roles(kinds: Iterable[str] | str) -> tuple[str, ...]:
    names = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    return tuple(name if name in ROLES else f"airflow_{name}" for name in names)


def _shown(value: t.Any) -> str:
    if value is None:
        return "not set"
    text = "empty" if value == "" else str(value)
    return text if len(text) <= 90 else f"{text[:87]}..."


def compare_settings(cluster: Cluster, must_match: Mapping[str, Iterable[str]]) -> list[Found]:
    """Settings whose values have to be the same on all hosts of the kinds that read them."""
    problems: list[Found] = []
    for setting, kinds in must_match.items():
        values: dict[str, str | None] = {}
        for name in cluster.members(*_roles(kinds)):
            settings = cluster.report(name).get("settings")
            if settings:
                value = settings.get(setting)
                values[name] = None if value is None else str(value)
        if set(values.values()) <= {None}:
            continue
        groups: dict[str | None, list[str]] = {}
        for name, value in values.items():
            groups.setdefault(value, []).append(name)
        if len(groups) == 1:
            continue
        where = "airflow_config or airflow_environment"
        usual, usual_hosts = _majority(groups)
        if usual_hosts:
            others = (
                f"on {_count(usual_hosts)} it is {_shown(usual)}"
                if usual is not None
                else (f"on {_count(usual_hosts)} it is not set")
            )
            for value, names in groups.items():
                if names is not usual_hosts:
                    what = f"{setting} is {_shown(value)}; {others}"
                    fix = (
                        f"take the host's own value out ({where} of the inventory, a drop-in of the unit, an edited"
                        f" airflow.cfg) or set it for all hosts, then {SITE}"
                    )
                    problems += found("setting_differs", names, what, fix, f"setting:{setting}")
        else:
            parts = [f"{_shown(value)} {_on(names)}" for value, names in groups.items()]
            what = f"{setting} differs: {', '.join(parts)}; no value has a majority"
            fix = f"give all of them the same value ({where} of the inventory), then {SITE}"
            everyone = [name for names in groups.values() for name in names]
            problems += found("setting_differs", everyone, what, fix, f"setting:{setting}", together=True)
    return problems


def _majority(groups: Mapping[t.Any, list[str]]) -> tuple[t.Any, list[str]]:
    """The value that more hosts have than any other, and these; (None, []) without one."""
    ranked = sorted(groups, key=lambda value: len(groups[value]), reverse=True)
    if not ranked or (len(ranked) > 1 and len(groups[ranked[0]]) == len(groups[ranked[1]])):
        return None, []
    return ranked[0], groups[ranked[0]]


def _count(names: Sequence[str]) -> str:
    return some(names) if len(names) <= 3 else f"the {len(names)} that agree ({some(names, 2)})"


def compare_secrets(cluster: Cluster) -> list[Found]:
    """Secrets, by fingerprints that tell nothing but whether they are the same."""
    problems: list[Found] = []
    for secret, roles in SECRETS.items():
        groups: dict[str, list[str]] = {}
        for name in cluster.members(*roles):
            fingerprint = (cluster.report(name).get("fingerprints") or {}).get(secret)
            if fingerprint:
                groups.setdefault(str(fingerprint), []).append(name)
        if len(groups) < 2:
            continue
        label = f"the password in {secret}" if secret.endswith(("_url", "_backend", "_conn")) else secret
        fix = f"{SITE}, which gives all hosts the inventory's secret; if it stays, look for a value of the host's own"
        _usual, usual_hosts = _majority(groups)
        if usual_hosts:
            for names in groups.values():
                if names is not usual_hosts:
                    what = f"{label} is another than {_on(usual_hosts)}"
                    problems += found("secret_differs", names, what, fix, f"setting:{secret}")
        else:
            everyone = [name for names in groups.values() for name in names]
            sides = " and ".join(some(names, 3) for names in groups.values())
            what = f"{label} differs between {sides}; no value has a majority"
            problems += found("secret_differs", everyone, what, fix, f"setting:{secret}", together=True)
    return problems


# --- versions --------------------------------------------------------------------------------------------------


def compare_versions(cluster: Cluster) -> list[Found]:
    """Python by its minor version, Airflow with its providers, Celery and Kombu. One problem for each outlier."""
    versions: dict[str, dict[str, str]] = {}
    for name in cluster.members(MASTER, WORKER):
        reported = cluster.report(name).get("versions")
        if reported:
            versions[name] = {
                package: ".".join(str(version).split(".")[:2]) if package == "python" else str(version)
                for package, version in reported.items()
                if PACKAGES.match(package)
            }
    wrong: dict[str, list[str]] = {}
    undecided: dict[tuple[str, ...], list[str]] = {}
    for package in sorted({package for packages in versions.values() for package in packages}):
        groups: dict[str, list[str]] = {}
        for name, packages in versions.items():
            groups.setdefault(packages.get(package, "not installed"), []).append(name)
        if len(groups) == 1:
            continue
        common, usual_hosts = _majority(groups)
        for version, names in groups.items():
            for name in names if usual_hosts and names is not usual_hosts else ():
                wrong.setdefault(name, []).append(f"{package} {version} instead of {common}")
        if not usual_hosts:
            parts = [f"{version} {_on(names)}" for version, names in groups.items()]
            everyone = tuple(name for name in versions)
            undecided.setdefault(everyone, []).append(f"{package} {', '.join(parts)}")
    fix = f"{SITE}, which gives every host the release of the inventory, and restart what still runs the old one"
    problems = [
        Found(Problem("version_differs", name, f"has {_list(parts)}", fix, "versions")) for name, parts in wrong.items()
    ]
    for together, parts in undecided.items():
        what = f"have different versions, and none has a majority: {_list(parts)}"
        problems += found("version_differs", together, what, fix, "versions", together=True)
    return problems


def _list(parts: Sequence[str], limit: int = 6) -> str:
    shown = "; ".join(parts[:limit])
    return shown if len(parts) <= limit else f"{shown}; and {len(parts) - limit} more"


# --- DAGs ------------------------------------------------------------------------------------------------------


def compare_dags(cluster: Cluster) -> list[Found]:
    """The files of each bundle: the DAG processors read the masters' ones, so those are what workers are held to."""
    trees: dict[str, dict[str, Mapping[str, t.Any]]] = {}
    hosts: list[str] = []
    for name in cluster.members(MASTER, WORKER):
        bundles = (cluster.report(name).get("dags") or {}).get("bundles")
        if bundles is None:
            continue
        hosts.append(name)
        for bundle, tree in bundles.items():
            if tree and tree.get("digest"):
                trees.setdefault(bundle, {})[name] = tree
    masters = [name for name in cluster.members(MASTER) if name in hosts]
    problems: list[Found] = []
    for bundle, by_host in trees.items():
        digests = {name: str(by_host[name]["digest"]) if name in by_host else "" for name in hosts}
        if len(set(digests.values())) == 1:
            continue
        judges = masters or hosts
        groups: dict[str, list[str]] = {}
        for name in judges:
            groups.setdefault(digests[name], []).append(name)
        usual, usual_hosts = _majority(groups)
        if not usual_hosts:
            # The workers may tell which of the masters is right.
            votes: dict[str, list[str]] = {}
            for name in hosts:
                votes.setdefault(digests[name], []).append(name)
            usual, usual_hosts = _majority(votes)
        fix = "run onprem.airflow.deploy_dags, which makes all hosts equal to airflow_dags_source"
        if not usual_hosts:
            first = judges[0]
            other = next(name for name in judges if digests[name] != digests[first])
            what = (
                f"the DAGs of the bundle {bundle} differ between {some(judges, 3)}; no tree has a majority."
                f" Seen from {first}, {other} has {_differences(by_host.get(first), by_host.get(other))}"
            )
            problems += found("dags_differ", judges, what, fix, f"bundle:{bundle}", together=True)
            continue
        reference = by_host.get(next(name for name in usual_hosts))
        for name in hosts:
            if digests[name] != usual:
                what = (
                    f"the DAGs of the bundle {bundle} are not those of {some(usual_hosts, 2)}:"
                    f" {_differences(reference, by_host.get(name))}"
                )
                problems += found("dags_differ", [name], what, fix, f"bundle:{bundle}")
    return problems


def _differences(reference: Mapping[str, t.Any] | None, tree: Mapping[str, t.Any] | None) -> str:
    if tree is None:
        return "none of its files"
    if reference is None:
        return "files where the others have none"
    wanted, present = reference.get("files") or {}, tree.get("files") or {}
    unnamed = [files for files, each in ((wanted, reference), (present, tree)) if not files and each.get("count") != 0]
    if unnamed:
        return "other files (too many to name)" if len(unnamed) == 2 else "other files"
    kinds = {
        "missing": sorted(set(wanted) - set(present)),
        "extra": sorted(set(present) - set(wanted)),
        "changed": sorted(name for name in set(wanted) & set(present) if wanted[name] != present[name]),
    }
    parts = [f"{kind} {some(names, 4)}" for kind, names in kinds.items() if names]
    return "; ".join(parts) or "other files"


# --- clocks ----------------------------------------------------------------------------------------------------


def offsets(cluster: Cluster) -> dict[str, float]:
    """Seconds that each host's clock is ahead of the database's."""
    known: dict[str, float] = {}
    by_api: dict[str, tuple[str, float]] = {}
    for name in cluster.hosts:
        report = cluster.report(name)
        clock = report.get("clock") or {}
        if clock.get("database_offset") is not None:
            known[name] = float(clock["database_offset"])
        elif clock.get("api_offset") is not None:
            urls = [entry for entry in report.get("api") or [] if not entry.get("problem")]
            master = cluster.find(host_of(str(urls[0].get("url", "")))) if urls else None
            if master:
                by_api[name] = (master, float(clock["api_offset"]))
    for name, (master, offset) in by_api.items():
        if master in known:
            known[name] = known[master] + offset
    return known


def compare_clocks(cluster: Cluster, tolerance: float) -> list[Found]:
    """Hosts whose clock is off. Who is right is decided by the greatest number of clocks that agree."""
    ahead = offsets(cluster)
    if not ahead:
        return []
    database = next(iter(cluster.members("postgresql")), "")
    # On the database's own host there is one clock, not two that agree.
    votes = {name: offset for name, offset in ahead.items() if name != database}
    clocks = [0.0, *votes.values()]

    def agreeing(clock: float) -> int:
        return sum(abs(clock - other) <= tolerance for other in clocks)

    # The database's clock comes first, so it wins a tie.
    best = max(clocks, key=agreeing)
    right = 0.0 if agreeing(best) == agreeing(0.0) else _middle([c for c in clocks if abs(c - best) <= tolerance])
    fix = "let a time service set it (systemd-timesyncd or chrony; `timedatectl` tells whether one does)"
    problems: list[Found] = []
    if abs(right) > tolerance:
        what = f"the clock of the database's host is {_seconds(-right)} the clocks of {agreeing(best)} hosts that agree"
        if database:
            problems += found("clock_off", [database], what, f"{fix}, on this host", f"host:{database}")
        else:
            problems += found("clock_off", list(votes), what, f"{fix}, on the database's host", "host:database")
    for name, offset in votes.items():
        report = cluster.report(name)
        slack = float((report.get("clock") or {}).get("uncertainty") or 0)
        if (report.get("clock") or {}).get("database_offset") is None:
            slack += API_UNCERTAINTY
        if abs(offset - right) > tolerance + slack:
            of = "the database's" if right == 0 else "those of most hosts"
            what = f"its clock is {_seconds(offset - right)} {of}; {tolerance:g} s are tolerated"
            problems += found("clock_off", [name], what, fix, f"host:{name}")
    return problems


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _seconds(offset: float) -> str:
    size = abs(offset)
    text = f"{size:.1f} s" if size < 120 else f"{size / 60:.0f} min" if size < 7200 else f"{size / 3600:.0f} h"
    return f"{text} {'ahead of' if offset > 0 else 'behind'}"


# --- queues and consumers --------------------------------------------------------------------------------------


def served_queues(cluster: Cluster) -> set[str]:
    """Queues that somebody takes tasks from, as brokers and workers tell."""
    served: set[str] = set()
    for name in cluster.members(MASTER, WORKER):
        report = cluster.report(name)
        served |= {str(entry["queue"]) for entry in report.get("consumers") or []}
        served |= {str(entry["name"]) for entry in report.get("queues") or [] if entry.get("consumers")}
        for worker in cluster.workers(name):
            if worker.get("answers"):
                served |= {str(queue) for queue in worker.get("active_queues") or []}
    return served


def drained_queues(cluster: Cluster) -> dict[str, list[str]]:
    """{queue: workers} of the queues of the inventory that nobody serves because all who should are drained."""
    queues = dict.fromkeys(queue for name in cluster.members(WORKER) for queue in cluster.hosts[name].queues)
    meant = {queue: cluster.serves(queue) for queue in queues}
    return {queue: names for queue, names in meant.items() if all(cluster.drained(name, queue) for name in names)}


def unserved_queues(cluster: Cluster) -> list[Found]:
    """Queues that are needed, as the masters say, and that no worker takes tasks from."""
    served = served_queues(cluster)
    if not served and not any("queues" in cluster.report(name) for name in cluster.members(MASTER, WORKER)):
        return []  # nobody could use the broker, so nobody knows who takes tasks
    why: dict[str, list[str]] = {}
    masters: dict[str, list[str]] = {}
    for name in cluster.members(MASTER):
        for entry in cluster.report(name).get("unserved") or []:
            queue = str(entry["queue"])
            reasons = why.setdefault(queue, [])
            if str(entry.get("why", "")) not in reasons:
                reasons.append(str(entry.get("why", "")))
            masters.setdefault(queue, []).append(name)
    for queue, names in drained_queues(cluster).items():
        # Nothing may be sent there yet; it is what the inventory promises.
        masters.setdefault(queue, names)
    problems: list[Found] = []
    for queue, names in masters.items():
        if queue in served:
            continue
        meant = cluster.serves(queue)
        because = ", ".join(filter(None, why.get(queue, ())))
        what = f"no worker takes tasks from the queue {queue}" + (f" ({because})" if because else "")
        unseen = [name for name in meant if not cluster.hosts[name].in_run]
        if unseen:
            what += f"; {some(unseen)}, meant to serve it, {'was' if len(unseen) == 1 else 'were'} not looked at"
        drained = [name for name in meant if cluster.drained(name, queue)]
        rest = [name for name in meant if name not in drained]
        undrain = f"take it back: `ansible-playbook onprem.airflow.undrain --limit {','.join(drained)}`"
        if rest:
            units = {service.unit for name in rest for service in cluster.hosts[name].workers}
            unit = "airflow-worker" if units == {"airflow-worker.service"} else "'airflow-worker*'"
            fix = f"see why {some(rest)} does not: `journalctl -u {unit}` there"
            if drained:
                what += f"; {some(drained)}, which should, {'is' if len(drained) == 1 else 'are'} drained"
                fix += f"; or {undrain}"
        elif drained:
            all_of = "the only one that should is" if len(drained) == 1 else "all that should are"
            what += f": {all_of} drained ({some(drained)})"
            fix = undrain if len(drained) == 1 else undrain.replace("take it back", "take one of them back")
        else:
            fix = f"put it into airflow_worker_queues of a worker and {SITE}, or correct the name in the DAG"
        problems += found("queue_unserved", names, what, fix, f"queue:{queue}")
    return problems


def own_queues(cluster: Cluster) -> set[str]:
    """Names of the queues that tasks of this cluster use."""
    names = {queue for name in cluster.members(WORKER) for queue in cluster.hosts[name].queues}
    for name in cluster.members(MASTER, WORKER):
        report = cluster.report(name)
        names |= {str(entry["name"]) for entry in report.get("queues") or []}
        names |= {str(entry["queue"]) for entry in report.get("unserved") or []}
        names |= {str(queue) for worker in cluster.workers(name) for queue in worker.get("active_queues") or []}
    return {name for name in names if not INTERNAL_QUEUE.search(name)}


def _unknown(cluster: Cluster) -> dict[str, tuple[list[str], list[str]]]:
    """{address: (queues, masters that saw it)} of consumers that belong to no host of the inventory."""
    queues = own_queues(cluster)
    sockets = {
        (plain_address(str(entry[0])), int(entry[1]))
        for name in cluster.members(WORKER)
        for worker in cluster.workers(name)
        for entry in worker.get("sockets") or []
    }
    # What the broker sees as a loopback address is on its own host.
    brokers = cluster.members("rabbitmq")
    unknown: dict[str, tuple[list[str], list[str]]] = {}
    for name in cluster.members(MASTER):
        for entry in cluster.report(name).get("consumers") or []:
            address, queue = plain_address(str(entry.get("host") or "")), str(entry["queue"])
            address = brokers[0] if LOOPBACK.match(address) and len(brokers) == 1 else address
            socket = (plain_address(str(entry.get("host") or "")), int(entry.get("port") or 0))
            if not address or queue not in queues or socket in sockets:
                continue
            host = cluster.find(address)
            if host is None or WORKER not in cluster.hosts[host].groups:
                seen, masters = unknown.setdefault(address, ([], []))
                seen.extend([queue] if queue not in seen else [])
                masters.extend([name] if name not in masters else [])
    return unknown


def unplaced_workers(cluster: Cluster) -> list[str]:
    """Workers of which no address is known, so that a consumer without a host may be theirs."""
    literal = re.compile(r"[0-9.]+$|[0-9a-fA-F:]*:[0-9a-fA-F:.]*$")
    return [
        name
        for name in cluster.members(WORKER)
        if not cluster.answered(name) and not any(literal.match(address) for address in cluster.hosts[name].addresses)
    ]


def unknown_consumers(cluster: Cluster) -> list[Found]:
    """Somebody takes our tasks who is no worker of the inventory."""
    if unplaced_workers(cluster):
        return []
    problems: list[Found] = []
    for address, (queues, masters) in _unknown(cluster).items():
        host = cluster.find(address)
        who = f"{host} ({address}), which the inventory does not have as a worker," if host else address
        what = f"a consumer on {who} takes tasks from {some(sorted(queues))} and is no worker of the inventory"
        what = what if not host else f"a consumer on {who} takes tasks from {some(sorted(queues))}"
        fix = "stop that worker (`systemctl disable --now airflow-worker` there), or put its host into airflow_worker"
        problems += found("consumer_unknown", masters, what, fix, f"host:{host or address}")
    return problems


def unjudged_consumers(cluster: Cluster) -> str:
    """Why consumers without a host were not judged; empty when all were."""
    unplaced = unplaced_workers(cluster)
    addresses = _unknown(cluster) if unplaced else {}
    if not addresses:
        return ""
    return f"consumers on {some(sorted(addresses))} may be those of {some(unplaced)}, of which no address is known"
