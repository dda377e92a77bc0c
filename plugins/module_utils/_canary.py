# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: canary tasks, when to send how many, what came back, and what that proves."""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

PREFIX = "onprem_airflow_canary_"
TASK = "canary"
FILE = "onprem_airflow_canary.py"
ENDED = ("success", "failed")
# Seconds between two rounds through a queue: the first look for a worker that was passed over, later ones for one that
# is busy, which a canary more or less does not help.
PAUSES = (0.0, 2.0, 4.0, 8.0, 15.0)
# Seconds that a canary needs: later than that before the end none is sent, for those under way would look like waiting.
NEEDED = 6.0

# The options of the task; the action checks them, and the module has them to be documented and called alike.
ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "workers": {"type": "dict", "required": True},
    "only": {"type": "list", "elements": "str", "default": []},
    "enabled": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 120},
    "url": {"type": "str", "default": "http://127.0.0.1:8080"},
    "user": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
}

Pair = tuple[str, str]  # queue, worker
Call = t.Callable[[str, str, t.Any], t.Any]


def dag_id(queue: str) -> str:
    """The id of the DAG whose canaries go through C(queue); a DAG's id has fewer characters than a queue's name."""
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", queue)[:150]
    return PREFIX + (safe if safe == queue else f"{safe}_{hashlib.sha256(queue.encode()).hexdigest()[:8]}")


def canaries(queues: t.Iterable[str]) -> dict[str, str]:
    """The queues by the ids of their DAGs."""
    return {dag_id(queue): queue for queue in sorted(set(queues))}


# --- Airflow's API, on a master -----------------------------------------------------------------------------------


class ApiError(Exception):
    """A refused request: its status (0 when no answer came) and what the server says."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def detail(status: int, body: bytes) -> str:
    """What an answer that is an error says, in one line."""
    try:
        told = json.loads(body)["detail"]
    except (ValueError, TypeError, KeyError):
        told = body.decode("utf-8", "replace")
    text = " ".join((told if isinstance(told, str) else json.dumps(told)).split())
    return f"HTTP {status}: {text[:300]}"


@dataclass
class Canary:
    """One run of a canary and what is known of it."""

    queue: str
    run: str
    state: str = "queued"
    task_state: str = ""
    host: str = ""  # as Airflow records it
    seconds: float | None = None
    result: t.Any = None
    log: str = ""  # ok | missing | without_token, "" when it was not looked at
    last_line: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def path_of(canary: Canary, *, task: bool = True) -> str:
    """Where the API has a canary's run, or its task."""
    run = f"/api/v2/dags/{quote(dag_id(canary.queue))}/dagRuns/{quote(canary.run)}"
    return f"{run}/taskInstances/{TASK}" if task else run


def everything(call: Call, path: str, key: str) -> list[dict[str, t.Any]]:
    """All entries of a list that the server hands out in pieces."""
    found: list[dict[str, t.Any]] = []
    while True:
        answer = call("GET", f"{path}{'&' if '?' in path else '?'}limit=100&offset={len(found)}", None)
        found += answer[key]
        if not answer[key] or len(found) >= int(answer["total_entries"] or 0):
            return found


def missing_dags(call: Call, queues: t.Iterable[str]) -> tuple[list[str], int, list[str]]:
    """The queues that have no DAG yet, how many have one, and Airflow's errors when it imports our file.

    A DAG that a person has paused is let go on: it is ours, and runs only when asked.
    """
    found = everything(call, f"/api/v2/dags?order_by=dag_id&dag_id_prefix_pattern={quote(PREFIX)}", "dags")
    known = {entry["dag_id"]: entry for entry in found}
    missing = [queue for queue in queues if dag_id(queue) not in known]
    for queue in set(queues) - set(missing):
        if known[dag_id(queue)].get("is_paused"):
            call("PATCH", f"/api/v2/dags/{quote(dag_id(queue))}?update_mask=is_paused", {"is_paused": False})
    errors: list[str] = []
    if missing:
        listed = everything(call, "/api/v2/importErrors?order_by=id", "import_errors")
        errors = [
            str(entry.get("stack_trace") or "").strip().rsplit("\n", 1)[-1]
            for entry in listed
            if str(entry.get("filename") or "").endswith(FILE)
        ]
    return missing, len(known), errors


