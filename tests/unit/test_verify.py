# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify: what hosts reported is compared, causes are told from consequences, and all is told in one table."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _verify, _verify_causes, _verify_compare
from ansible_collections.onprem.airflow.plugins.module_utils._problems import CHECKS, CODES
from ansible_collections.onprem.airflow.plugins.module_utils._settings import MUST_MATCH
from verify_samples import FILES, NOTE, Sample, large

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = (CHECKOUT / "docs" / "verify.md").read_text()
GPU = {"worker1": ["default"], "worker2": ["default"], "gpu1": ["gpu"]}
WORKER_UNIT, API_UNIT = "unit:airflow-worker.service", "unit:airflow-api-server.service"


def only(sample: Sample, **options: Any) -> dict[str, Any]:
    """The one problem that is left."""
    problems = sample.document(**options)["problems"]
    assert [p["code"] for p in problems] == [problems[0]["code"]], [(p["code"], p["hosts"]) for p in problems]
    return dict(problems[0])


def follows(problem: dict[str, Any]) -> set[tuple[str, str]]:
    return {(entry["code"], entry["host"]) for entry in problem["consequences"]}


# --- nothing wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sample",
    [Sample(2), Sample(3, masters=2), Sample(single=True), large()],
    ids=["five", "two masters", "one", "many"],
)
def test_nothing_is_wrong_with_a_healthy_cluster(sample: Sample) -> None:
    document = sample.document()
    assert document["ok"] and not document["limited"] and not document["problems"] and not document["not_looked_at"]
    count = len(sample.hosts)
    last = _verify.table(document, 120).splitlines()[-1]
    assert last == f"Verified {count} host{'s' if count > 1 else ''}: nothing is wrong."


def test_the_document_is_what_its_schema_says() -> None:
    document = Sample(2).broker_down().document()
    fields = "schema collection version time seconds ok limited not_looked_at hosts queues problems"
    assert list(document) == fields.split()
    assert (document["schema"], document["collection"]) == (1, "onprem.airflow")
    assert document["time"] == "2026-11-22T13:21:40Z"
    for host in document["hosts"].values():
        assert list(host) == ["groups", "roles", "queues", "looked_at", "checks", "report"]
        assert tuple(host["checks"]) == CHECKS
        assert {c["status"] for c in host["checks"].values()} <= set(_verify._COLOURS)
    assert set(document["queues"][0]) == {"name", "type", "durable", "messages", "consumers", "workers"}
    for problem in document["problems"]:
        assert list(problem) == ["code", "check", "hosts", "subject", "what", "fix", "consequences"]
        for entry in problem["consequences"]:
            assert list(entry) == ["code", "host", "subject", "what"]


def test_fingerprints_stay_out_of_the_document() -> None:
    sample = Sample(2)
    sample.report("worker1")["fingerprints"]["api.secret_key"] = "a-finger-print"
    assert "a-finger-print" not in json.dumps(sample.document())


# --- comparisons -----------------------------------------------------------------------------------------------


def test_a_setting_that_differs_is_told_of_the_outlier() -> None:
    problem = only(Sample(3).setting("worker2", "core.executor", "LocalExecutor"))
    assert (problem["code"], problem["hosts"]) == ("setting_differs", ["worker2"])
    assert problem["subject"] == "setting:core.executor"
    assert "LocalExecutor" in problem["what"] and "CeleryExecutor" in problem["what"] and "worker1" in problem["what"]


def test_a_setting_that_is_missing_differs() -> None:
    assert "is not set" in only(Sample(3).setting("worker2", "core.executor", None))["what"]


def test_outliers_with_the_same_value_are_one_problem_and_others_another() -> None:
    sample = Sample(6)
    for worker, value in (("worker2", "A"), ("worker3", "A"), ("worker4", "B")):
        sample.setting(worker, "core.executor", value)
    assert sample.codes() == [("setting_differs", ["worker2", "worker3"]), ("setting_differs", ["worker4"])]


def test_without_a_majority_all_are_named() -> None:
    problem = only(Sample(1).setting("worker1", "core.executor", "LocalExecutor"))
    assert problem["hosts"] == ["master1", "worker1"] and "no value has a majority" in problem["what"]


def test_settings_of_masters_are_not_compared_with_workers() -> None:
    sample = Sample(2, masters=3)
    sample.setting("worker1", "core.parallelism", "7").setting("master3", "core.parallelism", "7")
    assert sample.codes() == [("setting_differs", ["master3"])]


def test_every_setting_that_must_match_is_compared() -> None:
    for setting, kinds in MUST_MATCH.items():
        sample = Sample(3, masters=3)
        for name in (*sample.masters, *sample.workers):
            sample.report(name)["settings"][setting] = "same"
        ill = "worker2" if "worker" in kinds else "master2"
        sample.setting(ill, setting, "other")
        problem = only(sample, must_match={setting: kinds})
        assert (problem["subject"], problem["hosts"]) == (f"setting:{setting}", [ill])


@pytest.mark.parametrize("secret", _verify_compare.SECRETS)
def test_a_secret_that_differs_is_told_without_it(secret: str) -> None:
    sample = Sample(3, masters=3)
    ill = "worker2" if len(_verify_compare.SECRETS[secret]) == 2 else "master2"
    sample.report(ill)["fingerprints"][secret] = "zz"
    problem = only(sample)
    assert (problem["code"], problem["hosts"], problem["subject"]) == ("secret_differs", [ill], f"setting:{secret}")
    assert "zz" not in json.dumps(problem)


def test_two_hosts_with_different_secrets_are_both_named() -> None:
    sample = Sample(1)
    sample.report("worker1")["fingerprints"]["api.secret_key"] = "zz"
    assert only(sample)["hosts"] == ["master1", "worker1"]


def test_versions_are_one_problem_for_each_outlier() -> None:
    sample = Sample(4)
    sample.report("worker2")["versions"] |= {"celery": "5.5.3", "python": "3.11.2"}
    del sample.report("worker2")["versions"]["kombu"]
    sample.report("worker3")["versions"]["psycopg"] = "1"  # of no matter to the path
    sample.report("worker4")["versions"]["python"] = "3.13.9"  # the same minor version
    problem = only(sample)
    assert (problem["code"], problem["hosts"]) == ("version_differs", ["worker2"])
    assert "celery 5.5.3 instead of 5.6.3; kombu not installed instead of 5.6.2" in problem["what"]
    assert "python 3.11 instead of 3.13" in problem["what"]


