# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Masters restart one by one. The only cluster with two of them is that of the scenario `verify`."""

from __future__ import annotations

import subprocess
import threading
import typing as t
import urllib.request

from conftest import PLAIN, ROOT, Lab  # type: ignore[import-not-found]

SERVICES = ("api-server", "scheduler", "dag-processor", "triggerer")


def processes(lab: t.Any) -> dict[tuple[str, str], str]:
    """The main process of every service of every master."""
    return {
        (master, service): lab.host(master).check_output(f"systemctl show --value --property=MainPID airflow-{service}")
        for master in lab.masters
        for service in SERVICES
    }


def answers(lab: t.Any, master: str) -> bool:
    """Whether the API server of a master serves."""
    try:
        with urllib.request.urlopen(f"http://{lab.address(master)}:8080/api/v2/version", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_an_api_server_answers_all_the_time_while_masters_restart() -> None:
    lab = Lab()
    before = processes(lab)
    seen: list[frozenset[str]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(frozenset(master for master in lab.masters if answers(lab, master)))
            over.wait(0.3)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        command = ["ansible-playbook", *lab.arguments, "onprem.airflow.restart", "--limit", "airflow_master"]
        done = subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, check=False)
    finally:
        over.set()
        watcher.join()
    assert done.returncode == 0, done.stdout + done.stderr
    after = processes(lab)
    assert [service for service in before if before[service] == after[service]] == []
    # Each was away for a time, which the watch has seen, and there was always another.
    for master in lab.masters:
        assert any(master not in answering for answering in seen), f"{master} was never away"
    assert frozenset() not in seen
