# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draining: the note on the host, what is told of tasks, who would be missed, and the waiting."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

import pytest
from ansible_collections.onprem.airflow.plugins.action import drain
from ansible_collections.onprem.airflow.plugins.module_utils import _drain

UNIT = "airflow-worker.service"


# --- The note
def test_a_drained_unit_keeps_its_first_note_and_an_undrained_one_an_empty_file(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / "drained")
    assert _drain.held(UNIT, folder) == ""
    assert _drain.mark(UNIT, "drained", "a person", folder)
    note = _drain.held(UNIT, folder)
    assert note.startswith("since 20") and note.endswith(" by a person")
    assert not _drain.mark(UNIT, "drained", "somebody else", folder)
    assert _drain.held(UNIT, folder) == note
    # A restart of all leaves it drained.
    assert not _drain.mark(UNIT, "restarting", "", folder)
    assert _drain.held(UNIT, folder) == note
    assert _drain.mark(UNIT, "undrained", "", folder)
    assert _drain.held(UNIT, folder) == ""
    assert os.path.getsize(_drain.flag(UNIT, folder)) == 0
    assert not _drain.mark(UNIT, "undrained", "", folder)


def test_a_unit_that_restarts_is_noted_by_the_time_of_an_empty_file(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path)
    path = _drain.flag(UNIT, folder)
    assert _drain.mark(UNIT, "restarting", "", folder)
    os.utime(path, (1, 1))
    assert _drain.mark(UNIT, "restarting", "", folder)
    assert os.stat(path).st_mtime > 1


def test_a_dry_run_notes_nothing(tmp_path: pathlib.Path) -> None:
    assert _drain.mark(UNIT, "drained", "", str(tmp_path), dry=True)
    assert list(tmp_path.iterdir()) == []


# --- Tasks
def request(identity: str, index: int = -1, **more: t.Any) -> dict[str, t.Any]:
    instance = {"dag_id": "etl", "task_id": "load", "run_id": "monday", "map_index": index}
    return {"id": identity, "args": [json.dumps({"token": "eyJ.secret", "ti": instance})], **more}


def test_tasks_are_named_and_their_tokens_are_not() -> None:
    found = _drain.tasks([request("2", 7, time_start=100.0)], [request("1"), request("2", 7)])
    assert found == [
        _drain.Task("etl.load of monday"),
        _drain.Task("etl.load[7] of monday", 100.0),
    ] or found == [_drain.Task("etl.load[7] of monday", 100.0), _drain.Task("etl.load of monday")]
    assert "secret" not in repr(found)


@pytest.mark.parametrize("arguments", [[], ["no json"], ['{"ti": {}}'], [None], ["[]"]])
def test_a_message_that_is_not_airflows_is_told_by_its_id(arguments: list[t.Any]) -> None:
    assert _drain.task_name({"id": "42", "args": arguments}) == "the message 42"


def test_a_line_of_progress_counts_all_and_names_few() -> None:
    left = [{"name": f"etl.load[{number}] of monday", "since": 90.0} for number in range(5)]
    line = _drain.progress("worker1", [*left[:4], {"name": "etl.last of monday", "since": 0}], 5, 60.4, 100.0)
    assert line.startswith("worker1: 5 tasks still to end, 60 s left: etl.load[0] of monday (runs for 10 s); ")
    assert line.endswith("; 2 more")
    assert _drain.progress("worker1", [], 1, 5, 100.0) == "worker1: 1 task still to end, 5 s left"
    assert "(waits for a slot)" in _drain.told({"name": "x", "since": 0}, 100.0)


# --- Who would be missed
def look(node: str, consumers: dict[str, list[str]], **more: t.Any) -> dict[str, t.Any]:
    return {"units": {UNIT: {"node": node}}, "consumers": consumers, **more}


CONSUMERS = {"celery@a": ["default", "gpu"], "celery@b": ["default"], "celery@c": ["default"]}


def test_one_of_several_may_go_and_the_last_of_a_queue_may_not() -> None:
    assert _drain.left_alone({"b": look("celery@b", CONSUMERS)}) == []
    assert _drain.left_alone({"a": look("celery@a", CONSUMERS)}) == [
        "a is the last that takes tasks from the queue gpu"
    ]


def test_together_they_may_be_the_last() -> None:
    hosts = {host: look(f"celery@{host}", CONSUMERS) for host in "abc"}
    assert "a, b, c are the last that take tasks from the queue default" in _drain.left_alone(hosts)


