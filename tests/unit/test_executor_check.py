# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the parts of a look at one host come together. What they see of a real host is tested on the lab."""

from __future__ import annotations

import os
import pathlib
import time
import typing as t

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import (
    _disks,
    _drain,
    _executor_check,
    _judge,
    _look,
    _probe,
    _settings,
)

RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "MainPID": "0",
    "ExecMainStartTimestamp": "Sun 2026-11-22 16:57:12 UTC",
}


def options(tmp_path: pathlib.Path, **changes: t.Any) -> _executor_check.Options:
    values: dict[str, t.Any] = {
        "name": "h1",
        "roles": ["rabbitmq"],
        "services": ONE,
        "queue_type": "quorum",
        "management_url": "",
        "log_servers": [],
        "checks": ["host"],
        "nonce": "n",
        "clock_tolerance": 5.0,
        "timeout": 0.2,
        "settle": 0.0,
        "disk_free": 512,
        "release": str(tmp_path / "current"),
        "home": str(tmp_path / "home"),
    }
    return _executor_check.Options(**{**values, **changes})


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """What systemd says of each unit; a test changes it."""
    states: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(
        _executor_check._look,
        "units",
        lambda names: {name: {"Id": name, **RUNNING, **states.get(name, {})} for name in names},
    )
    monkeypatch.setattr(_executor_check._look, "running_workers", lambda: [])
    monkeypatch.setattr(_disks, "file_systems", lambda places: [])  # this machine's are no matter
    return states


