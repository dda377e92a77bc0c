# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook deploy_dags, on this machine in the place of two hosts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SAID = "DAGs | Say what changed"

INVENTORY = """\
all:
  vars:
    ansible_connection: local
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
    ansible_become: false
airflow_cluster:
  children:
    postgresql: {hosts: {db1: }}
    airflow_master: {hosts: {master1: }}
    airflow_worker: {hosts: {worker1: }}
"""


@pytest.fixture
def deploy(ansible_playbook: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Run the playbook with a folder of DAGs per host below tmp_path."""
    (tmp_path / "hosts.yml").write_text(INVENTORY)

    def run(*arguments: str, source: str | None = None) -> Any:
        variables = ["-e", f"__airflow_dags_dir={tmp_path}/{{{{ inventory_hostname }}}}", "-e", "__airflow_group=root"]
        variables += ["-e", f"airflow_dags_source={source}"] if source is not None else []
        return ansible_playbook("-i", tmp_path / "hosts.yml", "onprem.airflow.deploy_dags", *variables, *arguments)

    return run


@pytest.mark.skipif(os.geteuid() != 0, reason="the DAGs belong to root")
def test_it_deploys_to_masters_and_workers_and_says_what_changed(deploy: Callable[..., Any], tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "common").mkdir(parents=True)
    (source / "one.py").write_text("1")
    (source / "common" / "two.py").write_text("2")

    checked = deploy("--check", "--diff", source=str(source))
    assert checked.rc == 0, checked.output
    assert not (tmp_path / "master1").exists()

    limited = deploy("--limit", "worker1", source=str(source))
    assert limited.rc == 0, limited.output
    assert limited.tasks[SAID]["worker1"]["msg"] == ["worker1: 2 files, added common/two.py, one.py"]

    (source / "one.py").unlink()
    (source / "three.py").write_text("3")
    both = deploy(source=str(source))
    assert both.rc == 0, both.output
    assert both.tasks[SAID]["master1"]["msg"] == [
        "master1: 2 files, added common/two.py, three.py",
        "worker1: 2 files, added three.py; removed one.py",
    ]
    for host in ("master1", "worker1"):
        assert sorted(path.name for path in (tmp_path / host).rglob("*.py")) == ["three.py", "two.py"]
        assert (tmp_path / host / "three.py").stat().st_mode & 0o777 == 0o640
        assert (tmp_path / host / "common").stat().st_mode & 0o777 == 0o750
    assert not (tmp_path / "db1").exists()

    again = deploy(source=str(source))
    assert again.tasks[SAID]["master1"]["msg"] == ["master1: 2 files, unchanged", "worker1: 2 files, unchanged"]


@pytest.mark.parametrize("source", [None, ""])
def test_it_refuses_without_a_folder(source: str | None, deploy: Callable[..., Any], tmp_path: Path) -> None:
    ran = deploy(source=source)
    assert ran.rc != 0 and "airflow_dags_source is not set" in ran.output
    assert not (tmp_path / "master1").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="the DAGs belong to root")
def test_a_dag_with_a_syntax_error_reaches_no_host_unless_that_is_wanted(
    deploy: Callable[..., Any], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    daily = source / "daily.py"
    daily.write_text("from airflow.sdk import DAG\n")
    assert deploy(source=str(source)).rc == 0

    daily.write_text("from airflow.sdk import DAG\nDAG(\n")
    (source / "new.py").write_text("")
    for arguments in ((), ("--check", "--diff")):
        ran = deploy(*arguments, source=str(source))
        refused = ran.tasks[
            "onprem.airflow.airflow : DAGs | Make the host's folder equal to the one of the control machine"
        ]
        assert ran.rc != 0 and set(refused) == {"master1", "worker1"}
        for result in refused.values():
            assert result["failed"] and result["msg"].startswith("daily.py, line 2: '(' was never closed (Python 3.")
        for host in ("master1", "worker1"):
            assert [path.name for path in (tmp_path / host).iterdir()] == ["daily.py"]
            assert (tmp_path / host / "daily.py").read_text() == "from airflow.sdk import DAG\n"

    wanted = deploy("-e", "airflow_dags_check=false", source=str(source))
    assert wanted.rc == 0, wanted.output
    assert wanted.tasks[SAID]["master1"]["msg"][0] == "master1: 2 files, added new.py; updated daily.py"
