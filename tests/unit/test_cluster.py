# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the filter `cluster` derives from an inventory, and that a playbook which imports ours gets it too."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

import yaml
from ansible_collections.onprem.airflow.plugins.filter.cluster import cluster

GROUPS = {"postgresql": ["db1"], "rabbitmq": ["mq1"], "airflow_master": ["m1"], "airflow_worker": ["w1", "m1"]}
HOSTVARS: dict[str, dict[str, t.Any]] = {
    "db1": {"airflow_address": "db1.example.com"},
    "mq1": {},
    "m1": {"ansible_facts": {"all_ipv4_addresses": ["192.0.2.3"], "all_ipv6_addresses": ["fe80::1", "2001:db8::3"]}},
    "w1": {},
}


def test_addresses_are_those_the_inventory_gives_or_its_names() -> None:
    found = cluster(GROUPS, HOSTVARS)
    assert (found["database_host"], found["broker_host"], found["api_host"]) == ("db1.example.com", "mq1", "m1")


def test_an_ipv6_address_stands_in_brackets_where_it_goes_into_a_url() -> None:
    hostvars = {"m1": {"airflow_address": "2001:db8::1"}}
    found = cluster({"airflow_master": ["m1"], "postgresql": ["m1"]}, hostvars)
    assert (found["api_host"], found["database_host"]) == ("[2001:db8::1]", "2001:db8::1")


def test_an_empty_group_gives_an_empty_address() -> None:
    assert cluster({}, {})["database_host"] == ""


def test_clients_are_masters_and_workers_once_each_without_link_local_addresses() -> None:
    found = cluster(GROUPS, HOSTVARS)
    assert found["client_ips"] == found["master_ips"] == ["192.0.2.3", "2001:db8::3"]
    assert found["unknown"] == ["w1"]


def test_connections_come_in_steps_so_that_one_more_worker_restarts_nothing() -> None:
    workers = [f"w{number}" for number in range(40)]
    hostvars = {name: {"airflow_worker_concurrency": 8} for name in workers} | {"m1": {}}
    few = cluster({"airflow_master": ["m1"], "airflow_worker": workers[:2]}, hostvars)["connections"]
    assert few == cluster({"airflow_master": ["m1"], "airflow_worker": workers[:30]}, hostvars)["connections"] == 500
    assert cluster({"airflow_master": ["m1"], "airflow_worker": workers}, hostvars)["connections"] == 1000


def test_workers_are_told_with_their_queues_and_names_and_every_queue_has_a_canary() -> None:
    hostvars: dict[str, dict[str, t.Any]] = {
        "w1": {
            "airflow_worker_queues": ["gpu", "default"],
            "airflow_address": "w1.example.com",
            "ansible_host": "192.0.2.1",
        },
        "w2": {"ansible_host": "w2"},
    }
    found = cluster({"airflow_worker": ["w1", "w2"]}, hostvars)
    worker = {"unit": "airflow-worker.service", "node": "celery"}
    assert found["workers"] == {
        "w1": {
            "queues": ["gpu", "default"],
            "names": ["w1", "w1.example.com", "192.0.2.1"],
            "services": [worker | {"queues": ["gpu", "default"]}],
        },
        "w2": {"queues": ["default"], "names": ["w2"], "services": [worker | {"queues": ["default"]}]},
    }
    assert found["canaries"] == {"onprem_airflow_canary_default": "default", "onprem_airflow_canary_gpu": "gpu"}


def test_a_host_may_have_several_services_and_counts_with_the_slots_and_queues_of_all() -> None:
    services = [{"queues": ["default"], "concurrency": 100}, {"name": "gpu", "queues": ["gpu"], "concurrency": 200}]
    found = cluster({"airflow_worker": ["w1"]}, {"w1": {"airflow_worker_services": services}})
    assert found["workers"]["w1"]["queues"] == ["default", "gpu"]
    assert found["workers"]["w1"]["services"][1] == {
        "unit": "airflow-worker@gpu.service",
        "node": "gpu",
        "queues": ["gpu"],
    }
    assert found["connections"] == 500
    services[1]["concurrency"] = 400
    assert cluster({"airflow_worker": ["w1"]}, {"w1": {"airflow_worker_services": services}})["connections"] == 1000


def test_a_worker_that_leaves_counts_no_more() -> None:
    second = {"airflow_worker_queues": ["gpu"], "ansible_facts": {"all_ipv4_addresses": ["192.0.2.2"]}}
    hostvars: dict[str, t.Any] = {"w1": {}, "w2": second}
    found = cluster({"airflow_worker": ["w1", "w2"]}, hostvars, ["w2"])
    assert list(found["workers"]) == ["w1"]
    assert found["client_ips"] == []
    assert list(found["canaries"].values()) == ["default"]


def test_the_batch_is_a_quarter_unless_the_inventory_says_otherwise() -> None:
    assert cluster({"airflow_worker": ["w1"]}, {"w1": {}})["batch"] == "25%"
    assert cluster({"airflow_worker": ["w1"]}, {"w1": {"airflow_batch": 3}})["batch"] == 3


def test_a_playbook_that_imports_site_has_the_derived_variables(tmp_path: Path, ansible_playbook) -> None:  # type: ignore[no-untyped-def]
    """Ansible reads variables beside the top playbook only, so ours cannot stand in group_vars beside site.yml."""
    (tmp_path / "mine.yml").write_text("- import_playbook: onprem.airflow.site\n")
    secrets = ("results_database_password", "broker_password", "api_secret_key", "admin_password")
    variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    here: dict[str, t.Any] = {"hosts": {"here": {}}}
    hosts = {
        "vars": variables | {f"airflow_{name}": "x" for name in secrets},
        "children": {"airflow_master": here, "airflow_worker": {}, "postgresql": here},
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"airflow_cluster": hosts}))
    # Only the tasks that always run, and not the preflight's verdict: that much is missing.
    only = ("--tags", "nothing", "--skip-tags", "preflight")
    ran = ansible_playbook("-i", tmp_path / "hosts.yml", tmp_path / "mine.yml", *only, json_output=False)
    assert ran.rc == 0, ran.output
