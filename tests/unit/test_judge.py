# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a host, from what was seen on it."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _judge
from ansible_collections.onprem.airflow.plugins.module_utils._disks import MB, FileSystem
from ansible_collections.onprem.airflow.plugins.module_utils._problems import CODES, Problem

UNIT = {
    "name": "airflow-worker.service",
    "load": "loaded",
    "active": "active",
    "sub": "running",
    "result": "success",
    "status": 0,
    "enabled": "enabled",
    "restarts": 0,
    "pid": 7,
    "release": "3.3.2-a",
}


def codes(problems: list[Problem]) -> list[str]:
    for problem in problems:
        assert problem.what and problem.fix and problem.subject and problem.host == "h1"
    return [problem.code for problem in problems]


@pytest.mark.parametrize(
    "change, expected",
    [
        ({}, []),
        ({"load": "not-found", "active": "inactive", "enabled": ""}, ["unit_missing"]),
        ({"active": "inactive"}, ["unit_stopped"]),
        # A worker that was told to stop ends its tasks first.
        ({"active": "deactivating", "sub": "stop-sigterm"}, []),
        ({"active": "deactivating", "sub": "final-sigkill", "result": "signal"}, ["unit_failing"]),
        ({"active": "deactivating", "name": "airflow-scheduler.service"}, ["unit_stopped"]),
        ({"active": "activating", "sub": "start-pre"}, ["unit_failing"]),
        ({"active": "activating", "sub": "start-pre", "name": "airflow-scheduler.service"}, ["unit_failing"]),
        ({"active": "activating", "sub": "start", "name": "rabbitmq-server.service"}, ["unit_stopped"]),
        ({"active": "activating", "sub": "auto-restart"}, ["unit_failing"]),
        ({"active": "failed"}, ["unit_failing"]),
        ({"enabled": "disabled"}, ["unit_disabled"]),
        ({"enabled": "enabled-runtime"}, []),
        ({"active": "inactive", "enabled": "disabled"}, ["unit_stopped", "unit_disabled"]),
    ],
)
def test_units(change: dict[str, t.Any], expected: list[str]) -> None:
    assert codes(_judge.units("h1", [UNIT | change])) == expected


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"active": "inactive"}, []),
        ({"active": "failed"}, []),
        ({"active": "activating", "sub": "auto-restart"}, []),
        # After it is undrained it must come back when the host boots, and there is no unit to undrain without one.
        ({"active": "inactive", "enabled": "disabled"}, ["unit_disabled"]),
        ({"load": "not-found", "active": "inactive"}, ["unit_missing"]),
    ],
)
def test_a_drained_unit_may_be_stopped(change: dict[str, t.Any], expected: list[str]) -> None:
    assert codes(_judge.units("h1", [UNIT | change], ["airflow-worker.service"])) == expected
    others = codes(_judge.units("h1", [UNIT | change], ["airflow-worker@other.service"]))
    assert others != expected or expected == ["unit_missing"]


def test_what_a_unit_waits_for_is_told() -> None:
    (held,) = _judge.units("h1", [UNIT | {"active": "activating", "sub": "start-pre"}])
    assert "waits for the port of its database" in held.what and "by itself" in held.fix
    (young,) = _judge.units("h1", [UNIT | {"active": "activating", "sub": "start"}])
    assert "is starting" in young.what and "systemctl start" not in young.fix


def disk(**change: t.Any) -> FileSystem:
    mine: dict[str, t.Any] = {"mount": "/var", "folders": ("/var/log/airflow", "/var/lib/airflow"), "free": 93 * MB}
    return FileSystem(**{**mine, "size": 1000 * MB, "inodes": 7, "short": {"airflow_worker": 512 * MB}, **change})


def test_a_disk_is_told_with_its_folders_and_how_it_goes_on() -> None:
    assert _judge.disks("h1", [disk(short={})]) == []
    watched, alone = (_judge.disks("h1", [disk()], watched)[0] for watched in (True, False))
    assert codes([watched, alone]) == ["disk_full"] * 2 and watched.subject == "disk:/var"
    assert "93 MB of 1000 MB are free" in watched.what and "the worker: 512 MB" in watched.what
    for told in (watched.what, watched.fix):
        assert "/var/log/airflow and /var/lib/airflow" in told
        assert "goes on by itself once there is space" in alone.fix and "once there is space" in watched.fix
    assert "the watchdog lets the worker take no tasks" in watched.fix and "watchdog" not in alone.fix
    (temporary,) = _judge.disks("h1", [disk(folders=("/tmp",))], True)
    assert "watchdog" not in temporary.fix, "it looks only where logs and the home are"
    (broker,) = _judge.disks("h1", [disk(short={"rabbitmq": 0})], True)
    assert "RabbitMQ: 1 MB" in broker.what and "watchdog" not in broker.fix and "takes no messages" in broker.fix
    (nodes,) = _judge.disks("h1", [disk(inodes=0)])
    assert "no inodes left" in nodes.what and "df -i /var" in nodes.fix
    assert len(_judge.disks("h1", [disk(), disk(mount="/srv"), disk(short={})])) == 2


