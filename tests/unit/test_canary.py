# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rounds of canaries, what they prove, and what is said of those that do not come back."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.airflow.plugins.module_utils import _canary
from ansible_collections.onprem.airflow.plugins.module_utils._canary import ApiError, Canary, Smoke, Worker

CHECKOUT = Path(__file__).resolve().parents[2]
TOKEN = "0a1b2c"


def smoke(only: list[str] | None = None, **workers: list[str]) -> Smoke:
    """A smoke test of workers with these queues; each is known by NAME.example.com too."""
    known = {name: Worker(name, tuple(queues), (f"{name}.example.com",)) for name, queues in workers.items()}
    return Smoke(known, only or list(known), TOKEN)


def back(queue: str, worker: str, **changes: Any) -> Canary:
    """A canary that came back from a worker."""
    result = {"token": TOKEN, "queue": queue, "worker": worker}
    values = {
        "state": "success",
        "task_state": "success",
        "host": worker,
        "seconds": 3.0,
        "result": result,
        "log": "ok",
    }
    return Canary(queue, "canary-1", **(values | changes))


def codes(found: Smoke, seconds: float = 20) -> list[tuple[str, str]]:
    return [(problem.code, problem.host) for problem in found.finish(seconds)]


# --- Ids


@pytest.mark.parametrize("queue", ["default", "gpu x", "gpu_x", "ü/%s", "q" * 300, "a.b-c"])
def test_a_dag_id_is_one_that_airflow_takes(queue: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,250}", _canary.dag_id(queue))


def test_queues_never_share_a_dag() -> None:
    queues = ["gpu x", "gpu_x", "gpu/x", "q" * 300, "q" * 301, "q" * 150]
    assert sorted(_canary.canaries(queues).values()) == sorted(queues)


# --- Rounds


def test_the_first_round_has_more_canaries_than_workers_and_one_for_a_single_worker() -> None:
    found = smoke(a=["default", "gpu"], b=["default"], c=["default"])
    assert found.next_round(0, 120) == {"default": 6, "gpu": 1}


def test_a_large_cluster_is_not_flooded() -> None:
    found = smoke(**{f"w{number}": ["default"] for number in range(100)})
    assert found.next_round(0, 120) == {"default": 108}


def test_a_worker_that_is_left_out_is_counted_in_the_rounds_but_not_demanded() -> None:
    found = smoke(["a"], a=["default"], b=["default", "gpu"])
    assert (found.next_round(0, 120), found.wanted, found.left_out) == ({"default": 4}, [("default", "a")], ["b"])


def test_rounds_wait_longer_and_longer_for_those_that_were_passed_over() -> None:
    found = smoke(a=["default"], b=["default"])
    times = []
    for now in range(120):
        if found.next_round(now, 120):
            times.append(now)
        found.judge(back("default", "a"))
    assert times == [0, 2, 6, 14, *range(29, 115, 15)]


def test_no_round_while_enough_canaries_are_under_way() -> None:
    found = smoke(a=["default"], b=["default"])
    found.pending = [Canary("default", "1"), Canary("default", "2")]
    assert found.next_round(0, 120) == {}
    found.pending.pop()
    assert found.next_round(0, 120) == {"default": 4}


def test_the_last_round_leaves_its_canaries_the_time_they_need() -> None:
    found = smoke(a=["default"], b=["default"])
    assert found.next_round(7, 12) == {"default": 4}, "the first round in any case"
    assert found.next_round(9, 12) == {}
    assert found.next_round(9, 16) == {"default": 2}


def test_nothing_is_sent_through_a_queue_that_is_settled_broken_or_unknown() -> None:
    found = smoke(a=["done", "bad", "new"])
    found.judge(back("done", "a"))
    found.judge(Canary("bad", "1", state="failed", task_state="failed"))
    found.unknown = {"new"}
    assert found.next_round(0, 120) == {}
    assert found.open == [("new", "a")]


# --- Workers that are drained


