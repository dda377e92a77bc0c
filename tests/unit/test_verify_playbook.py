# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""onprem.airflow.verify as a task: what it reads, prints, writes and returns. The hosts' answers are given."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from verify_samples import Sample


@pytest.fixture
def verify(tmp_path: Path, ansible_playbook: Callable[..., Any]) -> Callable[..., Any]:
    """Run the task on a sample; the answers stand where executor_check would have put them."""

    def run(sample: Sample, *arguments: str, logs: dict[str, Any] | None = None, **options: Any) -> Any:
        groups: dict[str, dict[str, Any]] = {}
        for name, host in sample.hosts.items():
            variables: dict[str, Any] = {
                "ansible_connection": "local",
                "ansible_host": host.addresses[-1],
                "__airflow_check": sample.results[name],
            }
            if "airflow_worker" in host.groups and host.queues != ("default",):
                variables["airflow_worker_queues"] = list(host.queues)
            if logs and "airflow_master" in host.groups:
                variables["__airflow_check_logs"] = logs
            for group in host.groups:
                groups.setdefault(group, {"hosts": {}})["hosts"][name] = variables
        (tmp_path / "hosts.yml").write_text(
            yaml.safe_dump({"all": {"children": {"airflow_cluster": {"children": groups}}}}, sort_keys=False)
        )
        task = {"name": "Verify", "onprem.airflow.verify": {"dest": str(tmp_path / "out"), **options}, "run_once": True}
        play = {"name": "Play", "hosts": "airflow_cluster", "gather_facts": False, "tasks": [task]}
        (tmp_path / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
        return ansible_playbook("-i", tmp_path / "hosts.yml", tmp_path / "play.yml", *arguments)

    return run


def with_logs(sample: Sample) -> dict[str, Any]:
    """A second look that found nothing."""
    servers = sample.report("master1").pop("log_servers")
    return {"problems": [], "report": {"log_servers": servers, "skipped": []}}


def test_a_healthy_cluster(verify: Callable[..., Any], tmp_path: Path) -> None:
    sample = Sample({"worker1": ["default"], "gpu1": ["gpu"]})
    ran = verify(sample, logs=with_logs(sample))
    assert ran.rc == 0, ran.output
    assert "Verified 5 hosts: nothing is wrong." in ran.output
    (result,) = ran.tasks["Verify"].values()
    assert result["problem_count"] == 0 and not result["changed"]
    assert result["document_paths"] == [str(tmp_path / "out" / name) for name in ("verify.json", "verify.html")]
    document = json.loads((tmp_path / "out" / "verify.json").read_text())
    assert document["ok"] and re.fullmatch(r"\d+\.\d+\.\d+", document["version"])
    assert document["hosts"]["gpu1"]["queues"] == ["gpu"] and document["hosts"]["worker1"]["queues"] == ["default"]
    assert document["hosts"]["master1"]["checks"]["logs"] == {"status": "ok", "detail": "3 ms"}
    assert (tmp_path / "out" / "verify.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["verify.html", "verify.json"]


def test_problems_fail_the_task_and_are_told_and_written(verify: Callable[..., Any], tmp_path: Path) -> None:
    sample = Sample(2).broker_down()
    look = with_logs(sample)
    look["problems"] = [{"code": "log_refused", "what": "no log", "fix": "mend", "subject": "log:worker1"}]
    ran = verify(sample, "--check", logs=look)
    assert ran.rc != 0
    assert re.search(r"^  mq1: rabbitmq-server is stopped \[unit_stopped\]$", ran.output, re.MULTILINE)
    (result,) = ran.tasks["Verify"].values()
    assert result["failed"] and result["msg"] == "Verify found 1 problem, listed above."
    assert result["problem_count"] == 1
    document = json.loads((tmp_path / "out" / "verify.json").read_text())
    assert [problem["code"] for problem in document["problems"]] == ["unit_stopped"]
    assert "log_refused" in {entry["code"] for entry in document["problems"][0]["consequences"]}
    assert stat.S_IMODE((tmp_path / "out" / "verify.json").stat().st_mode) & 0o133 == 0


def test_the_services_of_a_worker_are_those_of_the_inventory(verify: Callable[..., Any], tmp_path: Path) -> None:
    sample = Sample(2).split("worker2", light=["default"], gpu=["gpu"])
    one = {"unit": "airflow-worker.service", "node": "celery", "queues": ["default"]}
    services = [{"unit": s.unit, "node": s.node, "queues": list(s.queues)} for s in sample.hosts["worker2"].services]
    workers = {"worker1": {"queues": ["default"], "services": [one]}, "worker2": {"services": services}}
    sample.drain("worker2", "airflow-worker@light.service")
    sample.problem("unit_failing", "worker2", "unit:airflow-worker@gpu.service")
    sample.problem("worker_not_consuming", "worker2", "queue:default")
    ran = verify(sample, logs=with_logs(sample), workers=workers)
    document = json.loads((tmp_path / "out" / "verify.json").read_text())
    assert document["hosts"]["worker2"]["queues"] == ["default", "gpu"]
    # The one does not explain what the other one does not do.
    assert {p["code"] for p in document["problems"]} == {"unit_failing", "worker_not_consuming"}, ran.output


def test_a_limited_run_says_so(verify: Callable[..., Any], tmp_path: Path) -> None:
    sample = Sample(2)
    look = with_logs(sample)
    ran = verify(sample, "--limit", "!worker2", logs=look)
    assert ran.rc == 0 and "Verified 4 of 5 hosts: nothing is wrong." in ran.output
    assert "worker2: left out by --limit" in ran.output
    ran = verify(sample, "--limit", "!worker2", logs=look, strict=True)
    assert ran.rc != 0 and "could not look at everything" in ran.output


def test_nothing_is_written_where_nothing_shall_be(verify: Callable[..., Any], tmp_path: Path) -> None:
    ran = verify(Sample(2), dest="")
    (result,) = ran.tasks["Verify"].values()
    assert ran.rc == 0 and result["document_paths"] == []
    assert not list(tmp_path.glob("**/verify.*"))


def test_a_folder_that_cannot_be_written_is_named(verify: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = verify(Sample(2), dest=str(tmp_path / "file" / "below"))
    assert ran.rc != 0 and f"cannot write to {tmp_path}/file/below" in ran.output