def test_every_failure_of_a_connection_has_its_own_words() -> None:
    for kind in _judge.SERVICES:
        made = {code for code in CODES if code.startswith(f"{kind}_") and code != "api_version_differs"}
        whats = set()
        for code in made:
            problem = _judge.connection(kind, "h1", code, "mq1:5672", "because", "broker:mq1:5672", "ann")
            assert codes([problem]) == [code]
            whats.add(problem.what)
        if kind != "api":
            assert len(whats) == len(made), kind
    assert "mq1 of RabbitMQ" in _judge.connection("broker", "h1", "broker_unresolved", "mq1:5672", "", "x").what


def test_a_release_that_is_not_the_current_one() -> None:
    assert codes(_judge.release("h1", "3.3.2-a", [UNIT], "/opt/airflow")) == []
    (problem,) = _judge.release("h1", "3.3.2-b", [UNIT], "/opt/airflow")
    assert problem.code == "release_not_running" and "3.3.2-a" in problem.what and "3.3.2-b" in problem.what
    assert codes(_judge.release("h1", "3.3.2-b", [UNIT | {"pid": 0, "release": ""}], "/opt/airflow")) == []
    assert codes(_judge.release("h1", "", [UNIT], "/opt/airflow")) == ["release_missing"]


def test_heartbeats_of_what_is_up() -> None:
    up = dict.fromkeys(_judge.JOBS.values(), True)
    fresh = {"SchedulerJob": 3.0, "DagProcessorJob": 29.0, "TriggererJob": 0.1}
    assert codes(_judge.heartbeats("h1", fresh, up)) == []
    (late,) = _judge.heartbeats("h1", fresh | {"SchedulerJob": 99.0}, up)
    assert late.code == "health_failing" and "99 s" in late.what and late.subject == "unit:airflow-scheduler.service"
    assert codes(_judge.heartbeats("h1", {}, up)) == ["health_failing"] * 3
    assert codes(_judge.heartbeats("h1", {}, dict.fromkeys(up, False))) == [], "told by the unit"


SEEN: dict[str, t.Any] = {
    "unit": "airflow-worker.service",
    "node": "celery@h1",
    "queues": ["default"],
    "drained": "",
    "answers": True,
    "active_queues": ["default"],
    "pid": 7,
    "sockets": [["192.0.2.4", 5000]],
}
CONSUMER = {"queue": "default", "host": "192.0.2.4", "port": 5000}
OTHER = {"queue": "default", "host": "192.0.2.5", "port": 6000}


@pytest.mark.parametrize(
    "seen, consumers, expected",
    [
        (SEEN, [CONSUMER, OTHER], []),
        (SEEN, None, []),
        (SEEN | {"answers": False}, [CONSUMER], ["worker_silent"]),
        (SEEN | {"pid": 8}, [CONSUMER], ["worker_silent"]),
        # It says that it reads; the broker knows nobody (apache/airflow#63580).
        (SEEN, [], ["worker_not_consuming"]),
        # The broker knows this worker, on another queue only.
        (SEEN, [OTHER, CONSUMER | {"queue": "gpu"}], ["worker_not_consuming"]),
        # Behind address translation the broker knows everybody by other addresses.
        (SEEN, [OTHER], []),
        (SEEN | {"active_queues": []}, [OTHER], ["worker_not_consuming"]),
        (SEEN | {"active_queues": []}, None, ["worker_not_consuming"]),
        (SEEN | {"active_queues": ["default", "gpu"]}, [CONSUMER], ["worker_queue_unexpected"]),
    ],
)
def test_a_worker(seen: dict[str, t.Any], consumers: list[t.Any] | None, expected: list[str]) -> None:
    assert codes(_judge.worker("h1", seen, consumers, 7)) == expected


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"active_queues": []}, []),
        ({"active_queues": [], "answers": False}, []),
        ({"active_queues": [], "pid": 8}, []),
        ({}, ["worker_queue_unexpected"]),
    ],
)
def test_a_drained_worker_only_has_to_take_no_tasks(change: dict[str, t.Any], expected: list[str]) -> None:
    seen = SEEN | {"drained": "since 3 pm by ann"} | change
    problems = _judge.worker("h1", seen, [], 7)
    assert codes(problems) == expected
    for problem in problems:
        assert "since 3 pm by ann" in problem.what and "onprem.airflow.drain --limit h1" in problem.fix


