# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""While a host, a service or a way between two hosts is lost, verify names that, and the rest as what follows."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _judge
from verify_samples import MASTER_UNITS, Sample

WORKERS = {"worker1": ["default"], "worker2": ["default"], "gpu1": ["gpu"]}
BROKER, RESULTS, METADATA = "broker:mq1:5672", "database:db1:5432/airflow_results", "database:db1:5432/airflow"
API = "api:http://master1:8080"
WORKER, SCHEDULER, API_SERVER = (f"unit:airflow-{name}.service" for name in ("worker", "scheduler", "api-server"))
RABBITMQ, POSTGRESQL = "unit:rabbitmq-server.service", "unit:postgresql@17-main.service"


def units(sample: Sample, host: str, name: str, **state: t.Any) -> Sample:
    """What the module makes of a unit in such a state."""
    seen = {"name": name, "load": "loaded", "active": "active", "sub": "running", "enabled": "enabled"}
    for problem in _judge.units(host, [{**seen, "result": "success", "status": 0, "restarts": 0, **state}]):
        sample.problem(problem.code, host, problem.subject, problem.what)
    return sample


def disk(sample: Sample, host: str, mount: str, *short: str) -> Sample:
    sample.report(host)["disks"] = [
        {"mount": "/", "folders": ["/tmp"], "free_mb": 900, "size_mb": 1000, "free_inodes": 9, "short": []},
        {"mount": mount, "folders": [mount], "free_mb": 3, "size_mb": 90, "free_inodes": 9, "short": list(short)},
    ]
    return sample.problem("disk_full", host, f"disk:{mount}")


def no_broker(sample: Sample, code: str, *hosts: str) -> Sample:
    """The hosts cannot use the broker: workers are not asked, queues are not looked at."""
    for name in hosts or (*sample.masters, *sample.workers):
        report = sample.report(name)
        report["broker"]["nodes"][0] |= {"login_ms": None, "round_trip_ms": None, "problem": code}
        sample.problem(code, name, BROKER)
        for key in ("queues", "consumers"):
            report.pop(key, None)
        for worker in report.get("workers", ()):
            worker |= {"answers": None, "active_queues": [], "sockets": []}
        report["skipped"].append({"check": "queues", "why": "the broker cannot be used"})
        if name in sample.masters:
            report["unserved"] = [{"queue": "default", "why": "it is the default queue"}]
            # It waits for its first task to be taken.
            sample.problem("health_failing", name, SCHEDULER)
    return sample


def no_database(sample: Sample, failure: str) -> Sample:
    """No host can use the database: services end, wait for it, and end again."""
    for name in (*sample.masters, *sample.workers):
        sample.problem(f"results_{failure}", name, RESULTS)
    for name in sample.masters:
        sample.problem(f"database_{failure}", name, METADATA)
        for short in MASTER_UNITS[1:]:
            waits = {"active": "activating", "sub": "start-pre"}
            units(sample, name, f"airflow-{short}.service", **waits)
        sample.problem("health_failing", name, API_SERVER)
    units(sample, "worker1", "airflow-worker.service", active="activating", sub="start-pre")
    units(sample, "worker2", "airflow-worker.service", active="activating", sub="auto-restart", result="exit-code")
    for name in sample.workers:
        sample.problem("api_error", name, API)
    for name in sample.masters:
        sample.problem("log_refused", name, "log:worker1")
    return sample


def worker_gone(sample: Sample) -> Sample:
    sample.silence("gpu1").unreachable("gpu1")
    return sample.problem("log_timeout", "master1", "log:gpu1").problem("log_refused", "master2", "log:gpu1")


def worker_held(sample: Sample) -> Sample:
    """By the watchdog, for its disk: stopped."""
    disk(sample, "gpu1", "/var/log", "airflow_worker").silence("gpu1")
    units(sample, "gpu1", "airflow-worker.service", active="inactive", sub="dead")
    return sample.problem("log_refused", "master1", "log:gpu1").problem("log_refused", "master2", "log:gpu1")


def worker_ends_its_tasks(sample: Sample) -> Sample:
    disk(sample, "gpu1", "/var/log", "airflow_worker").silence("gpu1")
    return units(sample, "gpu1", "airflow-worker.service", active="deactivating", sub="stop-sigterm")


