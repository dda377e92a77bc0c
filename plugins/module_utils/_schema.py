# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: the revision of Airflow's metadata schema, in a release and in a database."""

from __future__ import annotations

import glob
import os
import re
import typing as t

# Each chain of migrations: the table with the database's revision, and the folder with the release's, below the
# package C(airflow).
CHAINS: dict[str, str] = {
    "alembic_version": "migrations/versions",
    "alembic_version_fab": "providers/fab/migrations/versions",
}

# The command of Airflow that takes each chain back.
DOWNGRADE: dict[str, tuple[str, ...]] = {
    "alembic_version": ("db", "downgrade"),
    "alembic_version_fab": ("fab-db", "downgrade"),
}

_REVISION = re.compile(r"^revision(?:\s*:[^=]+)?\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)
_DOWN = re.compile(r"^down_revision(?:\s*:[^=]+)?\s*=\s*(?:[\"']([^\"']+)[\"']|None)", re.MULTILINE)


def links(texts: t.Iterable[str]) -> dict[str, str | None]:
    """The chain of revisions in the texts of Alembic's migration files: C({revision: the one before it, or None})."""
    found = {}
    for text in texts:
        revision, down = _REVISION.search(text), _DOWN.search(text)
        if revision and down:
            found[revision[1]] = down[1]
    return found


def head(chain: dict[str, str | None]) -> str | None:
    """The revision that no other comes after; None for an empty chain. Raises ValueError when there are several."""
    heads = sorted(set(chain) - set(chain.values()))
    if len(heads) > 1:
        raise ValueError(f"the chain of migrations has several ends: {', '.join(heads)}")
    return heads[0] if heads else None


def release_chains(package: str) -> dict[str, dict[str, str | None]]:
    """The chains of the release whose package C(airflow) is the folder C(package), by table; absent ones left out."""
    chains = {}
    for table, folder in CHAINS.items():
        texts = []
        for path in glob.glob(os.path.join(package, folder, "*.py")):
            with open(path, encoding="utf-8") as stream:
                texts.append(stream.read())
        if chain := links(texts):
            chains[table] = chain
    return chains


def compare(chains: dict[str, dict[str, str | None]], current: dict[str, str | None]) -> tuple[list[str], list[str]]:
    """What the database lacks, and what it has that the release does not know (it was migrated by a newer one)."""
    behind, unknown = [], []
    for table, chain in sorted(chains.items()):
        have, want = current.get(table), head(chain)
        if have is not None and have not in chain:
            unknown.append(f"{table} is at {have}")
        elif have != want:
            behind.append(f"{table}: {have or 'empty'} -> {want}")
    return behind, unknown


def back(
    older: dict[str, dict[str, str | None]], newer: dict[str, dict[str, str | None]], current: dict[str, str | None]
) -> dict[str, str]:
    """The revision that each chain of the database has to go back to for an older release; empty when it is there.

    C(newer) are the chains of the release that would do it. Raises ValueError when it cannot.
    """
    targets: dict[str, str] = {}
    for table, chain in sorted(older.items()):
        have, want = current.get(table), head(chain)
        if have is None or want is None or have in chain:
            continue
        known = newer.get(table, {})
        before: str | None = have
        while before is not None and before != want:
            before = known.get(before)
        if before is None:
            raise ValueError(f"{table} is at {have}, from which no way leads back to {want}")
        targets[table] = want
    return targets