def test_a_worker_among_several_is_named() -> None:
    gpu = SEEN | {"unit": "airflow-worker@gpu.service", "node": "gpu@h1", "queues": ["gpu"], "answers": False}
    (problem,) = _judge.worker("h1", gpu, None, 7)
    assert problem.subject == "worker:gpu@h1" and "`systemctl restart airflow-worker@gpu`" in problem.fix
    (problem,) = _judge.worker("h1", gpu | {"answers": True, "pid": 8}, None, 7)
    assert "the name gpu@h1" in problem.what
    other = _judge.worker("h1", gpu | {"answers": True, "active_queues": ["gpu", "x"]}, None, 7)
    assert codes(other) == ["worker_queue_unexpected"] and "airflow_worker_services" in other[0].fix
    (problem,) = _judge.worker("h1", SEEN | {"answers": False}, None, 7)
    assert problem.subject == "worker:h1"


def test_a_worker_that_was_to_be_started_anew() -> None:
    assert codes(_judge.outdated("h1", "airflow-worker.service", [], cut_off=True)) == ["unit_outdated"]
    (problem,) = _judge.outdated("h1", "airflow-worker.service", ["/etc/x"], cut_off=True)
    assert "onprem.airflow.restart --limit h1" in problem.fix and "/etc/x" not in problem.what


def test_workers_that_nobody_wants() -> None:
    assert codes(_judge.unknown_workers("h1", ["a"], ["a", "b"])) == []
    problems = _judge.unknown_workers("h1", ["c", "a", "b"], ["a"])
    assert [problem.subject for problem in problems] == ["unit:b", "unit:c"]
    assert codes(problems) == ["worker_unknown"] * 2


def test_queues() -> None:
    def listed(**change: t.Any) -> list[dict[str, t.Any]]:
        return [{"name": "default", "type": "quorum", "durable": True, **change}]

    def judged(missing: list[str], seen: list[dict[str, t.Any]]) -> list[str]:
        return codes(_judge.queues("h1", ["default"], "quorum", missing, seen))

    assert judged([], listed()) == []
    assert judged([], []) == [], "not known is no problem"
    assert judged(["default"], []) == ["queue_missing"]
    assert judged([], listed(type="classic")) == ["queue_wrong_type"]
    assert judged([], listed(durable=False)) == ["queue_not_durable"]


def test_queues_that_something_sends_to() -> None:
    listed = [{"name": "full", "messages": 3}, {"name": "empty", "messages": 0}]
    found = _judge.unserved("default", listed, {"gpu": 2}, {"gpu": "train", "slow": "report"})
    assert {item["queue"]: item["why"] for item in found} == {
        "default": "it is the default queue",
        "full": "messages that wait in it: 3",
        "gpu": "tasks that wait for it: 2",
        "slow": "the DAG report sends tasks to it",
    }


@pytest.mark.parametrize(
    "offset, uncertainty, expected", [(4.9, 0.0, 0), (-20.0, 0.1, 1), (20.0, 0.1, 1), (6.0, 2.0, 0)]
)
def test_a_clock(offset: float, uncertainty: float, expected: int) -> None:
    assert len(_judge.clock("h1", offset, uncertainty, 5, "the database")) == expected


def test_services_of_one_host_that_disagree() -> None:
    same = {"a": {"core.executor": "X"}, "b": {"core.executor": "X"}, "c": {}}
    assert codes(_judge.units_differ("h1", same)) == []
    (problem,) = _judge.units_differ("h1", same | {"c": {"core.executor": "Y"}})
    assert problem.code == "setting_differs" and "c has 'Y'" in problem.what


def test_a_management_plugin_that_does_not_tell() -> None:
    refused = _judge.management("h1", "http://mq1:15672", "ann", {"detail": "HTTP status 401", "status": 401})
    absent = _judge.management("h1", "http://mq1:15672", "ann", {"detail": "refused"})
    assert "set_user_tags ann management" in refused.fix
    assert "rabbitmq_management" in absent.fix


def test_the_rest() -> None:
    assert codes(_judge.schema("h1", ["a: 1 -> 2"], [], "database:x")) == ["schema_behind"]
    assert codes(_judge.schema("h1", [], ["a is at 3"], "database:x")) == ["schema_unknown"]
    assert codes(_judge.api_version("h1", "http://m:8080", "3.3.2", "3.3.1")) == ["api_version_differs"]
    assert codes(_judge.api_version("h1", "http://m:8080", "3.3.2", "")) == []
    assert codes(_judge.outdated("h1", "airflow-worker.service", ["/etc/x"])) == ["unit_outdated"]
    assert codes(_judge.outdated("h1", "airflow-worker.service", [])) == []
    assert codes(_judge.no_dags("h1", "dags-folder", "/x")) == ["dags_missing"]
    error = {"bundle": "dags-folder", "file": "a.py", "what": "SyntaxError: x"}
    assert codes(_judge.import_errors("h1", [error])) == ["dag_import_error"]
    assert codes([_judge.endpoint("h1", "airflow-scheduler.service", "http://x", "HTTP status 503")]) == [
        "health_failing"
    ]