def test_nobody_goes_while_it_is_not_known_who_else_is_there() -> None:
    (said,) = _drain.left_alone({"a": look("celery@a", {}, why="Connection refused")})
    assert "Connection refused" in said


# --- The waiting, with a worker that answers as told
class Clock:
    def __init__(self) -> None:
        self.now = 1000.0


def seen(tasks: int = 0, *, active: str = "active", pid: int = 7, answers: bool = True) -> dict[str, t.Any]:
    told = [{"name": f"etl.load[{number}] of monday", "since": 900.0} for number in range(tasks)]
    return {
        "changed": False,
        "units": {
            UNIT: {
                "active": active,
                "pid": pid,
                "tasks": told if answers else [],
                "number": tasks,
                "done": tasks == 0,
                "answers": answers,
            }
        },
    }


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., tuple[dict[str, t.Any], list[t.Any], list[str]]]:
    """Runs the waiting over a list of answers, of which the last one stays; the result, the calls and what was said."""

    def run(
        answers: list[dict[str, t.Any]], state: str = "drained", timeout: int = 60
    ) -> tuple[dict[str, t.Any], list[dict[str, t.Any]], list[str]]:
        clock, steps, said = Clock(), list[dict[str, t.Any]](), list[str]()
        action = object.__new__(drain.ActionModule)

        def call(_arguments: t.Any, step: dict[str, t.Any], _variables: t.Any) -> dict[str, t.Any]:
            steps.append(step)
            clock.now += max(0.1, step["wait"])
            return answers.pop(0) if len(answers) > 1 else answers[0]

        monkeypatch.setattr(action, "_call", call)
        monkeypatch.setattr(drain.time, "monotonic", lambda: clock.now)
        monkeypatch.setattr(drain.time, "time", lambda: clock.now)
        monkeypatch.setattr(drain.display, "display", lambda text, **_more: said.append(text))
        arguments = {"units": [UNIT], "state": state, "timeout": timeout}
        return action._wait(arguments, "worker1", {}), steps, said

    return run


def test_it_waits_until_nothing_is_left_and_says_how_far_it_is(wait: t.Any) -> None:
    result, steps, said = wait([seen(2), seen(1), seen(0)])
    assert not result.get("failed")
    assert [step["first"] for step in steps] == [True, False, False]
    assert [line.split(",")[0] for line in said] == ["worker1: 2 tasks still to end", "worker1: 1 task still to end"]


def test_after_the_deadline_it_fails_with_the_names_and_kills_nothing(wait: t.Any) -> None:
    result, steps, _said = wait([seen(2)], timeout=12)
    assert result["failed"]
    assert "After 12 s worker1 still has 2 tasks to end: etl.load[0] of monday (runs for" in result["msg"]
    assert "onprem.airflow.undrain --limit worker1" in result["msg"]
    assert not [step for step in steps if "systemctl" in step]


def test_a_restart_that_comes_too_late_is_left_to_systemd(wait: t.Any) -> None:
    result, steps, _said = wait([seen(2)], state="restarting", timeout=12)
    assert result["failed"] and "systemd restarts it" in result["msg"]
    assert (steps[-1]["systemctl"], steps[-1]["units"]) == ("restart", [UNIT])


def test_a_silent_worker_is_stopped_by_systemd_after_a_while_and_still_waited_for(wait: t.Any) -> None:
    silent = seen(1, answers=False)
    stopping = seen(1, active="deactivating", answers=False)
    result, steps, said = wait([silent] * 5 + [stopping] * 3 + [seen(0, active="inactive", pid=0)], timeout=300)
    assert not result.get("failed")
    assert [step["systemctl"] for step in steps if "systemctl" in step] == ["stop"]
    assert any("cannot be asked over the broker" in line for line in said)
    # Nobody had killed it: its tasks did not die.
    assert result["died"] == []


def test_one_lost_answer_is_no_silence(wait: t.Any) -> None:
    _result, steps, _said = wait([seen(1), seen(1, answers=False), seen(1), seen(1, answers=False), seen(0)])
    assert not [step for step in steps if "systemctl" in step]


def test_a_worker_that_dies_takes_its_tasks_with_it_and_that_is_said(wait: t.Any) -> None:
    result, _steps, said = wait([seen(2), seen(0, active="inactive", pid=0)])
    assert not result.get("failed")
    assert result["died"] == ["etl.load[0] of monday", "etl.load[1] of monday"]
    assert any("the worker died while it was drained, with these tasks: etl.load[0]" in line for line in said)
