# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster under load that something happens to, and what became of every task."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import typing as t
from urllib.parse import quote

import kombu
import kombu.pidbox

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "lab"), str(ROOT / "tests" / "workers"), str(ROOT / "lab")]
import hosts  # noqa: E402
from conftest import PLAIN, Api, Lab  # noqa: E402
from steady import Beside, Database, Load, until  # noqa: E402
from ways import firewall, on, on_all  # noqa: E402

# One run of the load. Runs follow each other, so that some tasks always wait.
TASKS = {"tasks": 8, "shortest": 8, "longest": 20}
LOW = 4
# Where a fault lasts, two tasks of its first run last longer than it.
SPANNING = 2
# Seconds until all slots are taken, before the fault and after it, and until the last task has ended
BEFORE, AFTER, LAST = 240.0, 300.0, 500.0
UNITS = "'airflow-*.service' 'postgresql@*.service' rabbitmq-server.service"


@dataclasses.dataclass
class Outcome:
    """What became of the tasks of one fault."""

    name: str
    seconds: float
    # From its end (for what ends at once: from its beginning) until all slots were taken again
    full_after: float = 0.0
    tasks: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    doubled: list[str] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)
    # Tried more than once, and those among them that were in the middle of their work on a host that died
    again: list[str] = dataclasses.field(default_factory=list)
    dead: list[str] = dataclasses.field(default_factory=list)
    # From the beginning of the fault until the last of those had ended, of which the task itself took so long
    again_after: float = 0.0
    again_worked: float = 0.0
    # The longest time from the end of a task's work, or of the fault, until Airflow knew that it had succeeded
    told_after: float = 0.0
    # What verify named as causes while the fault lasted: code and hosts
    named: list[str] = dataclasses.field(default_factory=list)
    # How often systemd started a service anew, the most often restarted one
    restarts: str = ""


