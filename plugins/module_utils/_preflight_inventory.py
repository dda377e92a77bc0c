# Private to the collection onprem.airflow: may change without notice.
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with an inventory, and the list that a person reads. Pure; runs on the control machine.

No value of a secret may enter a problem: only its name, and what is wrong with it.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import ipaddress
import itertools
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.onprem.airflow.plugins.module_utils._sizing import (
    default_worker_concurrency,
    required_connections,
)
from ansible_collections.onprem.airflow.plugins.module_utils._workers import expand, mistakes

CLUSTER = "airflow_cluster"
SERVICES = ("postgresql", "rabbitmq", "airflow_master", "airflow_worker")
PREFIXES = ("airflow_", "rabbitmq_", "postgresql_")
INVENTORY = "inventory"  # the "host" of a problem that belongs to no single host

# Every code that can appear in the list. Stable: they are what airflow_preflight_ignore takes.
CODES = (
    "no_cluster",
    "not_in_cluster",
    "no_database",
    "several_databases",
    "no_broker",
    "several_brokers",
    "no_master",
    "duplicate_address",
    "loopback_address",
    "bad_address",
    "bad_api_url",
    "secret_missing",
    "secret_weak",
    "secret_differs",
    "secret_reused",
    "unknown_variable",
    "bad_worker_queues",
    "bad_worker_services",
    "bad_version",
    "bad_template",
    "bad_ignore",
    "missing_file",
    "port_differs",
    "too_few_connections",
    "release_differs",
    "unreachable",
    "cannot_run",
    "clock_differs",
    "duplicate_hostname",
    "duplicate_machine",
    "unsupported_os",
    "unsupported_architecture",
    "unsupported_python",
    "no_systemd",
    "too_little_memory",
    "too_little_disk",
    "port_taken",
    "peer_unresolved",
    "peer_unreachable",
    "peer_refused",
)

# Variables of the preflight, with their defaults.
PREFLIGHT_DEFAULTS: dict[str, Any] = {
    "airflow_preflight_clock_tolerance": 5,
    "airflow_preflight_ignore": [],
    "airflow_preflight_known_variables": [],
    "airflow_preflight_peer_timeout": 3,
    "airflow_preflight_requirements": {
        "postgresql": {"memory_mb": 512, "disk_mb": 2048},
        # disk_mb follows our disk_free_limit: below it the broker blocks every publisher.
        "rabbitmq": {"memory_mb": 512, "disk_mb": 2048},
        "airflow_master": {"memory_mb": 1536, "disk_mb": 3072},
        "airflow_worker": {"memory_mb": 768, "disk_mb": 3072},
    },
}
# Variables of playbooks, which no argument specification of a role names.
PLAYBOOK_VARIABLES = (*PREFLIGHT_DEFAULTS, "airflow_leaving", "airflow_secrets_file", "airflow_secrets_characters")

PASSWORD_LENGTH = 16
PASSWORD_DISTINCT = 8
# password -> (variable with its user name, that variable's default)
PASSWORDS = {
    "airflow_database_password": ("airflow_database_user", "airflow"),
    "airflow_results_database_password": ("airflow_results_database_user", "airflow_results"),
    "airflow_broker_password": ("airflow_broker_user", "airflow"),
    "airflow_admin_password": ("airflow_admin_user", "admin"),
}
SECRETS = (*PASSWORDS, "airflow_fernet_key", "airflow_jwt_secret", "airflow_api_secret_key", "rabbitmq_erlang_cookie")
# Which hosts cannot be set up without which secrets.
NEEDED_SECRETS = {
    "postgresql": ("airflow_database_password", "airflow_results_database_password"),
    "rabbitmq": ("airflow_broker_password", "rabbitmq_erlang_cookie"),
    "airflow_master": (
        "airflow_database_password",
        "airflow_results_database_password",
        "airflow_broker_password",
        "airflow_admin_password",
        "airflow_fernet_key",
        "airflow_jwt_secret",
        "airflow_api_secret_key",
    ),
    "airflow_worker": ("airflow_results_database_password", "airflow_broker_password", "airflow_api_secret_key"),
}
WELL_KNOWN_WORDS = (
    "password|passwort|passwd|secret|geheim|changeme|change|default|example|airflow|postgresql|postgres|rabbitmq|rabbit"
    "|results|broker|database|celery|admin|administrator|root|guest|user|test|demo|sample|dummy|welcome|letmein|qwertz"
    "|qwerty|asdf|iloveyou|monkey|dragon|master|worker|apache|production|please|correcthorsebatterystaple"
)

