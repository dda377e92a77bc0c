# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DAGs: a folder of the control machine comes to the hosts that read it, exactly, and Airflow sees it by itself."""

from __future__ import annotations

import collections.abc
import json
import pathlib
import re
import shutil
import subprocess
import time
import typing as t
import urllib.error

import pytest
from conftest import PLAIN, ROOT  # type: ignore[import-not-found]

FOLDER = "/var/lib/airflow/dags"
REFRESH_INTERVAL = 30  # airflow_dags_refresh_interval of the lab: the default
MARGIN = 90  # for parsing, and for a machine that is busy
SECOND = """
from airflow.sdk import dag, task


@dag(dag_id="lab_second", schedule=None)
def lab_second():
    @task
    def nothing():
        pass

    nothing()


lab_second()
"""


def play(lab: t.Any, folder: pathlib.Path, *options: str) -> subprocess.CompletedProcess[str]:
    variables = json.dumps({"airflow_dags_source": str(folder)})
    command = ["ansible-playbook", *lab.arguments, "-e", variables, "onprem.airflow.deploy_dags", *options]
    return subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, check=False)


def deploy(lab: t.Any, folder: pathlib.Path, *options: str) -> dict[str, str]:
    """Runs the playbook; returns each host's line of the recap."""
    done = play(lab, folder, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return dict(re.findall(r"^(\S+) +: (ok=.*)$", done.stdout, re.MULTILINE))


def on_hosts(lab: t.Any) -> dict[str, set[str]]:
    """The files of DAGs on every host of the cluster that has any."""
    found = {}
    for name in lab.hosts:
        files = lab.host(name).run(f"find {FOLDER} -type f -printf '%P %u:%g %m\\n'").stdout.splitlines()
        if files:
            found[name] = {line for line in files if "__pycache__" not in line}
    return found


def wait_until(api: t.Any, dag: str, there: t.Callable[[t.Any], bool]) -> float:
    """Seconds until the API shows a DAG (None: it has none of this name) as it is expected."""
    began = time.monotonic()
    while True:
        try:
            shown = api.call("GET", f"/api/v2/dags/{dag}")
        except urllib.error.HTTPError as exc:
            if exc.code != 404:
                raise
            shown = None
        if there(shown):
            return time.monotonic() - began
        assert time.monotonic() - began < REFRESH_INTERVAL + MARGIN, f"the API still shows {shown}"
        time.sleep(1)


@pytest.fixture
def folder(lab: t.Any, tmp_path: pathlib.Path) -> collections.abc.Iterator[pathlib.Path]:
    """A copy of the lab's own DAGs, which stand on the hosts again in the end."""
    copied = tmp_path / "dags"
    shutil.copytree(ROOT / "lab" / "dags", copied, ignore=shutil.ignore_patterns("__pycache__"))
    yield copied
    deploy(lab, ROOT / "lab" / "dags")


def test_a_dag_comes_and_goes(lab: t.Any, api: t.Any, folder: pathlib.Path) -> None:
    readers = {*lab.masters, *lab.workers}
    first = {f"{path.name} root:airflow 640" for path in (ROOT / "lab" / "dags").glob("*.py")}
    second = {"extra/lab_second.py root:airflow 640"}
    (folder / "extra").mkdir()
    (folder / "extra" / "lab_second.py").write_text(SECOND)

    recap = deploy(lab, folder, "--check", "--diff")
    assert set(recap) == readers
    assert all("changed=1" in counts for counts in recap.values()), recap
    assert on_hosts(lab) == dict.fromkeys(readers, first), "a dry run changed the hosts"

    recap = deploy(lab, folder)
    assert set(recap) == readers
    assert all("changed=1" in counts for counts in recap.values()), recap
    assert on_hosts(lab) == dict.fromkeys(readers, first | second)
    seconds = wait_until(api, "lab_second", lambda shown: shown is not None)
    print(f"a new DAG was seen after {seconds:.0f} s")

    recap = deploy(lab, folder)
    assert all("changed=0" in counts for counts in recap.values()), recap

    shutil.rmtree(folder / "extra")
    recap = deploy(lab, folder)
    assert all("changed=1" in counts for counts in recap.values()), recap
    assert on_hosts(lab) == dict.fromkeys(readers, first)
    seconds = wait_until(api, "lab_second", lambda shown: shown is None or shown["is_stale"])
    print(f"that it is gone was seen after {seconds:.0f} s")
    for host in readers:
        assert not lab.host(host).file(f"{FOLDER}/extra").exists


def test_a_dag_with_a_syntax_error_changes_nothing(lab: t.Any, folder: pathlib.Path) -> None:
    readers = {*lab.masters, *lab.workers}
    before = on_hosts(lab)
    (folder / "lab_broken.py").write_text("from airflow.sdk import DAG\nDAG(\n")
    done = play(lab, folder)
    assert done.returncode != 0
    told = r"fatal: \[(\S+)\]: FAILED! => \s*changed: false\s*msg: 'lab_broken\.py, line 2: ''\(''"
    assert set(re.findall(told + r"\s+was\s+never\s+closed", done.stdout)) == readers, done.stdout
    assert on_hosts(lab) == before