class Night:
    """The cluster, what is done to it, and how its tasks are counted."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.lab = Lab()
        self.folder = folder
        self.metadata = Database(self.lab.database, "airflow")
        self.results = Database(self.lab.database, "airflow_results")
        self.slots = {worker: self._slots(worker) for worker in self.lab.workers}
        # Rows of tasks that died before
        self.gone: list[str] = []
        self._api: Api | None = None

    def close(self) -> None:
        self.metadata.close()
        self.results.close()

    def _slots(self, worker: str) -> int:
        found = re.search(r"--concurrency (\d+)", on(worker, "systemctl cat airflow-worker"))
        assert found, worker
        return int(found[1])

    def begin(self) -> None:
        """Returns when nothing of the load of others runs any more."""
        if self.results.rows("SELECT to_regclass('lab_load')") != [[""]]:
            until(lambda: self.has_ended(""), "the runs of others have ended", LAST)
            self.gone = [row[0] for row in self.results.rows("SELECT id FROM lab_load WHERE ended IS NULL")]

    def api(self) -> Api:
        if self._api is None:
            url = f"http://{self.lab.address(self.lab.masters[0])}:8080"
            self._api = Api(url, "admin", self.lab.secrets["airflow_admin_password"])
        return self._api

    # -- Load
    @contextlib.contextmanager
    def load(self, name: str, first: t.Mapping[str, int]) -> collections.abc.Iterator[Load]:
        """Keeps tasks waiting, whatever is away. The first run may be another one."""
        load = Load(self.api, self.metadata, name, LOW, TASKS, first)

        def look() -> None:
            with contextlib.suppress(OSError):
                load.look()

        with Beside(look, 1.0) as beside:
            yield load
        assert beside.failure is None, beside.failure

    def at_work(self, dead: t.Collection[str] = ()) -> dict[str, dict[str, int]]:
        """How many tasks run now, by load and host. Those that died have no end either: C(dead) are their rows."""
        rows = self.results.rows(
            "SELECT regexp_replace(run_id, '_[0-9]+$', ''), host, count(*) FROM lab_load"
            f" WHERE ended IS NULL AND id NOT IN ({', '.join([*self.gone, *dead]) or '0'}) GROUP BY 1, 2"
        )
        found: dict[str, dict[str, int]] = {}
        for name, host, count in rows:
            found.setdefault(name, {})[host] = int(count)
        return found

    def has_ended(self, name: str) -> bool:
        query = (
            f"SELECT count(*) FROM dag_run WHERE dag_id = 'lab_load' AND run_id LIKE '{name}%'"
            " AND state IN ('queued', 'running')"
        )
        return self.metadata.number(query) == 0

    def dead(self, name: str, when: float, workers: t.Sequence[str], task: int | None) -> list[str]:
        """The rows of the tasks of a load that ran on some workers then and have not ended, or of one task."""
        named = ", ".join(f"'{worker}'" for worker in workers)
        which = [f"(host IN ({named}) AND started <= to_timestamp({when}))"] if named else []
        which += [f"(map_index = {task} AND try_number = 1 AND run_id LIKE '{name}\\_%')"] if task is not None else []
        if not which:
            return []
        rows = self.results.rows(
            f"SELECT id FROM lab_load WHERE ended IS NULL AND run_id LIKE '{name}\\_%' AND ({' OR '.join(which)})"
        )
        return [row[0] for row in rows]

    def fill(self, name: str, dead: t.Collection[str]) -> None:
        """Returns when tasks of a load have all slots, and no task of another load runs."""
        until(lambda: self.results.rows("SELECT to_regclass('lab_load')") != [[""]], "a first task", BEFORE)
        until(lambda: self.at_work(dead) == {name: self.slots}, "all slots are taken", BEFORE)

    def is_full_again(self, name: str, over: float, dead: t.Collection[str]) -> bool:
        """Whether every worker has begun more tasks since than it has slots, and all slots are taken."""
        rows = self.results.rows(
            f"SELECT host, count(*) FROM lab_load WHERE started > to_timestamp({over}) AND run_id LIKE '{name}\\_%'"
            " GROUP BY host"
        )
        began = {host: int(count) for host, count in rows}
        return (
            all(began.get(host, 0) > slots for host, slots in self.slots.items())
            and self.at_work(dead).get(name) == self.slots
        )

    # -- Hosts
    def restarts(self) -> dict[str, int]:
        """How often systemd has started each service anew by itself, on the hosts that answer."""
        found = {}
        script = f"systemctl show --property=Id,NRestarts {UNITS} | paste -sd' '"
        for host, text in on_all(dict.fromkeys(self.lab.hosts, script)).items():
            words = [word.split("=") for word in text.split()]
            pairs = [(words[i], words[i + 1]) for i in range(0, len(words) - 1, 2)]
            for pair in pairs:
                shown = dict(pair)
                if "Id" in shown:
                    found[f"{shown['Id'].removesuffix('.service')} on {host}"] = int(shown["NRestarts"])
        return found

    def kill_host(self, host: str) -> None:
        """Without a goodbye."""
        hosts.podman("kill", "--signal", "KILL", hosts.container(host))

    def start_host(self, host: str) -> None:
        hosts.podman("start", hosts.container(host))
        hosts.forget(self.lab.address(host))

    def playbook(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["ansible-playbook", *self.lab.arguments, *arguments, f"onprem.airflow.{name}"]
        return subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, check=False)

    def causes(self) -> list[tuple[str, tuple[str, ...]]]:
        """What verify names just now: the code and the hosts of every problem that has no other as its cause."""
        done = self.playbook("verify", "-e", json.dumps({"airflow_verify_dest": str(self.folder)}))
        document = self.folder / "verify.json"
        assert document.exists(), done.stdout + done.stderr
        problems = json.loads(document.read_text())["problems"]
        document.unlink()
        return [(problem["code"], tuple(problem["hosts"])) for problem in problems]

    # -- Ways to break it
    def take_no_tasks(self, worker: str) -> None:
        """Celery's own command, after which a worker is up, answers, and takes no tasks from its queue."""
        password = quote(self.lab.secrets["airflow_broker_password"], safe="")
        url = f"amqp://airflow:{password}@{self.lab.address(self.lab.broker)}:5672/airflow"
        mailbox = kombu.pidbox.Mailbox("celery", type="fanout", queue_exclusive=True)
        with kombu.Connection(url, connect_timeout=5) as connection:
            mailbox(connection).cast([f"celery@{worker}"], "cancel_consumer", {"queue": "default"})

    @contextlib.contextmanager
    def stopped(self, host: str, unit: str) -> collections.abc.Iterator[None]:
        on(host, f"systemctl stop {unit}")
        try:
            yield
        finally:
            on(host, f"systemctl start --no-block {unit}")

    @contextlib.contextmanager
    def walls(self, *rules: tuple[str, str]) -> collections.abc.Iterator[None]:
        """Rules of the firewall in front of hosts: host and rule."""
        with contextlib.ExitStack() as stack:
            for host, rule in rules:
                firewall("-I", host, rule)
                stack.callback(firewall, "-D", host, rule)
            yield

    def cut(self, host: str, other: str) -> contextlib.AbstractContextManager[None]:
        """No packet passes between two hosts."""
        address = self.lab.address(other)
        return self.walls((host, f"INPUT -s {address} -j DROP"), (host, f"OUTPUT -d {address} -j DROP"))

    def frozen(self, host: str) -> contextlib.AbstractContextManager[None]:
        """No packet passes between a host and any other, but for the control machine."""
        gateway = self.lab.address(host).rpartition(".")[0] + ".1"
        return self.walls(
            (host, f"INPUT ! -i lo ! -s {gateway} -j DROP"), (host, f"OUTPUT ! -o lo ! -d {gateway} -j DROP")
        )

    @contextlib.contextmanager
    def small_disk(self, host: str, folder: str, size: str, unit: str) -> collections.abc.Iterator[None]:
        """A folder on a file system of its own, small enough to be filled. Its service does without it meanwhile."""
        place = "/run/small"
        on(
            host,
            f"systemctl stop {unit}; mkdir {place}; mount -t tmpfs -o size={size} small {place};"
            f" chown --reference={folder} {place}; chmod --reference={folder} {place}; cp -a {folder}/. {place};"
            f" mount --bind {place} {folder}; systemctl start {unit}",
        )
        try:
            yield
        finally:
            on(
                host,
                f"systemctl stop {unit}; umount --lazy {folder}; find {folder} -mindepth 1 -delete;"
                f" cp -a {place}/. {folder}; umount --lazy {place}; rmdir {place}; systemctl start {unit}",
            )

    @contextlib.contextmanager
    def full_disk(self, host: str, folder: str, leave: int = 0) -> collections.abc.Iterator[None]:
        """A file fills the file system, but for some megabytes."""
        free = int(on(host, f"df --output=avail -B1M {folder} | tail -n 1"))
        blocks = f"count={free - leave}" if leave else ""
        on(host, f"dd if=/dev/zero of={folder}/.fills bs=1M {blocks} status=none 2>/dev/null || true; sync")
        try:
            yield
        finally:
            on(host, f"rm -f {folder}/.fills")

    # -- The count
    def count(
        self, outcome: Outcome, load: Load, began: float, over: float, settled: float, dead: t.Collection[str]
    ) -> None:
        """What became of the tasks, by the metadata database and by the table that they wrote to.

        A fault has begun, was over, and all slots were taken again when it had settled.
        """
        runs = f"run_id LIKE '{load.name}\\_%'"
        of_the_load = f"dag_id = 'lab_load' AND {runs}"
        outcome.tasks = load.runs * load.conf["tasks"]
        states = self.metadata.rows(
            f"SELECT task_id, run_id, map_index, state, try_number FROM task_instance WHERE {of_the_load}"
        )
        named = {(run, index): f"{run}[{index}]" for task, run, index, _state, _tries in states if task == "work"}
        outcome.failed = [
            f"{task} {run}[{index}]: {state}" for task, run, index, state, _tries in states if state != "success"
        ]
        outcome.again = [f"{run}[{index}]" for _task, run, index, _state, tries in states if tries != "1"]
        done = {
            (run, index): (int(count), int(ended))
            for run, index, count, ended in self.results.rows(
                f"SELECT run_id, map_index, count(*), count(ended) FROM lab_load WHERE {runs}"
                " GROUP BY run_id, map_index"
            )
        }
        outcome.lost = [name for task, name in named.items() if done.get(task, (0, 0))[1] == 0]
        outcome.lost += [f"{outcome.tasks - len(named)} without a trace"] if len(named) != outcome.tasks else []
        outcome.doubled = [name for task, name in named.items() if done.get(task, (0, 0))[1] > 1]
        rows = ", ".join(dead) or "0"
        outcome.dead = [
            f"{run}[{index}]"
            for run, index in self.results.rows(f"SELECT run_id, map_index FROM lab_load WHERE id IN ({rows})")
        ]
        # Begun once more though nobody had killed it
        outcome.doubled += [
            name for task, name in named.items() if done.get(task, (0, 0))[0] > 1 and name not in outcome.dead
        ]
        if outcome.dead:
            last = self.results.rows(
                "SELECT extract(epoch FROM l.ended), extract(epoch FROM l.ended - l.started) FROM lab_load AS l"
                f" JOIN lab_load AS d USING (run_id, map_index) WHERE d.id IN ({rows}) AND l.ended IS NOT NULL"
                " ORDER BY l.ended DESC LIMIT 1"
            )
            if last:
                outcome.again_after = round(float(last[0][0]) - began, 1)
                outcome.again_worked = round(float(last[0][1]), 1)
        # Not end_date, which the worker sends.
        ends = self.metadata.rows(
            "SELECT run_id, map_index, extract(epoch FROM updated_at) FROM task_instance"
            f" WHERE {of_the_load} AND task_id = 'work' AND state = 'success'"
        )
        worked = {
            (run, index): float(ended)
            for run, index, ended in self.results.rows(
                f"SELECT run_id, map_index, extract(epoch FROM max(ended)) FROM lab_load WHERE {runs}"
                " AND ended IS NOT NULL GROUP BY run_id, map_index"
            )
        }
        delays = []
        for run, index, end in ends:
            ended = worked.get((run, index), float(end))
            if ended > settled:  # in the time of the next fault
                continue
            # What ended while the fault lasted could not be told before its end.
            delays.append(float(end) - (over if began <= ended <= over else ended))
        outcome.told_after = round(max(delays, default=0.0), 1)

    def full_from(self, name: str, over: float, dead: t.Collection[str]) -> float:
        """When, after a moment, all slots of every worker had been taken by tasks of which one began since."""
        rows = self.results.rows(
            "SELECT host, extract(epoch FROM started), coalesce(extract(epoch FROM ended), 9e9), id FROM lab_load"
            f" WHERE run_id LIKE '{name}\\_%'"
        )
        moments = []
        for worker, slots in self.slots.items():
            tasks = [
                (float(began), float(ended)) for host, began, ended, row in rows if host == worker and row not in dead
            ]
            starts = sorted(began for began, _ended in tasks if began > over)
            full = [at for at in starts if sum(1 for began, ended in tasks if began <= at < ended) >= slots]
            moments.append(min(full, default=float("inf")))
        return max(moments)


def told(outcomes: t.Iterable[Outcome]) -> str:
    """The outcomes as a table."""
    heads = ("lasts", "full", "tasks", "lost", "twice", "failed", "dead", "again", "told")
    lines = [" " * 40 + "".join(f"{head:>7}" for head in heads)]
    for one in outcomes:
        counts = (len(one.lost), len(one.doubled), len(one.failed), len(one.dead))
        values = (one.seconds, one.full_after, one.tasks, *counts, one.again_after, one.told_after)
        said = f"verify: {', '.join(one.named) or '-'}; restarts: {one.restarts}"
        lines.append(f"{one.name[:40]:40}{''.join(f'{value:7.0f}' for value in values)}  {said}")
    return "\n".join(lines)


__all__ = ["AFTER", "LAST", "SPANNING", "Load", "Night", "Outcome", "hosts", "on", "on_all", "told", "until"]
