# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Ansible runs tasks: by its own strategies, or by those of Mitogen."""

from __future__ import annotations

import importlib.util
import pathlib


def mitogen() -> dict[str, str]:
    """The environment in which Ansible uses Mitogen's strategies by default; empty where Mitogen is not installed."""
    found = importlib.util.find_spec("ansible_mitogen")
    if found is None or found.origin is None:
        return {}
    return {
        "ANSIBLE_STRATEGY_PLUGINS": str(pathlib.Path(found.origin).parent / "plugins" / "strategy"),
        "ANSIBLE_STRATEGY": "mitogen_linear",
        # Each play with a strategy that is not Ansible's own is told to be of yesterday.
        "ANSIBLE_DEPRECATION_WARNINGS": "false",
    }
