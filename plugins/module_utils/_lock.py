# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: one at a time on a host."""

from __future__ import annotations

import fcntl
import typing as t

_held: list[t.IO[str]] = []  # open until the process ends


def wait_for_turn(path: str) -> None:
    """Wait until no other process holds the lock file C(path), then hold it until this process ends.

    When a run of Ansible is killed, what it started on a host goes on there without it. The next run must neither
    work beside that nor take its half-done work for its own.
    """
    handle = open(path, "w", encoding="utf-8")  # noqa: SIM115  # closing it would end the lock
    fcntl.flock(handle, fcntl.LOCK_EX)
    _held.append(handle)