def start(call: Call, queue: str, run: str, token: str) -> Canary:
    """Ask for one canary."""
    body = {"logical_date": None, "dag_run_id": run, "conf": {"token": token}}
    call("POST", f"/api/v2/dags/{quote(dag_id(queue))}/dagRuns", body)
    return Canary(queue, run)


def states(call: Call, token: str) -> dict[str, dict[str, t.Any]]:
    """All runs of this smoke test by their ids."""
    path = f"/api/v2/dags/~/dagRuns?order_by=id&run_id_prefix_pattern={quote(run_id(token, ''))}"
    return {entry["dag_run_id"]: entry for entry in everything(call, path, "dag_runs")}


def run_id(token: str, number: int | str) -> str:
    """A run's id, of which all of one smoke test begin alike."""
    return f"canary-{token}-{number}"


def update(canary: Canary, entry: dict[str, t.Any]) -> None:
    """Take over what the list of runs says."""
    canary.state = str(entry.get("state") or "")
    begun, ended = (entry.get(key) for key in ("queued_at", "end_date"))
    if begun and ended:
        canary.seconds = round((moment(ended) - moment(begun)).total_seconds(), 1)


def moment(text: str) -> datetime:
    """A time of the API."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def look(call: Call, canary: Canary) -> None:
    """Ask what became of a canary's task, and for its result."""
    try:
        task = call("GET", path_of(canary), None)
    except ApiError as error:
        if error.status != 404:
            raise
        task = {}  # the scheduler has not begun the run
    canary.task_state, canary.host = str(task.get("state") or ""), str(task.get("hostname") or "")
    if canary.state == "success":
        try:
            canary.result = call("GET", f"{path_of(canary)}/xcomEntries/return_value", None)["value"]
        except ApiError as error:
            if error.status != 404:
                raise


def read_log(call: Call, canary: Canary, token: str) -> None:
    """Read the log through the API server, which fetches it from the worker, and look for the token in it."""
    try:
        lines = log_lines(call("GET", f"{path_of(canary)}/logs/1?full_content=true", None))
    except ApiError as error:
        canary.log, canary.last_line = "missing", str(error)
        return
    told = [line for line in lines if line]
    wanted = next((line for line in told if f"canary {token} " in line), None)
    trouble = [line for line in told if re.search(r"(?i)could not read|error|exception|failed|not found", line)]
    canary.last_line = wanted or (trouble or told or [""])[-1]
    canary.log = "ok" if wanted else "without_token" if any("canary " in line for line in told) else "missing"


def log_lines(answer: dict[str, t.Any]) -> list[str]:
    """The lines of a log, with what an exception says."""
    lines: list[str] = []
    for entry in answer.get("content") or []:
        if isinstance(entry, dict):
            lines.append(str(entry.get("event") or ""))
            lines += [f"{one.get('exc_type')}: {one.get('exc_value')}" for one in entry.get("error_detail") or []]
        else:
            lines.append(str(entry))
    return [" ".join(line.split()) for line in lines]


# --- Rounds, on the control machine -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worker:
    """A worker of the inventory: the queues that it serves, and the names that it may be known by.

    C(drained) are its services that take no tasks, C(unread) the queues that only these serve.
    """

    name: str
    queues: tuple[str, ...]
    names: tuple[str, ...] = ()
    drained: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[str, ...]:
        """The queues that it takes tasks from."""
        return tuple(queue for queue in self.queues if queue not in self.unread)

    @property
    def label(self) -> str:
        """Its name, with the services that are drained where others go on."""
        return f"{self.name} ({', '.join(self.drained)})" if self.read else self.name


def read_worker(name: str, worker: t.Mapping[str, t.Any]) -> Worker:
    """A worker from the option of the task."""
    queues = tuple(map(str, worker.get("queues") or ()))
    services = worker.get("services") or [{"unit": "airflow-worker.service", "queues": queues}]
    held = {str(unit).removesuffix(".service") for unit in worker.get("drained") or ()}
    units = {str(service["unit"]).removesuffix(".service"): service["queues"] for service in services}
    read = {str(queue) for unit, served in units.items() if unit not in held for queue in served}
    return Worker(
        name,
        queues,
        tuple(worker.get("names") or ()),
        tuple(unit for unit in units if unit in held),
        tuple(queue for queue in queues if queue not in read),
    )


@dataclass
class Problem:
    """One thing that is not proved, and what to do."""

    code: str
    host: str
    what: str
    fix: str


