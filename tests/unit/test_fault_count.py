# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The count of tasks after a fault finds what it is for, which a good cluster never shows it."""

from __future__ import annotations

import pathlib
import sys
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "faults")]
from count import Outcome, Row, State, Times, count, full_from  # noqa: E402

INF = float("inf")
# The fault began at 100 s and was over at 160 s; all slots were taken again at 180 s.
TIMES = Times(100, 160, 180)


def row(number: int, index: int, started: float, ended: float, host: str = "worker1", tries: int = 1) -> Row:
    return Row(str(number), "run", str(index), str(tries), host, started, ended)


def state(index: int, told: float, state: str = "success", tries: int = 1) -> State:
    return State("work", "run", str(index), state, str(tries), told)


def counted(rows: list[Row], states: list[State], tasks: int, dead: t.Collection[str] = ()) -> Outcome:
    outcome = Outcome("a fault", 60, tasks=tasks)
    count(outcome, rows, states, TIMES, dead)
    return outcome


def test_all_is_well() -> None:
    found = counted([row(1, 0, 90, 120), row(2, 1, 165, 170)], [state(0, 163), state(1, 171)], 2)
    assert (found.lost, found.doubled, found.failed, found.again, found.dead) == ([], [], [], [], [])
    # The first one ended while the fault lasted: told 3 s after the fault's end.
    assert found.told_after == 3


def test_lost() -> None:
    """Succeeded for Airflow without having worked to the end, and not even known to Airflow."""
    found = counted([row(1, 0, 90, INF)], [state(0, 163)], 2)
    assert found.lost == ["run[0]", "1 without a trace"]


def test_ended_twice() -> None:
    found = counted([row(1, 0, 90, 120), row(2, 0, 110, 130, "worker2")], [state(0, 163)], 1)
    assert found.doubled == ["run[0]"]
    # That it died first excuses a second beginning, and no second end.
    rows = [row(1, 0, 90, INF), row(2, 0, 310, 325, tries=2), row(3, 0, 311, 326, "worker2", tries=2)]
    assert counted(rows, [state(0, 327, tries=2)], 1, dead=["1"]).doubled == ["run[0]"]


def test_begun_twice_though_nobody_killed_it() -> None:
    rows = [row(1, 0, 90, INF), row(2, 0, 110, 130, tries=2)]
    assert counted(rows, [state(0, 163, tries=2)], 1).doubled == ["run[0]"]


def test_died_and_ran_again() -> None:
    rows = [row(1, 0, 90, INF), row(2, 0, 310, 325, "worker2", tries=2)]
    found = counted(rows, [state(0, 326, tries=2)], 1, dead=["1"])
    assert (found.lost, found.doubled, found.dead, found.again) == ([], [], ["run[0]"], ["run[0]"])
    assert (found.again_after, found.again_worked) == (225, 15)


def test_died_and_never_ran_again() -> None:
    found = counted([row(1, 0, 90, INF)], [state(0, 400, "failed")], 1, dead=["1"])
    assert (found.lost, found.failed) == (["run[0]"], ["work run[0]: failed"])


def test_full_again_needs_every_slot_of_every_worker() -> None:
    slots = {"worker1": 2, "worker2": 1}
    rows = [row(1, 0, 150, 190), row(2, 1, 165, 175), row(3, 2, 170, 190, "worker2")]
    assert full_from(rows, slots, 160, []) == 170
    # One of the two slots of worker1 holds a task that died.
    assert full_from(rows, slots, 160, ["1"]) == INF
