# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the parts of a look at one host come together. What they see of a real host is tested on the lab."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _executor_check, _judge, _settings

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
        "services": [{"unit": "airflow-worker.service", "node": "celery", "queues": ["default"]}],
        "queue_type": "quorum",
        "management_url": "",
        "log_servers": [],
        "checks": ["host"],
        "nonce": "n",
        "clock_tolerance": 5.0,
        "timeout": 0.2,
        "settle": 0.0,
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
    return states


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


def test_on_a_host_that_is_both_each_service_is_judged_as_what_it_is(
    tmp_path: pathlib.Path, systemd: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's service has neither the metadata database nor the masters' keys, on whatever host it runs."""
    config, shared, masters = tmp_path / "airflow.cfg", tmp_path / "airflow.env", tmp_path / "master.env"
    config.write_text("[core]\nexecutor = CeleryExecutor\nexecution_api_server_url = http://localhost:8080/execution/\n")
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


@pytest.mark.parametrize("text, expected", [("8793", 8793), ("", 5), ("many", 5)])
def test_a_number(text: str, expected: int) -> None:
    assert _executor_check.number(text, 5) == expected
