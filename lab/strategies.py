#!/usr/bin/env python3
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Ansible runs tasks: by its own strategies, or by those of Mitogen.

lab/strategies.py COMMAND ...     runs a command with Mitogen's, where Mitogen is installed
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent


def place(package: str) -> pathlib.Path | None:
    """The folder of a package of this Python; None where it is not installed."""
    found = importlib.util.find_spec(package)
    locations = found.submodule_search_locations if found else None
    return pathlib.Path(next(iter(locations))) if locations else None


def mitogen() -> dict[str, str]:
    """The environment in which Ansible uses Mitogen's strategies by default; empty where Mitogen is not installed."""
    installed = place("ansible_mitogen")
    if installed is None:
        return {}
    return {
        "ANSIBLE_STRATEGY_PLUGINS": str(installed / "plugins" / "strategy"),
        "ANSIBLE_STRATEGY": "mitogen_linear",
        # Each play with a strategy that is not Ansible's own is told to be of yesterday.
        "ANSIBLE_DEPRECATION_WARNINGS": "false",
    }


def few_collections() -> dict[str, str]:
    """The environment in which Ansible knows the collections that ours and the lab need, and no others.

    Mitogen lists all collections for each task (ansible_mitogen/planner.py, _load_collections); the package `ansible`
    brings a hundred, and their list takes a fifth of a second run's time. Not for Molecule, which sets paths itself.
    """
    folder = pathlib.Path(sys.prefix) / "collections"  # those of this Python
    for name in (*yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"], "ansible.posix"):  # profile_tasks
        link = folder.joinpath("ansible_collections", *name.split("."))
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(place(f"ansible_collections.{name}") or "missing")
    return {
        "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
        "ANSIBLE_COLLECTIONS_PATH": f"{ROOT / '.ansible' / 'collections'}:{folder}",
    }


if __name__ == "__main__":
    os.execvpe(sys.argv[1], sys.argv[1:], os.environ | mitogen() | few_collections())
