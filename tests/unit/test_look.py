# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from a host, from samples of what its system says."""

from __future__ import annotations

import os
import pathlib
import socket

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _look, _probe
from ansible_collections.onprem.airflow.plugins.module_utils._settings import BrokerTls

SHOWN = {
    "Id": "airflow-worker.service",
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "NRestarts": "2",
    "MainPID": "743",
    "ExecMainStatus": "0",
    "ExecMainStartTimestamp": "Sun 2026-11-22 16:57:12.500000 UTC",
    "UnitFileState": "enabled",
    "MemoryCurrent": "220200960",
    "ExecStart": "{ path=/x/airflow ; argv[]=/x/airflow celery worker --queues 'a b',gpu ; ignore_errors=no ; }",
}


def test_a_unit_is_described() -> None:
    described = _look.describe_unit(SHOWN, "/opt/airflow")
    assert described["restarts"] == 2
    assert described["memory_mb"] == 210
    assert described["since"] == 1795366632.5
    assert _look.describe_unit({"Id": "x", "MemoryCurrent": "[not set]"}, "/opt/airflow")["memory_mb"] is None


def test_the_workers_that_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "systemctl"
    fake.write_text(
        """#!/bin/sh
case "$*" in *--state=active*airflow-worker.service*"airflow-worker@*.service"*)
echo "airflow-worker@gpu.service loaded active running Airflow's worker"
echo "airflow-worker.service     loaded active running Airflow's worker"
esac
"""
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert _look.running_workers() == ["airflow-worker.service", "airflow-worker@gpu.service"]


def test_the_command_line_of_a_unit() -> None:
    assert _look.arguments(SHOWN) == ["/x/airflow", "celery", "worker", "--queues", "a b,gpu"]
    assert _look.arguments({}) == []


def test_the_environment_of_a_unit_a_later_file_wins(tmp_path: pathlib.Path) -> None:
    first, second = tmp_path / "a.env", tmp_path / "b.env"
    first.write_text('ONE="1"\nTWO="a b"\n')
    second.write_text("TWO='c'\n")
    shown = {
        "Environment": 'ZERO=0 "ONE=from the unit"',
        "EnvironmentFiles": f"{first} (ignore_errors=no)\n{second} (ignore_errors=yes)\n/absent (ignore_errors=yes)",
    }
    assert _look.environment(shown) == {"ZERO": "0", "ONE": "1", "TWO": "c"}


def test_files_that_are_newer_than_the_process(tmp_path: pathlib.Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for path, when in ((old, 1795366000), (new, 1795367000)):
        path.touch()
        os.utime(path, (when, when))
    shown = SHOWN | {"FragmentPath": str(old), "DropInPaths": str(new)}
    assert _look.changed_since_start(shown, [str(new), str(tmp_path / "absent")]) == [str(new), str(new)]
    assert _look.changed_since_start({**shown, "ExecMainStartTimestamp": ""}, []) == []


def test_versions_from_the_names_of_packages(tmp_path: pathlib.Path) -> None:
    packages = tmp_path / "lib" / "python3.13" / "site-packages"
    for name in ("apache_airflow-3.3.2", "apache_airflow_providers_celery-3.26.0", "kombu-5.6.2", "requests-2.0"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
    assert _look.site_packages(str(tmp_path)) == str(packages)
    assert _look.versions(str(packages)) == {
        "apache-airflow": "3.3.2",
        "apache-airflow-providers-celery": "3.26.0",
        "kombu": "5.6.2",
    }
    assert _look.site_packages(str(tmp_path / "absent")) == ""
    assert _look.versions("") == {}


def test_the_release_that_a_process_runs(tmp_path: pathlib.Path) -> None:
    assert _look.running_release(os.getpid(), str(tmp_path)) == ""
    assert _look.running_release(0, str(tmp_path)) == ""


def test_clusters_of_postgresql(tmp_path: pathlib.Path) -> None:
    (tmp_path / "17" / "main").mkdir(parents=True)
    assert _look.database_units(str(tmp_path)) == ["postgresql@17-main.service"]
    assert _look.database_units(str(tmp_path / "absent")) == []


@pytest.mark.parametrize("family, address", [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_near_ends_of_own_connections(family: int, address: str) -> None:
    try:
        listener = socket.create_server((address, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {address}")
    with listener, socket.create_connection(listener.getsockname()[:2]) as near:
        port = listener.getsockname()[1]
        assert _look.sockets_of(os.getpid(), port) == [near.getsockname()[:2]]
        assert _look.sockets_of(os.getpid(), port + 1) == []
    assert _look.sockets_of(0, port) == []


def test_an_address_of_ipv4_within_ipv6_is_one_of_ipv4() -> None:
    assert _look._socket_address("0000000000000000FFFF00000E4DD50A:C5F4") == ("10.213.77.14", 50676)


QUEUES = [
    {"name": "default", "type": "quorum", "durable": True, "messages_ready": 3, "consumers": 1},
    {"name": "celery@w1.celery.pidbox", "type": "classic", "durable": False, "exclusive": True},
    {"name": "celery_delayed_7", "type": "classic", "durable": True},
]
CONSUMERS = [
    {"queue": {"name": "default"}, "channel_details": {"peer_host": "192.0.2.4", "peer_port": 5000}},
    {"queue": {"name": "celery@w1.celery.pidbox"}, "channel_details": {"peer_host": "192.0.2.4", "peer_port": 5000}},
    {"queue": {"name": "default"}, "channel_details": []},  # a channel that has just closed
]


def answers(monkeypatch: pytest.MonkeyPatch, found: dict[str, _probe.HttpFound]) -> list[str]:
    asked: list[str] = []

    def http(url: str, **options: object) -> _probe.HttpFound:
        asked.append(url)
        assert options["headers"] == {"Authorization": "Basic dTpw"}
        return found[url.split("/api/")[1]]

    monkeypatch.setattr(_look._probe, "http", http)
    return asked


def test_the_broker_tells_queues_and_consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    found = {
        "queues/a%2Fb": _probe.HttpFound(status=200, body=json.dumps(QUEUES)),
        "consumers/a%2Fb": _probe.HttpFound(status=200, body=json.dumps(CONSUMERS)),
    }
    answers(monkeypatch, found)
    seen = _look.management("http://mq1:15672/", "u", "p", "a/b", None, 4)
    assert seen["queues"] == [{"name": "default", "type": "quorum", "durable": True, "messages": 3, "consumers": 1}]
    assert seen["consumers"] == [{"queue": "default", "host": "192.0.2.4", "port": 5000}]


def test_one_queue_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, {"queues/v/gpu": _probe.HttpFound(status=404, body="{}")})
    seen = _look.management("http://mq1:15672", "u", "p", "v", ["gpu"], 4)
    assert (seen["problem"], seen["queues"], seen["consumers"]) == (False, [], [])


def test_a_user_without_the_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, {"queues/v": _probe.HttpFound(status=401)})
    seen = _look.management("http://mq1:15672", "u", "p", "v", None, 4)
    assert seen == {"problem": True, "detail": "HTTP status 401", "status": 401}


def test_a_dag_tree_without_what_python_leaves(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = _look.dag_tree(str(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.cpython-313.pyc").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("x")
    assert _look.dag_tree(str(tmp_path)) == first
    assert first["files"] == {"a.py": "6b86b273"}  # of SHA-256("1")
    (tmp_path / "a.py").write_text("2")
    assert _look.dag_tree(str(tmp_path))["digest"] != first["digest"]


def test_settings_for_tls_are_airflows() -> None:
    tls = BrokerTls(active=True, cacert="/ca.pem", cert="", key="")
    settings = _look.celery_settings({"control_queue_exclusive": True, "worker_prefetch_multiplier": 4}, tls)
    assert settings["control_queue_exclusive"] is True
    assert "worker_prefetch_multiplier" not in settings
    assert settings["broker_use_ssl"]["ca_certs"] == "/ca.pem"
    assert "certfile" not in settings["broker_use_ssl"]
    assert _look.celery_settings({}, BrokerTls(False, "", "", "")) == {}


def test_the_last_line_of_a_stack_trace() -> None:
    assert _look.last_line("Traceback\n  File\nSyntaxError: invalid syntax\n\n") == "SyntaxError: invalid syntax"
    assert _look.last_line("") == ""


@pytest.mark.parametrize("body, version", [('{"version": "3.3.2"}', "3.3.2"), ("<html>", ""), ("[]", "")])
def test_the_version_of_an_api_server(body: str, version: str) -> None:
    assert _look.version_of(_probe.HttpFound(status=200, body=body)) == version
    assert _look.version_of(_probe.HttpFound(status=500, body=body)) == ""
