# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook smoke: proves every worker, and names the one that takes nothing."""

from __future__ import annotations

import re
import socket
import subprocess
import time

import pytest
from conftest import PLAIN, ROOT, Api, Lab


def smoke(lab: Lab, *arguments: str) -> tuple[int, str]:
    """The playbook's exit code and what it says."""
    command = ["ansible-playbook", *lab.arguments, "onprem.airflow.smoke", *arguments]
    ran = subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, timeout=180)
    return ran.returncode, ran.stdout + ran.stderr


def queues_of(lab: Lab) -> list[str]:
    """A queue for each canary that has to come back."""
    return [queue for name in lab.workers for queue in lab.variables[name].get("airflow_worker_queues", ["default"])]


def wait_for_log_server(address: str) -> None:
    """The tests after this one read logs of all workers."""
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((address, 8793), timeout=2).close()
            return
        except OSError:
            assert time.monotonic() < end, f"no log server at {address}"
            time.sleep(0.3)


def test_a_canary_comes_back_from_every_worker(lab: Lab, api: Api) -> None:
    queues = queues_of(lab)
    rc, output = smoke(lab)
    assert rc == 0, output
    assert f"from every queue of every worker looked at: {len(queues)}, in" in output
    names = re.search(r"^  queue +(.+)$", output, re.MULTILINE)
    times = re.search(r"^  default +(.+)$", output, re.MULTILINE)
    assert names and times, output
    assert names[1].split() == sorted(lab.workers)
    assert len(re.findall(r"\d+\.\d s", times[1])) == len(lab.workers)

    # The DAGs are there only for this: they have no schedule, and stand apart from the user's own.
    dags = api.call("GET", "/api/v2/dags?tags=onprem.airflow")["dags"]
    assert {dag["dag_id"] for dag in dags} == {f"onprem_airflow_canary_{queue}" for queue in set(queues)}
    assert {(dag["is_paused"], dag["timetable_summary"]) for dag in dags} == {(False, None)}


def test_a_worker_that_takes_nothing_is_named(lab: Lab) -> None:
    if len(lab.workers) < 2:
        pytest.skip("needs a worker that goes on")
    stopped, other = lab.workers[-1], lab.workers[0]
    lab.host(stopped).check_output("systemctl stop airflow-worker")
    try:
        rc, output = smoke(lab, "-e", "airflow_smoke_timeout=10")
    finally:
        lab.host(stopped).check_output("systemctl start airflow-worker")
        wait_for_log_server(lab.address(stopped))
    assert rc != 0
    assert "Smoke found 1 problem:" in output
    assert re.search(rf"^  {stopped}: took no canary of the queue default within \d+ s; other workers", output, re.M)
    assert f"fix: see that its worker runs: `systemctl status airflow-worker` on {stopped}" in output
    count = len(queues_of(lab))
    waiting = rf"^Smoke: {count - 1} of {count} canaries are back; waiting for default on {stopped}, \d+ s left"
    assert re.search(waiting, output, re.M)
    assert re.search(rf"^  queue +.*{other}.*{stopped}", output, re.M)