@pytest.fixture
def flags(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The folder that says which workers are drained."""
    folder = tmp_path / "drained"
    folder.mkdir()
    for name in ("held", "flag"):
        function = getattr(_drain, name)
        monkeypatch.setattr(_drain, name, lambda unit, path=str(folder), function=function: function(unit, path))
    return folder


ONE = [{"unit": "airflow-worker.service", "node": "celery", "queues": ["default"]}]
TWO = [
    {"unit": "airflow-worker@a.service", "node": "a", "queues": ["default", "etl"]},
    {"unit": "airflow-worker@b.service", "node": "b", "queues": ["etl", "gpu"]},
]


def looked(host: _executor_check.Host, monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[tuple[str, str]]:
    """Services and settings of the host, which has these variables in place of files; codes and subjects."""
    monkeypatch.setattr(_settings, "release_options", lambda package: KNOWN)
    monkeypatch.setattr(_settings, "problems", lambda *arguments: [])
    monkeypatch.setattr(_settings, "file_modes", lambda paths: {})

    def sources(shown: t.Mapping[str, str], _home: str) -> _settings.Sources:
        mine = {name: value for name, value in variables.items() if not name.startswith("PORT_")}
        name = shown["Id"].removesuffix(".service").partition("@")[2]
        if port := variables.get(f"PORT_{name}"):
            mine["AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT"] = port
        return _settings.Sources(_settings.parse_config("/absent", ""), mine, {}, "/")

    monkeypatch.setattr(_look, "sources", sources)
    host._services()
    host._config()
    return [(problem.code, problem.subject) for problem in host.problems if problem.code != "release_missing"]


KNOWN = _settings.Known(
    {"logging.worker_log_server_port": _settings.Option("8793"), "celery.broker_url": _settings.Option("")}
)


def test_a_host_without_airflow_is_its_services(tmp_path: pathlib.Path, systemd: dict[str, dict[str, str]]) -> None:
    problems, report = _executor_check.Host(options(tmp_path), has_libraries=False).check()
    assert problems == []
    assert [unit["name"] for unit in report["units"]] == ["rabbitmq-server.service"]
    assert "settings" not in report and report["skipped"] == []

    systemd["rabbitmq-server.service"] = {"ActiveState": "inactive"}
    problems, _report = _executor_check.Host(options(tmp_path), has_libraries=False).check()
    assert [(problem["code"], problem["host"], problem["check"]) for problem in problems] == [
        ("unit_stopped", "h1", "services")
    ]


def test_disks_are_looked_at_on_every_host(
    tmp_path: pathlib.Path, systemd: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[_disks.Place] = []

    def file_systems(places: t.Iterable[_disks.Place]) -> list[_disks.FileSystem]:
        asked[:] = places
        short = {place.role: place.needed for place in asked}
        return [_disks.FileSystem("/var", ("/var/log",), 3 << 20, 90 << 20, 5, short)]

    monkeypatch.setattr(_disks, "file_systems", file_systems)
    for role in ("rabbitmq", "postgresql", "airflow_master", "airflow_worker"):
        given = options(tmp_path, roles=[role], disk_free=77)
        problems, report = _executor_check.Host(given, has_libraries=False).check()
        assert [problem["subject"] for problem in problems if problem["code"] == "disk_full"] == ["disk:/var"], role
        (disk,) = report["disks"]
        assert (disk["mount"], disk["free_mb"], disk["size_mb"], disk["short"]) == ("/var", 3, 90, [role])
        if role.startswith("airflow"):
            assert {place.needed for place in asked} == {77 << 20} and given.home in {place.path for place in asked}
    # Only a watchdog that runs holds a worker.
    assert "watchdog" in next(problem["fix"] for problem in problems if problem["code"] == "disk_full")
    systemd["airflow-watchdog.service"] = {"ActiveState": "inactive"}
    problems, _report = _executor_check.Host(given, has_libraries=False).check()
    assert "watchdog" not in next(problem["fix"] for problem in problems if problem["code"] == "disk_full")
    # One that it holds goes on when there is somewhat more.
    systemd.clear()
    monkeypatch.setattr(_disks, "held", lambda units: units == ["airflow-worker.service"])
    _executor_check.Host(given, has_libraries=False).check()
    assert {place.needed for place in asked} == {int(1.2 * (77 << 20))}
    asked.clear()
    _executor_check.Host(options(tmp_path, checks=["logs"]), has_libraries=False).check()
    assert asked == [], "the second look is only at logs"


def test_a_file_system_that_hangs_is_left_behind(
    tmp_path: pathlib.Path, systemd: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_disks, "file_systems", lambda places: time.sleep(5))
    began = time.monotonic()
    problems, report = _executor_check.Host(options(tmp_path), has_libraries=False).check()
    assert time.monotonic() - began < 2 and problems == [] and "disks" not in report
    assert [item["check"] for item in report["skipped"]] == ["services"]


def test_a_worker_without_a_release_is_told_and_not_looked_into(
    tmp_path: pathlib.Path, systemd: dict[str, dict[str, str]]
) -> None:
    problems, report = _executor_check.Host(options(tmp_path, roles=["airflow_worker"]), has_libraries=False).check()
    assert [problem["code"] for problem in problems] == ["release_missing"]
    assert [item["check"] for item in report["skipped"]] == ["config"]


def test_a_part_that_fails_by_itself_does_not_take_the_others_with_it(
    tmp_path: pathlib.Path, systemd: dict[str, dict[str, str]]
) -> None:
    host = _executor_check.Host(options(tmp_path), has_libraries=True)
    ran = []

    def broken() -> None:
        raise KeyError("amqp://ann:hidden@mq1")

    host._together({"broker": broken, "api": lambda: ran.append("api")})
    assert ran == ["api"]
    (problem,) = host.problems
    assert problem.code == "check_failed" and "broker" in problem.what and "hidden" not in problem.what


def test_a_part_that_hangs_is_left_behind(
    tmp_path: pathlib.Path, systemd: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_executor_check, "LONGEST_CHAIN", 1)
    host = _executor_check.Host(options(tmp_path), has_libraries=True)
    began = time.monotonic()
    host._together({"metadata": lambda: time.sleep(5)})
    assert time.monotonic() - began < 2
    assert [item["check"] for item in host.report["skipped"]] == ["database"]


def test_a_second_look_tells_only_of_logs(
    tmp_path: pathlib.Path, systemd: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = {"host": "worker1", "name": "worker1.example.com", "port": 8793}
    chosen = options(tmp_path, roles=["airflow_master"], checks=["logs"], log_servers=[server])
    host = _executor_check.Host(chosen, has_libraries=True)
    systemd["airflow-scheduler.service"] = {"ActiveState": "failed"}
    monkeypatch.setattr(host, "_config", lambda: host.found.update(KEY))
    refused = {"name": server["name"], "port": 8793, "ms": 1.0, "problem": "log_forbidden", "detail": "HTTP status 403"}
    monkeypatch.setattr(_executor_check._look, "log_server", lambda *arguments: refused)
    problems, report = host.check()
    assert [(problem["code"], problem["subject"]) for problem in problems] == [("log_forbidden", "log:worker1")]
    assert [item["host"] for item in report["log_servers"]] == ["worker1"]
    assert "units" not in report


def test_a_second_look_without_a_release_says_so(tmp_path: pathlib.Path, systemd: dict[str, dict[str, str]]) -> None:
    chosen = options(tmp_path, roles=["airflow_master"], checks=["logs"])
    problems, report = _executor_check.Host(chosen, has_libraries=False).check()
    assert problems == [] and report["log_servers"] == []
    assert [item["check"] for item in report["skipped"]] == ["logs"]


def test_on_a_host_that_is_both_each_service_is_judged_as_what_it_is(
    tmp_path: pathlib.Path, systemd: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's service has neither the metadata database nor the masters' keys, on whatever host it runs."""
    config, shared, masters = tmp_path / "airflow.cfg", tmp_path / "airflow.env", tmp_path / "master.env"
    config.write_text(
        "[core]\nexecutor = CeleryExecutor\nexecution_api_server_url = http://localhost:8080/execution/\n"
    )
    shared.write_text(
        f"AIRFLOW_CONFIG={config}\nAIRFLOW__CELERY__BROKER_URL=amqp://u:p@mq1/v\nAIRFLOW__API__SECRET_KEY=k\n"
        "AIRFLOW__CELERY__RESULT_BACKEND=db+postgresql://u:p@db1/r\n"
    )
    masters.write_text(
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=postgresql://u:p@db1/a\nAIRFLOW__API_AUTH__JWT_SECRET=j\n"
        f"AIRFLOW__CORE__FERNET_KEY={'A' * 43}=\n"
    )
    for path in (config, shared, masters):
        path.chmod(0o640)
    roles = ["airflow_master", "airflow_worker"]
    for role in roles:
        for unit in _executor_check._look.UNITS.get(role, ("airflow-worker.service",)):
            files = [shared, masters] if role == "airflow_master" else [shared]
            systemd[unit] = {
                "EnvironmentFiles": "\n".join(f"{path} (ignore_errors=no)" for path in files),
                "ExecMainStartTimestamp": "",
            }
    names = (
        "core.executor core.execution_api_server_url core.fernet_key celery.broker_url celery.result_backend"
        " api.secret_key api_auth.jwt_secret database.sql_alchemy_conn"
    ).split()
    described = {name: _settings.Option() for name in names}
    # As a release has it: a default that a worker's service has and a master's does not.
    described["database.sql_alchemy_conn"] = _settings.Option("sqlite:////home/airflow.db")
    monkeypatch.setattr(_settings, "release_options", lambda package: _settings.Known(described))
    host = _executor_check.Host(options(tmp_path, roles=roles), has_libraries=True)
    host._services()
    host.problems.clear()
    host._config()
    assert [problem.as_dict() for problem in host.problems] == []
    assert set(host.report["fingerprints"]) == {*_settings.SECRETS, *_settings.SECRET_URLS}

    masters.write_text("")
    host = _executor_check.Host(options(tmp_path, roles=roles), has_libraries=True)
    host._services()
    host.problems.clear()
    host._config()
    assert {problem.code for problem in host.problems} == {"setting_missing"}


KEY = {"api.secret_key": _settings.Found("k", "environment")}


def test_the_same_problem_of_two_services_is_told_once(
    tmp_path: pathlib.Path, systemd: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = _executor_check.Host(options(tmp_path), has_libraries=False)
    same = _judge.no_dags("h1", "dags-folder", "/x")
    monkeypatch.setattr(host, "_services", lambda: host.problems.extend(same * 3))
    problems, _report = host.check()
    assert len(problems) == 1


def test_what_is_installed_says_what_a_host_is(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_executor_check._look, "database_units", lambda: ["postgresql@17-main.service"])
    (tmp_path / "airflow-worker.service").touch()
    assert _executor_check.installed_roles(str(tmp_path)) == ["postgresql", "airflow_worker"]


def test_a_host_may_have_only_services_with_names(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_executor_check._look, "database_units", list)
    (tmp_path / "airflow-worker@gpu.service").touch()
    assert _executor_check.installed_roles(str(tmp_path)) == ["airflow_worker"]


def test_each_service_of_a_worker_is_looked_at(
    tmp_path: pathlib.Path,
    systemd: dict[str, dict[str, str]],
    flags: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = _executor_check.Host(options(tmp_path, roles=["airflow_worker"], services=TWO), has_libraries=True)
    # The second one's port is its own; API servers ask the first one's.
    assert looked(host, monkeypatch, PORT_a="8800", PORT_b="8801") == []
    assert [unit["name"] for unit in host.report["units"]] == ["airflow-worker@a.service", "airflow-worker@b.service"]
    assert [(w["unit"], w["node"].split("@")[0], w["queues"]) for w in host.report["workers"]] == [
        ("airflow-worker@a.service", "a", ["default", "etl"]),
        ("airflow-worker@b.service", "b", ["etl", "gpu"]),
    ]
    assert host.report["log_server"]["port"] == 8800
    assert host.report["settings"]["logging.worker_log_server_port"] == "8800"
    assert host.queues == ["default", "etl", "gpu"]


def test_another_setting_that_differs_between_services_is_told(
    tmp_path: pathlib.Path,
    systemd: dict[str, dict[str, str]],
    flags: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(_settings.MUST_MATCH, "logging.other", _settings.BOTH)
    shown = _settings.shown
    monkeypatch.setattr(
        _settings,
        "shown",
        lambda found, kinds: shown(found, kinds) | {"logging.other": found["logging.worker_log_server_port"].value},
    )
    host = _executor_check.Host(options(tmp_path, roles=["airflow_worker"], services=TWO), has_libraries=True)
    assert looked(host, monkeypatch, PORT_b="8801") == [("setting_differs", "setting:logging.other")]


def test_a_drained_worker_is_reported_and_not_blamed(
    tmp_path: pathlib.Path,
    systemd: dict[str, dict[str, str]],
    flags: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (flags / "airflow-worker").write_text("since 2026-11-22T16:58:00Z by ann\n")
    chosen = options(tmp_path, roles=["airflow_worker"])

    host = _executor_check.Host(chosen, has_libraries=True)
    assert looked(host, monkeypatch) == [], "its file is newer than the process, and it is drained"
    assert host.report["workers"][0]["drained"] == "since 2026-11-22T16:58:00Z by ann"
    assert host.report["log_server"]["port"] == 8793, "it goes on serving logs"

    systemd["airflow-worker.service"] = {"ActiveState": "inactive", "SubState": "dead"}
    host = _executor_check.Host(chosen, has_libraries=True)
    assert looked(host, monkeypatch) == []
    assert "log_server" not in host.report, "nobody is asked for logs that cannot be had"
    assert [item["check"] for item in host.report["skipped"]] == ["logs"]

    systemd["airflow-worker.service"]["UnitFileState"] = "disabled"
    host = _executor_check.Host(chosen, has_libraries=True)
    assert [code for code, _subject in looked(host, monkeypatch)] == ["unit_disabled"]


def test_a_drained_worker_may_run_an_old_release(
    tmp_path: pathlib.Path,
    systemd: dict[str, dict[str, str]],
    flags: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "current").mkdir()
    systemd["airflow-worker.service"] = {"MainPID": "7"}
    monkeypatch.setattr(_executor_check._look, "running_release", lambda pid, root: "3.3.1-old")
    chosen = options(tmp_path, roles=["airflow_worker"])
    found = looked(_executor_check.Host(chosen, has_libraries=True), monkeypatch)
    assert found == [("release_not_running", "unit:airflow-worker.service")]
    (flags / "airflow-worker").write_text("since now by ann\n")
    assert looked(_executor_check.Host(chosen, has_libraries=True), monkeypatch) == []


def test_only_the_service_that_is_drained_is_not_blamed(
    tmp_path: pathlib.Path,
    systemd: dict[str, dict[str, str]],
    flags: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (flags / "airflow-worker@b").write_text("since now by ann\n")
    for service in TWO:
        systemd[str(service["unit"])] = {"ActiveState": "inactive"}
    host = _executor_check.Host(options(tmp_path, roles=["airflow_worker"], services=TWO), has_libraries=True)
    assert looked(host, monkeypatch) == [("unit_stopped", "unit:airflow-worker@a.service")]
    assert "log_server" in host.report, "that of the first one, which should run"


def test_a_restart_that_was_cut_off_is_one_problem(
    tmp_path: pathlib.Path,
    systemd: dict[str, dict[str, str]],
    flags: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flag = flags / "airflow-worker"
    flag.touch()
    began = 1795366632.0  # RUNNING
    chosen = options(tmp_path, roles=["airflow_worker"])
    os.utime(flag, (began - 60, began - 60))
    assert looked(_executor_check.Host(chosen, has_libraries=True), monkeypatch) == []
    os.utime(flag, (began + 60, began + 60))
    host = _executor_check.Host(chosen, has_libraries=True)
    assert looked(host, monkeypatch) == [("unit_outdated", "unit:airflow-worker.service")]
    (problem,) = [problem for problem in host.problems if problem.code == "unit_outdated"]
    assert "take no more tasks" in problem.what and "onprem.airflow.restart --limit h1" in problem.fix
    assert host.report["workers"][0]["drained"] == ""
    systemd["airflow-worker.service"] = {"ActiveState": "inactive"}
    found = looked(_executor_check.Host(chosen, has_libraries=True), monkeypatch)
    assert [code for code, _subject in found] == ["unit_stopped"], "that says it all"


def test_a_worker_that_the_inventory_does_not_have_is_told(
    tmp_path: pathlib.Path,
    systemd: dict[str, dict[str, str]],
    flags: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = ["airflow-worker@old.service", "airflow-worker.service"]
    monkeypatch.setattr(_executor_check._look, "running_workers", lambda: running)
    host = _executor_check.Host(options(tmp_path, roles=["airflow_worker"]), has_libraries=True)
    assert looked(host, monkeypatch) == [("worker_unknown", "unit:airflow-worker@old.service")]
    (problem,) = [problem for problem in host.problems if problem.code == "worker_unknown"]
    assert "onprem.airflow.queues" in problem.fix
    # Looked at as a master alone, nothing is known of the workers that belong there.
    host = _executor_check.Host(options(tmp_path, roles=["airflow_master"]), has_libraries=True)
    assert looked(host, monkeypatch) == [] and "workers" not in host.report


def test_each_service_is_asked_by_its_own_name(
    tmp_path: pathlib.Path,
    systemd: dict[str, dict[str, str]],
    flags: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (flags / "airflow-worker@b").write_text("since now by ann\n")
    third = {"unit": "airflow-worker@c.service", "node": "c", "queues": ["gpu"]}
    fourth = {"unit": "airflow-worker@d.service", "node": "d", "queues": ["gpu"]}
    (flags / "airflow-worker@d").write_text("since now by ann\n")
    for service in (third, fourth):
        systemd[str(service["unit"])] = {"ActiveState": "inactive"}
    chosen = options(tmp_path, roles=["airflow_worker"], services=[*TWO, third, fourth])
    host = _executor_check.Host(chosen, has_libraries=True)
    looked(host, monkeypatch)
    host.problems.clear()
    asked = []

    def worker(url: str, settings: t.Any, node: str, timeout: float) -> dict[str, t.Any]:
        asked.append(node.split("@")[0])
        queues = ["default"] if node.startswith("a@") else []
        return {"answers": True, "ping_ms": 1.0, "active_queues": queues, "concurrency": 2, "running": 1, "pid": 0}

    monkeypatch.setattr(_executor_check._look, "worker", worker)
    monkeypatch.setattr(_probe, "broker", lambda *given, **more: _probe.BrokerFound(queues=[]))
    host._workers_and_queues(_probe.Node("mq1", 5672, "u", "p", "v"), "amqp://")
    assert sorted(asked) == ["a", "b"]
    # The first one does not read etl; the second one does not have to; the others do not run, the last one rightly.
    assert [(p.code, p.subject, "airflow-worker@a" in p.what) for p in host.problems] == [
        ("worker_not_consuming", "queue:etl", True)
    ]
    assert [w["answers"] for w in host.report["workers"]] == [True, True, None, None]
    assert host.report["workers"][1]["running"] == 1
    (skipped,) = [item["why"] for item in host.report["skipped"] if item["check"] == "worker"]
    assert skipped == "airflow-worker@c.service is not active"


@pytest.mark.parametrize("text, expected", [("8793", 8793), ("", 5), ("many", 5)])
def test_a_number(text: str, expected: int) -> None:
    assert _executor_check.number(text, 5) == expected
