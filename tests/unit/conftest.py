# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes this checkout importable as the collection onprem.airflow, and runs playbooks with it."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

# Python and Ansible find a collection only in a folder ansible_collections/<namespace>/<name>.
_tree = tempfile.TemporaryDirectory(prefix="onprem-airflow-")
atexit.register(_tree.cleanup)
COLLECTIONS = Path(_tree.name)
(COLLECTIONS / "ansible_collections" / "onprem").mkdir(parents=True)
(COLLECTIONS / "ansible_collections" / "onprem" / "airflow").symlink_to(CHECKOUT)
sys.path.insert(0, str(COLLECTIONS))


@dataclass
class Ran:
    """What ansible-playbook said: its exit code, all its output, and the results of each task by name, then by host."""

    rc: int
    output: str
    tasks: dict[str, dict[str, dict[str, Any]]]


@pytest.fixture
def ansible_playbook(tmp_path: Path) -> Callable[..., Ran]:
    """Run ansible-playbook with the given arguments; any warning or deprecation of Ansible fails the test."""

    def run(*arguments: str | Path, json_output: bool = True, **environment: str) -> Ran:
        config = tmp_path / "ansible.cfg"
        config.touch()
        env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        env |= {
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONFIG": str(config),
            "ANSIBLE_HOME": str(tmp_path / ".ansible"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_PIPELINING": "true",  # as in our playbooks; saves a fifth of the time
            "ANSIBLE_RETRY_FILES_ENABLED": "false",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json" if json_output else "ansible.builtin.default",
            **environment,
        }
        command = [sys.executable, "-m", "ansible", "playbook", *map(str, arguments)]
        ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
        output = ran.stdout + ran.stderr
        assert "[WARNING]" not in output and "[DEPRECATION" not in output, output
        tasks: dict[str, dict[str, dict[str, Any]]] = {}
        if json_output and "{" in ran.stdout:
            for play in json.loads(ran.stdout[ran.stdout.index("{") :])["plays"]:
                for task in play["tasks"]:
                    tasks[task["task"]["name"]] = task["hosts"]
        return Ran(ran.returncode, output, tasks)

    return run