# Everything whose value is read; a variable that is not here is only looked at by name.
VALUES = (
    *SECRETS,
    *PREFLIGHT_DEFAULTS,
    *(user for user, _default in PASSWORDS.values()),
    "ansible_host",
    "ansible_port",
    "airflow_address",
    "airflow_api_port",
    "airflow_api_url",
    "airflow_broker_host",
    "airflow_broker_port",
    "airflow_config",
    "airflow_dags_source",
    "airflow_database_host",
    "airflow_database_port",
    "airflow_lock",
    "airflow_master_api_workers",
    "airflow_python",
    "airflow_results_database_host",
    "airflow_results_database_port",
    "airflow_version",
    "airflow_worker_concurrency",
    "airflow_worker_queues",
    "airflow_worker_services",
    "postgresql_max_connections",
    "postgresql_port",
    "postgresql_settings",
    "rabbitmq_node_host",
)
FILES = ("airflow_lock", "airflow_dags_source")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, on one host (or in the inventory as a whole)."""

    code: str
    host: str
    what: str
    fix: str


@dataclass(frozen=True)
class Host:
    """Variables of one host: all names, the evaluated values of VALUES, and why some could not be evaluated."""

    name: str
    names: frozenset[str] = frozenset()
    values: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or the default when it is not set, None or an empty text."""
        value = self.values.get(name)
        return default if value is None or (isinstance(value, str) and not value.strip()) else value

    @property
    def address(self) -> str:
        """The name or address by which other hosts reach this one."""
        return str(self.get("airflow_address", self.name))


@dataclass(frozen=True)
class Inventory:
    """Groups and hosts of the cluster."""

    groups: Mapping[str, Sequence[str]]
    hosts: Mapping[str, Host]

    def group(self, name: str) -> list[str]:
        """Hosts of a group, in the inventory's order; empty when there is no such group."""
        return list(self.groups.get(name, ()))

    def services(self, host: str) -> list[str]:
        """The services placed on a host."""
        return [service for service in SERVICES if host in self.group(service)]

    def first_value(self, name: str) -> Any:
        """The value of a variable on the first host that has one."""
        return next((value for host in self.hosts.values() if (value := host.get(name)) is not None), None)


def check_inventory(
    inventory: Inventory,
    known_variables: Iterable[str] | None,
    secrets_command: str,
    exists: Callable[[str], bool] = lambda path: True,
    facts: Mapping[str, tuple[int, int]] | None = None,
    locked_version: str = "",
) -> list[Problem]:
    """Everything that is wrong with the inventory itself.

    known_variables: None leaves out the search for misspelt names. facts: {host: (memory in MB, CPUs)}, as far as
    known. exists: whether a path is there on the control machine. locked_version: what the collection's own lock
    files hold; "" when unknown.
    """
    problems = check_groups(inventory)
    if not inventory.group(CLUSTER):
        return problems
    problems += check_addresses(inventory)
    problems += check_secrets(inventory, secrets_command)
    problems += check_values(inventory, exists, locked_version)
    problems += check_database_port(inventory)
    problems += check_connections(inventory, facts or {})
    if known_variables is not None:
        problems += check_variable_names(inventory, known_variables)
    problems += check_templates(inventory)
    return problems


# --- groups ----------------------------------------------------------------------------------------------------


def check_groups(inventory: Inventory) -> list[Problem]:
    """Who is where: one database, one broker, at least one master, and all of them in the cluster."""
    cluster = inventory.group(CLUSTER)
    if not cluster:
        return [
            Problem(
                "no_cluster",
                INVENTORY,
                f"the group {CLUSTER} is missing or has no hosts, so there is nothing to install",
                f"name your inventory with -i, and make {', '.join(SERVICES)} children of the group {CLUSTER}"
                " (inventories/example shows how)",
            )
        ]
    problems = [
        Problem(
            "not_in_cluster",
            name,
            f"is in the group {service} but not in {CLUSTER}, so no playbook would touch it",
            f"make the group {service} a child of {CLUSTER}",
        )
        for service in SERVICES
        for name in inventory.group(service)
        if name not in cluster
    ]
    problems += _check_single(
        inventory, "postgresql", "PostgreSQL", "airflow_database_host", "no_database", "several_databases"
    )
    problems += _check_single(inventory, "rabbitmq", "RabbitMQ", "airflow_broker_host", "no_broker", "several_brokers")
    if not inventory.group("airflow_master"):
        problems.append(
            Problem(
                "no_master",
                INVENTORY,
                "the group airflow_master has no hosts: nothing would schedule tasks or serve the web UI",
                "put at least one host into the group airflow_master",
            )
        )
    return problems


