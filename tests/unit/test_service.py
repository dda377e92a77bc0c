# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decisions of the module `service`."""

from __future__ import annotations

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils._service import (
    Ready,
    Unit,
    answers,
    decide,
    own_files,
    parse_show,
    seconds,
    strays,
    works,
)

STARTED = "Sun 2026-11-22 13:00:00.500000 UTC"
START = seconds(STARTED)
RUNNING = {
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "ExecMainStartTimestamp": STARTED,
    "StateChangeTimestamp": STARTED,
    "FragmentPath": "/etc/systemd/system/a.service",
}


@pytest.mark.parametrize(
    ("unit", "shown", "modified", "steps"),
    [
        (Unit("a"), RUNNING, {}, []),
        (Unit("a"), {"ActiveState": "inactive", "UnitFileState": ""}, {}, ["enable", "start"]),
        (Unit("a"), {**RUNNING, "ActiveState": "failed"}, {}, ["start"]),
        (Unit("a"), {**RUNNING, "UnitFileState": "disabled"}, {}, ["enable"]),
        (Unit("a"), {**RUNNING, "UnitFileState": "enabled-runtime"}, {}, []),
        # A file newer than the process needs a restart, an older one does not.
        (Unit("a", restart_after=("/f",)), RUNNING, {"/f": START + 0.1}, ["restart"]),
        (Unit("a", restart_after=("/f",)), RUNNING, {"/f": START - 0.1}, []),
        (Unit("a", restart_after=("/f",)), RUNNING, {"/other": START + 0.1}, []),
        # So does its own unit file, without being named.
        (Unit("a"), RUNNING, {"/etc/systemd/system/a.service": START + 1}, ["restart"]),
        # A reload counts as done when the unit's state changed after the file.
        (Unit("a", reload_after=("/f",)), RUNNING, {"/f": START + 1}, ["reload"]),
        (
            Unit("a", reload_after=("/f",)),
            {**RUNNING, "StateChangeTimestamp": "Sun 2026-11-22 13:00:05 UTC"},
            {"/f": START + 1},
            [],
        ),
        # A restart makes a reload needless.
        (
            Unit("a", restart_after=("/f",), reload_after=("/g",)),
            RUNNING,
            {"/f": START + 1, "/g": START + 1},
            ["restart"],
        ),
        # A worker that is still finishing its tasks after a stop must come back afterwards.
        (Unit("a"), {**RUNNING, "ActiveState": "deactivating"}, {}, ["start"]),
        # One that shall have a new process gets one, once.
        (Unit("a", "restarted"), RUNNING, {}, ["restart"]),
        (Unit("a", "restarted"), {**RUNNING, "ActiveState": "inactive"}, {}, ["start"]),
        # A held one is left as it is, but comes back with its host when it is no longer held.
        (Unit("a", restart_after=("/f",), held=True), RUNNING, {"/f": START + 1}, []),
        (Unit("a", "restarted", held=True), RUNNING, {}, []),
        (Unit("a", held=True), {"ActiveState": "inactive", "UnitFileState": ""}, {}, ["enable"]),
        (Unit("a", "stopped"), RUNNING, {}, ["stop", "disable"]),
        (Unit("a", "stopped"), {"ActiveState": "inactive", "UnitFileState": "disabled"}, {}, []),
    ],
)
def test_decide(unit: Unit, shown: dict[str, str], modified: dict[str, float], steps: list[str]) -> None:
    assert decide(unit, shown, modified) == steps


def test_strays_are_what_the_pattern_names_and_nobody_wants() -> None:
    listed = ["airflow-worker.service", "airflow-worker@gpu.service", "airflow-scheduler.service"]
    assert strays(listed, "airflow-worker*.service", ["airflow-worker.service"]) == ["airflow-worker@gpu.service"]
    assert strays(listed, "", []) == []


@pytest.mark.parametrize("state", ["inactive", "failed", "activating"])
def test_what_has_no_process_is_disturbed_by_no_restart(state: str) -> None:
    assert not works({"ActiveState": state})
    assert works({"ActiveState": "active"}) and works({"ActiveState": "deactivating"})


def test_seconds_reads_systemd_252_and_257() -> None:
    assert seconds("Sun 2026-11-22 13:00:00.500000 UTC") == 1795352400.5
    assert seconds("@1795352400.500000") == 1795352400.5
    assert seconds("n/a") == 0.0
    assert seconds("") == 0.0


def test_parse_show_keeps_units_apart_and_lists_whole() -> None:
    text = (
        "Id=a.service\nActiveState=active\nEnvironmentFiles=/etc/x (ignore_errors=no)\n"
        "EnvironmentFiles=/etc/y (ignore_errors=yes)\n\nId=b.service\nActiveState=failed\n"
    )
    units = parse_show(text)
    assert units["b.service"]["ActiveState"] == "failed"
    assert own_files(units["a.service"]) == ["/etc/x", "/etc/y"]


@pytest.mark.parametrize(
    ("status", "body", "contains", "good"),
    [
        (200, "", None, True),
        (503, "", None, False),
        (200, '{"dag_processor": {"status": "healthy"}}', '"dag_processor":{"status":"healthy"', True),
        (200, '{"dag_processor": {"status": null}}', '"dag_processor":{"status":"healthy"', False),
        (200, "plain text", "text", True),
    ],
)
def test_answers(status: int, body: str, contains: str | None, good: bool) -> None:
    assert answers(Ready(contains=contains), status, body) is good