def with_drained(only: list[str] | None = None, **drained: list[str]) -> Smoke:
    """Three workers, of which one has two services, with these units drained."""
    two = [{"unit": "airflow-worker@light.service", "queues": ["default"]}]
    two += [{"unit": "airflow-worker@gpu.service", "queues": ["gpu", "default"]}]
    given: dict[str, dict[str, Any]] = {
        "a": {"queues": ["default"]},
        "b": {
            "queues": ["default", "etl"],
            "services": [{"unit": "airflow-worker.service", "queues": ["default", "etl"]}],
        },
        "c": {"queues": ["default", "gpu"], "services": two},
    }
    workers = {
        name: _canary.read_worker(name, worker | {"drained": drained.get(name)}) for name, worker in given.items()
    }
    return Smoke(workers, only or list(workers), TOKEN)


def test_a_drained_worker_gets_no_canary() -> None:
    found = with_drained(a=["airflow-worker"])
    assert found.wanted == [("default", "b"), ("default", "c"), ("etl", "b"), ("gpu", "c")]
    assert (found.drained, found.left_out, found.unread()) == (["a"], [], [])
    assert found.next_round(0, 120) == {"default": 4, "etl": 1, "gpu": 1}, "two that take from default"
    for pair in found.wanted:
        found.judge(back(*pair))
    assert not found.open and not found.finish(20)
    assert _canary.table(found).splitlines() == [
        "  queue     a         b       c",
        "  default   drained   3.0 s   3.0 s",
        "  etl       -         3.0 s   -",
        "  gpu       -         -       3.0 s",
    ]
    assert with_drained().drained == []


def test_a_queue_that_only_drained_workers_serve_is_told_and_not_waited_for() -> None:
    found = with_drained(b=["airflow-worker.service"])
    assert ("etl", "b") not in found.wanted
    (problem,) = found.unread()
    assert (problem.code, problem.host) == ("canary_drained", "queue etl")
    assert "is drained (b)" in problem.what and "onprem.airflow.undrain --limit b`" in problem.fix
    for pair in found.wanted:
        found.judge(back(*pair))
    assert not found.open and codes(found) == [("canary_drained", "queue etl")]


def test_a_queue_of_a_host_is_left_out_only_when_none_of_its_services_reads_it() -> None:
    found = with_drained(c=["airflow-worker@gpu"])
    assert [pair for pair in found.wanted if pair[1] == "c"] == [("default", "c")]
    assert found.drained == ["c (airflow-worker@gpu)"]
    assert [problem.host for problem in found.unread()] == ["queue gpu"]
    assert with_drained(c=["airflow-worker@light"]).unread() == []


def test_when_all_workers_looked_at_are_drained_there_is_nothing_to_prove() -> None:
    found = with_drained(["a"], a=["airflow-worker"])
    assert (found.wanted, found.drained, found.left_out) == ([], ["a"], ["b", "c"])
    assert found.unread() == [], "others serve its queue"
    assert "no canary" in found.would()


def test_a_drained_worker_that_takes_a_canary_is_told() -> None:
    found = with_drained(a=["airflow-worker"])
    for pair in [*found.wanted, ("default", "a")]:
        found.judge(back(*pair))
    (problem,) = found.finish(20)
    assert (problem.code, problem.host) == ("canary_queue", "a") and "drained" in problem.what


# --- What came back


def test_everything_is_proved_when_every_worker_answered_for_each_of_its_queues() -> None:
    found = smoke(a=["default", "gpu"], b=["default"])
    for queue, worker in (("default", "a"), ("gpu", "a"), ("default", "a"), ("default", "b")):
        assert found.open
        found.judge(back(queue, worker))
    assert not found.open and not found.finish(20)
    assert _canary.table(found).splitlines() == [
        "  queue     a       b",
        "  default   3.0 s   3.0 s",
        "  gpu       3.0 s   -",
    ]


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"state": "failed", "task_state": "failed", "result": None, "last_line": "Boom"}, "canary_failed", "Boom"),
        ({"result": None}, "canary_result", "missing"),
        ({"result": {"token": "old", "queue": "default", "worker": "a"}}, "canary_result", "another"),
        ({"log": "missing", "last_line": "Connection refused"}, "canary_log", "Connection refused"),
        ({"log": "without_token"}, "canary_log", "another run"),
        ({"result": {"token": TOKEN, "queue": "default", "worker": "x"}}, "canary_stranger", "calls itself x"),
    ],
)
def test_a_canary_that_proves_nothing_is_blamed_on_its_worker(change: dict[str, Any], code: str, told: str) -> None:
    found = smoke(a=["default"], b=["default"])
    found.judge(back("default", "a", **({"host": "a.example.com"} | change)))
    found.judge(back("default", "b"))
    (problem,) = found.finish(20)
    assert (problem.code, problem.host) == (code, "a")
    assert told in problem.what and problem.fix
    assert not found.open, "it is settled: no further canary may hide it"
    found.judge(back("default", "a"))
    assert codes(found) == [(code, "a")]
    assert "FAILED" in _canary.table(found)