@dataclass
class Smoke:
    """What is wanted, what was sent, what came back."""

    workers: dict[str, Worker]
    only: list[str] = field(default_factory=list)  # workers that are demanded
    token: str = ""
    ended: list[Canary] = field(default_factory=list)
    pending: list[Canary] = field(default_factory=list)
    rounds: Counter[str] = field(default_factory=Counter)
    last_round: dict[str, float] = field(default_factory=dict)
    # The first canary of each queue that a worker took, and that worker's name for itself.
    proven: dict[Pair, Canary] = field(default_factory=dict)
    failed: dict[Pair, Problem] = field(default_factory=dict)
    broken: dict[str, Problem] = field(default_factory=dict)  # queues through which nothing more is sent
    strangers: dict[str, Problem] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)  # queues whose DAG Airflow has not read yet

    @property
    def wanted(self) -> list[Pair]:
        """All pairs that are demanded."""
        return sorted((queue, name) for name in self.only for queue in self.workers[name].read)

    @property
    def open(self) -> list[Pair]:
        """Those of which nothing is known yet."""
        settled = set(self.proven) | set(self.failed)
        return [pair for pair in self.wanted if pair not in settled and pair[0] not in self.broken]

    @property
    def left_out(self) -> list[str]:
        """Workers that are not looked at."""
        return sorted(set(self.workers) - set(self.only))

    @property
    def drained(self) -> list[str]:
        """Workers that are left out, wholly or in part, because they are drained."""
        return [worker.label for name in sorted(self.only) if (worker := self.workers[name]).drained]

    def consumers(self, queue: str) -> list[str]:
        """All workers that take from a queue, demanded or not."""
        return sorted(worker.name for worker in self.workers.values() if queue in worker.read)

    def unread(self) -> list[Problem]:
        """The queues that nobody takes from because all their workers are drained: there is nothing to wait for."""
        problems = []
        for queue in sorted({queue for name in self.only for queue in self.workers[name].unread}):
            if not self.consumers(queue):
                names = sorted(worker.name for worker in self.workers.values() if queue in worker.queues)
                what = f"no canary was sent: everybody who serves it is drained ({', '.join(names)})"
                fix = f"take one of them back: `ansible-playbook onprem.airflow.undrain --limit {','.join(names)}`"
                fix = fix if len(names) > 1 else fix.replace("one of them", "it")
                problems.append(Problem("canary_drained", f"queue {queue}", what, fix))
        return problems

    # --- sending

    def next_round(self, now: float, end: float) -> dict[str, int]:
        """How many canaries to send through which queues now, when the time is over at C(end); noted as sent."""
        sent: dict[str, int] = {}
        for queue in sorted({queue for queue, _worker in self.open} - self.unknown):
            lacking = sum(one == queue for one, _worker in self.open)
            under_way = sum(canary.queue == queue for canary in self.pending)
            number = self.rounds[queue]
            pause = PAUSES[min(number, len(PAUSES) - 1)]
            if number and end - now < NEEDED:
                continue
            if under_way >= lacking or now - self.last_round.get(queue, float("-inf")) < pause:
                continue
            # The broker goes round its consumers, so one each would do if no slot were taken and nothing else came.
            everyone = len(self.consumers(queue))
            sent[queue] = everyone + min(everyone, 8) if number == 0 and everyone > 1 else everyone
            self.rounds[queue] += 1
            self.last_round[queue] = now
        return sent

    # --- what came back

    def owner(self, canary: Canary) -> str:
        """The worker that took a canary: what it says itself, else by the host name that Airflow has."""
        if isinstance(canary.result, dict) and canary.result.get("worker") in self.workers:
            return str(canary.result["worker"])
        for (_queue, name), known in self.proven.items():
            if canary.host and known.host == canary.host:
                return name
        short = canary.host.split(".")[0]
        for wanted in (canary.host, short):
            for worker in self.workers.values():
                if wanted and wanted in (worker.name, *worker.names):
                    return worker.name
        return ""

    def judge(self, canary: Canary) -> None:
        """Take in a canary that has ended."""
        self.ended.append(canary)
        name = self.owner(canary)
        pair = (canary.queue, name)
        problem = self._problem_of(canary, name)
        if problem is None:
            self.proven.setdefault(pair, canary)
        elif name:
            self.failed.setdefault(pair, problem)
        elif canary.host:
            self.strangers.setdefault(canary.host, problem)
        else:
            self.broken.setdefault(canary.queue, problem)

    def _problem_of(self, canary: Canary, name: str) -> Problem | None:
        what = f"a canary of the queue {canary.queue}"
        if canary.state != "success":
            why = f": {canary.last_line}" if canary.last_line else ""
            if not name and not canary.host:
                return Problem(
                    "canary_unsent",
                    f"queue {canary.queue}",
                    f"{what} failed before a worker had it{why}",
                    "look for the reason in `journalctl -u airflow-scheduler` on the masters: the broker may refuse it",
                )
            return Problem(
                "canary_failed",
                name or canary.host,
                f"{what} failed (task {canary.task_state or 'without a state'}){why}",
                f"read its log in the web UI (DAG {dag_id(canary.queue)}, run {canary.run}); "
                "when the DAG is not on the worker, run the playbook onprem.airflow.site for this host",
            )
        told = canary.result if isinstance(canary.result, dict) else {}
        if told.get("token") != self.token or told.get("queue") != canary.queue:
            return Problem(
                "canary_result",
                name or canary.host,
                f"{what} succeeded, but its result is {'missing' if canary.result is None else 'another'}",
                "run the playbook onprem.airflow.site: the host has another version of the canary than the masters",
            )
        if told.get("worker") not in self.workers:
            return Problem(
                "canary_stranger",
                name or canary.host,
                f"took {what} and calls itself {told.get('worker')}, which is no worker of the inventory",
                "run the playbook onprem.airflow.site, which gives each worker its name; stop the worker of a host "
                "that is not in the inventory",
            )
        if canary.queue not in self.workers[name].queues:
            return Problem(
                "canary_queue",
                name,
                f"took {what}, which the inventory does not give it",
                "name the queue in its airflow_worker_queues, or run the playbook onprem.airflow.site for this host",
            )
        if canary.queue in self.workers[name].unread:
            return Problem(
                "canary_queue",
                name,
                f"took {what} although it is drained",
                f"run `ansible-playbook onprem.airflow.drain --limit {name}` again, or onprem.airflow.undrain",
            )
        if canary.log == "missing":
            why = f": {canary.last_line}" if canary.last_line else ""
            return Problem(
                "canary_log",
                name,
                f"the log of {what} cannot be read through the API server{why}",
                f"the masters must reach {canary.host}, the worker's name for itself, at port 8793, with the same "
                "airflow_api_secret_key on both; the playbook onprem.airflow.verify tells which is wrong",
            )
        if canary.log == "without_token":
            return Problem(
                "canary_log",
                name,
                f"the log of {what} is that of another run",
                f"two workers may call themselves {canary.host}: give each host a name of its own",
            )
        return None

    # --- in words

    def would(self) -> str:
        """What a dry run says."""
        parts = [f"{queue} on {name}" for queue, name in self.wanted]
        if not parts:
            return "Would send no canary: every worker is drained"
        return f"Would send a canary through {', '.join(parts)}"

    def progress(self, left: float) -> str:
        """How far it is."""
        lacking = [f"{queue} on {name}" for queue, name in self.open]
        named = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        done = len(self.wanted) - len(lacking)
        first = "waiting for Airflow to read the canary's DAGs" if self.unknown else f"waiting for {named}"
        return f"Smoke: {done} of {len(self.wanted)} canaries are back; {first}, {max(left, 0):.0f} s left"

    # --- the end

    def finish(self, seconds: float) -> list[Problem]:
        """Everything that is not proved when the time is over."""
        problems = [*self.unread(), *self.broken.values(), *self.failed.values(), *self.strangers.values()]
        for queue in sorted({queue for queue, _name in self.open} - self.unknown):
            names = [name for one, name in self.open if one == queue]
            waiting = [canary for canary in self.pending if canary.queue == queue]
            taken = [canary for canary in self.ended if canary.queue == queue and canary.host]
            unsent = [canary for canary in waiting if canary.task_state in ("", "scheduled", "none")]
            here = [canary for canary in waiting if canary.host]
            for canary in here:
                name = self.owner(canary)
                if name in names:
                    names.remove(name)
                    problems.append(
                        Problem(
                            "canary_stuck",
                            name,
                            f"has a canary of the queue {queue} that did not end within {seconds:.0f} s "
                            f"({canary.task_state}){': ' + canary.last_line if canary.last_line else ''}",
                            "look at `journalctl -u airflow-worker` there: it must reach the API server, and have the "
                            "canary's DAG (playbook onprem.airflow.site)",
                        )
                    )
            if unsent and not taken:
                problems.append(
                    Problem(
                        "canary_unsent",
                        f"queue {queue}",
                        f"{len(unsent)} canaries of the queue {queue} did not get to the broker in {seconds:.0f} s",
                        "see that airflow-scheduler runs on a master (`systemctl status airflow-scheduler`), and that "
                        "the pool default_pool and airflow_parallelism have room",
                    )
                )
                continue
            problems += [self._untaken(queue, name, seconds, len(waiting), len(taken)) for name in names]
        return problems

    def _untaken(self, queue: str, name: str, seconds: float, waiting: int, taken: int) -> Problem:
        """A worker that no canary came back from: what became of them tells why."""
        what = f"took no canary of the queue {queue} within {seconds:.0f} s"
        if waiting:
            return Problem(
                "canary_untaken",
                name,
                f"{what}; {waiting} of {waiting + taken} still wait{'s' * (waiting == 1)} for a slot",
                f"see what its worker does: `journalctl -u airflow-worker` on {name}. If long tasks take all its "
                "slots, give it more time with airflow_smoke_timeout; if it hangs, restart airflow-worker there",
            )
        if not taken:
            fix = "see that airflow-api-server runs on the master, and give it more time with airflow_smoke_timeout"
            return Problem("canary_unsent", name, f"{what}: none could be sent", fix)
        return Problem(
            "canary_untaken",
            name,
            f"{what}; other workers took all {taken}",
            f"see that its worker runs: `systemctl status airflow-worker` on {name}; if it does, the playbook "
            "onprem.airflow.verify tells why it takes nothing from this queue",
        )