def _check_single(
    inventory: Inventory, group: str, label: str, variable: str, missing_code: str, several_code: str
) -> list[Problem]:
    members = inventory.group(group)
    if len(members) > 1:
        return [
            Problem(
                several_code,
                INVENTORY,
                f"the group {group} has {len(members)} hosts ({_some(members)}); clusters of {label}"
                " are not supported yet",
                f"leave exactly one host in the group {group}",
            )
        ]
    if not members and inventory.first_value(variable) is None:
        return [
            Problem(
                missing_code,
                INVENTORY,
                f"there is no {label}: the group {group} has no hosts and {variable} is not set",
                f"put one host into the group {group}, or set {variable} to the address of an existing {label}",
            )
        ]
    return []


# --- addresses -------------------------------------------------------------------------------------------------


def check_addresses(inventory: Inventory) -> list[Problem]:
    """Addresses that are not addresses, that two hosts share, or that mean another host on every host."""
    problems: list[Problem] = []
    hosts = list(inventory.hosts.values())
    for host in hosts:
        if not is_address(host.address):
            problems.append(
                Problem(
                    "bad_address",
                    host.name,
                    f"airflow_address is {host.address!r}, which is neither a host name nor an IP address",
                    "set airflow_address to a plain name or address: no http://, no port, no blanks",
                )
            )
    by_login = _group_by(hosts, lambda host: (str(host.get("ansible_host", "")), str(host.get("ansible_port", 22))))
    for (address, _port), names in by_login.items():
        if address and len(names) > 1:
            problems.append(
                Problem(
                    "duplicate_address",
                    _some(names),
                    f"have the same ansible_host {address}: one machine under {len(names)} names",
                    "give each host its own ansible_host; a machine with several services stands"
                    " in several groups under one name",
                )
            )
    for address, names in _group_by(hosts, lambda host: host.address).items():
        if len(names) > 1:
            problems.append(
                Problem(
                    "duplicate_address",
                    _some(names),
                    f"have the same airflow_address {address}",
                    "set airflow_address per host (host_vars), not for a group",
                )
            )
    problems += _check_loopback(inventory)
    for url, names in _group_by(hosts, lambda host: str(host.get("airflow_api_url", ""))).items():
        if url and not is_api_url(url):
            problems += [
                Problem(
                    "bad_api_url",
                    name,
                    f"airflow_api_url is {url!r}, which is not a URL of the form http://host:port",
                    "set airflow_api_url like http://airflow.example.com:8080, without user, password or blanks",
                )
                for name in names
            ]
    return problems


def _check_loopback(inventory: Inventory) -> list[Problem]:
    if len(inventory.hosts) < 2:
        return []
    problems = []
    for host in inventory.hosts.values():
        if is_loopback(host.address):
            problems.append(
                Problem(
                    "loopback_address",
                    host.name,
                    f"airflow_address is {host.address}, which other hosts cannot reach",
                    "set airflow_address to a name or address that all hosts of the cluster can reach",
                )
            )
    for variable in ("airflow_database_host", "airflow_results_database_host", "airflow_broker_host"):
        for host in inventory.hosts.values():
            value = host.get(variable)
            if value is not None and is_loopback(str(value)):
                problems.append(
                    Problem(
                        "loopback_address",
                        host.name,
                        f"{variable} is {value}, which is a different machine on every host",
                        f"set {variable} to a name or address that all hosts of the cluster can reach",
                    )
                )
    return problems


def is_address(text: str) -> bool:
    """Whether a text is a host name or an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        labels = text.rstrip(".").split(".")
        return len(text) < 254 and all(
            re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", label) for label in labels
        )
    return True


def is_loopback(text: str) -> bool:
    """Whether an address always means the host that uses it."""
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return text == "localhost" or text.startswith("localhost.")


def _is_of_no_use(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_loopback or parsed.is_link_local


def is_api_url(text: str) -> bool:
    """Whether a text is http(s)://host[:port][/path] without user or password."""
    try:
        parts = urlsplit(text)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return (
        port_is_fine
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and is_address(str(parts.hostname))
        and parts.username is None
        and not parts.query
    )


# --- secrets ---------------------------------------------------------------------------------------------------


