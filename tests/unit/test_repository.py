# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What git holds is made for every machine: no place of one of them, no package index that only some reach."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
# In pieces, so that this file is no hit itself. Which index packages come from is the business of each machine's own
# settings (pip.conf, uv.toml, sources.list) and of the variable airflow_index_url.
INDEXES = ["pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "deb" + ".debian.org"]
FOLDERS = ["/ro" + "ot/", "/wo" + "rk/", "/wo" + "rkspace/", "/bui" + "lds/"]
FORBIDDEN = re.compile("|".join(map(re.escape, INDEXES)) + r"|(?<![\w.}])(?:" + "|".join(map(re.escape, FOLDERS)) + ")")


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (CHECKOUT / name).is_file()]


def hits(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if FORBIDDEN.search(line)]


def test_no_file_names_an_index_or_a_place_of_one_machine() -> None:
    texts = [name for name in tracked() if not name.endswith(".png")]
    found = {name: hits((CHECKOUT / name).read_text(encoding="utf-8")) for name in texts}
    assert len(found) > 100
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_nothing_made_by_a_machine_is_tracked() -> None:
    made = re.compile(r"\.pyc$|\.retry$|\.tar\.gz$|(^|/)(__pycache__|\.venv[^/]*|\.lab|build)/|airflow_secrets\.yml$")
    assert [name for name in tracked() if made.search(name)] == []


@pytest.mark.parametrize("wrong", [f"https://{INDEXES[0]}/simple", f"see {FOLDERS[0]}x", f"a={FOLDERS[1]}b"])
def test_a_wrong_line_is_seen(wrong: str) -> None:
    assert hits(f"right\n{wrong}\n") == [wrong]


@pytest.mark.parametrize("right", ["https://pypi.example.com/simple", "{{ x }}/root/y", "docs/framework/x"])
def test_a_right_line_is_not(right: str) -> None:
    assert hits(right) == []
