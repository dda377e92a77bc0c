# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ansible says at its most talkative (-vvv): what of it a person wants to see, and its warnings."""

from __future__ import annotations

import collections.abc
import re

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What -vvv adds: connections, and the results of tasks that went well.
TALK = re.compile(
    r"<|task path: |Read `vars_file`|Using module file|redirecting |Pipelining is enabled"
    r"|(ok|changed|skipping|included): \[.* => ?$"
)
WARNING = re.compile(r"\[(?:DEPRECATION )?WARNING\]")
# Says of the network, not of us, that apt had to ask a mirror again.
OF_THE_NETWORK = re.compile(r"Failed to update cache after \d+ retries")


def seen(lines: collections.abc.Iterable[str]) -> collections.abc.Iterator[str]:
    """The lines that a person sees without -vvv."""
    hidden = False
    for line in lines:
        plain = COLOUR.sub("", line)
        if not plain.startswith("    "):  # or else a part of what came before
            hidden = bool(TALK.match(plain))
        if not hidden or plain.startswith(("ok:", "changed:")):
            yield line.replace(" => ", "")


def warning(line: str) -> str:
    """The warning that a line holds; empty when it holds none that is about us."""
    plain = COLOUR.sub("", line).strip()
    return plain if WARNING.search(plain) and not OF_THE_NETWORK.search(plain) else ""


def noting(lines: collections.abc.Iterable[str], found: list[str]) -> collections.abc.Iterator[str]:
    """The same lines; what they warn of is added to a list."""
    for line in lines:
        if told := warning(line):
            found.append(told)
        yield line
