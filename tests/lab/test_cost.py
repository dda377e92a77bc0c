# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of site.yml costs in tasks, which no machine makes slower or faster."""

from __future__ import annotations

import pathlib
import re

import pytest
import yaml
from conftest import ROOT, Lab

# Molecule's own runs: a dry one, the first, the second.
LOG = ROOT / ".lab" / "ansible.log"
RECORDED = yaml.safe_load((pathlib.Path(__file__).with_name("cost.yml")).read_text())
RECAP = re.compile(r"PLAY RECAP \*+\n((?:.*INFO\| \S+ +: ok=.*\n)+)")
HOST = re.compile(r"INFO\| (\S+) +: ok=(\d+) +changed=(\d+)")


def runs(lab: Lab) -> list[dict[str, tuple[int, int]]]:
    """The tasks executed and changed by each run on all hosts, by host."""
    found = []
    for recap in RECAP.findall(LOG.read_text() if LOG.exists() else ""):
        counts = {host: (int(ok), int(changed)) for host, ok, changed in HOST.findall(recap)}
        if set(counts) == set(lab.hosts):
            found.append(counts)
    return found


@pytest.mark.parametrize(("which", "back"), [("first", 2), ("second", 1)])
def test_no_run_executes_more_tasks_than_recorded(lab: Lab, which: str, back: int) -> None:
    """Each costs the control machine CPU time for each host, so a new task is worth a look: then cost.yml says so."""
    logged = runs(lab)
    if len(logged) != 3 or set(RECORDED[which]) != set(lab.hosts):
        pytest.skip("not the hosts, or not the runs, that cost.yml is of")
    counts = logged[-back]
    assert (sum(changed for _ok, changed in counts.values()) > 0) == (which == "first")
    assert {host: ok for host, (ok, _changed) in counts.items() if ok > RECORDED[which][host]} == {}