def test_versions_of_two_hosts_name_both() -> None:
    sample = Sample(1)
    sample.report("worker1")["versions"]["celery"] = "5.5.3"
    problem = only(sample)
    assert problem["hosts"] == ["master1", "worker1"] and "celery 5.6.3 on master1, 5.5.3 on worker1" in problem["what"]


def test_dags_are_held_to_those_of_the_masters() -> None:
    sample = Sample(3)
    for name in ("worker1", "worker2"):  # two against one, and yet it is the master that is right
        tree = sample.report(name)["dags"]["bundles"]["dags-folder"]
        tree |= {"digest": "old", "files": {**FILES, "reports.py": "0", "more.py": "1"}}
        del tree["files"]["daily.py"]
    problem = only(sample)
    assert (problem["code"], problem["hosts"]) == ("dags_differ", ["worker1", "worker2"])
    assert "missing daily.py; extra more.py; changed reports.py" in problem["what"]


def test_dags_of_two_masters_that_differ_are_judged_by_the_workers_or_named_both() -> None:
    sample = Sample(2, masters=2)
    sample.report("master2")["dags"]["bundles"]["dags-folder"]["digest"] = "old"
    assert only(sample)["hosts"] == ["master2"]
    sample = Sample({}, masters=2)
    sample.report("master2")["dags"]["bundles"]["dags-folder"]["digest"] = "old"
    problem = only(sample)
    assert problem["hosts"] == ["master1", "master2"] and "no tree has a majority" in problem["what"]


def test_a_bundle_that_a_worker_lacks_is_told() -> None:
    sample = Sample(2)
    sample.report("worker1")["dags"]["bundles"] = {}
    assert "none of its files" in only(sample)["what"]


def test_a_worker_whose_only_file_is_gone_lacks_it() -> None:
    sample = Sample(2)
    for name in ("master1", "worker2"):
        sample.report(name)["dags"]["bundles"]["dags-folder"] = {"digest": "a", "count": 1, "files": {"a.py": "1"}}
    sample.report("worker1")["dags"]["bundles"]["dags-folder"] = {"digest": "b", "count": 0, "files": {}}
    assert "missing a.py" in only(sample)["what"]


def test_a_clock_that_is_off() -> None:
    sample = Sample(2)
    sample.report("worker1")["clock"]["database_offset"] = -7.5
    problem = only(sample)
    assert (problem["code"], problem["hosts"]) == ("clock_off", ["worker1"]) and "7.5 s behind" in problem["what"]
    assert not sample.codes(tolerance=10)


def test_when_all_clocks_are_off_alike_it_is_the_databases() -> None:
    sample = Sample(3)
    for name in ("master1", "worker1", "worker2", "worker3"):
        sample.report(name)["clock"]["database_offset"] = 60.0 + len(name)
    problem = only(sample)
    assert (problem["hosts"], problem["subject"]) == (["db1"], "host:db1") and "behind" in problem["what"]
    sample.report("worker2")["clock"]["database_offset"] = 0.0
    assert sample.codes() == [("clock_off", ["db1"]), ("clock_off", ["worker2"])]


def test_a_clock_is_told_once_and_of_the_host_that_is_wrong() -> None:
    sample = Sample(2)
    sample.report("worker1")["clock"]["database_offset"] = 20.0
    assert sample.problem("clock_off", "worker1", "host:worker1").codes() == [("clock_off", ["worker1"])]
    # Each host tells that it is not the database's time.
    for name in ("master1", "worker1", "worker2"):
        sample.report(name)["clock"]["database_offset"] = 20.0
        sample.problem("clock_off", name, f"host:{name}")
    assert sample.codes() == [("clock_off", ["db1"])]


def test_a_clock_known_only_by_an_api_server() -> None:
    sample = Sample(3)
    sample.report("worker1")["clock"] = {"database_offset": None, "api_offset": 90.0, "uncertainty": 0.1}
    assert sample.codes() == [("clock_off", ["worker1"])]


# --- queues and consumers --------------------------------------------------------------------------------------


def test_a_queue_that_nobody_serves() -> None:
    sample = Sample(2, masters=2)
    for master in sample.masters:
        sample.report(master)["unserved"] = [{"queue": "gpu", "why": f"3 messages wait for {master}"}]
    problem = only(sample)
    assert (problem["code"], problem["subject"]) == ("queue_unserved", "queue:gpu")
    assert problem["hosts"] == ["master1", "master2"] and "3 messages wait for master2" in problem["what"]


def test_queues_are_not_judged_when_nobody_could_use_the_broker() -> None:
    sample = Sample(2)
    for name in (*sample.masters, *sample.workers):
        sample.problem("broker_permission_missing", name, "broker:mq1:5672")
        for key in ("queues", "consumers", "workers"):
            sample.report(name).pop(key, None)
    sample.report("master1")["unserved"] = [{"queue": "default", "why": "it is the default queue"}]
    problem = only(sample)
    assert problem["code"] == "broker_permission_missing" and problem["consequences"] == []


def test_a_queue_that_a_worker_serves_is_served_whatever_a_master_saw() -> None:
    sample = Sample(GPU)
    sample.report("master1")["unserved"] = [{"queue": "gpu", "why": "3 messages wait"}]
    assert not sample.codes()


# --- workers that are drained, and hosts with several --------------------------------------------------------------


def test_a_drained_worker_is_no_problem_and_told() -> None:
    sample = Sample(3).drain("worker2")
    document = sample.document()
    assert document["ok"] and not document["not_looked_at"] and not document["limited"]
    assert document["hosts"]["worker2"]["checks"]["worker"] == {"status": "drained", "detail": "drained"}
    assert document["hosts"]["worker2"]["report"]["workers"][0]["drained"] == NOTE
    assert document["hosts"]["worker1"]["checks"]["worker"]["status"] == "ok"
    lines = _verify.table(document, 160).splitlines()
    rows = [line for line in lines if line.startswith("worker")]
    assert [("1/8" in row, "drained" in row) for row in rows] == [(True, False), (False, True), (True, False)]
    command = "ansible-playbook onprem.airflow.undrain --limit worker2"
    assert f"Drained: worker2 ({NOTE}). To take back: `{command}`" in lines
    assert lines[-1] == "Verified 6 hosts: nothing is wrong."
    assert "Drained" not in _verify.table(Sample(3).document(), 160)


