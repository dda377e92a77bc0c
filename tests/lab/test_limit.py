# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new worker, with --limit: it works, and no other host's processes change."""

from __future__ import annotations

import collections.abc
import pathlib
import subprocess
import sys
import typing as t

import pytest
import yaml
from conftest import PLAIN, ROOT, SOURCES  # type: ignore[import-not-found]

NEW = "worker3"
NEW_ADDRESS = "10.213.77.16"
UNITS = "airflow-api-server airflow-scheduler airflow-dag-processor airflow-triggerer airflow-worker rabbitmq-server"


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, cwd=ROOT, env=PLAIN | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def overlay(lab: t.Any, tmp_path: pathlib.Path) -> collections.abc.Iterator[pathlib.Path]:
    """An inventory source with one more worker, whose bare host exists while the test runs."""
    if NEW in lab.hosts or len(lab.workers) < 2:
        pytest.skip("adds a worker to an inventory of several hosts")
    # For a host of this source inventory_dir is another, and the lab's variables are relative to it.
    variables = {
        "ansible_host": NEW_ADDRESS,
        "__lab_folder": str(ROOT / ".lab"),
        "airflow_dags_source": str(ROOT / "lab" / "dags"),
        "airflow_verify_dest": str(ROOT / "build"),
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"airflow_worker": {"hosts": {NEW: variables}}}))
    environment = {"LAB_INVENTORY": ",".join([*SOURCES, str(tmp_path)])}
    run([sys.executable, "lab/hosts.py", "create"], **environment)
    yield tmp_path
    run([sys.executable, "lab/hosts.py", "destroy", NEW], **environment)
    run([sys.executable, "lab/hosts.py", "create"])  # the way to the hosts without it


def processes(lab: t.Any) -> dict[str, str]:
    """The main process of every service of every host."""
    return {
        name: lab.host(name).check_output(f"systemctl show --property=Id,MainPID {UNITS} 'postgresql@*'")
        for name in lab.hosts
    }


def admitted(lab: t.Any) -> set[str]:
    return {row[0] for row in lab.sql("SELECT DISTINCT address FROM pg_hba_file_rules WHERE address IS NOT NULL")}


def test_a_new_worker_takes_tasks_and_nobody_else_restarts(lab: t.Any, api: t.Any, overlay: pathlib.Path) -> None:
    before, let_in = processes(lab), admitted(lab)
    site = ["ansible-playbook", *lab.arguments, "onprem.airflow.site"]
    run([*site, "-i", str(overlay), "--limit", NEW])

    run_id = api.run_dag("lab_mapped", {"n": 8 * (len(lab.workers) + 1)}, timeout=300)
    ran = lab.sql(f"SELECT DISTINCT hostname FROM task_instance WHERE run_id = '{run_id}' AND task_id = 'where'")
    assert [NEW] in ran, ran
    assert processes(lab) == before
    assert admitted(lab) == {*let_in, NEW_ADDRESS}

    # The whole inventory again, without it: it is let in no longer.
    run([*site, "--tags", "postgresql_configure"])
    assert admitted(lab) == let_in
    assert processes(lab) == before
