# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers come and go under a steady load, and no task is lost.

Only the scenario `workers` runs this. The tests are one story and stand in its order: each runs a playbook as a person
would, most of them a first time killed in the middle. What no test sees by itself is counted at the end: every task
has run once. After that count comes what loses tasks by its nature.
"""

from __future__ import annotations

import collections.abc
import itertools
import json
import pathlib
import re
import sys
import time
import typing as t

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "lab"), str(ROOT / "tests" / "workers"), str(ROOT / "lab")]
import hosts  # noqa: E402
from steady import LATE, LOG, TASKS, Cluster, Ran, until  # noqa: E402
from test_access import bare, forms  # noqa: E402
from ways import on, on_all  # noqa: E402

FROM, TO = "3.3.1", "3.3.2"
NEW, NEW_ADDRESS = "worker3", "10.213.77.16"
UNIT = "airflow-worker.service"
GPU = "airflow-worker@gpu.service"
# What a verb says while it waits: how many tasks still run, and how long it will wait for them.
PROGRESS = r"^worker\d: \d+ tasks? still to end, \d+ s left: lab_load\."
# A task of the load as a message names it, with its map index.
NAMED = re.compile(r"\blab_load\.work\[(\d+)\] of load_\d+ \(runs for \d+ s\)")
RESULTS = ROOT / "build" / "workers.json"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("inventory")).running() as running:
        yield running


def refused(ran: Ran, *words: str) -> None:
    """Whether a playbook said no, with all of these words, and changed nothing."""
    assert ran.rc != 0, ran.told
    assert ran.recap, ran.told
    assert [host for host, counts in ran.recap.items() if "changed=0" not in counts] == [], ran.told
    said = [line for line in ran.said.splitlines() if all(word in line for word in words)]
    assert said, f"no line has all of {words}\n{ran.told}"


def drained(cluster: Cluster) -> dict[str, bool]:
    """Which workers have a note that they are drained."""
    script = f"test -s /etc/airflow/drained/{UNIT.removesuffix('.service')} && echo yes || true"
    return {host: text.strip() == "yes" for host, text in on_all(dict.fromkeys(cluster.workers, script)).items()}


def one_after_the_other(cluster: Cluster, ran: Ran, workers: list[str]) -> None:
    """Whether all of these workers were away, and never two at a time."""
    absences = sorted(
        (began, ended, worker)
        for worker in workers
        for began, ended in cluster.watch.absences(worker, ran.began, ran.ended)
    )
    assert {worker for _began, _ended, worker in absences} == set(workers), absences
    for (_began, ended, worker), (began, _ended, other) in itertools.pairwise(absences):
        assert worker == other or began > ended - LATE, f"{worker} and {other} were both away: {absences}"
    assert [at for at, takers in cluster.watch.takers if ran.began <= at <= ran.ended and not takers] == []


# The folders of releases that the main processes of Airflow's services have files open from. The watchdog has none.
RELEASES = r"""
for unit in $(systemctl list-units --plain --no-legend --state=active 'airflow-*.service' | awk '{ print $1 }'); do
  [ "$unit" != airflow-watchdog.service ] || continue
  grep -ho '/opt/airflow/releases/[^/ ]*' "/proc/$(systemctl show --value --property=MainPID "$unit")/maps"