def test_what_is_left_out_of_a_drained_worker_is_no_problem_either() -> None:
    sample = Sample(2).drain("worker2", stopped=True)
    sample.report("worker2")["skipped"].append({"check": "logs", "why": "it is drained and stopped"})
    sample.report("worker2")["skipped"].append({"check": "worker", "why": "the broker cannot be used"})
    document = sample.document()
    assert document["ok"] and document["hosts"]["worker2"]["checks"]["worker"]["status"] == "drained"
    assert {"host": "worker2", "check": "logs", "why": "it is drained and stopped"} in document["not_looked_at"]


def test_many_drained_workers_are_not_folded_and_told_together() -> None:
    sample = large()
    for number in range(1, 4):
        sample.drain(f"worker{number}")
    text = _verify.table(sample.document(), 160)
    assert "197 hosts more: all ok" in text and "\nworker2 " in text
    assert f"Drained: worker1, worker2, worker3 ({NOTE})" in text


def test_a_queue_whose_workers_are_all_drained_is_a_problem() -> None:
    sample = Sample({"worker1": ["default"], "gpu1": ["gpu"], "gpu2": ["gpu"]}).drain("gpu1")
    assert not sample.codes()
    problem = only(sample.drain("gpu2"))
    # Nothing is sent there as far as the masters know, and still the inventory promises that it is served.
    assert (problem["code"], problem["subject"], problem["hosts"]) == ("queue_unserved", "queue:gpu", ["gpu1", "gpu2"])
    assert "drained (gpu1, gpu2)" in problem["what"]
    assert "one of them" in problem["fix"] and "undrain --limit gpu1,gpu2" in problem["fix"]
    sample.report("master1")["unserved"] = [{"queue": "gpu", "why": "3 messages wait"}]
    problem = only(sample)
    assert problem["hosts"] == ["master1"] and "3 messages wait" in problem["what"]


def test_a_queue_whose_last_worker_that_is_not_drained_is_ill_follows_from_that() -> None:
    sample = Sample({"worker1": ["default"], "gpu1": ["gpu"], "gpu2": ["gpu"]}).drain("gpu1").silence("gpu2")
    sample.report("gpu1")["queues"] = []
    assert follows(only(sample.problem("worker_silent", "gpu2", "worker:gpu2"))) == {("queue_unserved", "master1")}


def test_a_queue_is_told_with_those_that_are_drained_and_those_that_do_not_read_it() -> None:
    sample = Sample({"worker1": ["default"], "gpu1": ["gpu"], "gpu2": ["gpu"]}).drain("gpu1").silence("gpu2")
    sample.report("gpu1")["queues"] = []
    problem = only(sample)
    assert "gpu1, which should, is drained" in problem["what"]
    assert problem["fix"].startswith("see why gpu2 does not") and "undrain --limit gpu1" in problem["fix"]


def test_whether_a_worker_that_was_left_out_is_drained_is_not_known() -> None:
    sample = Sample({"worker1": ["default"], "gpu1": ["gpu"], "gpu2": ["gpu"]}).drain("gpu1").leave_out("gpu2")
    for name in ("master1", "gpu1"):
        sample.report(name)["queues"] = [q for q in sample.report(name)["queues"] if q["name"] != "gpu"]
    sample.report("master1")["consumers"] = [c for c in sample.report("master1")["consumers"] if c["queue"] != "gpu"]
    assert not sample.codes()


def test_services_of_one_host_stand_for_themselves() -> None:
    sample = Sample({"worker1": ["default"], "worker2": ["default"]}).split("worker2", light=["default"], gpu=["gpu"])
    assert not sample.codes()
    document = sample.document()
    assert document["hosts"]["worker2"]["checks"]["worker"]["detail"] == "2/16"
    assert document["hosts"]["worker2"]["queues"] == ["default", "gpu"]
    taken = {queue["name"]: queue["workers"] for queue in document["queues"]}
    assert taken == {"default": ["worker1", "worker2"], "gpu": ["worker2"]}

    sample.drain("worker2", "airflow-worker@light.service")
    document = sample.document()
    assert document["ok"] and document["hosts"]["worker2"]["checks"]["worker"]["detail"] == "1 of 2 drained"
    assert f"worker2 (airflow-worker@light {NOTE})" in _verify.table(document, 160)
    sample = Sample(2).split("worker2", light=["default"], gpu=["gpu"]).drain("worker2", "airflow-worker@gpu.service")
    problem = only(sample)
    assert (problem["code"], problem["subject"]) == ("queue_unserved", "queue:gpu"), "the other one serves default only"


@pytest.mark.parametrize(
    ("cause", "ill", "well"),
    [
        (("unit_stopped", "unit:airflow-worker@gpu.service"), "worker:gpu@worker2", "worker:light@worker2"),
        (("unit_outdated", "unit:airflow-worker@gpu.service"), "queue:gpu", "queue:default"),
        (("worker_silent", "worker:gpu@worker2"), "queue:gpu", "queue:default"),
        (("queue_wrong_type", "queue:gpu"), "worker:gpu@worker2", "worker:light@worker2"),
        (("unit_failing", "unit:airflow-worker@light.service"), "log:worker2", ""),
        (("unit_failing", "unit:airflow-worker@gpu.service"), "", "log:worker2"),
    ],
)
def test_a_service_explains_only_what_is_its_own(cause: tuple[str, str], ill: str, well: str) -> None:
    def effects(about: str) -> Sample:
        sample = Sample(2).split("worker2", light=["default"], gpu=["gpu"]).problem(cause[0], "worker2", cause[1])
        if about.startswith("log:"):
            return sample.problem("log_refused", "master1", about)
        return sample.problem("worker_not_consuming", "worker2", about)

    if ill:
        assert [code for code, _hosts in effects(ill).codes()] == [cause[0]]
    if well:
        assert len(effects(well).codes()) == 2


def test_a_restart_that_was_cut_off_explains_that_nothing_is_taken() -> None:
    sample = Sample(GPU).silence("gpu1").problem("unit_outdated", "gpu1", WORKER_UNIT)
    sample.problem("worker_not_consuming", "gpu1", "queue:gpu")
    problem = only(sample)
    assert problem["code"] == "unit_outdated"
    assert follows(problem) == {("worker_not_consuming", "gpu1"), ("queue_unserved", "master1")}