def test_a_host_that_is_not_in_the_inventory_is_named_as_airflow_knows_it() -> None:
    found = smoke(a=["default"])
    found.judge(back("default", "old", host="old.example.com"))
    found.judge(back("default", "a"))
    assert codes(found) == [("canary_stranger", "old.example.com")]


def test_a_queue_that_the_inventory_gives_another_worker_is_told() -> None:
    found = smoke(a=["default"], b=["gpu"])
    for canary in (back("default", "a"), back("gpu", "b"), back("gpu", "a")):
        found.judge(canary)
    assert codes(found) == [("canary_queue", "a")]


def test_a_canary_that_failed_before_a_worker_had_it_is_the_queues_own_problem() -> None:
    found = smoke(a=["default"], b=["default"])
    found.judge(Canary("default", "1", state="failed", task_state="failed"))
    assert codes(found) == [("canary_unsent", "queue default")]


# --- The time is over


def test_a_worker_that_others_stand_in_for_does_not_take_from_the_queue() -> None:
    found = smoke(a=["default"], b=["default"])
    for _each in range(4):
        found.judge(back("default", "a"))
    (problem,) = found.finish(20)
    assert (problem.code, problem.host) == ("canary_untaken", "b")
    assert "within 20 s; other workers took all 4" in problem.what
    assert "systemctl status airflow-worker` on b" in problem.fix


def test_a_canary_that_still_waits_speaks_of_a_worker_that_is_busy_or_hangs() -> None:
    found = smoke(a=["default"], b=["default"])
    found.judge(back("default", "a"))
    found.pending = [Canary("default", "2", state="running", task_state="queued")]
    (problem,) = found.finish(20)
    assert "1 of 2 still waits for a slot" in problem.what
    assert "airflow_smoke_timeout" in problem.fix


def test_a_canary_that_a_worker_has_and_does_not_end_is_stuck_there() -> None:
    found = smoke(a=["default"], b=["default"])
    found.judge(back("default", "a"))
    found.pending = [Canary("default", "2", "running", "up_for_reschedule", "b.example.com", last_line="Dag not found")]
    (problem,) = found.finish(20)
    assert (problem.code, problem.host) == ("canary_stuck", "b")
    assert "Dag not found" in problem.what


def test_canaries_that_the_scheduler_does_not_send_are_not_blamed_on_workers() -> None:
    found = smoke(a=["default"], b=["default"])
    found.pending = [Canary("default", "1"), Canary("default", "2", "running", "scheduled")]
    assert codes(found) == [("canary_unsent", "queue default")]


def test_all_failures_are_in_one_list_and_those_alike_stand_together() -> None:
    found = smoke(a=["default"], b=["default"], c=["default", "gpu"])
    found.judge(back("default", "c"))
    found.judge(back("gpu", "c", log="missing"))
    text = _canary.render(found.finish(20))
    assert "  a, b: took no canary of the queue default within 20 s; other workers took all 1 [canary_untaken]" in text
    assert "`systemctl status airflow-worker` there" in text
    assert "  c: the log of a canary of the queue gpu cannot be read" in text
    assert text.count("fix: ") == 2


def test_the_sample_of_the_readme_is_what_it_says() -> None:
    found = smoke(worker1=["default"], worker2=["default", "gpu"])
    found.judge(back("default", "worker1", seconds=3.4))
    found.judge(back("default", "worker2", seconds=3.5))
    found.judge(back("gpu", "worker2", log="missing", last_line="Connection refused"))
    problems = found.finish(20)
    sample = f"{_canary.table(found)}\n\nSmoke found 1 problem:\n\n{_canary.render(problems)}\n"
    assert sample in (CHECKOUT / "README.md").read_text(), sample


@pytest.mark.parametrize(
    ("others", "errors", "code"),
    [(0, [], "canary_missing"), (2, [], "canary_queue_unknown"), (0, ["SyntaxError: x"], "canary_import_error")],
)
def test_queues_without_a_dag(others: int, errors: list[str], code: str) -> None:
    (problem,) = _canary.without_dags(["gpu"], others, errors)
    assert problem.code == code and "onprem.airflow.site" in problem.fix