def broker_full(sample: Sample) -> Sample:
    return no_broker(disk(sample, "mq1", "/var/lib/rabbitmq", "rabbitmq"), "broker_blocked")


def broker_full_and_ended(sample: Sample) -> Sample:
    units(sample, "mq1", "rabbitmq-server.service", active="activating", sub="auto-restart", result="exit-code")
    return no_broker(disk(sample, "mq1", "/var/lib/rabbitmq", "rabbitmq"), "broker_refused")


def database_full(sample: Sample) -> Sample:
    return no_database(disk(sample, "db1", "/var/lib/postgresql", "postgresql"), "error")


def database_full_and_ended(sample: Sample) -> Sample:
    units(sample, "db1", "postgresql@17-main.service", active="failed", sub="failed", result="exit-code")
    return no_database(disk(sample, "db1", "/var/lib/postgresql", "postgresql"), "refused")


def api_server_stopped(sample: Sample) -> Sample:
    units(sample, "master1", "airflow-api-server.service", active="inactive", sub="dead")
    for worker in sample.workers:
        sample.problem("api_refused", worker, API)
    return sample


def api_server_hangs(sample: Sample) -> Sample:
    sample.problem("health_failing", "master1", API_SERVER)
    for worker in sample.workers:
        sample.problem("api_half_open", worker, API)
    return sample


def cut_from_the_broker(sample: Sample) -> Sample:
    """The last worker of a queue cannot reach the broker, which has forgotten it."""
    sample.silence("gpu1")
    return no_broker(sample, "broker_timeout", "gpu1")


def cut_from_the_master(sample: Sample) -> Sample:
    return sample.problem("api_timeout", "worker1", API).problem("log_timeout", "master1", "log:worker1")


def killed(host: str, name: str) -> t.Callable[[Sample], Sample]:
    return lambda sample: units(sample, host, name, active="activating", sub="auto-restart", result="signal", status=9)