def test_a_worker_that_nobody_wants_is_no_consequence() -> None:
    sample = Sample(2).problem("broker_timeout", "worker1", "broker:mq1:5672")
    sample.problem("worker_unknown", "worker1", "unit:airflow-worker@old.service")
    assert {code for code, _hosts in sample.codes()} == {"broker_timeout", "worker_unknown"}


def test_a_consumer_that_belongs_to_no_worker() -> None:
    sample = Sample(2, masters=2)
    for master in sample.masters:
        sample.report(master)["consumers"] = [
            *sample.report(master)["consumers"],
            {"queue": "default", "host": "192.0.2.99", "port": 5},
            {"queue": "celery@other.celery.pidbox", "host": "192.0.2.98", "port": 5},
        ]
    problem = only(sample)
    assert (problem["code"], problem["subject"]) == ("consumer_unknown", "host:192.0.2.99")
    assert problem["hosts"] == sample.masters and "default" in problem["what"]


def test_a_consumer_on_a_host_that_is_no_worker() -> None:
    sample = Sample(2)
    address = sample.hosts["mq1"].addresses[1]
    sample.report("master1")["consumers"].append({"queue": "default", "host": address, "port": 5})
    assert "mq1" in only(sample)["what"]


def test_a_consumer_behind_another_address_is_known_by_its_socket() -> None:
    sample = Sample(2)
    sample.report("worker1")["workers"][0]["sockets"].append(["192.0.2.1", 5])
    sample.report("master1")["consumers"].append({"queue": "default", "host": "192.0.2.1", "port": 5})
    assert not sample.codes()


def test_everything_on_one_host_may_use_loopback_addresses() -> None:
    sample = Sample(single=True)
    report = sample.report("airflow1")
    report["identity"]["addresses"].append("127.0.0.1")
    report["consumers"] = [{"queue": "default", "host": "127.0.0.1", "port": 7}]
    assert not sample.codes()
    sample.problem("unit_stopped", "airflow1", API_UNIT)
    sample.problem("api_refused", "airflow1", "api:http://localhost:8080")
    assert follows(only(sample)) == {("api_refused", "airflow1")}


def test_addresses_are_known_in_every_form() -> None:
    sample = Sample(2)
    for entry in sample.report("master1")["consumers"]:
        entry["host"] = f"::ffff:{entry['host']}"
    assert not sample.codes()


def test_a_loopback_address_of_one_host_is_not_another_one() -> None:
    sample = Sample(2, masters=2)
    for master in sample.masters:
        sample.report(master)["identity"]["addresses"].append("127.0.0.1")
    sample.problem("unit_stopped", "master1", API_UNIT)
    sample.problem("api_refused", "master2", "api:http://127.0.0.1:8080")
    assert [code for code, _hosts in sample.codes()] == ["unit_stopped", "api_refused"]


def test_a_misspelt_section_explains_its_own_keys() -> None:
    sample = Sample(3).problem("section_unknown", "worker1", "setting:celry", "[celry] with broker_url means nothing")
    sample.setting("worker1", "celery.broker_url", "amqp://localhost").setting("worker1", "core.executor", "X")
    found = {p["code"]: p for p in sample.document()["problems"]}
    assert set(found) == {"section_unknown", "setting_differs"}
    assert found["setting_differs"]["subject"] == "setting:core.executor"
    assert follows(found["section_unknown"]) == {("setting_differs", "worker1")}


def test_a_worker_that_was_left_out_is_no_stranger() -> None:
    sample = Sample(2).leave_out("worker2")
    document = sample.document()
    assert not document["problems"] and document["limited"]
    assert document["not_looked_at"] == [{"host": "worker2", "why": "left out by --limit"}]
    host = sample.hosts["worker2"]
    sample.hosts["worker2"] = _verify_compare.Host(host.name, host.groups, ("worker2",), host.queues, in_run=False)
    document = sample.document()
    assert not document["problems"]
    assert document["not_looked_at"][1]["check"] == "worker" and "worker2" in document["not_looked_at"][1]["why"]


def test_a_host_that_was_left_out_is_not_judged_by_an_old_result() -> None:
    sample = Sample(2).problem("unit_failing", "worker2", WORKER_UNIT)
    result = sample.results["worker2"]
    sample.leave_out("worker2").results["worker2"] = result
    document = sample.document()
    assert not document["problems"]
    assert {c["status"] for c in document["hosts"]["worker2"]["checks"].values()} == {"not_looked_at", "absent"}


# --- hosts that did not answer ---------------------------------------------------------------------------------


def test_hosts_without_an_answer() -> None:
    document = Sample(3).unreachable("worker1").failed("worker2").document()
    assert [(p["code"], p["hosts"]) for p in document["problems"]] == [
        ("unreachable", ["worker1"]),
        ("check_failed", ["worker2"]),
    ]
    assert "MODULE FAILURE See stdout" in document["problems"][1]["what"]
    assert document["hosts"]["worker1"]["checks"]["services"]["status"] == "problem"
    assert document["hosts"]["worker1"]["checks"]["broker"]["status"] == "not_looked_at"


def test_a_host_without_any_result_is_told() -> None:
    sample = Sample(2)
    del sample.results["worker1"]
    assert sample.codes() == [("check_failed", ["worker1"])]


def test_a_code_of_another_version_is_still_told() -> None:
    sample = Sample(2)
    sample.results["worker1"]["problems"] = [{"code": "brand_new", "what": "is odd", "fix": "mend it"}]
    assert "is odd (brand_new)" in only(sample)["what"]


# --- the second look -------------------------------------------------------------------------------------------


def test_the_second_look_is_merged() -> None:
    first = {"problems": [{"code": "unit_stopped"}], "report": {"roles": ["airflow_master"], "skipped": []}}
    log = {"code": "log_refused", "what": "no", "fix": "", "subject": "log:worker1"}
    second = {
        "failed": False,
        "problems": [log, {"code": "unit_stopped"}],
        "report": {"log_servers": [{"name": "worker1", "problem": "log_refused"}]},
    }
    merged = _verify.merge_second(first, second)
    assert [p["code"] for p in merged["problems"]] == ["unit_stopped", "log_refused"]
    assert merged["report"]["log_servers"] == second["report"]["log_servers"]  # type: ignore[index]
    assert first["report"] == {"roles": ["airflow_master"], "skipped": []}