def check_secrets(inventory: Inventory, command: str) -> list[Problem]:
    """Secrets that are missing, weak, used twice, or not the same on all hosts."""
    problems: list[Problem] = []
    missing: dict[tuple[str, ...], list[str]] = {}
    digests: dict[str, dict[str, str]] = {}  # digest -> {secret: a host}
    for secret in SECRETS:
        holders: dict[str, list[str]] = {}
        lacking = []
        weakness: dict[str, list[str]] = {}
        for host in inventory.hosts.values():
            needed = any(secret in NEEDED_SECRETS[service] for service in inventory.services(host.name))
            if not needed or secret in host.errors:
                continue
            value = host.get(secret)
            if value is None:
                lacking.append(host.name)
                continue
            digest = _digest(value)
            if digest not in holders:
                user_variable, user = PASSWORDS.get(secret, ("", ""))
                weakness[digest] = weaknesses(secret, value, str(host.get(user_variable, user)))
            holders.setdefault(digest, []).append(host.name)
        if lacking:
            missing.setdefault(tuple(lacking), []).append(secret)
        for digest, names in holders.items():
            digests.setdefault(digest, {})[secret] = names[0]
            if weakness[digest]:
                problems += [
                    Problem(
                        "secret_weak",
                        name,
                        f"{secret} is weak: {'; '.join(weakness[digest])}",
                        f"delete the variable and run `{command}`, which makes a strong one",
                    )
                    for name in names
                ]
        if len(holders) > 1:
            sample = ", ".join(f"one on {_some(names)}" for names in holders.values())
            problems.append(
                Problem(
                    "secret_differs",
                    INVENTORY,
                    f"{secret} has {len(holders)} different values: {sample}",
                    "set it once, in group_vars/all, and nowhere else",
                )
            )
    problems += _missing_secrets(missing, {secret for held in digests.values() for secret in held}, command)
    for users in digests.values():
        if len(users) > 1:
            problems.append(
                Problem(
                    "secret_reused",
                    INVENTORY,
                    f"{_names(list(users))} have the same value",
                    f"delete all but one of them and run `{command}`, which makes the others",
                )
            )
    return problems


def _missing_secrets(missing: Mapping[tuple[str, ...], list[str]], somewhere: set[str], command: str) -> list[Problem]:
    """missing: {hosts that lack them: secrets}; somewhere: secrets that at least one host has."""
    problems = []
    nowhere = [secret for names in missing.values() for secret in names if secret not in somewhere]
    if nowhere:
        names = _names(sorted(nowhere, key=SECRETS.index))
        verb = "is" if len(nowhere) == 1 else "are"
        problems.append(Problem("secret_missing", INVENTORY, f"{names} {verb} not set", f"run `{command}`"))
    for hosts, secrets in missing.items():
        for secret in secrets:
            if secret in somewhere:
                problems += [
                    Problem(
                        "secret_missing",
                        host,
                        f"{secret} is not set here, but on other hosts",
                        "set it once, in group_vars/all, and nowhere else",
                    )
                    for host in hosts
                ]
    return problems


def weaknesses(secret: str, value: Any, user: str = "") -> list[str]:
    """What is wrong with a secret's value, never naming any part of it; empty when it is strong."""
    if not isinstance(value, str):
        return [f"it is a {type(value).__name__} and not a text (quote it)"]
    if secret == "airflow_fernet_key":
        return _fernet_weaknesses(value)
    found = []
    minimum = {"airflow_jwt_secret": 64, "airflow_api_secret_key": 32, "rabbitmq_erlang_cookie": 40}.get(
        secret, PASSWORD_LENGTH
    )
    if len(value) < minimum:
        found.append(f"shorter than {minimum} characters")
    if any(not character.isprintable() for character in value):
        found.append("it holds a line break or another control character")
    if secret == "rabbitmq_erlang_cookie":
        if not re.fullmatch(r"[A-Za-z0-9]*", value):
            found.append("an Erlang cookie may only hold letters and digits")
        if re.fullmatch(r"[A-Z]{20}", value):
            # rabbitmq-server's postinst takes such a cookie for a generated weak one and replaces it.
            found.append("the Debian package replaces a cookie of 20 capital letters")
    if secret in ("airflow_jwt_secret", "airflow_api_secret_key") and ("$" in value or value.startswith("~")):
        # Airflow runs every option through expandvars and expanduser.
        found.append("Airflow expands $ and a leading ~ in it")
    found += _guessable(value, user)
    return found


def _guessable(value: str, user: str) -> list[str]:
    if user and value.lower() == user.lower():
        return ["it is the user name"]
    if len(set(value)) < PASSWORD_DISTINCT:
        return [f"fewer than {PASSWORD_DISTINCT} different characters"]
    steps = {ord(right) - ord(left) for left, right in itertools.pairwise(value)}
    if len(steps) < 4:
        return ["it is a sequence of neighbouring characters"]
    words = f"{re.escape(user.lower())}|{WELL_KNOWN_WORDS}" if user else WELL_KNOWN_WORDS
    letters = re.sub(r"[\W_]", "", value.lower())
    rest = re.sub(words, "", letters)
    if len(rest) < PASSWORD_DISTINCT and 2 * (len(letters) - len(rest)) >= len(value):
        return ["it is made of well-known words"]
    return []