FAULTS: dict[str, tuple[t.Callable[[Sample], Sample], str, list[str], str]] = {
    "worker host gone": (worker_gone, "unreachable", ["gpu1"], "host:gpu1"),
    "worker killed": (killed("worker1", "airflow-worker.service"), "unit_failing", ["worker1"], WORKER),
    "broker frozen": (
        lambda sample: no_broker(sample, "broker_timeout"),
        "broker_timeout",
        ["master1", "master2", "worker1", "worker2", "gpu1"],
        BROKER,
    ),
    "broker host gone": (
        lambda sample: no_broker(sample, "broker_timeout").unreachable("mq1"),
        "unreachable",
        ["mq1"],
        "host:mq1",
    ),
    "broker stopped": (
        lambda sample: no_broker(
            units(sample, "mq1", "rabbitmq-server.service", active="inactive", sub="dead"), "broker_refused"
        ),
        "unit_stopped",
        ["mq1"],
        RABBITMQ,
    ),
    "broker starting": (
        lambda sample: no_broker(
            units(sample, "mq1", "rabbitmq-server.service", active="activating", sub="start"), "broker_refused"
        ),
        "unit_stopped",
        ["mq1"],
        RABBITMQ,
    ),
    "broker's disk full": (broker_full, "disk_full", ["mq1"], "disk:/var/lib/rabbitmq"),
    "broker's disk full, and it ended": (broker_full_and_ended, "disk_full", ["mq1"], "disk:/var/lib/rabbitmq"),
    "database host gone": (
        lambda sample: no_database(sample, "timeout").unreachable("db1"),
        "unreachable",
        ["db1"],
        "host:db1",
    ),
    "database frozen": (
        lambda sample: no_database(sample, "timeout"),
        "results_timeout",
        ["master1", "master2", "worker1", "worker2", "gpu1"],
        RESULTS,
    ),
    "database stopped": (
        lambda sample: no_database(
            units(sample, "db1", "postgresql@17-main.service", active="inactive", sub="dead"), "refused"
        ),
        "unit_stopped",
        ["db1"],
        POSTGRESQL,
    ),
    "database's disk full": (database_full, "disk_full", ["db1"], "disk:/var/lib/postgresql"),
    "database's disk full, and it ended": (database_full_and_ended, "disk_full", ["db1"], "disk:/var/lib/postgresql"),
    "worker's disk full": (worker_held, "disk_full", ["gpu1"], "disk:/var/log"),
    "worker's disk full, its tasks end": (worker_ends_its_tasks, "disk_full", ["gpu1"], "disk:/var/log"),
    "API server stopped": (api_server_stopped, "unit_stopped", ["master1"], API_SERVER),
    "API server hangs": (api_server_hangs, "health_failing", ["master1"], API_SERVER),
    "worker cut from the broker": (cut_from_the_broker, "broker_timeout", ["gpu1"], BROKER),
    "worker cut from the master": (cut_from_the_master, "api_timeout", ["worker1"], API),
    "scheduler killed": (killed("master1", "airflow-scheduler.service"), "unit_failing", ["master1"], SCHEDULER),
    "scheduler stopped": (
        lambda sample: units(sample, "master1", "airflow-scheduler.service", active="inactive", sub="dead"),
        "unit_stopped",
        ["master1"],
        SCHEDULER,
    ),
    "DAG processor killed": (
        killed("master2", "airflow-dag-processor.service"),
        "unit_failing",
        ["master2"],
        "unit:airflow-dag-processor.service",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_one_cause(name: str) -> None:
    make, code, hosts, subject = FAULTS[name]
    sample = make(Sample(WORKERS, masters=2))
    told = sum(len(result.get("problems", ())) for result in sample.results.values())
    document = sample.document()
    found = [(problem["code"], problem["hosts"], problem["subject"]) for problem in document["problems"]]
    assert found == [(code, hosts, subject)], [(p["code"], p["hosts"], p["subject"]) for p in document["problems"]]
    (problem,) = document["problems"]
    # Nothing got lost on the way.
    assert len(problem["hosts"]) + len(problem["consequences"]) >= told, problem["consequences"]


@pytest.mark.parametrize("name", ["worker host gone", "worker's disk full", "worker cut from the broker"])
def test_the_queue_that_only_this_worker_served_follows(name: str) -> None:
    (problem,) = FAULTS[name][0](Sample(WORKERS, masters=2)).document()["problems"]
    follows = [(entry["code"], entry["host"]) for entry in problem["consequences"] if entry["subject"] == "queue:gpu"]
    assert follows == [("queue_unserved", "master1"), ("queue_unserved", "master2")]


def test_a_disk_explains_only_those_whose_it_is() -> None:
    """Everything on one host: what is short of space tells what follows."""
    effects = [
        ("broker_blocked", "broker:airflow1:5672", "rabbitmq"),
        ("results_error", "database:airflow1:5432/airflow_results", "postgresql"),
        ("unit_stopped", WORKER, "airflow_worker"),
        ("unit_stopped", SCHEDULER, "airflow_master"),
    ]
    for code, subject, role in effects:
        for short in ("rabbitmq", "postgresql", "airflow_worker", "airflow_master"):
            sample = disk(Sample(single=True), "airflow1", "/srv", short).problem(code, "airflow1", subject)
            assert len(sample.codes()) == (1 if short == role else 2), (code, short)


def test_a_host_without_space_for_the_check_itself() -> None:
    line = "mkdir: cannot create directory '/home/sysadmin/.ansible/tmp/x': No space left on device"
    texts: list[dict[str, t.Any]] = [
        {"unreachable": True, "msg": f"Failed to create temporary directory.\nstderr output: {line}\n"},
        {"failed": True, "msg": "MODULE FAILURE\nSee stdout", "module_stderr": f"Traceback\n{line}\n"},
        {"failed": True, "msg": "MODULE FAILURE", "module_stdout": "No usable temporary directory found in ['/tmp']"},
    ]
    for result in texts:
        sample = no_broker(Sample(2), "broker_blocked")
        sample.results["mq1"] = result
        document = sample.document()
        (problem,) = document["problems"]
        assert (problem["code"], problem["hosts"], problem["subject"]) == ("disk_full", ["mq1"], "host:mq1")
        assert "temporary directory" in problem["what"] or "No space left on device" in problem["what"]
        assert not document["hosts"]["mq1"]["looked_at"]
    # What a look that took place met on its way is told by its own problems.
    sample = Sample(2)
    sample.results["worker1"] |= {"failed": True, "msg": line}
    assert not sample.codes()
    sample.results["worker1"] = {"unreachable": True, "msg": "No route to host"}
    assert [code for code, _hosts in sample.codes()] == ["unreachable"]