def test_progress_names_what_is_waited_for() -> None:
    found = smoke(**{f"w{number}": ["default"] for number in range(6)})
    found.judge(back("default", "w0"))
    assert found.progress(40.4) == (
        "Smoke: 1 of 6 canaries are back; waiting for default on w1, default on w2, default on w3 and 2 more, 40 s left"
    )


def test_a_wide_table_has_a_line_for_each_pair() -> None:
    found = smoke(**{f"worker{number}": ["default"] for number in range(20)})
    found.judge(back("default", "worker7"))
    lines = _canary.table(found).splitlines()
    assert max(map(len, lines)) < 100 and len(lines) == 21
    assert "  default   worker7    3.0 s" in lines and "  default   worker8    FAILED" in lines


# --- The API


class Server:
    """Answers by method and the beginning of the path, and notes what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {key.replace("__", " /").replace("_", "/"): value for key, value in answers.items()}
        self.asked: list[tuple[str, str, Any]] = []

    def __call__(self, method: str, path: str, body: Any) -> Any:
        self.asked.append((method, path, body))
        for key, answer in self.answers.items():
            if key in f"{method} {path}":
                if isinstance(answer, Exception):
                    raise answer
                return answer
        raise AssertionError(f"{method} {path} was not expected")


def test_a_paused_dag_is_let_go_on_and_a_missing_one_is_told() -> None:
    dags = [{"dag_id": "onprem_airflow_canary_default", "is_paused": True}]
    none = {"import_errors": [], "total_entries": 0}
    server = Server(GET__api_v2_dags={"dags": dags, "total_entries": 1}, PATCH={}, importErrors=none)
    assert _canary.missing_dags(server, ["default", "gpu"]) == (["gpu"], 1, [])
    assert [body for method, _path, body in server.asked if method == "PATCH"] == [{"is_paused": False}]


def test_an_error_in_our_own_file_is_told() -> None:
    errors = [
        {"filename": "mine.py", "stack_trace": "other"},
        {"filename": "onprem_airflow_canary.py", "stack_trace": "Traceback\nImportError: no airflow.sdk\n"},
    ]
    found = {"import_errors": errors, "total_entries": 2}
    server = Server(GET__api_v2_dags={"dags": [], "total_entries": 0}, importErrors=found)
    assert _canary.missing_dags(server, ["default"]) == (["default"], 0, ["ImportError: no airflow.sdk"])


def test_a_list_in_pieces_is_read_to_its_end() -> None:
    runs = [{"dag_run_id": _canary.run_id(TOKEN, number), "state": "success"} for number in range(250)]

    def server(_method: str, path: str, _body: Any) -> Any:
        offset = int(re.search(r"offset=(\d+)", path)[1])  # type: ignore[index]
        return {"dag_runs": runs[offset : offset + 100], "total_entries": len(runs)}

    assert len(_canary.states(server, TOKEN)) == 250


LOG = [{"event": "::group::"}, f"canary {TOKEN} of the queue default is on a", {"event": "Task finished"}]


@pytest.mark.parametrize(
    ("answer", "log", "line"),
    [
        ({"content": LOG}, "ok", LOG[1]),
        ({"content": [LOG[0], "canary 999999 of the queue default is on a"]}, "without_token", "canary 999999"),
        ({"content": [{"event": "Could not read served logs: refused"}, {"event": "end"}]}, "missing", "refused"),
        ({"content": [{"error_detail": [{"exc_type": "OSError", "exc_value": "full"}]}]}, "missing", "OSError: full"),
        (ApiError(500, "HTTP 500: broken"), "missing", "HTTP 500: broken"),
    ],
)
def test_a_log_is_read_for_the_token(answer: Any, log: str, line: str) -> None:
    canary = Canary("default", "canary-1")
    _canary.read_log(Server(logs=answer), canary, TOKEN)
    assert canary.log == log and line in canary.last_line


def test_a_missing_result_or_task_is_no_error_of_the_api() -> None:
    canary = Canary("default", "canary-1", state="success")
    _canary.look(Server(xcomEntries=ApiError(404, ""), taskInstances={"state": "success", "hostname": "a"}), canary)
    assert (canary.host, canary.result) == ("a", None)
    _canary.look(Server(taskInstances=ApiError(404, "")), canary)
    assert (canary.task_state, canary.host) == ("", "")


def test_the_seconds_are_those_from_the_request_to_the_end() -> None:
    canary = Canary("default", "canary-1")
    _canary.update(
        canary, {"state": "success", "queued_at": "2026-11-22T10:00:00Z", "end_date": "2026-11-22T10:00:04.660000Z"}
    )
    assert (canary.ended, canary.seconds) == (True, 4.7)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"detail": "Invalid credentials"}', "HTTP 401: Invalid credentials"),
        (b"<html>\n</html>", "HTTP 401: <html> </html>"),
    ],
)
def test_a_refusal_is_one_line(body: bytes, text: str) -> None:
    assert _canary.detail(401, body) == text


# --- The playbook


@pytest.fixture
def smoke_playbook(tmp_path: Path, ansible_playbook: Callable[..., Any]) -> Callable[..., Any]:
    """Run the playbook dry on hosts that are this machine, each with a find of its own that tells what is drained."""

    def run(drained: dict[str, str], *arguments: str, groups: dict[str, list[str]] | None = None) -> Any:
        hosts: dict[str, dict[str, Any]] = {}
        for name in ("master1", "worker1", "worker2", "worker3"):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            (folder / "find").write_text(f"#!/bin/sh\nprintf '{drained.get(name, '')}'\n")
            (folder / "python").write_text(f'#!/bin/sh\nPATH={folder}:$PATH exec {sys.executable} "$@"\n')
            for path in folder.iterdir():
                path.chmod(0o755)
            hosts[name] = {"ansible_connection": "local", "ansible_python_interpreter": str(folder / "python")}
        hosts["worker2"]["airflow_worker_queues"] = ["default", "gpu"]
        shared = dict.fromkeys(SECRET_VARIABLES, "x" * 40) | {"ansible_become": False}
        workers = {name: hosts[name] for name in hosts if name != "master1"}
        children = {"airflow_master": {"hosts": {"master1": hosts["master1"]}}, "airflow_worker": {"hosts": workers}}
        for group, names in (groups or {}).items():
            children[group] = {"hosts": {name: {} for name in names}}
        inventory = {"all": {"vars": shared, "children": {"airflow_cluster": {"children": children}}}}
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
        playbook = CHECKOUT / "playbooks" / "smoke.yml"
        return ansible_playbook("-i", tmp_path / "hosts.yml", playbook, "--check", *arguments, json_output=False)

    return run


SECRET_VARIABLES = ["airflow_admin_password", "airflow_api_secret_key", "airflow_fernet_key", "airflow_jwt_secret"]
SECRET_VARIABLES += ["airflow_broker_password", "airflow_database_password", "airflow_results_database_password"]


def test_the_playbook_asks_the_workers_who_is_drained(smoke_playbook: Callable[..., Any]) -> None:
    ran = smoke_playbook({"worker3": r"airflow-worker\n"})
    assert ran.rc == 0, ran.output
    would = "Would send a canary through default on worker1, default on worker2, gpu on worker2"
    assert f"\n{would}\n" in ran.output
    ran = smoke_playbook({"worker3": r"airflow-worker\n"}, "--limit", "worker1,worker3")
    assert ran.rc == 0 and "\nWould send a canary through default on worker1\n" in ran.output, ran.output
    # As scale_out does it with the hosts that are new.
    pattern = ["-e", "__airflow_smoke_hosts=airflow_new"]
    ran = smoke_playbook({}, *pattern, groups={"airflow_new": ["worker3"]})
    assert ran.rc == 0 and "\nWould send a canary through default on worker3\n" in ran.output, ran.output


def test_the_playbook_ends_at_once_when_only_a_drained_worker_serves_a_queue(
    smoke_playbook: Callable[..., Any],
) -> None:
    ran = smoke_playbook({"worker2": r"airflow-worker\n"}, "--limit", "worker2")
    assert ran.rc != 0
    assert "Not looked at, because drained: worker2\n" in ran.output, ran.output
    assert "queue gpu: no canary was sent: everybody who serves it is drained (worker2) [canary_drained]" in ran.output
    ran = smoke_playbook({"worker1": r"airflow-worker\n"}, "--limit", "worker1")
    assert ran.rc == 0 and "No canary was sent." in ran.output, ran.output