def _fernet_weaknesses(value: str) -> list[str]:
    for key in value.split(","):
        try:
            raw = base64.b64decode(key.strip(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != 32 or not re.fullmatch(r"[A-Za-z0-9_-]{43}=", key.strip()):
            return ["it must be 32 bytes in url-safe base64, or several such keys separated by commas"]
        if len(set(raw)) < PASSWORD_DISTINCT:
            return [f"fewer than {PASSWORD_DISTINCT} different bytes"]
    return []


# --- values ----------------------------------------------------------------------------------------------------


def check_values(inventory: Inventory, exists: Callable[[str], bool], locked_version: str = "") -> list[Problem]:
    """Values that would only fail long after the start."""
    problems: list[Problem] = []
    for host in inventory.hosts.values():
        services = inventory.services(host.name)
        queues = host.values.get("airflow_worker_queues")
        if "airflow_worker" in services and "airflow_worker_queues" in host.values and not _is_list_of_names(queues):
            problems.append(
                Problem(
                    "bad_worker_queues",
                    host.name,
                    "airflow_worker_queues must be a list of at least one queue name, each a text without"
                    " blanks or commas",
                    "write it like airflow_worker_queues: [default]",
                )
            )
        if "airflow_worker" in services and host.values.get("airflow_worker_services"):
            problems += [
                Problem(
                    "bad_worker_services",
                    host.name,
                    f"airflow_worker_services {mistake}",
                    "write it like airflow_worker_services: [{queues: [default]}, {name: gpu, queues: [gpu]}]",
                )
                for mistake in mistakes(host.values["airflow_worker_services"])
            ]
        version = host.values.get("airflow_version")
        if version is not None and not host.get("airflow_lock") and not is_supported_version(version):
            problems.append(
                Problem(
                    "bad_version",
                    host.name,
                    f"airflow_version is {version!r}; supported is a quoted full version from 3.3.0 on, below 4",
                    'write it like airflow_version: "3.3.2", or leave it out',
                )
            )
        elif version is not None and not host.get("airflow_lock") and locked_version not in ("", version):
            problems.append(
                Problem(
                    "bad_version",
                    host.name,
                    f"airflow_version is {version}, but the collection's own lock files hold {locked_version}",
                    "leave airflow_version out, or give a lock file for your version in airflow_lock",
                )
            )
        for variable in FILES:
            path = host.get(variable)
            if isinstance(path, str) and path.startswith("/") and not exists(path):
                problems.append(
                    Problem(
                        "missing_file",
                        host.name,
                        f"{variable} is {path}, which is not there on the control machine",
                        "correct the path, or put the file there",
                    )
                )
        ignored = host.get("airflow_preflight_ignore", [])
        for code in ignored if isinstance(ignored, list) else [ignored]:
            if code not in CODES:
                near = difflib.get_close_matches(str(code), CODES, 1)
                problems.append(
                    Problem(
                        "bad_ignore",
                        host.name,
                        f"airflow_preflight_ignore names {code!r}, which is no kind of problem",
                        f"write {near[0]}" if near else "take it out",
                    )
                )
    return problems


def _is_list_of_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(name, str) and re.fullmatch(r"[^\s,]+", name) for name in value)
    )


def is_supported_version(version: Any) -> bool:
    """Whether a version is a text like "3.3.2", from 3.3 on and below 4."""
    match = re.fullmatch(r"3\.(\d+)\.\d+", version) if isinstance(version, str) else None
    return match is not None and int(match.group(1)) >= 3


def check_database_port(inventory: Inventory) -> list[Problem]:
    """Whether Airflow asks for PostgreSQL at the port that our server listens on."""
    databases = inventory.group("postgresql")
    if len(databases) != 1 or databases[0] not in inventory.hosts:
        return []
    listens = _number(inventory.hosts[databases[0]].get("postgresql_port"), 5432)
    problems = []
    for host in inventory.hosts.values():
        services = inventory.services(host.name)
        # Behind an address of the user's own there may be a proxy with a port of its own.
        own_address = host.get("airflow_database_host") is not None
        asks = _number(host.get("airflow_database_port"), 5432)
        if not own_address and asks != listens and ("airflow_master" in services or "airflow_worker" in services):
            problems.append(
                Problem(
                    "port_differs",
                    host.name,
                    f"airflow_database_port is {asks}, but postgresql_port on {databases[0]} is {listens}",
                    "set both to the same number, in group_vars/all",
                )
            )
    return problems


