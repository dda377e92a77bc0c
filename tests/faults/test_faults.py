# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Breaks the cluster under load, one fault after the other, and counts what became of every task.

Each fault has a load of its own: tasks run in all slots and more wait. It begins when all slots are taken, and counts
as over when they are again. Then every task has to have ended well, exactly once; begun twice has only what a dead
worker was in the middle of. make faults runs all of them, make test those that are often.

Environment: FAULTS=often, or a regular expression that is looked for in the names of faults (default: all of them);
LAB_RELEASE and QUEUE_TYPE name the file of the results.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import os
import pathlib
import re
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "faults"), str(ROOT / "tests" / "lab"), str(ROOT / "tests" / "workers")]
from count import Outcome, Times, count, full_from, told  # noqa: E402
from faults import FAULTS, Fault  # noqa: E402
from night import AFTER, LAST, SPANNING, Load, Night, until  # noqa: E402

WANTED = os.environ.get("FAULTS", "")
OFTEN = WANTED == "often"
CHOSEN = [fault for fault in FAULTS if (fault.often is not None if OFTEN else re.search(WANTED, fault.name))]
CLUSTER = f"{os.environ.get('LAB_RELEASE', 'trixie')}-{os.environ.get('QUEUE_TYPE', 'quorum')}"
RESULTS = ROOT / "build" / f"faults-{CLUSTER}{'-often' if OFTEN else ''}.json"


def keep(outcome: Outcome) -> None:
    """Writes what was measured, beside what was measured before of other faults."""
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    found = {one["name"]: one for one in [*before, dataclasses.asdict(outcome)]}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([found[fault.name] for fault in FAULTS if fault.name in found], indent=2) + "\n")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Night]:
    made = Night(tmp_path_factory.mktemp("verify"))
    made.begin()
    yield made
    made.close()


@dataclasses.dataclass
class Broken:
    """What is known of a fault when all slots are taken again: its tasks have not all ended."""

    outcome: Outcome
    load: Load
    times: Times
    # When that happened which kills
    struck: float
    # Rows of the tasks that died
    dead: list[str]


BROKEN: dict[str, Broken] = {}


def names(night: Night, fault: Fault, outcome: Outcome, until_when: float) -> bool:
    """Whether verify names the cause. What follows from it may take a moment to come together."""
    while True:
        causes = night.causes()
        outcome.named = [f"{code} on {', '.join(hosts)}" for code, hosts in causes]
        if any((code, host) == fault.named for code, hosts in causes for host in hosts):
            return True
        if time.time() > until_when:
            return False


@pytest.mark.parametrize("fault", CHOSEN, ids=lambda fault: fault.slug)
def test_fault(night: Night, fault: Fault) -> None:
    lasts = fault.often if OFTEN and fault.often is not None else fault.seconds
    outcome = Outcome(fault.name, lasts)
    first = {"spanning": SPANNING, "span": int(lasts) + 20} if lasts >= 60 else {}
    gone = [row for broken in BROKEN.values() for row in broken.dead]
    # A run of this name may be there already, of another time.
    name = f"{fault.slug}_{int(time.time()) % 100000}"
    with fault.prepared(night), night.load(name, {**first, **fault.first}) as load:
        night.fill(load.name, gone)
        restarts = night.restarts()
        began = time.time()
        with fault.broken(night) as when:
            broken = when or time.time()
            named = not fault.named or names(night, fault, outcome, broken + max(lasts - 15, 20))
            time.sleep(max(0.0, broken + lasts - time.time()))
            over = time.time() if lasts else began
        dead: list[str] = []
        if fault.kills or fault.kills_task is not None:
            dead = until(lambda: night.dead(load.name, broken, fault.kills, fault.kills_task), "somebody died")
        until(lambda: night.is_full_again(load.name, over, dead), "all slots are taken again", AFTER)
        outcome.full_after = round(full_from(night.rows(load.name), night.slots, over, dead) - over, 1)
        more = {unit: number - restarts.get(unit, 0) for unit, number in night.restarts().items()}
    unit = max(more, key=lambda unit: more[unit])
    outcome.restarts = f"{unit}, {more[unit]}" if more[unit] > 0 else "none"
    BROKEN[fault.slug] = Broken(outcome, load, Times(began, over, time.time()), broken, dead)
    assert named, f"verify did not name {fault.named} but {outcome.named}"
    # A service that has nothing to do without another one waits for it, and does not start again and again.
    assert more[unit] <= 2 + lasts / 30, more


# Last, since what died is tried again only after minutes. All others have ended when the next fault begins.
@pytest.mark.parametrize("fault", CHOSEN, ids=lambda fault: fault.slug)
def test_every_task_has_run_once(night: Night, fault: Fault) -> None:
    broken = BROKEN[fault.slug]
    outcome, name = broken.outcome, broken.load.name
    until(lambda: night.has_ended(f"{name}_"), "all its tasks have ended", LAST)
    outcome.tasks = broken.load.runs * broken.load.conf["tasks"]
    rows, states = until(lambda: (night.rows(name), night.states(name)), "the database answers")
    count(outcome, rows, states, broken.times, broken.dead)
    keep(outcome)
    assert (outcome.lost, outcome.doubled, outcome.failed) == ([], [], []), outcome
    # Tried again is what died, and nothing else. One that had just begun has no row yet, but Airflow knows of it.
    killed = until(lambda: [night.killed(name, broken.struck, fault.kills)], "the database answers")[0]
    assert set(outcome.again) <= {*outcome.dead, *killed}, outcome


def test_the_table_of_all_faults(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("\n" + told(broken.outcome for broken in BROKEN.values()))
    assert set(BROKEN) == {fault.slug for fault in CHOSEN}
