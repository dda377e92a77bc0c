#!/usr/bin/env python3
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the tables of variables in roles/*/README.md from meta/argument_specs.yml: lab/docs.py

A unit test fails when they are not current.
"""

from __future__ import annotations

import json
import pathlib
import re
import typing as t

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- variables: made by lab/docs.py -->\n", "<!-- end of variables -->\n"


def code(value: t.Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return "`" + text.replace("|", "\\|") + "`"


def markdown(text: str) -> str:
    """Ansible's markup: C(code), V(value), O(option), M(name#module), P(name#role)."""
    return re.sub(r"\b[CVOMP]\(([^()]*?)(?:#[a-z]+)?\)", lambda match: code(match[1]), text).replace("\n", " ")


def table(options: dict[str, dict[str, t.Any]]) -> str:
    lines = ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, option in options.items():
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        default = code(option["default"]) if "default" in option else "required" if option.get("required") else "none"
        description = option["description"]
        words = [markdown(description if isinstance(description, str) else " ".join(description))]
        words += [f"One of {', '.join(map(code, option['choices']))}."] if "choices" in option else []
        words += [f"Keys: {', '.join(map(code, option['options']))}."] if "options" in option else []
        words += ["Secret."] if option.get("no_log") else []
        lines.append(f"| `{name}` | {kind} | {default} | {' '.join(words)} |")
    return "\n".join(lines) + "\n"


def readme(role: pathlib.Path) -> str:
    """The text that the README of a role should have."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    before, rest = (role / "README.md").read_text().split(BEGIN)
    return before + BEGIN + "\n" + table(specs["main"]["options"]) + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    for folder in sorted((ROOT / "roles").iterdir()):
        (folder / "README.md").write_text(readme(folder))