def check_connections(inventory: Inventory, facts: Mapping[str, tuple[int, int]]) -> list[Problem]:
    """Whether all pools together fit into the max_connections that the user set."""
    databases = inventory.group("postgresql")
    if len(databases) != 1 or databases[0] not in inventory.hosts:
        return []
    database = inventory.hosts[databases[0]]
    settings = database.get("postgresql_settings", {})
    variable, given = "postgresql_max_connections", database.get("postgresql_max_connections")
    if isinstance(settings, Mapping) and "max_connections" in settings:
        variable, given = "postgresql_settings.max_connections", settings["max_connections"]
    try:
        available = int(given)
    except (TypeError, ValueError):
        return []
    masters = [inventory.hosts[name] for name in inventory.group("airflow_master") if name in inventory.hosts]
    workers = [inventory.hosts[name] for name in inventory.group("airflow_worker") if name in inventory.hosts]
    required = required_connections(
        api_workers=sum(_number(host.get("airflow_master_api_workers"), 1) for host in masters),
        schedulers=len(masters),
        triggerers=len(masters),
        dag_processors=len(masters),
        worker_concurrencies=[slots for host in workers for slots in worker_concurrencies(host, facts.get(host.name))],
    )
    if available >= required:
        return []
    return [
        Problem(
            "too_few_connections",
            databases[0],
            f"{variable} is {available}; the processes of {len(masters)} masters and"
            f" {len(workers)} workers need {required}",
            f"set it to {required} or more, leave it out (it is then computed), or lower airflow_worker_concurrency",
        )
    ]


def worker_concurrencies(host: Host, facts: tuple[int, int] | None) -> list[int]:
    """Task slots of a host's worker services: what the user set, the default for its memory and CPUs, or the most."""
    try:
        slots = int(host.get("airflow_worker_concurrency"))
    except (TypeError, ValueError):
        slots = default_worker_concurrency(*facts) if facts else 16
    wanted = host.get("airflow_worker_services") or [{}]
    return [service["concurrency"] for service in expand([{}] if mistakes(wanted) else wanted, concurrency=slots)]


def _config_number(host: Host, section: str, key: str, default: int) -> int:
    config = host.get("airflow_config", {})
    try:
        return int(config[section][key])
    except (KeyError, TypeError, ValueError):
        return default


def check_templates(inventory: Inventory) -> list[Problem]:
    """Variables that we read and that could not be evaluated."""
    return [
        Problem("bad_template", host.name, f"{name} cannot be evaluated: {error}", f"correct the value of {name}")
        for host in inventory.hosts.values()
        for name, error in host.errors.items()
    ]


# --- names of variables ----------------------------------------------------------------------------------------


def version_in_lock(text: str) -> str:
    """The version of Airflow that a lock file pins, "" when it pins none."""
    match = re.search(r"^apache-airflow==([^\s;\\]+)", text, re.MULTILINE)
    return match.group(1) if match else ""


def option_names(specification: Any) -> set[str]:
    """Names of all options of all entry points of a parsed meta/argument_specs.yml."""
    entries = specification.get("argument_specs") if isinstance(specification, Mapping) else None
    if not isinstance(entries, Mapping):
        return set()
    return {name for entry in entries.values() for name in ((entry or {}).get("options") or {})}


def check_variable_names(inventory: Inventory, known_variables: Iterable[str]) -> list[Problem]:
    """Variables that look like ours and that nothing reads."""
    problems = []
    known = {*known_variables, *PLAYBOOK_VARIABLES}
    nearest: dict[str, list[str]] = {}
    for host in inventory.hosts.values():
        own = known | {str(name) for name in host.get("airflow_preflight_known_variables", [])}
        for name in sorted(host.names):
            if not name.startswith(PREFIXES) or name in own:
                continue
            if name not in nearest:
                nearest[name] = difflib.get_close_matches(name, sorted(known), 1, 0.8)
            near = nearest[name]
            problems.append(
                Problem(
                    "unknown_variable",
                    host.name,
                    f"the variable {name} is unknown, so it would do nothing",
                    f"did you mean {near[0]}? Otherwise take it out, or name it in airflow_preflight_known_variables"
                    if near
                    else "take it out, or name it in airflow_preflight_known_variables if something else reads it",
                )
            )
    return problems


# --- what a host must be asked ---------------------------------------------------------------------------------


def wanted_ports(inventory: Inventory, name: str) -> list[dict[str, Any]]:
    """Ports on which the services placed on a host will listen: [{port, service}]."""
    host = inventory.hosts[name]
    config_ports = {
        "airflow_master": (
            _number(host.get("airflow_api_port"), 8080),
            _config_number(host, "scheduler", "scheduler_health_check_server_port", 8974),
            _config_number(host, "logging", "trigger_log_server_port", 8794),
        ),
        "airflow_worker": (_config_number(host, "logging", "worker_log_server_port", 8793),),
        "postgresql": (_number(host.get("postgresql_port"), 5432),),
        "rabbitmq": (_number(host.get("airflow_broker_port"), 5672), 15672, 15692, 4369, 25672),
    }
    return [
        {"port": port, "service": service} for service in inventory.services(name) for port in config_ports[service]
    ]


