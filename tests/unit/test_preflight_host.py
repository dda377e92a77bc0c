# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight, the host's half: on invented texts of /proc, and on real sockets of this machine."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _preflight_host as checks
from ansible_collections.onprem.airflow.plugins.module_utils import _preflight_inventory as inventory

DEBIAN_13 = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\n# comment=1\nVERSION_ID="13"\n'
UBUNTU = 'PRETTY_NAME="Ubuntu 24.04"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n'
REQUIREMENTS = inventory.merged_requirements(None)


@pytest.mark.parametrize(
    ("os_release", "machine", "systemd", "codes"),
    [
        (DEBIAN_13, "x86_64", True, []),
        ("ID=debian\nVERSION_ID='12'\n", "x86_64", True, []),
        ("ID=debian\nVERSION_ID=11\n", "x86_64", True, ["unsupported_os"]),
        ("ID=debian\n", "x86_64", True, ["unsupported_os"]),  # testing has no version
        (UBUNTU, "x86_64", True, ["unsupported_os"]),
        ("", "x86_64", True, ["unsupported_os"]),
        (DEBIAN_13, "aarch64", True, ["unsupported_architecture"]),
        (DEBIAN_13, "x86_64", False, ["no_systemd"]),
    ],
)
def test_system(os_release: str, machine: str, systemd: bool, codes: list[str]) -> None:
    problems = checks.check_system(checks.parse_os_release(os_release), machine, systemd)
    assert [problem["code"] for problem in problems] == codes


def test_the_name_of_a_foreign_system_is_told() -> None:
    (problem,) = checks.check_system(checks.parse_os_release(UBUNTU), "x86_64", True)
    assert "Ubuntu 24.04" in problem["what"]


@pytest.mark.parametrize(
    ("said", "fine"),
    [
        ("Python 3.11.2\n", True),
        ("Python 3.13.5\n", True),
        ("Python 3.12.3\n", False),
        ("Python 3.9.2", False),
        ("", False),
    ],
)
def test_python(said: str, fine: bool) -> None:
    problems = checks.check_python("/usr/bin/python3", checks.parse_python_version(said))
    assert [problem["code"] for problem in problems] == ([] if fine else ["unsupported_python"])


@pytest.mark.parametrize(
    ("memory_mb", "services", "words"),
    [
        (512, ["postgresql"], ""),
        (1000, ["postgresql", "rabbitmq"], "1000 MB of memory; PostgreSQL and RabbitMQ need 1024 MB"),
        (767, ["airflow_worker"], "the Airflow worker needs 768 MB"),
        (3900, list(inventory.SERVICES), ""),
        (3000, list(inventory.SERVICES), "need 3328 MB"),
    ],
)
def test_memory(memory_mb: int, services: list[str], words: str) -> None:
    problems = checks.check_memory(memory_mb, services, REQUIREMENTS)
    assert bool(problems) == bool(words)
    assert not problems or words in problems[0]["what"]


def test_proc_texts() -> None:
    assert checks.parse_memory_mb("MemTotal:        2014036 kB\nMemFree: 1 kB\n") == 1966
    assert checks.parse_memory_mb("") == 0
    assert checks.count_cpus("processor\t: 0\nmodel name\t: x\nprocessor\t: 1\n") == 2
    assert checks.count_cpus("") == 1


PATHS = {
    "postgresql": "/var/lib/postgresql",
    "rabbitmq": "/var/lib/rabbitmq",
    "airflow_master": "/opt/airflow",
    "airflow_worker": "/opt/airflow",
}


