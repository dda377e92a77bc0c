# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: workers that take no more tasks, and what they still have to finish."""

from __future__ import annotations

import os

# A file here that is not empty says that the unit of its name is drained. The unit's ConditionFileNotEmpty= keeps it
# from starting then, so that it stays drained over a restart of its service or host. Emptying the file makes it newer
# than the process, which by that counts as outdated: a run that is cut off in between loses nothing.
FOLDER = "/etc/airflow/drained"


def flag(unit: str, folder: str = FOLDER) -> str:
    """The file that says whether a unit is drained."""
    return os.path.join(folder, unit.removesuffix(".service"))


def held(unit: str, folder: str = FOLDER) -> str:
    """Since when and by whom a unit is drained; empty when it is not."""
    try:
        with open(flag(unit, folder), encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""