done | sort -u
"""


def versions(cluster: Cluster) -> set[str]:
    """Those of Airflow that any process of masters and workers is of."""
    found = on_all(dict.fromkeys([*cluster.lab.masters, *cluster.workers], RELEASES))
    assert all(found.values()), found
    return {pathlib.Path(line).name.split("-")[0] for text in found.values() for line in text.split()}


def migrations(cluster: Cluster) -> list[list[str]]:
    return list(cluster.metadata.rows("SELECT version_num FROM alembic_version"))


# --- The story
def test_the_load_is_steady(cluster: Cluster) -> None:
    until(lambda: cluster.metadata.number("SELECT count(*) FROM task_instance WHERE dag_id = 'lab_load'"), "a run", 90)
    until(lambda: cluster.results.rows("SELECT to_regclass('lab_load')") != [[""]], "the first task")
    for worker in cluster.workers:
        until(lambda worker=worker: cluster.at_work(worker), f"{worker} has tasks")
    began = time.time()
    until(lambda: len(cluster.starts("worker1", began) + cluster.starts("worker2", began)) >= 6, "six tasks")
    cluster.ran.append(Ran("nothing", 0, began, time.time(), "", LOG))
    assert cluster.takers() == set(cluster.workers)
    assert versions(cluster) == {FROM}


def test_a_worker_is_added_and_no_other_process_changes(cluster: Cluster) -> None:
    before, let_in = cluster.processes(), cluster.admitted()
    cluster.workers.append(NEW)
    cluster.write()
    # One that cannot make room for it: nothing starts, and the run ends there.
    on("worker1", "mv /opt/airflow/canary /opt/airflow/kept && touch /opt/airflow/canary")
    ran = cluster.play("scale_out")
    on("worker1", "rm /opt/airflow/canary && mv /opt/airflow/kept /opt/airflow/canary")
    assert ran.rc != 0
    assert "worker1 could not be prepared" in ran.text, ran.told
    assert "TASK [Verify" not in ran.text, ran.told
    assert cluster.takers() == set(cluster.workers) - {NEW}

    cluster.play("scale_out", at=r"^TASK \[.*Configure \| Write folders")

    ran = cluster.play("scale_out")
    assert ran.rc == 0, ran.told
    assert set(re.findall(r"^included: onprem\.airflow\.airflow for (.*)$", ran.text, re.MULTILINE)) == {NEW}, ran.told
    assert re.search(r"from every queue of every worker looked at: \d", ran.said), "no canary\n" + ran.told
    first = cluster.takes_tasks(NEW, ran.began)
    cluster.measured["seconds from scale_out to the first task on the new worker"] = round(first - ran.began, 1)
    after = cluster.processes()
    assert set(after.pop(NEW)) == {UNIT}
    assert after == before
    assert cluster.admitted() == {*let_in, NEW_ADDRESS}
    until(lambda: cluster.takers() == set(cluster.workers), "all take tasks")


def test_a_drained_worker_stays_drained_until_it_is_taken_back(cluster: Cluster) -> None:
    worker, others = "worker2", ["worker1", NEW]
    until(lambda: cluster.at_work(worker), f"{worker} has tasks")
    before = cluster.processes(*others), cluster.others()
    cluster.play("drain", "--limit", worker, at=PROGRESS)

    ran = cluster.play("drain", "--limit", worker)
    assert ran.rc == 0, ran.told
    assert cluster.at_work(worker) == set()
    assert on(worker, f"systemctl is-active {UNIT}").strip() == "active", "its log server must go on"

    # Its service is restarted, then its host.
    on(worker, f"systemctl restart {UNIT}")
    assert on(worker, f"systemctl show --value --property=ActiveState {UNIT}").strip() == "inactive"
    hosts.podman("restart", "--time", "10", hosts.container(worker))
    hosts.forget(cluster.lab.address(worker))
    hosts.wait(worker)
    assert on(worker, f"systemctl show --value --property=ActiveState {UNIT}").strip() == "inactive"

    verify = cluster.play("verify")
    assert verify.rc == 0, verify.told
    assert re.search(rf"^.*\bdrained\b.*\b{worker} \(since ", verify.said, re.MULTILINE | re.IGNORECASE), verify.told

    # Those that are left cannot go as well.
    refused(cluster.play("drain", "--limit", ",".join(others)), "default", *others)
    assert drained(cluster) == {"worker1": False, worker: True, NEW: False}
    assert cluster.takers() == set(others)

    assert cluster.starts(worker, ran.ended) == [], "a drained worker has taken tasks"
    assert cluster.waiting(ran.began, time.time()) > 0, "no task was there to be taken"
    undrain = cluster.play("undrain", "--limit", worker)
    assert undrain.rc == 0, undrain.told
    cluster.takes_tasks(worker, undrain.began)
    assert drained(cluster) == dict.fromkeys(cluster.workers, False)
    assert (cluster.processes(*others), cluster.others()) == before


def test_a_drain_that_takes_too_long_names_the_tasks(cluster: Cluster) -> None:
    worker = "worker1"
    until(lambda: len(cluster.at_work(worker)) == 3, f"{worker} has tasks in all slots")
    ran = cluster.play("drain", "--limit", worker, "-e", "airflow_drain_timeout=2")
    assert ran.rc != 0, ran.told
    late = re.search(rf"After 2 s {worker} still has \d+ tasks? to end: .*", ran.said)
    named = set(NAMED.findall(late[0] if late else ""))
    assert named, f"no task is named\n{ran.told}"
    assert named <= cluster.at_work(worker, ran.began, ran.ended), ran.told

    undrain = cluster.play("undrain", "--limit", worker)
    assert undrain.rc == 0, undrain.told
    cluster.takes_tasks(worker, undrain.began)


def test_a_worker_is_removed(cluster: Cluster) -> None:
    others = ["worker1", "worker2"]
    before = cluster.processes()
    refused(cluster.play("scale_in", "-e", f"airflow_leaving={','.join(cluster.workers)}"), "default", *cluster.workers)
    assert cluster.processes() == before
    cluster.play("scale_in", "-e", f"airflow_leaving={NEW}", at=PROGRESS)

    ran = cluster.play("scale_in", "-e", f"airflow_leaving={NEW}")
    assert ran.rc == 0, ran.told
    cluster.workers.remove(NEW)
    cluster.write()
    assert on(NEW, f"systemctl show --value --property=LoadState {UNIT}").strip() == "not-found"
    places = "/opt/airflow /etc/airflow /var/lib/airflow /usr/local/bin/airflow /var/log/airflow"
    left = on(NEW, f"ls -d {places} 2>/dev/null || true").split()
    assert left == ["/var/log/airflow"], "all but the logs is gone"
    assert on(NEW, "pgrep -u airflow || true") == ""
    assert NEW_ADDRESS not in cluster.admitted()
    queues = cluster.lab.host(cluster.lab.broker).check_output("cd / && rabbitmqctl -q list_queues -p airflow name")
    assert NEW not in queues
    until(lambda: cluster.takers() == set(others), "the others take tasks")
    assert {**cluster.processes(*others), **cluster.others()} == {
        host: units for host, units in before.items() if host != NEW
    }


def test_all_workers_are_restarted_one_after_the_other(cluster: Cluster) -> None:
    before, others = cluster.processes(*cluster.workers), cluster.others()
    cluster.play("restart", "--limit", "airflow_worker", at=PROGRESS)

    ran = cluster.play("restart", "--limit", "airflow_worker")
    assert ran.rc == 0, ran.told
    after = cluster.processes(*cluster.workers)
    for worker in cluster.workers:
        assert set(after[worker]) == {UNIT}
        assert after[worker] != before[worker]
        cluster.takes_tasks(worker, ran.began)
    assert cluster.others() == others
    one_after_the_other(cluster, ran, cluster.workers)


def test_other_slots_and_queues_restart_only_the_workers(cluster: Cluster) -> None:
    """Each worker gets a slot more, and one of them a second service, with a queue of its own."""
    before, others = cluster.processes(*cluster.workers), cluster.others()
    cluster.variables["airflow_worker_concurrency"] = 4
    services = [{}, {"name": "gpu", "queues": ["gpu"], "concurrency": 1}]
    cluster.of_hosts["worker2"] = {"airflow_worker_services": services}
    cluster.write()
    ran = cluster.play("queues")
    assert ran.rc == 0, ran.told
    assert cluster.others() == others
    after = cluster.processes(*cluster.workers)
    assert [worker for worker in cluster.workers if after[worker] == before[worker]] == []
    one_after_the_other(cluster, ran, cluster.workers)
    stats = cluster.celery("stats")
    assert {node: answer["pool"]["max-concurrency"] for node, answer in stats.items()} == {
        **{f"celery@{worker}": 4 for worker in cluster.workers},
        "gpu@worker2": 1,
    }
    assert [queue["name"] for queue in cluster.celery("active_queues")["gpu@worker2"]] == ["gpu"]
    assert set(after["worker2"]) == {UNIT, GPU}
    # It has a log server of its own, beside the one that API servers ask.
    for port in (8793, 8801):
        assert on("worker2", f"ss -Hltn 'sport = :{port}'"), f"nobody listens on port {port}"
    smoke = cluster.play("smoke", "--limit", "worker2")
    assert smoke.rc == 0, smoke.told
    assert re.search(r"^  gpu +\d", smoke.said, re.MULTILINE), smoke.told

    # A queue that a DAG needs is not left alone, one that nobody needs goes with its service.
    del cluster.of_hosts["worker2"]
    cluster.variables["airflow_worker_queues"] = ["other"]
    cluster.write()
    refused(cluster.play("queues"), "default")
    del cluster.variables["airflow_worker_queues"]
    cluster.write()
    gone = cluster.play("queues")
    assert gone.rc == 0, gone.told
    assert set(cluster.processes("worker2")["worker2"]) == {UNIT}
    assert on("worker2", f"systemctl show --value --property=LoadState {GPU}").strip() == "not-found"


def test_another_release_comes(cluster: Cluster) -> None:
    cluster.measured["schema"] = migrations(cluster)
    cluster.variables |= {"airflow_version": TO, "airflow_lock": ""}
    cluster.write()
    cluster.play("upgrade", at=PROGRESS)

    ran = cluster.play("upgrade")
    assert ran.rc == 0, ran.told
    assert versions(cluster) == {TO}
    assert cluster.lab.api().call("GET", "/api/v2/version")["version"] == TO
    for worker in cluster.workers:
        cluster.takes_tasks(worker, ran.ended)


def test_and_goes_again(cluster: Cluster) -> None:
    cluster.load.wanted = False  # what is left is enough until the end of this
    ran = cluster.play("rollback")
    assert ran.rc == 0, ran.told
    for name in ("airflow_version", "airflow_lock"):
        del cluster.variables[name]
    cluster.write()
    assert versions(cluster) == {FROM}
    assert cluster.lab.api().call("GET", "/api/v2/version")["version"] == FROM
    assert migrations(cluster) == cluster.measured["schema"]


# --- The count
def test_every_task_has_run_once(cluster: Cluster) -> None:
    """By the metadata database, and by the table that the tasks themselves append to."""
    cluster.load.finish()
    runs = cluster.load.runs
    assert runs >= 3
    of_the_load = "dag_id = 'lab_load' AND run_id LIKE 'load\\_%'"
    states = cluster.metadata.rows(f"SELECT DISTINCT state, try_number FROM task_instance WHERE {of_the_load}")
    assert states == [["success", "1"]]
    counted = cluster.metadata.number(f"SELECT count(*) FROM task_instance WHERE {of_the_load} AND task_id = 'work'")
    assert counted == runs * TASKS
    assert cluster.metadata.number(f"SELECT count(*) FROM task_instance_history WHERE {of_the_load}") == 0
    assert cluster.metadata.rows(f"SELECT DISTINCT state FROM dag_run WHERE {of_the_load}") == [["success"]]

    wrong = (
        "SELECT run_id, map_index, count(*), count(ended), max(try_number) FROM lab_load GROUP BY run_id, map_index"
        " HAVING count(*) <> 1 OR count(ended) <> 1 OR max(try_number) <> 1"
    )
    assert cluster.results.rows(wrong) == []
    assert cluster.results.number("SELECT count(*) FROM lab_load") == counted
    cluster.measured |= {"runs": runs, "tasks": counted}


def test_at_every_moment_somebody_took_tasks(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"verb": ran.verb, "exit_code": ran.rc, **cluster.gaps(ran.began, ran.ended)} for ran in cluster.ran]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"verbs": rows, **cluster.measured}, indent=2) + "\n")
    with capsys.disabled():
        print(f"\n{'verb':70} {'s':>6} {'starts':>6} {'gap':>6} {'nobody':>6} {'no API':>6} {'waiting':>7}")
        for row in rows:
            print(
                f"{row['verb'][:70]:70} {row['seconds']:6.1f} {row['starts']:6} {row['longest_between_starts']:6.1f}"
                f" {row['without_consumer']:6.1f} {row['without_api']:6.1f} {row['fewest_waiting']:7}"
            )
        for name, value in cluster.measured.items():
            print(f"{name}: {value}")
    # From the first verb to the last, also between them.
    began, ended = cluster.ran[0].began, cluster.ran[-1].ended
    assert [at for at, takers in cluster.watch.takers if began <= at <= ended and not takers] == []
    assert len(cluster.watch.takers) > 0.7 * len(cluster.watch.answers), "the broker was looked at too seldom"
    # Only verbs that restart the API server leave it away.
    of_masters = ("upgrade", "rollback")
    assert [row["verb"] for row in rows if row["without_api"] and not row["verb"].startswith(of_masters)] == []


# --- What loses tasks by its nature
def test_a_worker_that_dies_while_it_is_drained(cluster: Cluster) -> None:
    worker = "worker2"
    assert cluster.load.begin("killed_1", {"tasks": 6, "shortest": 60, "longest": 60})
    until(lambda: cluster.at_work(worker), f"{worker} has tasks")

    def die(_process: t.Any) -> None:
        on(worker, f"kill -9 $(systemctl show --value --property=MainPID {UNIT})")

    ran = cluster.play("drain", "--limit", worker, at=PROGRESS, then=die, note="its worker killed")
    assert ran.seconds < 45, "it waited for tasks that were dead"
    died = rf"^{worker}: the worker died while it was drained, with these tasks: lab_load\.work\[\d\] of killed_1"
    assert re.search(died, ran.said, re.MULTILINE), ran.told
    assert cluster.takers() == {"worker1"}
    assert drained(cluster) == {"worker1": False, worker: True}

    undrain = cluster.play("undrain", "--limit", worker)
    assert undrain.rc == 0, undrain.told
    until(lambda: cluster.takers() == set(cluster.workers), "both take tasks")
    cluster.lab.api().run_dag("lab_mapped", {"n": 8})


def test_no_secret_is_in_all_that_was_said(cluster: Cluster) -> None:
    text = LOG.read_text(errors="replace")
    assert "ESTABLISH SSH CONNECTION" in text, "the log is not one with -vvv"
    for said in (text, bare(text)):
        for name, secret in cluster.lab.secrets.items():
            for form in forms(secret):
                assert form not in said, f"{name} is in {LOG}, at character {said.index(form)}"
    # The message of a task to Celery holds a token.
    token = re.search(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.", text)
    assert token is None, f"a token is in {LOG}, at character {token.start() if token else 0}"
