# Private to the collection onprem.airflow: may change without notice.
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says about itself, and what is wrong with it. Pure, except for probe_peers() and listen_owners().

The syntax stays that of Python 3.8: a host with an old system must be told that its system is too old, and not
fail with a syntax error.
"""

from __future__ import annotations

import os
import queue
import re
import socket
import threading
import time

SUPPORTED_DEBIAN = ("12", "13")
SUPPORTED_PYTHON = ("3.11", "3.13")

SERVICE_LABELS = {
    "postgresql": "PostgreSQL",
    "rabbitmq": "RabbitMQ",
    "airflow_master": "the Airflow master",
    "airflow_worker": "the Airflow worker",
}

# Who may listen on the ports of a service: its own systemd units (whole names, or beginnings that end in "@").
AIRFLOW_UNITS = (
    "airflow-api-server.service",
    "airflow-scheduler.service",
    "airflow-dag-processor.service",
    "airflow-triggerer.service",
    "airflow-worker.service",
)
OWN_UNITS = {
    "postgresql": ("postgresql@",),
    "rabbitmq": ("rabbitmq-server.service", "epmd.service", "epmd.socket"),
    "airflow_master": AIRFLOW_UNITS,
    "airflow_worker": AIRFLOW_UNITS,
}
# Only consulted when the control group names no unit (containers without systemd, foreign hierarchies).
OWN_COMMANDS = {
    "postgresql": ("postgres",),
    "rabbitmq": ("beam.smp", "epmd"),
    "airflow_master": (),
    "airflow_worker": (),
}
EPMD_PORT = 4369
TCP_LISTEN = "0A"
MANY = 5  # peers that failed alike and are still told one by one


def problem(code: str, what: str, fix: str) -> dict[str, str]:
    """One problem of this host; the action plugin adds the host's name."""
    return {"code": code, "what": what, "fix": fix}


def labels(services: list[str]) -> str:
    """The services in words: "PostgreSQL and RabbitMQ"."""
    words = [SERVICE_LABELS.get(service, service) for service in services]
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]


# --- operating system and Python -------------------------------------------------------------------------------


def parse_os_release(text: str) -> dict[str, str]:
    """The content of /etc/os-release as a dictionary, quotes removed."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            values[key] = value.strip().strip("\"'")
    return values


def check_system(os_release: dict[str, str], machine: str, has_systemd: bool) -> list[dict[str, str]]:
    """Distribution, architecture, and systemd as the first process."""
    problems = []
    if os_release.get("ID") != "debian" or os_release.get("VERSION_ID") not in SUPPORTED_DEBIAN:
        name = os_release.get("PRETTY_NAME") or os_release.get("ID") or "an unknown system"
        problems.append(
            problem(
                "unsupported_os",
                f"the operating system is {name}; supported are Debian 12 and Debian 13",
                "use a host with Debian 12 or 13, or take this one out of the inventory",
            )
        )
    if machine != "x86_64":
        problems.append(
            problem(
                "unsupported_architecture",
                f"the machine is {machine}; supported is x86_64 (amd64)",
                "use an x86_64 machine, or take this one out of the inventory",
            )
        )
    if not has_systemd:
        problems.append(
            problem(
                "no_systemd",
                "systemd is not the first process (/run/systemd/system is missing), so no service can be started",
                "use a machine, or a container, that boots with systemd",
            )
        )
    return problems


def parse_python_version(text: str) -> str:
    """ "Python 3.11.2" -> "3.11"; empty when there is no such version."""
    match = re.search(r"Python (\d+\.\d+)", text)
    return match.group(1) if match else ""


def check_python(path: str, version: str) -> list[dict[str, str]]:
    """The Python that virtual environments are made from; version as "3.11", "" when it is absent."""
    if version in SUPPORTED_PYTHON:
        return []
    found = f"{path} is Python {version}" if version else f"{path} is missing or does not run"
    return [
        problem(
            "unsupported_python",
            f"{found}; the collection has lock files for {' and '.join(SUPPORTED_PYTHON)}",
            "install Debian's own python3 (apt-get install --reinstall python3-minimal) and leave airflow_python alone,"
            " or give a lock file for this Python in airflow_lock",
        )
    ]


# --- memory and disk -------------------------------------------------------------------------------------------


def parse_memory_mb(meminfo: str) -> int:
    """MemTotal of /proc/meminfo in MB; 0 when it is not there."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(match.group(1)) // 1024 if match else 0


def count_cpus(cpuinfo: str) -> int:
    """Processors of /proc/cpuinfo, at least 1."""
    return max(1, len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)))