def test_a_second_look_that_failed_is_told_as_not_looked_at() -> None:
    first: dict[str, Any] = {"problems": [], "report": {"roles": ["airflow_master"]}}
    for second in ({}, {"failed": True, "msg": "no way"}, {"unreachable": True, "msg": "no way"}):
        (entry,) = _verify.merge_second(first, second)["report"]["skipped"]
        assert entry["check"] == "logs"


# --- cause and consequence -------------------------------------------------------------------------------------


def test_a_stopped_broker_explains_everything() -> None:
    problem = only(Sample(3, masters=2).broker_down())
    assert (problem["code"], problem["hosts"]) == ("unit_stopped", ["mq1"])
    assert {code for code, _host in follows(problem)} == {"broker_refused", "worker_silent", "unit_failing"}
    assert {host for _code, host in follows(problem)} == {"master1", "master2", "worker1", "worker2", "worker3"}


def test_an_unreachable_broker_host_explains_everything_only_when_the_broker_is_away() -> None:
    assert only(Sample(2).broker_away("broker_timeout").unreachable("mq1"))["code"] == "unreachable"
    sample = Sample(2).unreachable("mq1").problem("queue_missing", "master1", "queue:etl")
    assert sample.codes() == [("unreachable", ["mq1"]), ("queue_missing", ["master1"])]


def test_a_broker_that_no_host_of_the_inventory_is_is_one_problem_of_all() -> None:
    sample = Sample(2)
    del sample.hosts["mq1"], sample.results["mq1"]
    problem = only(sample.broker_away("broker_refused"))
    assert (problem["code"], problem["hosts"]) == ("broker_refused", ["master1", "worker1", "worker2"])


def test_a_refused_login_of_one_worker_is_one_problem() -> None:
    sample = Sample(GPU, masters=2).problem("broker_login_refused", "gpu1", "broker:mq1:5672").silence("gpu1")
    sample.problem("unit_failing", "gpu1", WORKER_UNIT)
    sample.problem("worker_silent", "gpu1", "worker:gpu1").problem("worker_not_consuming", "gpu1", "worker:gpu1")
    for master in sample.masters:
        sample.problem("log_refused", master, "log:gpu1")
    sample.report("gpu1")["fingerprints"]["celery.broker_url"] = "zz"
    problem = only(sample)
    assert (problem["code"], problem["hosts"]) == ("broker_login_refused", ["gpu1"])
    assert ("queue_unserved", "master2") in follows(problem) and ("secret_differs", "gpu1") in follows(problem)


def test_a_password_that_differs_between_two_hosts_goes_with_the_refused_login() -> None:
    sample = Sample(1).problem("broker_login_refused", "worker1", "broker:mq1:5672")
    sample.report("worker1")["fingerprints"]["celery.broker_url"] = "zz"
    assert follows(only(sample)) == {("secret_differs", "master1"), ("secret_differs", "worker1")}


def test_a_queue_that_others_should_serve_too_is_a_problem_of_its_own() -> None:
    sample = Sample({"worker1": ["gpu"], "worker2": ["gpu", "default"]})
    sample.silence("worker1").silence("worker2").problem("unit_stopped", "worker1", WORKER_UNIT)
    assert {code for code, _hosts in sample.codes()} == {"unit_stopped", "queue_unserved"}
    sample.problem("worker_not_consuming", "worker2", "worker:worker2")
    assert {code for code, _hosts in sample.codes()} == {"unit_stopped", "worker_not_consuming"}


def test_a_queue_of_the_wrong_type_stops_its_workers() -> None:
    sample = Sample(GPU).silence("gpu1").problem("queue_wrong_type", "master1", "queue:gpu")
    sample.problem("unit_failing", "gpu1", WORKER_UNIT).problem("worker_silent", "gpu1", "worker:gpu1")
    sample.problem("log_refused", "master1", "log:gpu1")
    assert only(sample)["code"] == "queue_wrong_type"
    sample.problem("unit_failing", "worker1", WORKER_UNIT)  # which serves another queue
    assert {code for code, _hosts in sample.codes()} == {"queue_wrong_type", "unit_failing"}


def test_a_stopped_database_explains_masters_and_workers() -> None:
    sample = Sample(2, masters=2).problem("unit_stopped", "db1", "unit:postgresql@17-main.service")
    for master in sample.masters:
        sample.problem("database_refused", master, "database:db1:5432/airflow")
        sample.problem("health_failing", master, API_UNIT)
        sample.problem("unit_failing", master, "unit:airflow-scheduler.service")
        sample.problem("schema_unknown", master, "database:db1:5432/airflow")
    for worker in sample.workers:
        sample.problem("results_refused", worker, "database:db1:5432/airflow_results")
        sample.problem("unit_failing", worker, WORKER_UNIT).problem("worker_silent", worker, f"worker:{worker}")
    problem = only(sample)
    assert (problem["code"], problem["hosts"]) == ("unit_stopped", ["db1"])


def host_problem(cause: str, host: str, subject: str, effects: list[tuple[str, str, str]]) -> Sample:
    sample = Sample(GPU, masters=2).problem(cause, host, subject)
    for code, name, about in effects:
        sample.problem(code, name, about)
    return sample