def wanted_peers(inventory: Inventory, name: str) -> list[dict[str, Any]]:
    """What a host must resolve and reach: [{host, port, need, variable, must_listen}], nothing twice."""
    host = inventory.hosts[name]
    services = inventory.services(name)
    peers: dict[tuple[str, int], dict[str, Any]] = {}

    def add(address: Any, port: int, need: str, variable: str, must_listen: bool = False) -> None:
        if address and is_address(str(address)):
            key = (str(address), port)
            peers.setdefault(
                key,
                {
                    "host": key[0],
                    "port": port,
                    "need": need,
                    "variable": f"correct {variable}",
                    "must_listen": must_listen,
                },
            )

    def server(group: str, variable: str) -> tuple[Any, str, bool]:
        members = inventory.group(group)
        given = host.get(variable)
        if given is not None:
            return given, variable, not members
        if members:
            return inventory.hosts[members[0]].address, f"airflow_address of {members[0]}", False
        return None, variable, False

    database, database_variable, database_exists = server("postgresql", "airflow_database_host")
    database_port = _number(host.get("airflow_database_port"), 5432)
    airflow = "airflow_master" in services or "airflow_worker" in services
    if "airflow_master" in services:
        add(database, database_port, "the metadata database", database_variable, database_exists)
    if airflow:
        results = host.get("airflow_results_database_host")
        add(
            results or database,
            _number(host.get("airflow_results_database_port"), database_port),
            "the database of results",
            "airflow_results_database_host" if results else database_variable,
            database_exists if not results else not inventory.group("postgresql"),
        )
        broker, broker_variable, broker_exists = server("rabbitmq", "airflow_broker_host")
        add(
            broker,
            _number(host.get("airflow_broker_port"), 5672),
            "the message broker",
            broker_variable,
            broker_exists,
        )
    if "airflow_worker" in services:
        url = host.get("airflow_api_url")
        masters = [inventory.hosts[master] for master in inventory.group("airflow_master")]
        if url is not None and is_api_url(str(url)):
            parts = urlsplit(str(url))
            port = parts.port or (443 if parts.scheme == "https" else 80)
            add(parts.hostname, port, "the API server", "airflow_api_url")
        elif masters:
            port = _number(masters[0].get("airflow_api_port"), 8080)
            add(masters[0].address, port, "the API server", f"airflow_address of {masters[0].name}")
    if "airflow_master" in services:
        for worker in (inventory.hosts[member] for member in inventory.group("airflow_worker")):
            port = _config_number(worker, "logging", "worker_log_server_port", 8793)
            add(worker.address, port, f"the task logs of {worker.name}", f"airflow_address of {worker.name}")
    if "rabbitmq" in services:
        # The node is called rabbit@<this name>, and Erlang does not start under a name that it cannot resolve.
        add(host.get("rabbitmq_node_host", host.name), 0, "the name of the RabbitMQ node", "rabbitmq_node_host")
    return list(peers.values())


