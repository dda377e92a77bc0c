# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight as a person runs it: real runs of the playbook, with hosts that are this machine."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_preflight_inventory import SECRETS

CHECKOUT = Path(__file__).resolve().parents[2]
PLAYBOOK = CHECKOUT / "playbooks" / "preflight.yml"
# Not of this machine, which may be anything, but of the inventory do these tests speak.
OF_THE_MACHINE = ["no_systemd", "unsupported_os", "unsupported_python", "too_little_memory", "too_little_disk"]

# What the roles read.
FACTS = ["memtotal_mb", "processor_vcpus", "distribution", "distribution_major_version"]
FACTS += ["all_ipv4_addresses", "all_ipv6_addresses", "default_ipv4", "hostname", "fqdn", "machine_id", "python"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def write_inventory(folder: Path, groups: dict[str, dict[str, Any]], **variables: Any) -> Path:
    """An inventory with these groups of hosts below airflow_cluster; every host is this machine."""
    shared = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "ansible_become": False,
        "airflow_preflight_ignore": OF_THE_MACHINE,
        "airflow_api_port": free_port(),
        **SECRETS,
        **variables,
    }
    children = {group: {"hosts": hosts} for group, hosts in groups.items()}
    # Passwords hold characters that a template would take for its own.
    content = {"all": {"vars": shared, "children": {"airflow_cluster": {"children": children}}}}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    return path


def one_host(folder: Path, **variables: Any) -> Path:
    host: dict[str, Any] = {"localhost": {}}
    groups = dict.fromkeys(("postgresql", "rabbitmq", "airflow_master", "airflow_worker"), host)
    database = free_port()
    ports = {"airflow_database_port": database, "postgresql_port": database, "airflow_broker_port": free_port()}
    return write_inventory(folder, groups, **{**ports, **variables})


