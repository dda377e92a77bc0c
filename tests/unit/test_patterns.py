# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every play has to say of itself: its hosts, by a pattern that means them, its strategy, and what it includes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = ROOT / "playbooks"
VARIABLES = yaml.safe_load((PLAYBOOKS / "vars" / "cluster.yml").read_text())


@pytest.mark.parametrize("path", sorted(PLAYBOOKS.glob("*.yml")), ids=lambda path: path.stem)
def test_what_stands_beside_another_pattern_is_no_list_of_names(path: Path) -> None:
    """In `airflow_master:&a,b` the name b stands for itself: ten new workers became masters by that."""
    scope = []
    for play in yaml.safe_load(path.read_text()):
        hosts = str(play.get("hosts", ""))
        if not hosts.startswith("{{"):
            scope += re.findall(r"__airflow_\w+", hosts)
        scope += re.findall(r"__airflow_\w+", str((play.get("vars") or {}).get("__airflow_scope", "")))
    for name in scope:
        assert "join(',')" not in str(VARIABLES.get(name, "")), name


@pytest.mark.parametrize("path", sorted(PLAYBOOKS.glob("*.yml")), ids=lambda path: path.stem)
def test_every_play_names_its_strategy(path: Path) -> None:
    """The default may be another one: with free, run_once and any_errors_fatal mean something else."""
    plays = [play for play in yaml.safe_load(path.read_text()) if "hosts" in play]
    assert [play["name"] for play in plays if "strategy" not in play] == []


@pytest.mark.parametrize(
    "path",
    sorted([*PLAYBOOKS.rglob("*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_host_decides_by_a_template_what_of_a_role_it_includes(path: Path) -> None:
    """Ansible joins hosts that include one role, also where C(tasks_from) differs: a running master was installed."""
    assert re.findall(r"(?:tasks|vars|defaults|handlers)_from: .*\{[{%].*", path.read_text()) == []
