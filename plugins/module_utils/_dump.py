# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: the names of a database's dumps, and which of them stay. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

SUFFIX = ".dump"
# While it is written. A dump that was cut off keeps this name and is no dump.
PARTIAL = ".partial"


@dataclass(frozen=True)
class Dump:
    """What the name of a dump says. C(schema) is the revision of the schema; empty when the database had none."""

    name: str
    when: str
    label: str
    schema: str


def file_name(database: str, now: float, label: str, schema: str) -> str:
    """The name of a dump: C(airflow_20261122T202529Z_3.3.1-5e6f7a8b_d2f4e1b3c5a7.dump)."""
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    parts = [re.sub(r"[^A-Za-z0-9.-]", "-", part) for part in (label or "none", schema or "none")]
    return "_".join((database, when, *parts)) + SUFFIX


def parse(database: str, names: Iterable[str]) -> list[Dump]:
    """The dumps of a database among the names of files, the newest first."""
    pattern = re.compile(re.escape(database) + r"_(\d{8}T\d{6}Z)_([^_]+)_([^_]+)" + re.escape(SUFFIX))
    found = [Dump(name, *match.groups()) for name in names if (match := pattern.fullmatch(name))]
    return sorted(found, key=lambda dump: dump.when, reverse=True)


def to_remove(dumps: list[Dump], keep: int) -> list[str]:
    """The names of dumps to remove, so that the C(keep) newest are left, and the last one of the schema before.

    An upgrade that is tried again and again makes dumps of the new schema only; the way back to the old one must not
    be pushed out by them.
    """
    before = next((dump for dump in dumps if dump.schema != dumps[0].schema), None) if dumps else None
    return [dump.name for dump in dumps[max(1, keep) :] if dump is not before]
