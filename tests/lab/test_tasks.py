# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cluster is for: tasks run, on every worker, and people see what they did."""

from __future__ import annotations

import json
import re
import time
import typing as t

import pytest


@pytest.mark.smoke
def test_tasks_ran_on_every_worker(lab: t.Any, finished_run: str) -> None:
    rows = lab.sql(
        f"SELECT hostname, count(*) FROM task_instance WHERE run_id = '{finished_run}' AND task_id = 'where'"
        " AND state = 'success' GROUP BY hostname"
    )
    print("tasks by host:", dict(rows))
    assert sorted(host for host, count in rows) == sorted(lab.workers)
    assert sum(int(count) for host, count in rows) == 6 * len(lab.workers)


@pytest.mark.smoke
def test_logs_come_from_the_worker_that_ran_the_task(lab: t.Any, api: t.Any, finished_run: str) -> None:
    for worker in lab.workers:
        ((index, attempt),) = lab.sql(
            f"SELECT map_index, try_number FROM task_instance WHERE run_id = '{finished_run}' AND task_id = 'where'"
            f" AND hostname = '{worker}' LIMIT 1"
        )
        path = f"/api/v2/dags/lab_mapped/dagRuns/{finished_run}/taskInstances/where/logs/{attempt}"
        content = json.dumps(api.call("GET", f"{path}?map_index={index}&full_content=true"))
        assert f"task {index} ran on {worker}" in content
        if worker not in lab.masters:  # an API server on the same host reads the file itself
            assert f"http://{worker}:8793/log" in content


def test_a_slot_is_free_when_its_task_has_ended(lab: t.Any, api: t.Any) -> None:
    """Without the policy C(batch) four of ten slots stay taken for 5 s more (roles/airflow_worker/vars/main.yml)."""
    workers = {worker: lab.host(worker) for worker in lab.workers}
    begins = {worker: host.check_output("date +%s") for worker, host in workers.items()}
    api.run_dag("lab_quick", {"n": 60 * len(workers)})
    taken = [
        float(seconds)
        for worker, host in workers.items()
        for seconds in re.findall(
            r"succeeded in ([0-9.]+)s",
            host.check_output("journalctl --unit=airflow-worker --since=@%s", begins[worker]),
        )
    ]
    assert len(taken) >= 50 * len(workers)
    late = sum(seconds > 4 for seconds in taken) / len(taken)
    print(f"slots taken for more than 4 s by a task that does nothing: {late:.0%}")
    assert late < 0.25


def test_a_worker_that_is_stopped_finishes_its_tasks(lab: t.Any, api: t.Any) -> None:
    if len(lab.hosts) > 1:
        pytest.skip("the inventory with one host runs it")
    worker = lab.workers[-1]
    host = lab.host(worker)
    body = {"logical_date": None, "conf": {"n": 4 * len(lab.workers)}}
    run = api.call("POST", "/api/v2/dags/lab_mapped/dagRuns", body)
    query = (
        f"SELECT count(*) FROM task_instance WHERE run_id = '{run['dag_run_id']}' AND task_id = 'where'"
        f" AND hostname = '{worker}' AND state = '%s'"
    )
    end = time.monotonic() + 60
    while int(lab.sql(query % "running")[0][0]) == 0:
        assert time.monotonic() < end, f"no task came to {worker}"
        time.sleep(0.5)
    running = lab.sql(query % "running")[0][0]
    try:
        host.check_output("systemctl stop airflow-worker")  # returns when the tasks are done
        assert int(lab.sql(query % "success")[0][0]) >= int(running)
        assert lab.sql(query % "failed")[0][0] == "0"
    finally:
        host.check_output("systemctl start airflow-worker")
    if len(lab.workers) > 1:
        while api.call("GET", f"/api/v2/dags/lab_mapped/dagRuns/{run['dag_run_id']}")["state"] in ("queued", "running"):
            assert time.monotonic() < end + 120
            time.sleep(1)
        retried = lab.sql(f"SELECT count(*) FROM task_instance WHERE run_id = '{run['dag_run_id']}' AND try_number > 1")
        assert retried == [["0"]]


def test_the_command_has_the_services_environment(lab: t.Any) -> None:
    master = lab.host(lab.masters[0])
    assert "lab_mapped" in master.check_output("airflow dags list --output plain")
    refused = lab.host(lab.masters[0], sudo=False).run("airflow version")
    assert refused.rc == 77
    assert "sudo airflow version" in refused.stderr


def test_a_killed_server_is_back_by_itself(lab: t.Any, api: t.Any) -> None:
    host = lab.host(lab.database)
    before = host.check_output("systemctl show --value --property=MainPID 'postgresql@*'").strip()
    host.check_output(f"kill -9 {before}")
    end = time.monotonic() + 60
    while True:
        done = host.run("runuser -u postgres -- psql -XAtc 'SELECT 1'")
        now = host.check_output("systemctl show --value --property=MainPID 'postgresql@*'").strip()
        if done.rc == 0 and now not in ("0", before):
            break
        assert time.monotonic() < end, f"PostgreSQL stays down: {done.stderr}"
        time.sleep(1)
    # So is what lost its connections to it: a scheduler ends and is started again.
    while True:
        try:
            health = api.call("GET", "/api/v2/monitor/health")
            states = {name: part["status"] for name, part in health.items()}
        except OSError as exc:
            states = {"API server": str(exc)}
        if set(states.values()) == {"healthy"}:
            break
        assert time.monotonic() < end + 60, states
        time.sleep(1)