def check_memory(memory_mb: int, services: list[str], requirements: dict[str, dict[str, int]]) -> list[dict[str, str]]:
    """Total memory against the sum of what the services placed here need."""
    needed = sum(int(requirements.get(service, {}).get("memory_mb", 0)) for service in services)
    if memory_mb >= needed:
        return []
    return [
        problem(
            "too_little_memory",
            f"the host has {memory_mb} MB of memory; {labels(services)} need {needed} MB"
            if len(services) > 1
            else f"the host has {memory_mb} MB of memory; {labels(services)} needs {needed} MB",
            "give the host more memory, or move a service to another host"
            " (the amounts are in airflow_preflight_requirements)",
        )
    ]


def disk_needs(
    services: list[str],
    requirements: dict[str, dict[str, int]],
    paths: dict[str, str],
    installed: set[str],
    device_of: dict[str, int],
) -> dict[int, tuple[int, list[str]]]:
    """Free space needed on each file system: {device: (MB, services)}.

    What is installed already has its place; a quarter stays needed for the next release. RabbitMQ always needs all
    of it, because below disk_free_limit the broker blocks every publisher.
    """
    needs: dict[int, tuple[int, list[str]]] = {}
    for service in services:
        amount = int(requirements.get(service, {}).get("disk_mb", 0))
        if service in installed and service != "rabbitmq":
            amount //= 4
        device = device_of[paths[service]]
        total, names = needs.get(device, (0, []))
        needs[device] = (total + amount, [*names, service])
    return needs


def check_disk(
    needs: dict[int, tuple[int, list[str]]], free_mb: dict[int, int], place_of: dict[int, str]
) -> list[dict[str, str]]:
    """Free space of each file system against what the services on it need."""
    problems = []
    for device, (needed, services) in needs.items():
        if free_mb[device] < needed:
            verb = "need" if len(services) > 1 else "needs"
            problems.append(
                problem(
                    "too_little_disk",
                    f"{free_mb[device]} MB are free at {place_of[device]}; {labels(services)} {verb} {needed} MB",
                    "free or add disk space there, or move a service to another host"
                    " (the amounts are in airflow_preflight_requirements)",
                )
            )
    return problems


# --- ports -----------------------------------------------------------------------------------------------------


def parse_listeners(text: str) -> dict[int, set[str]]:
    """Listening sockets of /proc/net/tcp or tcp6: {port: inodes}."""
    listeners: dict[int, set[str]] = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == TCP_LISTEN:
            port = int(fields[1].rpartition(":")[2], 16)
            listeners.setdefault(port, set()).add(fields[9])
    return listeners


def unit_of(cgroup: str) -> str:
    """The systemd unit (service, socket or scope) in the text of /proc/PID/cgroup; "" when it names none.

    Reads the unified hierarchy (0::/...) and the version 1 hierarchy of systemd (N:name=systemd:/...). A service
    of a container shows below a path of the container, so the last unit of the path counts.
    """
    found = ""
    for line in cgroup.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3 or parts[1] not in ("", "name=systemd"):
            continue
        for part in reversed(parts[2].split("/")):
            if part.endswith((".service", ".socket")):
                return part
            if part.endswith(".scope") and not found:
                found = part
    return found


def is_ours(service: str, port: int, owner: dict[str, str]) -> bool:
    """Whether the process that holds a port belongs to the service whose port it is."""
    unit, command = owner.get("unit", ""), owner.get("command", "")
    if port == EPMD_PORT and (command == "epmd" or owner.get("pid") == "1"):
        # One epmd serves every Erlang program of a host, and epmd.socket makes systemd itself hold the port.
        return True
    if unit.endswith(".service"):
        return any(unit == own or (own.endswith("@") and unit.startswith(own)) for own in OWN_UNITS[service])
    if command in OWN_COMMANDS[service]:
        return True
    return service.startswith("airflow_") and "/opt/airflow/" in owner.get("command_line", "")


def check_ports(
    wanted: list[dict], listeners: dict[int, set[str]], owners: dict[str, dict[str, str]]
) -> list[dict[str, str]]:
    """Ports of services placed here that something else listens on.

    wanted: [{port, service}]; owners: {inode: {pid, command, unit, command_line}}.
    """
    problems = []
    for entry in wanted:
        port, service = int(entry["port"]), entry["service"]
        found = [owners.get(inode, {}) for inode in sorted(listeners.get(port, ()))]
        foreign = [owner for owner in found if not is_ours(service, port, owner)]
        if not foreign:
            continue
        owner = foreign[0]
        if owner:
            unit = f", unit {owner['unit']}" if owner.get("unit") else ""
            who = f"{owner.get('command') or 'a process'} (pid {owner.get('pid')}{unit})"
        else:
            who = "a process that could not be identified"
        problems.append(
            problem(
                "port_taken",
                f"port {port}, which {labels([service])} needs, is taken by {who}",
                "stop and disable that program or move it to another port, or place the service on another host",
            )
        )
    return problems


