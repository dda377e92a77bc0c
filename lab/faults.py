#!/usr/bin/env python3
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what `make faults` measured into docs/faults.md: lab/faults.py

Every cluster that build/ has results of gets its table anew; those of others stay as they are. What was measured again
replaces its row.
"""

from __future__ import annotations

import json
import pathlib
import re
import typing as t

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "faults.md"
HEADS = (
    "fault",
    "lasted, s",
    "full again, s",
    "tasks",
    "lost",
    "run twice",
    "failed",
    "died with it",
    "done elsewhere, s",
    "told, s",
    "`verify` named",
    "most restarts of a service",
)


def row(result: t.Mapping[str, t.Any]) -> str:
    """A fault as a row of the table."""
    dead = len(result["dead"])
    again = f"{result['again_after']:.0f} (worked {result['again_worked']:.0f})" if dead else "-"
    cells = (
        result["name"],
        f"{result['seconds']:.0f}" if result["seconds"] else "-",
        f"{result['full_after']:.0f}",
        str(result["tasks"]),
        *(str(len(result[name])) for name in ("lost", "doubled", "failed")),
        str(dead) if dead else "-",
        again,
        f"{result['told_after']:.0f}" if result["told_after"] is not None else "?",
        ", ".join(f"`{name}`" for name in result["named"]) or "-",
        result["restarts"],
    )
    return f"| {' | '.join(cells)} |"


def rows(table: str) -> dict[str, str]:
    """The rows of a table by their first cells."""
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def with_results(page: str, cluster: str, results: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """The page with the results of a cluster (trixie-quorum) between its marks."""
    begin, end = f"<!-- measured: {cluster} -->\n", f"<!-- end of {cluster} -->\n"
    before, rest = page.split(begin)
    table, after = rest.split(end)
    new = {result["name"]: row(result) for result in results}
    lines = new | {name: line for name, line in rows(table).items() if name not in new}
    head = [f"| {' | '.join(HEADS)} |", f"|{' --- |' * len(HEADS)}"]
    return before + begin + "\n".join(["", *head, *lines.values(), "", ""]) + end + after


if __name__ == "__main__":
    for path in sorted((ROOT / "build").glob("faults-*.json")):
        if name := re.fullmatch(r"faults-([a-z]+-[a-z]+)\.json", path.name):
            PAGE.write_text(with_results(PAGE.read_text(), name[1], json.loads(path.read_text())))
