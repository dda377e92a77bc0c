# Private to the onprem.airflow collection: no interface for others, may change with any release.
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of a folder of DAGs cannot be compiled. Nothing of them is executed.

The module tree hands the text of this file to the Python that the DAGs run with, so it imports nothing but what every
Python has.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

IGNORE_FILE = ".airflowignore"

# The parts of a pattern of .airflowignore, which are those of .gitignore.
TOKEN = re.compile(r"\*\*/|/\*\*$|\*+|\?|\[!?\]?[^\]]*\]|\\.|.")

Contents = dict[str, bytes]


@dataclass(frozen=True)
class Rule:
    """A line of .airflowignore."""

    pattern: re.Pattern[str]
    # What the pattern is relative to; None: it is held to the name alone.
    folder: str | None
    folders_only: bool
    ignores: bool

    def fits(self, path: str, is_folder: bool) -> bool:
        """Whether the line is about this file or folder."""
        if self.folders_only and not is_folder:
            return False
        below = path.rsplit("/", 1)[-1] if self.folder is None else path[len(self.folder) :].lstrip("/")
        return self.pattern.fullmatch(f"{below}/" if is_folder else below) is not None


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file; line 0 where none can be named."""

    path: str
    line: int
    what: str


def relevant(path: str) -> bool:
    """Whether the content of a file matters for the check."""
    return path.endswith(".py") or path.rsplit("/", 1)[-1] == IGNORE_FILE


def expression(glob: str) -> str:
    """A pattern of .airflowignore as a regular expression."""

    def part(match: re.Match[str]) -> str:
        token = match[0]
        if token in ("**/", "/**"):
            return "(?:.*/)?" if token == "**/" else "/.*"
        if token[0] == "*":
            alone = glob[: match.start()][-1:] in ("", "/") and glob[match.end() :][:1] in ("", "/")
            return "[^/]+" if alone else "[^/]*"
        if token == "?":
            return "[^/]"
        if token[0] == "[" and len(token) > 1:
            return "[" + re.sub(r"^!", "^", token[1:-1].replace("\\", "\\\\")) + "]"
        return re.escape(token[1:] if token[0] == "\\" and len(token) > 1 else token)

    return TOKEN.sub(part, glob)


def rules_of(text: str, folder: str) -> list[Rule]:
    """The lines of the .airflowignore of a folder. Airflow's default syntax; lines that are not understood go."""
    found = []
    for line in text.splitlines():
        glob = re.sub(r"\s*#.*", "", line).strip()
        ignores = not glob.startswith("!")
        glob = glob.lstrip("!")
        if glob.strip("/"):
            anchored = "/" in glob.rstrip("/")
            try:
                # What fits a folder fits everything in it.
                pattern = re.compile(expression(glob.strip("/")) + "(?:/.*)?", re.DOTALL)
            except re.error:
                continue
            found.append(Rule(pattern, folder if anchored else None, glob.endswith("/"), ignores))
    return found


def ignored(path: str, rules: dict[str, list[Rule]]) -> bool:
    """Whether a file, or a folder that it is in, is left out; rules by the folder whose .airflowignore has them."""
    parts = path.split("/")
    known: list[Rule] = []
    for depth in range(len(parts)):
        known.extend(rules.get("/".join(parts[:depth]), []))
        here = "/".join(parts[: depth + 1])
        last = [rule.ignores for rule in known if rule.fits(here, is_folder=depth + 1 < len(parts))][-1:]
        if last == [True]:
            return True
    return False


def opened(contents: Contents) -> list[str]:
    """The files that Airflow opens to look for DAGs: [core] dag_discovery_safe_mode and .airflowignore say which."""
    rules = {
        path.rpartition("/")[0]: rules_of(content.decode("utf-8", "replace"), path.rpartition("/")[0])
        for path, content in contents.items()
        if path.rsplit("/", 1)[-1] == IGNORE_FILE
    }
    found = []
    for path in sorted(contents):
        text = contents[path].lower() if path.endswith(".py") else b""
        if b"airflow" in text and (b"dag" in text or b"asset" in text) and not ignored(path, rules):
            found.append(path)
    return found


def modules(name: list[str], base: list[str], contents: Contents) -> Iterator[str]:
    """The files of ours that the import of a dotted name runs."""
    for length in range(1, len(name) + 1):
        stem = "/".join([*base, *name[:length]])
        for path in (f"{stem}/__init__.py", f"{stem}.py"):
            if path in contents:
                yield path
                break


def imports(path: str, contents: Contents) -> Iterator[str]:
    """The files of ours that a file imports. The root of the folder is in Airflow's search path, after all else."""
    for node in ast.walk(ast.parse(contents[path], path)):
        if isinstance(node, ast.Import):
            names, level = [alias.name.split(".") for alias in node.names], 0
        elif isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            names, level = [[*module, alias.name] for alias in node.names], node.level
        else:
            continue
        base = path.split("/")[:-level] if level else []
        for name in names:
            if level or name[0] not in sys.stdlib_module_names:
                yield from modules(name, base, contents)


def faults(contents: Contents) -> list[Fault]:
    """What cannot be compiled of the files that Airflow opens and of those that they import."""
    found = []
    waiting = opened(contents)
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        try:
            compile(contents[path], path, "exec", dont_inherit=True)
            more = sorted({*imports(path, contents)} - seen)
        except SyntaxError as error:
            found.append(Fault(path, error.lineno or 0, error.msg))
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            found.append(Fault(path, 0, str(error) or type(error).__name__))
        else:
            seen.update(more)
            waiting.extend(more)
    return sorted(found, key=lambda fault: fault.path)


def read(paths: Iterable[str], sent: Iterable[str], dest: str, archive: str | None) -> Contents:
    """The files as they will be: those that were sent from the archive, the others from where they are."""
    contents: Contents = {}
    missing = set(sent)
    if archive:
        with tarfile.open(archive, mode="r|gz") as members:
            for member in members:
                source = members.extractfile(member) if member.name in missing else None
                if source is not None:
                    contents[member.name] = source.read()
    for path in set(paths) - missing:
        with open(os.path.join(dest, path), "rb") as handle:
            contents[path] = handle.read()
    return contents


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Which Python this is, and what it cannot compile."""
    found = faults(read(question["paths"], question["sent"], question["dest"], question["archive"]))
    version = ".".join(map(str, sys.version_info[:2]))
    return {"python": version, "faults": [[fault.path, fault.line, fault.what] for fault in found]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(json.loads(sys.stdin.buffer.read()))))