# cause, its host and subject, what follows, and what looks alike but does not follow
CASES: list[tuple[str, str, str, list[tuple[str, str, str]], list[tuple[str, str, str]]]] = [
    ("unit_stopped", "gpu1", WORKER_UNIT,
     [("worker_silent", "gpu1", "worker:gpu1"), ("log_refused", "master1", "log:gpu1")],
     [("log_refused", "master1", "log:worker1"), ("broker_timeout", "gpu1", "broker:mq1:5672")]),
    ("unit_failing", "master1", API_UNIT,
     [("api_refused", "worker1", "api:http://master1:8080/execution/"), ("health_failing", "master1", API_UNIT)],
     [("api_refused", "worker1", "api:http://master2:8080/execution/"), ("health_failing", "master2", API_UNIT)]),
    ("results_timeout", "worker1", "database:db1:5432/airflow_results",
     [("unit_failing", "worker1", WORKER_UNIT), ("worker_silent", "worker1", "worker:worker1"),
      ("log_refused", "master2", "log:worker1")],
     [("worker_silent", "worker2", "worker:worker2"), ("log_refused", "master2", "log:worker2")]),
    ("database_login_refused", "master1", "database:db1:5432/airflow",
     [("unit_failing", "master1", "unit:airflow-scheduler.service"), ("health_failing", "master1", API_UNIT),
      ("schema_unknown", "master1", "database:db1:5432/airflow")],
     [("unit_failing", "master2", "unit:airflow-scheduler.service"), ("unit_failing", "gpu1", WORKER_UNIT)]),
    ("schema_behind", "master1", "database:db1:5432/airflow",
     [("health_failing", "master1", API_UNIT), ("unit_failing", "master1", "unit:airflow-scheduler.service")],
     [("health_failing", "master2", API_UNIT)]),
    ("clock_off", "worker1", "host:worker1",
     [("log_forbidden", "master1", "log:worker1"), ("api_certificate", "worker1", "api:https://master1:8080")],
     [("log_forbidden", "master1", "log:worker2"), ("log_refused", "master1", "log:worker1")]),
    ("clock_off", "master1", "host:master1",
     [("log_forbidden", "master1", "log:worker1"), ("log_forbidden", "master1", "log:worker2")],
     [("log_forbidden", "master2", "log:worker2")]),
    ("secret_differs", "worker1", "setting:api.secret_key", [("log_forbidden", "master1", "log:worker1")],
     [("log_forbidden", "master1", "log:worker2"), ("log_refused", "master1", "log:worker1")]),
    ("secret_differs", "worker1", "setting:celery.broker_url", [], [("log_forbidden", "master1", "log:worker1")]),
    ("unit_outdated", "worker1", WORKER_UNIT,
     [("worker_queue_unexpected", "worker1", "worker:worker1"), ("log_forbidden", "master1", "log:worker1")],
     [("worker_queue_unexpected", "worker2", "worker:worker2")]),
    ("api_url_localhost", "worker1", "setting:core.execution_api_server_url",
     [("api_refused", "worker1", "api:http://localhost:8080/execution/"),
      ("setting_differs", "worker1", "setting:core.execution_api_server_url")],
     [("setting_differs", "worker1", "setting:core.executor"), ("api_refused", "worker2", "api:http://localhost:8080")]),
    ("section_unknown", "worker1", "setting:celry.broker_url",
     [("setting_differs", "worker1", "setting:celery.broker_url"),
      ("setting_missing", "worker1", "setting:celery.broker_url")],
     [("setting_differs", "worker2", "setting:celery.broker_url"),
      ("setting_differs", "worker1", "setting:core.executor")]),
    ("key_unknown", "worker1", "setting:core.executor", [("setting_differs", "worker1", "setting:core.executor")],
     [("setting_differs", "worker1", "setting:core.parallelism")]),
    ("setting_differs", "worker1", "setting:celery.broker_url", [("broker_unresolved", "worker1", "broker:mq9:5672")],
     [("broker_unresolved", "worker2", "broker:mq9:5672"), ("results_refused", "worker1", "database:db1:5432")]),
    ("config_generated", "worker1", "file:/etc/airflow/airflow.cfg",
     [("setting_differs", "worker1", "setting:core.executor"), ("worker_silent", "worker1", "worker:worker1"),
      ("log_refused", "master1", "log:worker1")],
     [("setting_differs", "worker2", "setting:core.executor"), ("file_world_readable", "worker1", "file:/x")]),
    ("release_missing", "worker1", "file:/opt/airflow/current", [("unit_failing", "worker1", WORKER_UNIT)],
     [("unit_failing", "worker2", WORKER_UNIT)]),
    ("release_not_running", "master1", API_UNIT,
     [("version_differs", "master1", "versions"), ("api_version_differs", "worker1", "api:http://master1:8080")],
     [("version_differs", "master2", "versions"), ("api_version_differs", "worker1", "api:http://master2:8080")]),
    ("version_differs", "master1", "versions", [("schema_unknown", "master1", "database:db1:5432/airflow")],
     [("schema_unknown", "master2", "database:db1:5432/airflow")]),
    ("worker_silent", "worker1", "worker:worker1", [("worker_not_consuming", "worker1", "worker:worker1")],
     [("worker_not_consuming", "worker2", "worker:worker2")]),
    ("dags_missing", "worker1", "bundle:dags-folder", [("dags_differ", "worker1", "bundle:dags-folder")],
     [("dags_differ", "worker2", "bundle:dags-folder")]),
    ("broker_timeout", "master1", "broker:mq1:5672", [("management_failing", "master1", "broker:http://mq1:15672")],
     [("management_failing", "master2", "broker:http://mq1:15672")]),
    ("broker_certificate", "worker1", "broker:mq1:5672",
     [("unit_failing", "worker1", WORKER_UNIT), ("worker_silent", "worker1", "worker:worker1"),
      ("log_refused", "master1", "log:worker1")],
     [("worker_silent", "worker2", "worker:worker2"), ("log_refused", "master1", "log:worker2")]),
    ("queue_wrong_type", "master1", "queue:gpu", [("log_refused", "master1", "log:gpu1")],
     [("log_refused", "master1", "log:worker1")]),
    ("disk_full", "mq1", "disk:/var/lib/rabbitmq",
     [("broker_blocked", "worker1", "broker:mq1:5672"), ("unit_failing", "mq1", "unit:rabbitmq-server.service"),
      ("unit_stopped", "mq1", "unit:rabbitmq-server.service"), ("broker_unconfirmed", "master1", "broker:mq1:5672"),
      ("management_failing", "master1", "broker:http://mq1:15672")],
     [("broker_login_refused", "worker1", "broker:mq1:5672"),
      ("unit_failing", "db1", "unit:postgresql@17-main.service"),
      ("results_error", "worker1", "database:db1:5432/airflow_results"), ("unit_failing", "worker1", WORKER_UNIT)]),
    ("disk_full", "db1", "disk:/var/lib/postgresql",
     [("unit_failing", "db1", "unit:postgresql@17-main.service"), ("health_failing", "master1", API_UNIT),
      ("database_error", "master2", "database:db1:5432/airflow"), ("unit_failing", "master1", API_UNIT),
      ("results_refused", "worker1", "database:db1:5432/airflow_results"), ("unit_failing", "gpu1", WORKER_UNIT),
      ("api_error", "worker2", "api:http://master1:8080")],
     [("results_login_refused", "worker1", "database:db1:5432/airflow_results"), ("unit_stopped", "master1", API_UNIT),
      ("broker_blocked", "worker1", "broker:mq1:5672"), ("log_refused", "master1", "log:worker1")]),
    ("disk_full", "gpu1", "disk:/var/log",
     [("unit_stopped", "gpu1", WORKER_UNIT), ("worker_silent", "gpu1", "worker:gpu1"),
      ("worker_not_consuming", "gpu1", "queue:gpu"), ("log_refused", "master2", "log:gpu1")],
     [("unit_stopped", "worker1", WORKER_UNIT), ("log_refused", "master2", "log:worker1"),
      ("log_forbidden", "master1", "log:gpu1"), ("results_refused", "gpu1", "database:db1:5432/airflow_results")]),
    ("disk_full", "master1", "disk:/",
     [("unit_failing", "master1", "unit:airflow-scheduler.service"), ("api_refused", "worker1", "api:http://master1:8080")],
     [("unit_failing", "master2", "unit:airflow-scheduler.service"), ("unit_failing", "gpu1", WORKER_UNIT)]),
    ("broker_half_open", "master1", "broker:mq1:5672",
     [("health_failing", "master1", "unit:airflow-scheduler.service")],
     [("health_failing", "master1", "unit:airflow-triggerer.service"),
      ("health_failing", "master2", "unit:airflow-scheduler.service")]),
    ("results_timeout", "master1", "database:db1:5432/airflow_results",
     [("database_timeout", "master1", "database:db1:5432/airflow")],
     [("database_timeout", "master2", "database:db1:5432/airflow"),
      ("database_timeout", "master1", "database:db2:5432/airflow"),
      ("database_login_refused", "master1", "database:db1:5432/airflow")]),
    ("health_failing", "master1", API_UNIT, [("api_timeout", "worker1", "api:http://master1:8080")],
     [("api_timeout", "worker1", "api:http://master2:8080")]),
    ("health_failing", "master1", "unit:airflow-scheduler.service", [], [("api_timeout", "worker1", "api:http://master1:8080")]),
    ("api_timeout", "worker1", "api:http://master1:8080", [("log_timeout", "master1", "log:worker1")],
     [("log_timeout", "master2", "log:worker1"), ("log_timeout", "master1", "log:worker2"),
      ("log_refused", "master1", "log:worker1")]),
    ("queue_missing", "master1", "queue:etl", [("queue_unserved", "master1", "queue:etl")],
     [("queue_unserved", "master1", "queue:gpu")]),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "host", "subject", "effects", "others"), CASES)