@pytest.mark.parametrize(
    ("services", "installed", "devices", "needed"),
    [
        (["postgresql", "rabbitmq"], set(), (1, 1, 1), {1: 4096}),
        (["postgresql", "airflow_master"], set(), (1, 1, 2), {1: 2048, 2: 3072}),
        (["airflow_master", "airflow_worker"], set(), (1, 1, 2), {2: 6144}),
        (["postgresql", "rabbitmq"], {"postgresql", "rabbitmq"}, (1, 1, 1), {1: 512 + 2048}),
        ([], set(), (1, 1, 1), {}),
    ],
)
def test_disk_needs(services: list[str], installed: set[str], devices: tuple[int, ...], needed: dict[int, int]) -> None:
    device_of = dict(zip(("/var/lib/postgresql", "/var/lib/rabbitmq", "/opt/airflow"), devices, strict=True))
    needs = checks.disk_needs(services, REQUIREMENTS, PATHS, installed, device_of)
    assert {device: total for device, (total, _names) in needs.items()} == needed


def test_disk_names_the_place() -> None:
    needs = {1: (4096, ["postgresql", "rabbitmq"]), 2: (3072, ["airflow_worker"])}
    (problem,) = checks.check_disk(needs, {1: 4095, 2: 3072}, {1: "/var/lib", 2: "/opt"})
    assert problem["code"] == "too_little_disk"
    assert problem["what"] == "4095 MB are free at /var/lib; PostgreSQL and RabbitMQ need 4096 MB"


# --- ports -----------------------------------------------------------------------------------------------------

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   110        0 4711 1 0000000013341162 100 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000013341163 100 0
   2: 020200C0:B32A 507100CB:1538 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000963584 20 4