def problems(output: str) -> dict[str, list[str]]:
    """The printed list: {code: ["host: what", ...]}."""
    found: dict[str, list[str]] = {}
    for line, code in re.findall(r"^  (\S.*) \[(\w+)\]\n      fix: \S", output, re.MULTILINE):
        found.setdefault(code, []).append(line)
    return found


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A playbook that goes on after the preflight, as site.yml does."""
    play = [
        {"name": "Before", "ansible.builtin.import_playbook": str(PLAYBOOK)},
        {
            "name": "After",
            "hosts": "airflow_cluster",
            "gather_facts": False,
            "tasks": [
                {
                    "name": "Facts",
                    "ansible.builtin.debug": {"msg": "{{ names | map('extract', ansible_facts) }}"},
                    "vars": {"names": FACTS},
                    "tags": ["facts"],
                },
                {
                    "name": "Change",
                    "ansible.builtin.file": {"path": str(tmp_path / "changed"), "state": "touch", "mode": "0600"},
                },
            ],
        },
    ]
    path = tmp_path / "site.yml"
    path.write_text(yaml.safe_dump(play))
    return path


@pytest.mark.parametrize("arguments", [(), ("--check",), ("--tags", "facts")], ids=["run", "check", "tags"])
def test_nothing_wrong(
    tmp_path: Path, site: Path, ansible_playbook: Callable[..., Any], arguments: tuple[str, ...]
) -> None:
    ran = ansible_playbook("-i", one_host(tmp_path), site, *arguments)
    assert ran.rc == 0, ran.output
    assert (
        "found nothing wrong; 1 hosts" in ran.tasks["Preflight | Report everything that is wrong"]["localhost"]["msg"]
    )
    facts = ran.tasks["Facts"]["localhost"]["msg"]
    assert facts[0] == int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1)) // 1024  # type: ignore[union-attr]
    assert facts[1] == os.cpu_count()
    assert (tmp_path / "changed").exists() == (arguments == ())


def test_everything_wrong_is_one_list_and_nothing_goes_on(
    tmp_path: Path, site: Path, ansible_playbook: Callable[..., Any]
) -> None:
    silent = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": free_port()}
    groups: dict[str, dict[str, Any]] = {
        "postgresql": {"db1": None, "db2": {"airflow_address": "db1"}},
        "airflow_worker": {
            "worker1": {"ansible_become": True, "ansible_become_user": "nobody", "ansible_become_exe": "/nowhere/sudo"},
            "worker2": silent,
            "worker3": {"ansible_python_interpreter": "/nowhere/python3"},
            "worker4": {"airflow_worker_queues": [], "airflow_address": "{{ nowhere }}"},
        },
    }
    hosts = write_inventory(
        tmp_path,
        groups,
        airflow_fernet_key="",
        airflow_broker_password="changeme",
        airflow_version=3.3,
        airflow_dags_source="/nowhere/dags",
    )
    ran = ansible_playbook("-i", hosts, site, json_output=False)
    assert ran.rc == 2, ran.output
    assert not (tmp_path / "changed").exists()
    assert "Facts" not in ran.output
    assert "Nothing was changed on any host." in ran.output
    found = problems(ran.output)
    expected = {
        "several_databases": "inventory: the group postgresql has 2 hosts",
        "no_broker": "inventory: there is no RabbitMQ",
        "no_master": "inventory: the group airflow_master",
        "duplicate_address": "db1, db2: have the same airflow_address db1",
        "duplicate_machine": "db1, db2, worker4: have the same addresses",
        "secret_weak": "worker1, worker2, worker3, worker4: airflow_broker_password is weak: shorter than 16",
        "bad_worker_queues": "worker4: airflow_worker_queues",
        "bad_version": "all 6 hosts: airflow_version is 3.3",
        "missing_file": "all 6 hosts: airflow_dags_source is /nowhere/dags",
        "bad_template": "worker4: airflow_address cannot be evaluated",
        "unreachable": "worker2: cannot be reached",
        "peer_unresolved": "worker4: the name db1 (the database of results) does not resolve here",
    }
    for code, words in expected.items():
        assert any(line.startswith(words) for line in found[code]), (code, ran.output)
    assert {line.split(":")[0] for line in found["cannot_run"]} == {"worker1", "worker3"}
    assert set(found) == {*expected, "cannot_run"}


@pytest.mark.parametrize("groups", [{}, {"airflow_cluster": {"hosts": {}}}, {"postgresql": {"hosts": {"db1": None}}}])
def test_no_cluster_is_told_and_not_skipped(
    tmp_path: Path, ansible_playbook: Callable[..., Any], groups: dict[str, Any]
) -> None:
    hosts = tmp_path / "hosts.yml"
    hosts.write_text(yaml.safe_dump({"all": {"hosts": {"other": None}, "children": groups}}))
    ran = ansible_playbook("-i", hosts, PLAYBOOK, json_output=False)
    assert ran.rc == 2, ran.output
    assert "the group airflow_cluster is missing or has no hosts" in ran.output
    assert list(problems(ran.output)) == ["no_cluster"]


def test_a_taken_port_is_traced_to_its_process(tmp_path: Path, ansible_playbook: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ran = ansible_playbook(
            "-i", one_host(tmp_path, airflow_database_port=port, postgresql_port=port), PLAYBOOK, json_output=False
        )
    assert ran.rc == 2, ran.output
    (line,) = problems(ran.output)["port_taken"]
    assert f"port {port}, which PostgreSQL needs, is taken by" in line and f"(pid {os.getpid()}" in line


def test_a_service_elsewhere_must_run(tmp_path: Path, ansible_playbook: Callable[..., Any]) -> None:
    port = free_port()
    groups: dict[str, dict[str, Any]] = {"rabbitmq": {"localhost": None}, "airflow_master": {"localhost": None}}
    hosts = write_inventory(tmp_path, groups, airflow_database_host="127.0.0.1", airflow_database_port=port)
    ran = ansible_playbook("-i", hosts, PLAYBOOK, json_output=False)
    assert ran.rc == 2, ran.output
    (line,) = problems(ran.output)["peer_refused"]
    assert f"nothing listens on 127.0.0.1 port {port} (the metadata database)" in line


def test_limit_checks_few_hosts_and_knows_all(tmp_path: Path, ansible_playbook: Callable[..., Any]) -> None:
    groups: dict[str, dict[str, Any]] = {
        "postgresql": {"db1": {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": free_port()}},
        "rabbitmq": {"mq1": None},
        "airflow_master": {"master1": None},
        "airflow_worker": {"worker1": None},
    }
    ran = ansible_playbook("-i", write_inventory(tmp_path, groups), PLAYBOOK, "--limit", "worker1", json_output=False)
    found = problems(ran.output)
    assert ran.rc == 2 and list(found) == ["peer_unresolved"], ran.output
    assert {line.split()[3] for line in found["peer_unresolved"]} == {"db1", "mq1", "master1"}
    assert all(line.startswith("worker1:") for line in found["peer_unresolved"])


def test_the_verdict_can_be_skipped_but_not_the_facts(
    tmp_path: Path, site: Path, ansible_playbook: Callable[..., Any]
) -> None:
    hosts = one_host(tmp_path, airflow_fernet_key="")
    ran = ansible_playbook("-i", hosts, site, "--skip-tags", "preflight")
    assert ran.rc == 0, ran.output
    assert ran.tasks["Facts"]["localhost"]["msg"][2]


def test_no_secret_is_ever_shown(tmp_path: Path, ansible_playbook: Callable[..., Any]) -> None:
    weak = {
        "airflow_broker_password": "Xk7pQ",
        "airflow_fernet_key": "nöt-a-Fernet-key",
        "airflow_jwt_secret": "$HOME-5iLb",
    }
    ran = ansible_playbook("-i", one_host(tmp_path, **weak), PLAYBOOK, "-vvv", json_output=False)
    assert ran.rc == 2 and len(problems(ran.output)["secret_weak"]) == 3, ran.output
    shown = [name for name, value in (SECRETS | weak).items() if value in ran.output]
    assert shown == []


def test_a_misspelt_variable_with_the_collections_own_options(
    tmp_path: Path, ansible_playbook: Callable[..., Any]
) -> None:
    collection = tmp_path / "collections" / "ansible_collections" / "onprem" / "airflow"
    for folder in ("action", "modules", "module_utils"):
        shutil.copytree(CHECKOUT / "plugins" / folder, collection / "plugins" / folder)
    for role, option in (("airflow", "airflow_database_host"), ("rabbitmq", "rabbitmq_settings")):
        meta = collection / "roles" / role / "meta"
        meta.mkdir(parents=True)
        specification = {"argument_specs": {"main": {"options": {option: {"type": "str", "description": "x"}}}}}
        (meta / "argument_specs.yml").write_text(yaml.safe_dump(specification))
    hosts = one_host(
        tmp_path,
        airflow_databse_host="x",
        rabbitmq_settings={},
        airflow_preflight_known_variables=[
            *SECRETS,
            "airflow_api_port",
            "postgresql_port",
            "airflow_database_port",
            "airflow_broker_port",
        ],
    )
    ran = ansible_playbook(
        "-i", hosts, PLAYBOOK, json_output=False, ANSIBLE_COLLECTIONS_PATH=str(tmp_path / "collections")
    )
    assert ran.rc == 2, ran.output
    found = problems(ran.output)
    assert found == {
        "unknown_variable": ["localhost: the variable airflow_databse_host is unknown, so it would do nothing"]
    }
    assert "did you mean airflow_database_host?" in ran.output


def test_a_secret_that_no_vault_opens(tmp_path: Path, ansible_playbook: Callable[..., Any]) -> None:
    hosts = one_host(tmp_path, airflow_admin_password="{{ a_vault_nobody_has }}")
    ran = ansible_playbook("-i", hosts, PLAYBOOK, json_output=False)
    assert ran.rc == 2, ran.output
    assert problems(ran.output) == {
        "bad_template": ["localhost: airflow_admin_password cannot be evaluated: its template or vault fails"]
    }