def without_dags(missing: list[str], others: int, errors: list[str]) -> list[Problem]:
    """Queues that Airflow knows no canary of."""
    if errors:
        fix = "run the playbook onprem.airflow.site; `airflow dags list-import-errors` on a master shows all of it"
        return [Problem("canary_import_error", "masters", f"Airflow cannot import the canary's DAGs: {errors[0]}", fix)]
    names = ", ".join(missing)
    if others:
        what = f"the canary that is deployed does not know the queue{'s' * (len(missing) > 1)} {names}"
        fix = "run the playbook onprem.airflow.site without --limit, so that the masters know the queues of all workers"
        return [Problem("canary_queue_unknown", "masters", what, fix)]
    return [
        Problem(
            "canary_missing",
            "masters",
            f"Airflow has no canary DAG (looked for {', '.join(map(dag_id, missing))})",
            "run the playbook onprem.airflow.site, with airflow_canary true; if it ran, see that airflow-dag-processor "
            "runs on a master, and that airflow_config does not set dag_bundle_config_list",
        )
    ]


def render(problems: list[Problem]) -> str:
    """The list of problems as people read it; those that differ only in the host stand together."""
    merged: dict[tuple[str, str], tuple[list[str], Problem]] = {}
    for problem in problems:
        hosts, _first = merged.setdefault((problem.code, problem.what), ([], problem))
        hosts.append(problem.host)
    text = []
    for hosts, problem in merged.values():
        fix = problem.fix.replace(f"` on {problem.host}", "` there") if len(hosts) > 1 else problem.fix
        text.append(f"  {', '.join(hosts)}: {problem.what} [{problem.code}]\n      fix: {fix}")
    return "\n\n".join(text)


def table(smoke: Smoke) -> str:
    """Queues by workers, each with the seconds that its canary took."""
    names = sorted(smoke.only)
    rows = [["queue", *names]]
    for queue in sorted({queue for name in names for queue in smoke.workers[name].queues}):
        cells = []
        for name in names:
            canary = smoke.proven.get((queue, name))
            failed = (queue, name) in smoke.failed or canary is None
            seconds = canary.seconds if canary else None
            text = "FAILED" if failed else "ok" if seconds is None else f"{seconds:.1f} s"
            if (queue, name) not in smoke.wanted and (queue, name) not in smoke.failed:
                text = "drained" if queue in smoke.workers[name].unread else "-"
            cells.append(text)
        rows.append([queue, *cells])
    # Beyond a screen's width a line for each pair is easier to read.
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if sum(widths) + 3 * len(widths) > 100:
        rows = [["queue", "worker", "canary"]] + [
            [row[0], name, cell] for row in rows[1:] for name, cell in zip(names, row[1:], strict=True) if cell != "-"
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
