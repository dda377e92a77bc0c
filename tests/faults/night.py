# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster under load that something happens to."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import json
import math
import pathlib
import re
import subprocess
import sys
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "lab"), str(ROOT / "tests" / "workers"), str(ROOT / "lab")]
import hosts  # noqa: E402
from conftest import PLAIN, Lab  # noqa: E402
from count import Row, State  # noqa: E402
from steady import Beside, Database, Load, until  # noqa: E402
from ways import firewall, on, on_all, services  # noqa: E402

# One run of the load. Runs follow each other, so that some tasks always wait.
TASKS = {"tasks": 8, "shortest": 8, "longest": 20}
LOW = 4
# Where a fault lasts, two tasks of its first run last longer than it.
SPANNING = 2
# Seconds until all slots are taken, before the fault and after it, and until the last task has ended
BEFORE, AFTER, LAST = 240.0, 300.0, 500.0


class Night:
    """The cluster, its load, and what is done to it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.lab = Lab()
        self.folder = folder
        self.metadata = Database(self.lab.database, "airflow")
        self.results = Database(self.lab.database, "airflow_results")
        self.slots = {worker: self._slots(worker) for worker in self.lab.workers}
        # Rows of tasks that died before
        self.gone: list[str] = []

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

    # -- Load
    @contextlib.contextmanager
    def load(self, name: str, first: t.Mapping[str, int]) -> collections.abc.Iterator[Load]:
        """Keeps tasks waiting, whatever is away. The first run may be another one."""
        load = Load(self.lab.api, self.metadata, name, LOW, TASKS, first)

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

    def rows(self, name: str) -> list[Row]:
        """Every time that a task of a load ran."""
        columns = "id, run_id, map_index, try_number, host, extract(epoch FROM started), extract(epoch FROM ended)"
        found = self.results.rows(f"SELECT {columns} FROM lab_load WHERE run_id LIKE '{name}\\_%'")
        return [Row(*row[:5], float(row[5]), float(row[6] or "inf")) for row in found]

    def states(self, name: str) -> list[State]:
        """Every task of a load, as Airflow knows it."""
        # Not end_date, which the worker sends.
        columns = "task_id, run_id, map_index, state, try_number, extract(epoch FROM updated_at)"
        found = self.metadata.rows(
            f"SELECT {columns} FROM task_instance WHERE dag_id = 'lab_load' AND run_id LIKE '{name}\\_%'"
        )
        return [State(*row[:5], float(row[5])) for row in found]

    def killed(self, name: str, when: float, workers: t.Collection[str]) -> set[str]:
        """The tasks of a load whose earlier try Airflow had begun on some workers by then, with or without a row."""
        hosts = ", ".join(f"'{worker}'" for worker in workers)
        if not hosts:
            return set()
        found = self.metadata.rows(
            "SELECT run_id, map_index FROM task_instance_history WHERE dag_id = 'lab_load'"
            f" AND run_id LIKE '{name}\\_%' AND hostname IN ({hosts}) AND start_date <= to_timestamp({when})"
        )
        return {f"{run}[{index}]" for run, index in found}

    def dead(self, name: str, when: float, workers: t.Sequence[str], task: int | None) -> list[str]:
        """The rows of the tasks of a load that ran on some workers then and have not ended, or of one task."""
        return [
            row.id
            for row in self.rows(name)
            if row.ended == math.inf
            and ((row.host in workers and row.started <= when) or (row.index == str(task) and row.tries == "1"))
        ]

    def fill(self, name: str, dead: t.Collection[str]) -> None:
        """Returns when tasks of a load have all slots, and no task of another load runs."""
        until(lambda: self.results.rows("SELECT to_regclass('lab_load')") != [[""]], "a first task", BEFORE)
        until(lambda: self.at_work(dead) == {name: self.slots}, "all slots are taken", BEFORE)

    def is_full_again(self, name: str, over: float, dead: t.Collection[str]) -> bool:
        """Whether every worker has begun more tasks since than it has slots, and all slots are taken."""
        began = collections.Counter(row.host for row in self.rows(name) if row.started > over)
        return (
            all(began[host] > slots for host, slots in self.slots.items())
            and self.at_work(dead).get(name) == self.slots
        )

    # -- Hosts
    def restarts(self) -> dict[str, int]:
        """How often systemd has started each service anew by itself, on the hosts that answer."""
        return {
            f"{unit.removesuffix('.service')} on {host}": int(count)
            for host, units in services("NRestarts", self.lab.hosts).items()
            for unit, count in units.items()
        }

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
        with self.lab.mailbox() as mailbox:
            mailbox.cast([f"celery@{worker}"], "cancel_consumer", {"queue": "default"})

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


__all__ = ["AFTER", "LAST", "SPANNING", "Load", "Night", "hosts", "on", "on_all", "until"]
