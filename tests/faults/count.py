# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of the tasks of a fault, by Airflow's metadata database and by the table that they wrote to."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import math
import operator
import typing as t

ENDED = operator.attrgetter("ended")
# The id of a run and the index in it
Task = tuple[str, str]


class Row(t.NamedTuple):
    """One time that a task ran, as it wrote itself; times since the epoch. C(ended) is infinite until it has ended."""

    id: str
    run: str
    index: str
    tries: str
    host: str
    started: float
    ended: float

    @property
    def task(self) -> Task:
        return self.run, self.index


class State(t.NamedTuple):
    """What Airflow knows of a task, and since when."""

    name: str
    run: str
    index: str
    state: str
    tries: str
    told: float

    @property
    def task(self) -> Task:
        return self.run, self.index

    def __str__(self) -> str:
        return f"{self.run}[{self.index}]"


@dataclasses.dataclass
class Times:
    """When a fault has begun, when it was over, and when all slots had been taken again."""

    began: float
    over: float
    settled: float


@dataclasses.dataclass
class Outcome:
    """What became of the tasks of one fault."""

    name: str
    seconds: float
    # From its end (for what ends at once: from its beginning) until all slots were taken again
    full_after: float = 0.0
    tasks: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    doubled: list[str] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)
    # Tried more than once, and those among them that were in the middle of their work on a host that died
    again: list[str] = dataclasses.field(default_factory=list)
    dead: list[str] = dataclasses.field(default_factory=list)
    # From the beginning of the fault until the last of those had ended, of which the task itself took so long
    again_after: float = 0.0
    again_worked: float = 0.0
    # The longest time from the end of a task's work, or of the fault, until Airflow knew that it had succeeded
    told_after: float = 0.0
    # What verify named as causes while the fault lasted: code and hosts
    named: list[str] = dataclasses.field(default_factory=list)
    # How often systemd started a service anew, the most often restarted one
    restarts: str = ""


def count(
    outcome: Outcome, rows: list[Row], states: list[State], times: Times, dead: collections.abc.Collection[str]
) -> None:
    """Fills in what became of the tasks. C(dead) are the rows of those that died with the fault."""
    began = collections.Counter(row.task for row in rows)
    ends = collections.Counter(row.task for row in rows if row.ended < math.inf)
    died = {row.task for row in rows if row.id in dead}
    work = [state for state in states if state.name == "work"]
    missing = outcome.tasks - len(work)
    outcome.failed = [f"{state.name} {state}: {state.state}" for state in states if state.state != "success"]
    outcome.again = [str(state) for state in states if state.tries != "1"]
    outcome.lost = [str(state) for state in work if not ends[state.task]]
    outcome.lost += [f"{missing} without a trace"] if missing else []
    # Begun once more though nobody had killed it is no better than ended twice.
    outcome.doubled = [
        str(state) for state in work if ends[state.task] > 1 or (began[state.task] > 1 and state.task not in died)
    ]
    outcome.dead = [str(state) for state in work if state.task in died]
    if last := max((row for row in rows if row.task in died and row.ended < math.inf), key=ENDED, default=None):
        outcome.again_after = round(last.ended - times.began, 1)
        outcome.again_worked = round(last.ended - last.started, 1)
    outcome.told_after = round(max(_delays(rows, work, times), default=0.0), 1)


def _delays(rows: list[Row], work: list[State], times: Times) -> collections.abc.Iterator[float]:
    """How long after the end of each task's work Airflow knew of it; what ended during the fault, after its end."""
    ended = {row.task: row.ended for row in sorted(rows, key=ENDED) if row.ended < math.inf}
    for state in work:
        end = ended.get(state.task, math.inf)
        if state.state == "success" and end <= times.settled:  # or else it is the time of the next fault
            yield state.told - (times.over if times.began <= end <= times.over else end)


def full_from(rows: list[Row], slots: dict[str, int], over: float, dead: collections.abc.Collection[str]) -> float:
    """When, after a moment, all slots of every worker had been taken by tasks of which one began since."""
    moments = []
    for worker, many in slots.items():
        mine = [row for row in rows if row.host == worker and row.id not in dead]
        starts = sorted(row.started for row in mine if row.started > over)
        full = (at for at in starts if sum(1 for row in mine if row.started <= at < row.ended) >= many)
        moments.append(next(full, math.inf))
    return max(moments)


def told(outcomes: t.Iterable[Outcome]) -> str:
    """The outcomes as a table."""
    heads = ("lasts", "full", "tasks", "lost", "twice", "failed", "dead", "again", "told")
    lines = [" " * 40 + "".join(f"{head:>7}" for head in heads)]
    for one in outcomes:
        counts = (len(one.lost), len(one.doubled), len(one.failed), len(one.dead))
        values = (one.seconds, one.full_after, one.tasks, *counts, one.again_after, one.told_after)
        said = f"verify: {', '.join(one.named) or '-'}; restarts: {one.restarts}"
        lines.append(f"{one.name[:40]:40}{''.join(f'{value:7.0f}' for value in values)}  {said}")
    return "\n".join(lines)