def listen_owners(inodes: set[str], proc: str = "/proc") -> dict[str, dict[str, str]]:
    """The processes that hold these sockets: {inode: {pid, command, unit, command_line}}, the oldest of several."""
    owners: dict[str, dict[str, str]] = {}
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    if not wanted:
        return owners
    for pid in sorted((name for name in os.listdir(proc) if name.isdigit()), key=int):
        try:
            descriptors = os.listdir(f"{proc}/{pid}/fd")
        except OSError:  # the process has ended, or is hidden from us
            continue
        for descriptor in descriptors:
            try:
                inode = wanted.get(os.readlink(f"{proc}/{pid}/fd/{descriptor}"))
            except OSError:  # closed in the meantime
                continue
            if inode is not None and inode not in owners:
                owners[inode] = {
                    "pid": pid,
                    "command": read_text(f"{proc}/{pid}/comm").strip(),
                    "unit": unit_of(read_text(f"{proc}/{pid}/cgroup")),
                    "command_line": read_text(f"{proc}/{pid}/cmdline").replace("\0", " "),
                }
        if len(owners) == len(wanted):
            break
    return owners


def read_text(path: str) -> str:
    """The text of a file, "" when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


# --- peers -----------------------------------------------------------------------------------------------------


def probe_peer(host: str, port: int, timeout: float) -> str:
    """One of unresolved, resolved (no port asked), open, refused, unreachable."""
    try:
        addresses = socket.getaddrinfo(host, port or None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return "unresolved"
    if not port:
        return "resolved"
    for family, kind, protocol, _name, address in addresses:
        with socket.socket(family, kind, protocol) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect(address)
            except ConnectionRefusedError:
                return "refused"
            except OSError:
                continue
            return "open"
    return "unreachable"


def probe_peers(peers: list[dict], timeout: float, total: float, width: int = 64) -> list[str]:
    """probe_peer() for all peers at once; "unreachable" for those that were not done after total seconds."""
    results = ["unreachable"] * len(peers)
    todo: queue.SimpleQueue = queue.SimpleQueue()
    for index, peer in enumerate(peers):
        todo.put((index, peer))
    deadline = time.monotonic() + total

    def work() -> None:
        while time.monotonic() < deadline:
            try:
                index, peer = todo.get_nowait()
            except queue.Empty:
                return
            results[index] = probe_peer(peer["host"], int(peer.get("port") or 0), timeout)

    # Daemon threads, because a resolver that hangs must not keep the module from ending.
    threads = [threading.Thread(target=work, daemon=True) for dummy in range(min(width, len(peers)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return list(results)


def check_peers(peers: list[dict], results: list[str], timeout: float) -> list[dict[str, str]]:
    """Peers that cannot be resolved or reached; a refused connection is fine unless the peer is not ours to install.

    Many failures of one kind (a master that reaches none of its workers) become one problem.
    """
    alike: dict[tuple[str, int], list[dict]] = {}
    for index, peer in enumerate(peers):
        result = results[index]
        if result in ("unresolved", "unreachable") or (result == "refused" and peer.get("must_listen")):
            alike.setdefault((result, int(peer.get("port") or 0)), []).append(peer)
    problems = []
    for (result, port), failed in alike.items():
        if len(failed) > MANY:
            names = [peer["host"] for peer in failed]
            shown = f"{', '.join(names[:MANY])} and {len(names) - MANY} more"
            failed = [{"host": shown, "need": f"{len(names)} hosts", "variable": "correct their airflow_address"}]
        for peer in failed:
            problems.append(_peer_problem(result, peer, port, timeout))
    return problems


def _peer_problem(result: str, peer: dict, port: int, timeout: float) -> dict[str, str]:
    host, need, correct = peer["host"], peer["need"], peer["variable"]
    if result == "unresolved":
        return problem(
            "peer_unresolved",
            f"the name {host} ({need}) does not resolve here",
            f"add {host} to the DNS or to /etc/hosts of this host, or {correct}",
        )
    if result == "unreachable":
        return problem(
            "peer_unreachable",
            f"{host} port {port} ({need}) cannot be reached from here: no answer within {timeout:g} s",
            f"open TCP port {port} from this host to {host} (firewall, routing), or {correct}",
        )
    return problem(
        "peer_refused",
        f"nothing listens on {host} port {port} ({need}), and it is not in this inventory to be installed",
        f"start it, or {correct}",
    )