def _number(value: Any, default: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def merged_requirements(given: Any) -> dict[str, dict[str, int]]:
    """airflow_preflight_requirements with the defaults for everything that it does not name."""
    defaults: dict[str, dict[str, int]] = PREFLIGHT_DEFAULTS["airflow_preflight_requirements"]
    merged = {service: dict(amounts) for service, amounts in defaults.items()}
    if isinstance(given, Mapping):
        for service, amounts in given.items():
            if service in merged and isinstance(amounts, Mapping):
                for key, amount in amounts.items():
                    merged[service][str(key)] = _number(amount, 0)
    return merged


# --- comparing the hosts ---------------------------------------------------------------------------------------


def compare_clocks(clocks: Mapping[str, tuple[float, float]], tolerance: float) -> list[Problem]:
    """Hosts whose clock is further from the others' than the tolerance.

    clocks: {host: (least, most that it is ahead of the control machine)}; the width is the time the question took,
    so only what lies surely outside counts. The reference is the median of all hosts and the control machine: one
    wrong clock among many is named, whichever it is, and a control machine that is wrong alone harms nobody.
    """
    middles = [(least + most) / 2 for least, most in clocks.values()]
    reference = statistics.median([0.0, *middles]) if len(middles) > 1 else 0.0
    problems = []
    for name, (least, most) in clocks.items():
        offset = least - reference if least > reference else min(0.0, most - reference)
        if abs(offset) > tolerance:
            problems.append(
                Problem(
                    "clock_differs",
                    name,
                    f"the clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} the others;"
                    f" {tolerance:g} s are allowed",
                    "set the clock and keep it right (apt-get install chrony)",
                )
            )
    return problems


def compare_machines(hostnames: Mapping[str, str], addresses: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Hosts that turn out to be the same machine, or to bear the same name."""
    problems = []
    same_machine: set[frozenset[str]] = set()
    own = {name: frozenset(a for a in found if not _is_of_no_use(a)) for name, found in addresses.items()}
    for shared, names in _group_names(own).items():
        if shared and len(names) > 1:
            # All addresses equal, not one: every machine with Docker has 172.17.0.1, every VirtualBox guest 10.0.2.15.
            same_machine.add(frozenset(names))
            problems.append(
                Problem(
                    "duplicate_machine",
                    _some(names),
                    f"have the same addresses ({_some(sorted(shared))}): one machine under {len(names)} names",
                    "list a machine once, and put that name into several groups",
                )
            )
    for hostname, names in _group_names(hostnames).items():
        if len(names) > 1 and frozenset(names) not in same_machine:
            problems.append(
                Problem(
                    "duplicate_hostname",
                    _some(names),
                    f"are all called {hostname}, so their workers and log files would be mixed up",
                    "give each machine its own host name (hostnamectl set-hostname)",
                )
            )
    return problems


def check_releases(
    inventory: Inventory,
    running: Mapping[str, str],
    locked_version: str = "",
    own_locks: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Hosts whose current release holds another version of Airflow than the inventory wants.

    A change of the version needs more than new files: a dump, a migration of the database, an order of hosts. Another
    lock with the same version needs none of that. running: {host: version}; own_locks: {airflow_lock: its version}.
    """
    problems = []
    for name, version in running.items():
        host = inventory.hosts[name]
        wanted = str(host.get("airflow_version", locked_version))
        held = (own_locks or {}).get(str(host.get("airflow_lock", "")), "")
        if held and held != wanted:
            problems.append(
                Problem(
                    "bad_version",
                    name,
                    f"airflow_lock holds Airflow {held}, but airflow_version is {wanted or 'not set'}",
                    f'set airflow_version: "{held}", or give the right airflow_lock',
                )
            )
        elif version and wanted and wanted != version:
            problems.append(
                Problem(
                    "release_differs",
                    name,
                    f"the current release is Airflow {version}, and the inventory wants {wanted}",
                    f"set airflow_version to {version}"
                    + (
                        "; to go back to an earlier release, run onprem.airflow.rollback"
                        if _numbers(wanted) < _numbers(version)
                        else f" for now, or take all hosts to {wanted} with onprem.airflow.upgrade"
                    ),
                )
            )
    return problems


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


# --- the list --------------------------------------------------------------------------------------------------


def split_ignored(
    problems: Iterable[Problem], ignored: Mapping[str, Iterable[str]]
) -> tuple[list[Problem], list[Problem]]:
    """(problems that count, problems ignored). ignored: {host: codes}; what belongs to no single host needs any."""
    of_anyone = {code for codes in ignored.values() for code in codes}
    counted: list[Problem] = []
    left_out: list[Problem] = []
    for problem in problems:
        codes = set(ignored[problem.host]) if problem.host in ignored else of_anyone
        (left_out if problem.code in codes and problem.code != "bad_ignore" else counted).append(problem)
    return counted, left_out


def merge(problems: Iterable[Problem], all_hosts: Sequence[str]) -> list[Problem]:
    """One entry for what is wrong on several hosts in the same way."""
    merged: dict[tuple[str, str, str], list[str]] = {}
    for problem in problems:
        names = merged.setdefault((problem.code, problem.what, problem.fix), [])
        if problem.host not in names:
            names.append(problem.host)
    return [
        Problem(
            code,
            f"all {len(names)} hosts" if len(names) > 3 and set(names) == set(all_hosts) else _some(names),
            what,
            fix,
        )
        for (code, what, fix), names in merged.items()
    ]


def render(problems: Sequence[Problem], ignored: Sequence[Problem] = ()) -> str:
    """The list for a person; problems and ignored ones come merged."""
    lines = []
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines.append(f"Preflight found {count}:")
        for problem in problems:
            lines += ["", f"  {problem.host}: {problem.what} [{problem.code}]", f"      fix: {problem.fix}"]
        lines.append("")
    if ignored:
        lines.append("Ignored, because airflow_preflight_ignore says so:")
        lines += [f"  {problem.host}: {problem.what} [{problem.code}]" for problem in ignored]
        lines.append("")
    if problems:
        lines.append(f"{count[:1].upper()}{count[1:]}. Nothing was changed on any host.")
    return "\n".join(lines)


# --- small helpers ---------------------------------------------------------------------------------------------


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _group_by(hosts: Iterable[Host], key: Callable[[Host], Any]) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for host in hosts:
        found.setdefault(key(host), []).append(host.name)
    return found


def _group_names(values: Mapping[str, Any]) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for name, value in values.items():
        found.setdefault(value, []).append(name)
    return found


def _some(names: Sequence[str], limit: int = 5) -> str:
    """Names joined by commas, the rest counted."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _names(names: Sequence[str]) -> str:
    """All names joined by commas and an "and"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