"""


def test_only_listening_sockets_count() -> None:
    assert checks.parse_listeners(TCP) == {5432: {"4711"}, 8080: {"4712"}}
    assert checks.parse_listeners("") == {}


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        ("0::/system.slice/system-postgresql.slice/postgresql@17-main.service\n", "postgresql@17-main.service"),
        (
            "9:name=systemd:/system.slice/airflow-worker.service\n4:memory:/other.service\n0::/\n",
            "airflow-worker.service",
        ),
        ("1:name=systemd:/libpod_parent/libpod-12/system.slice/epmd.service\n", "epmd.service"),
        ("0::/machine.slice/libpod-ab.scope/system.slice/rabbitmq-server.service\n", "rabbitmq-server.service"),
        ("0::/init.scope\n", "init.scope"),
        ("9:name=systemd:/\n0::/\n", ""),
        ("", ""),
    ],
)
def test_unit_of_a_process(text: str, unit: str) -> None:
    assert checks.unit_of(text) == unit


def owner(command: str, unit: str = "", pid: str = "99", command_line: str = "") -> dict[str, str]:
    return {"command": command, "unit": unit, "pid": pid, "command_line": command_line}


@pytest.mark.parametrize(
    ("service", "port", "holder", "ours"),
    [
        ("postgresql", 5432, owner("postgres", "postgresql@17-main.service"), True),
        ("postgresql", 5432, owner("postgres"), True),
        ("postgresql", 5432, owner("postgres", "gitlab-postgres.service"), False),
        ("postgresql", 5432, owner("docker-proxy", "docker.service"), False),
        ("rabbitmq", 5672, owner("beam.smp", "rabbitmq-server.service"), True),
        ("rabbitmq", 5672, owner("beam.smp"), True),
        ("rabbitmq", 25672, owner("beam.smp", "ejabberd.service"), False),
        ("rabbitmq", 4369, owner("epmd", "ejabberd.service"), True),
        ("rabbitmq", 4369, owner("systemd", "init.scope", "1"), True),
        ("rabbitmq", 15672, owner("systemd", "init.scope", "1"), False),
        ("airflow_master", 8080, owner("airflow", "airflow-api-server.service"), True),
        ("airflow_master", 8080, owner("airflow", "airflow-webserver.service"), False),
        ("airflow_master", 8080, owner("python3", "", "99", "/opt/airflow/current/bin/python x"), True),
        ("airflow_master", 8080, owner("java", "tomcat10.service"), False),
        ("airflow_worker", 8793, owner("python3", "user.scope"), False),
        ("airflow_worker", 8793, {}, False),
    ],
)
def test_who_may_hold_a_port(service: str, port: int, holder: dict[str, str], ours: bool) -> None:
    problems = checks.check_ports([{"port": port, "service": service}], {port: {"1"}}, {"1": holder} if holder else {})
    assert [problem["code"] for problem in problems] == ([] if ours else ["port_taken"])


def test_the_process_that_holds_a_port_is_named() -> None:
    wanted = [{"port": 5432, "service": "postgresql"}, {"port": 8080, "service": "airflow_master"}]
    listeners = {5432: {"1"}}
    (problem,) = checks.check_ports(wanted, listeners, {"1": owner("nginx", "nginx.service", "812")})
    assert problem["what"] == "port 5432, which PostgreSQL needs, is taken by nginx (pid 812, unit nginx.service)"
    (problem,) = checks.check_ports(wanted, listeners, {})
    assert "could not be identified" in problem["what"]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_real_listening_socket_is_traced_to_its_process(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    inodes = checks.parse_listeners(Path("/proc/net/tcp").read_text())[port]
    (found,) = checks.listen_owners(inodes).values()
    assert found["pid"] == str(os.getpid())
    assert found["command"] == Path("/proc/self/comm").read_text().strip()
    assert checks.listen_owners(set()) == {}


# --- peers -----------------------------------------------------------------------------------------------------


def peer(host: str, port: int, must_listen: bool = False) -> dict[str, Any]:
    return {
        "host": host,
        "port": port,
        "need": "the message broker",
        "variable": "correct it",
        "must_listen": must_listen,
    }


def test_peers_on_this_machine(listener: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        closed = closing.getsockname()[1]
    given = [peer("127.0.0.1", listener.getsockname()[1]), peer("127.0.0.1", closed), peer("no.such.invalid", 1)]
    given.append(peer("localhost", 0))
    assert checks.probe_peers(given, 1, 10) == ["open", "refused", "unresolved", "resolved"]


def test_many_peers_that_do_not_answer_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "probe_peer", lambda host, port, timeout: time.sleep(timeout) or "open")
    started = time.monotonic()
    results = checks.probe_peers([peer(f"w{number}", 8793) for number in range(500)], 0.5, 0.8, width=10)
    assert time.monotonic() - started < 5
    assert results.count("unreachable") >= 480


def test_peers_are_asked_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "probe_peer", lambda host, port, timeout: time.sleep(0.2) or "open")
    started = time.monotonic()
    assert checks.probe_peers([peer(f"w{number}", 8793) for number in range(128)], 3, 30) == ["open"] * 128
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("result", "must_listen", "code", "words"),
    [
        ("open", True, "", ""),
        ("refused", False, "", ""),
        ("resolved", False, "", ""),
        ("refused", True, "peer_refused", "nothing listens on mq1 port 5672 (the message broker)"),
        ("unresolved", False, "peer_unresolved", "the name mq1 (the message broker) does not resolve"),
        ("unreachable", False, "peer_unreachable", "mq1 port 5672 (the message broker) cannot be reached"),
    ],
)
def test_what_is_said_about_a_peer(result: str, must_listen: bool, code: str, words: str) -> None:
    problems = checks.check_peers([peer("mq1", 5672, must_listen)], [result], 3)
    assert [problem["code"] for problem in problems] == ([code] if code else [])
    assert not problems or words in problems[0]["what"]
    assert {problem["code"] for problem in problems} <= set(inventory.CODES)


def test_many_peers_that_fail_alike_are_one_problem() -> None:
    given = [peer(f"w{number}", 8793) for number in range(500)] + [peer("db1", 5432)]
    problems = checks.check_peers(given, ["unreachable"] * 501, 3)
    assert len(problems) == 2
    assert "w0, w1, w2, w3, w4 and 495 more port 8793 (500 hosts) cannot be reached" in problems[0]["what"]
