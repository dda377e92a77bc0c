# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker services of a host: what airflow_worker_services may say, and what becomes of it."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.airflow.plugins.filter.systemd_units import systemd_units
from ansible_collections.onprem.airflow.plugins.filter.worker_services import worker_services
from ansible_collections.onprem.airflow.plugins.filter.worker_units import worker_units
from ansible_collections.onprem.airflow.plugins.module_utils._workers import expand, mistakes, node_of

TWO: list[dict[str, t.Any]] = [{}, {"name": "gpu", "queues": ["gpu", "gpu"], "concurrency": "1"}]


def test_a_service_without_a_name_is_the_one_that_there_always_was() -> None:
    (service,) = expand([{}], ["default"], 4, 8793)
    assert (service["unit"], service["node"], service["log_port"]) == ("airflow-worker.service", "celery", 8793)
    assert (service["queues"], service["concurrency"]) == (["default"], 4)


def test_further_services_have_units_nodes_and_log_ports_of_their_own() -> None:
    found = expand([*TWO, {"name": "big", "log_port": 9000}, {"name": "low"}], ["default"], 4, 8793)
    assert [service["unit"] for service in found[1:]] == [
        f"airflow-worker@{name}.service" for name in ("gpu", "big", "low")
    ]
    assert [service["log_port"] for service in found] == [8793, 8801, 9000, 8803]
    assert found[1]["check"] == {"unit": "airflow-worker@gpu.service", "node": "gpu", "queues": ["gpu"]}
    assert [node_of(service["unit"]) for service in found] == ["celery", "gpu", "big", "low"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "not a list of at least one"),
        ("gpu", "not a list"),
        (["gpu"], "no dictionary"),
        ([{"queue": ["gpu"]}], "unknown key queue"),
        ([{"name": "g p"}], "may hold only letters"),
        ([{"name": "../x"}], "may hold only letters"),
        ([{"queues": "gpu"}], "no list of queues"),
        ([{}, {}], "name (none) to several"),
        ([{"name": "a"}, {"name": "a"}], "name a to several"),
        ([{}, {"name": "a", "log_port": 8793}], "log port 8793 to several"),
        ([{"log_port": 9000}], "log_port to its first"),
    ],
)
def test_what_cannot_be_meant_is_told(value: t.Any, said: str) -> None:
    assert any(said in mistake for mistake in mistakes(value)), mistakes(value)
    with pytest.raises(AnsibleFilterError, match="airflow_worker_services"):
        worker_services(value, ["default"], 4, 8793)


def test_what_can_be_meant_is_not() -> None:
    assert mistakes(TWO) == []


def test_units_of_several_services() -> None:
    template = {"Unit": {"After": "network-online.target"}, "Service": {"Type": "exec"}}
    units = worker_units(worker_services(TWO, ["default"], 4, 8793), template, "/a/airflow")
    first, second = units["airflow-worker.service"], units["airflow-worker@gpu.service"]
    assert first["Service"]["ExecStart"] == "/a/airflow celery worker --queues default --concurrency 4"
    # The node is named after the service; of a first one without a name Celery's own name stays.
    assert second["Service"]["ExecStart"].endswith("--queues gpu --concurrency 1 --celery-hostname gpu@%%h")
    assert first["Unit"]["ConditionFileNotEmpty"] == "!/etc/airflow/drained/airflow-worker"
    assert second["Unit"]["ConditionFileNotEmpty"] == "!/etc/airflow/drained/airflow-worker@gpu"
    assert "Environment" not in first["Service"]
    assert second["Service"]["Environment"] == "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=8801"
    assert template == {"Unit": {"After": "network-online.target"}, "Service": {"Type": "exec"}}


def test_an_environment_of_the_user_leaves_a_service_its_log_port() -> None:
    units = worker_units(worker_services(TWO, ["default"], 4, 8793), {"Unit": {}, "Service": {}}, "/a/airflow")
    texts = {
        entry["path"]: entry["content"]
        for entry in systemd_units(units, {"airflow-worker@gpu": {"Environment": "CUDA_VISIBLE_DEVICES=0"}})
    }
    text = texts["/etc/systemd/system/airflow-worker@gpu.service"]
    assert "Environment=AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=8801\nEnvironment=CUDA_VISIBLE_DEVICES=0\n" in text