def test_a_rule(cause: str, host: str, subject: str, effects: list[Any], others: list[Any]) -> None:
    found = host_problem(cause, host, subject, effects).document()["problems"]
    assert [p["code"] for p in found] == [cause]
    assert follows(found[0]) == {(code, name) for code, name, _about in effects}
    # A consequence whose cause is not there stays a problem, and so does what only looks alike.
    alone = Sample(GPU, masters=2)
    for code, name, about in effects[:1]:
        assert alone.problem(code, name, about).codes() == [(code, [name])]
    for code, name, about in others:
        problems = host_problem(cause, host, subject, [(code, name, about)]).document()["problems"]
        assert (code, [name]) in [(p["code"], p["hosts"]) for p in problems], (code, name)


def scenes() -> dict[str, Sample]:
    """One for each case, and those that need more than a host."""
    found = {
        f"{cause} {host} {subject} {effect}": host_problem(cause, host, subject, [effect])
        for cause, host, subject, effects, _others in CASES
        for effect in effects
    }
    found["broker"] = Sample(2).broker_down().problem("management_failing", "mq1", "broker:http://mq1:15672")
    found["broker away"] = Sample(2).broker_away("broker_timeout").unreachable("mq1")
    found["login"] = Sample(1).problem("broker_login_refused", "worker1", "broker:mq1:5672")
    found["login"].report("worker1")["fingerprints"]["celery.broker_url"] = "zz"
    found["login"].problem("unit_failing", "worker1", WORKER_UNIT).problem("log_refused", "master1", "log:worker1")
    found["login"].problem("worker_silent", "master1", "worker:worker1")
    for away in ("stopped", "unreachable"):
        sample = found[f"database {away}"] = Sample(2)
        sample.problem("database_refused", "master1", "database:db1:5432")
        sample.problem("health_failing", "worker1", WORKER_UNIT).problem("unit_failing", "worker1", WORKER_UNIT)
        if away == "stopped":
            sample.problem("unit_stopped", "db1", "unit:postgresql@17-main.service")
        else:
            sample.unreachable("db1")
        sample = found[f"broker {away}"] = Sample(3).problem("broker_timeout", "master1", "broker:mq1:5672")
        sample.problem("worker_silent", "worker1", "worker:worker1").problem("unit_failing", "worker2", WORKER_UNIT)
        if away == "stopped":
            sample.problem("unit_stopped", "mq1", "unit:rabbitmq-server.service")
        else:
            sample.unreachable("mq1")
    found["section"] = Sample(3).problem("section_unknown", "worker1", "setting:celry", "[celry] with broker_url")
    found["section"].problem("setting_missing", "worker1", "setting:celery.broker_url")
    found["away"] = Sample(2).unreachable("worker1").problem("log_timeout", "master1", "log:worker1")
    found["silent"] = Sample(GPU).silence("gpu1").problem("worker_silent", "gpu1", "worker:gpu1")
    found["type"] = Sample(GPU).problem("queue_wrong_type", "master1", "queue:gpu")
    found["type"].problem("unit_failing", "gpu1", WORKER_UNIT).problem("log_refused", "master1", "log:gpu1")
    found["type, silent"] = Sample(GPU).problem("queue_wrong_type", "master1", "queue:gpu")
    found["type, silent"].problem("worker_silent", "gpu1", "worker:gpu1")
    found["api"] = Sample(2).problem("database_refused", "master1", "database:db9:5432")
    found["api"].problem("api_error", "worker1", "api:http://master1:8080")
    # Two brokers and two databases, of which one is down: only what is about that one follows.
    two = found["two"] = Sample(2)
    for name, role in (("mq2", "rabbitmq"), ("db2", "postgresql")):
        two.hosts[name] = _verify_compare.Host(name, (role,), (name,))
        two.results[name] = {"problems": [], "report": {"roles": [role], "units": []}}
    two.problem("unit_stopped", "mq2", "unit:rabbitmq-server.service").problem("unit_stopped", "db2", "unit:postgresql")
    two.problem("broker_refused", "worker1", "broker:mq2:5672")
    two.problem("results_refused", "worker2", "database:db2:5432")
    two.problem("management_failing", "mq2", "broker:http://localhost:15672")
    outdated = found["outdated"] = Sample(2).problem("unit_outdated", "master1", API_UNIT)
    outdated.problem("log_forbidden", "master1", "log:worker1")
    key = found["key"] = Sample(2).problem("secret_differs", "master1", "setting:api.secret_key")
    key.problem("log_forbidden", "master1", "log:worker1")
    version = found["version"] = Sample(2).problem("version_differs", "master1", "versions")
    version.problem("api_version_differs", "worker1", "api:http://master1:8080")
    missing = found["missing"] = Sample(2).problem("release_missing", "worker1", "file:/opt/airflow/current")
    missing.problem("version_differs", "worker1", "versions")
    return found


