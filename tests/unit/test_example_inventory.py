# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory to copy: Ansible reads it, and it names no variable that does not exist."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager
from ansible_collections.onprem.airflow.plugins.module_utils import _secrets

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLE = CHECKOUT / "inventories" / "example"
VARIABLE_FILES = sorted(path for path in EXAMPLE.rglob("*.yml") if path.name != "hosts.yml")


@pytest.fixture(scope="module")
def variables() -> dict[str, dict[str, Any]]:
    """The variables of every host, as a playbook would see them."""
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(EXAMPLE)])
    manager = VariableManager(loader=loader, inventory=inventory)
    return {host.name: manager.get_vars(host=host) for host in inventory.get_hosts()}


def test_all_groups_have_hosts(variables: dict[str, dict[str, Any]]) -> None:
    groups = {group for values in variables.values() for group in values["group_names"]}
    assert groups == {"airflow_cluster", "postgresql", "rabbitmq", "airflow_master", "airflow_worker"}


def test_nothing_in_it_exists_for_real(variables: dict[str, dict[str, Any]]) -> None:
    documentation = ipaddress.ip_network("192.0.2.0/24")
    assert all(name.endswith(".example.com") for name in variables)
    addresses = [ipaddress.ip_address(values["ansible_host"]) for values in variables.values()]
    assert all(address in documentation for address in addresses) and len(set(addresses)) == len(addresses)


def test_one_worker_has_a_queue_of_its_own(variables: dict[str, dict[str, Any]]) -> None:
    queues = {name: values["airflow_worker_queues"] for name, values in variables.items() if "worker" in name}
    assert queues == {"worker1.example.com": ["default"], "worker2.example.com": ["default"]}
    assert variables["gpu1.example.com"]["airflow_worker_queues"] == ["gpu"]


def test_it_holds_no_secret(variables: dict[str, dict[str, Any]]) -> None:
    assert not {name for values in variables.values() for name in values} & set(_secrets.NAMES)
    assert not (EXAMPLE / _secrets.DEFAULT_FILE).exists()
    assert "onprem.airflow.secrets" in (EXAMPLE / "group_vars" / "all" / "airflow.yml").read_text()


def public_variables() -> dict[str, Any]:
    """Every public variable of the roles, with its specification."""
    found: dict[str, Any] = {}
    for path in CHECKOUT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            found |= entry["options"]
    return found


@pytest.mark.parametrize("path", VARIABLE_FILES, ids=lambda path: str(path.relative_to(EXAMPLE)))
def test_every_variable_exists_and_has_the_right_type(path: Path) -> None:
    """Those that are commented out too."""
    text = re.sub(r"^# (?=[a-z]+_[a-z_]+:|  - [a-z]+:|    [a-z]+:)", "", path.read_text(), flags=re.MULTILINE)
    values = yaml.safe_load(text)
    assert set(values) >= set(re.findall(r"^(?:# )?([a-z]+_[a-z_]+):", path.read_text(), flags=re.MULTILINE))
    known = public_variables()
    types = {"str": str, "path": str, "int": int, "list": list, "dict": dict, "bool": bool}
    for name, value in values.items():
        if name != "ansible_user":
            assert name in known, f"{name} is no variable of any role"
            assert isinstance(value, types[known[name]["type"]]), name


def test_ansible_reads_it_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").touch()
    command = [sys.executable, "-m", "ansible", "inventory", "-i", str(EXAMPLE), "--graph"]
    environment = {"ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"), "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and "gpu1.example.com" in ran.stdout
    assert not ran.stderr