def test_every_rule_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it something comes out otherwise: no rule is dead, and none is untested."""
    rules, found = _verify_causes.RULES, []
    with monkeypatch.context() as patch:
        patch.setattr(_verify, "explain", lambda *given: found.append(given) or [])
        for sample in scenes().values():
            sample.document()
    expected = [_verify_causes.explain(*given) for given in found]
    useless = []
    for rule in rules:
        for pattern in (*rule.causes, *rule.effects):
            assert _verify_causes._codes([pattern]), f"{pattern} names no code"
        monkeypatch.setattr(_verify_causes, "RULES", tuple(other for other in rules if other is not rule))
        if all(_verify_causes.explain(*given) == before for given, before in zip(found, expected, strict=True)):
            useless.append((rule.causes, rule.effects, rule.by.__name__, rule.of.__name__))
    assert not useless


def test_problems_never_explain_each_other_in_a_circle() -> None:
    sample = Sample(GPU, masters=2)
    for code in CODES:
        for host in sample.hosts:
            sample.problem(code, host, f"host:{host}")
            sample.problem(code, host, WORKER_UNIT)
    document = sample.document()
    told = sum(len(p["hosts"]) + len(p["consequences"]) for p in document["problems"])
    assert document["problems"] and told >= len(CODES) * len(sample.hosts)


def test_the_same_problem_on_several_hosts_is_one() -> None:
    sample = Sample(4)
    for name in ("worker3", "worker1"):
        sample.problem("unit_disabled", name, WORKER_UNIT, "is not enabled")
    assert sample.codes() == [("unit_disabled", ["worker1", "worker3"])]


# --- the table -------------------------------------------------------------------------------------------------


def test_the_table_can_be_read_without_colours() -> None:
    text = _verify.table(Sample(2).broker_down().document(), 120)
    lines = text.splitlines()
    assert lines[0].split() == ["host", *CHECKS]
    rows = {line.split()[0]: line for line in lines[1:6]}
    assert "BAD" in rows["mq1"] and "(bad)" in rows["worker1"] and "?" in rows["master1"] and "1 up" in rows["db1"]
    assert "  mq1: rabbitmq-server is stopped [unit_stopped]" in lines
    assert re.search(r"^ +which also shows as: .*broker_refused on", text, re.MULTILINE)
    assert lines[-1] == "Verified 5 hosts: 1 problem."
    assert max(map(len, lines)) <= 120
    assert "\x1b" not in text and "\x1b[1;31mBAD" in _verify.table(Sample(2).broker_down().document(), 120, colour=True)


def test_a_narrow_terminal_continues_the_grid_below() -> None:
    lines = _verify.table(Sample(2).document(), 70).splitlines()
    heads = [line.split() for line in lines if line.startswith("host")]
    assert len(heads) > 1 and [check for head in heads for check in head[1:]] == list(CHECKS)
    assert max(map(len, lines)) <= 70


def test_many_hosts_are_folded() -> None:
    text = _verify.table(large().six_problems().document(), 120)
    assert "194 hosts more: all ok" in text and "worker4 " not in text and "gpu1" in text
    assert len(text.splitlines()) < 60


def test_two_hundred_hosts_are_judged_within_a_second() -> None:
    sample = large().six_problems()
    for name in sample.workers:
        sample.problem("broker_timeout", name, "broker:mq1:5672").problem("unit_failing", name, WORKER_UNIT)
        sample.problem("worker_silent", name, f"worker:{name}")
        for master in sample.masters:
            sample.problem("log_refused", master, f"log:{name}")
    hosts = list(sample.hosts.values())
    began = time.process_time()
    _verify.verify(hosts, sample.results)
    assert time.process_time() - began < 1


# --- documentation ---------------------------------------------------------------------------------------------


def test_every_code_is_documented() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| ([a-z]+) \| (.+) \| (.+) \|$", DOCS, re.MULTILINE)
    assert [(code, check) for code, check, _what, _fix in rows] == list(CODES.items())


def test_every_field_of_the_document_is_documented() -> None:
    document = Sample(2).broker_down().leave_out("worker2").document()
    named = set(re.findall(r"`([a-z_]+)`", DOCS))
    assert {*document["hosts"]["worker1"]["report"]["workers"][0]} <= named
    fields = {*document, *document["hosts"]["db1"], *document["queues"][0], *document["problems"][0]}
    fields |= {"status", "detail"}
    fields |= {*document["problems"][0]["consequences"][0], *document["not_looked_at"][0], *_verify._COLOURS}
    assert fields <= named, fields - named


def test_the_sample_of_the_table_is_what_it_prints() -> None:
    five = {"worker1": ["default"], "worker2": ["default"], "worker3": ["default", "etl"], "gpu1": ["gpu"]}
    sample = _verify.table(Sample(five, masters=2).six_problems().document(), 118)
    assert sample in DOCS, sample
    (line,) = re.findall(r"^Drained: .*$", _verify.table(Sample(3).drain("worker2").document(), 160), re.MULTILINE)
    assert line in DOCS, line
