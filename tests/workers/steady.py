# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster under a steady load: what runs on it, what looks at it all the time, and playbooks as people run them."""

from __future__ import annotations

import base64
import collections.abc
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import typing as t
import urllib.error
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What looks at a running cluster, from the tests of a healthy one; and what made its hosts.
sys.path[:0] = [str(ROOT / "tests" / "lab"), str(ROOT / "lab")]
from conftest import PLAIN, SSH_CONFIG, Api, Lab  # noqa: E402
from output import seen, warning  # noqa: E402
from ways import on_all, services  # noqa: E402

LOG = ROOT / ".lab" / "ansible.log"
LOGS = ROOT / "build" / "workers"
DAG = "lab_load"
# Tasks in a run of it, and how few may wait before the next run begins.
TASKS = 60
LOW = 14
# Seconds: for what only takes a moment, for a whole playbook, and between two looks.
WAIT = 60.0
LONG = 400.0
PERIOD = 0.5
# How long a look takes when the machine is busy.
LATE = 1.0
# When the main process of a worker's service first received a task, as Celery writes into the journal. It has begun to
# consume then, of which the broker's management plugin tells seconds later; see molecule/workers/inventory.
RECEIVED = r"""
pid=$(systemctl show --value --property=MainPID airflow-worker.service)
[ "$pid" = 0 ] ||
    journalctl --quiet --no-pager --output=short-unix _PID="$pid" | awk '/ received \[/ { print $1; exit }'
"""


class Away(ConnectionError):
    """The database does not answer."""


def until(condition: t.Callable[[], t.Any], what: str, seconds: float = WAIT) -> t.Any:
    """Waits for a condition; returns what it said. Whatever cannot be known without the database is not so yet."""
    end = time.monotonic() + seconds
    while True:
        try:
            if said := condition():
                return said
        except Away:
            pass
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.3)


# --- What it is asked
class Database:
    """SQL by the database's own administrator on its host. The connection stays open: it is asked every second."""

    END = "-- end of the answer --"

    def __init__(self, host: str, name: str) -> None:
        psql = f"cd / && sudo runuser -u postgres -- psql -XAtq -F '|' -d {name} 2>&1"
        self.command = ["ssh", "-F", str(SSH_CONFIG), host, psql]
        self.process = self._connect()
        self.lock = threading.Lock()

    def _connect(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rows(self, query: str) -> list[list[str]]:
        """The rows of a query; raises Away when the connection is lost, and makes another one the next time."""
        with self.lock:
            if self.process.poll() is not None:
                self.close()  # what it left open
                self.process = self._connect()
            assert self.process.stdin and self.process.stdout
            lines = []
            try:
                self.process.stdin.write(f"{query};\n\\echo {self.END}\n")
                self.process.stdin.flush()
                for line in self.process.stdout:
                    if line.rstrip("\n") == self.END:
                        break
                    lines.append(line.rstrip("\n"))
                else:
                    raise Away(f"the connection to the database has ended: {lines}")
            except OSError as exc:
                self.close()
                raise Away(str(exc)) from exc
        if any("No space left on device" in line or line.startswith("FATAL") for line in lines):
            raise Away(str(lines))
        assert not any(line.startswith("ERROR") for line in lines), f"{query}: {lines}"
        return [line.split("|") for line in lines]

    def number(self, query: str) -> int:
        return int(self.rows(query)[0][0])

    def close(self) -> None:
        self.process.kill()
        with contextlib.suppress(OSError):  # what it was not told any more
            self.process.communicate()


# --- What goes on beside the tests
class Beside:
    """Does something again and again, in a thread, until it is told to stop."""

    def __init__(self, work: t.Callable[[], None], period: float) -> None:
        self.work = work
        self.period = period
        self.stopped = threading.Event()
        # What went wrong that must not: the thread ends with it, and the tests look here.
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self.stopped.is_set():
                began = time.monotonic()
                self.work()
                self.stopped.wait(max(0.0, self.period - (time.monotonic() - began)))
        except BaseException as exc:
            self.failure = exc

    def __enter__(self) -> Beside:
        self.thread.start()
        return self

    def __exit__(self, *_about: object) -> None:
        self.stopped.set()
        self.thread.join()


class Load:
    """Keeps tasks waiting: begins a run whenever few are left. C(name) begins the names of its runs."""

    # A run whose tasks are not there yet counts with all of them.
    WAITING = """
        SELECT coalesce(sum(CASE WHEN map_index = -1 THEN {tasks} ELSE 1 END), 0) FROM task_instance
        WHERE dag_id = '{dag}' AND task_id = 'work' AND (state IS NULL OR state IN ('scheduled', 'queued'))
    """
    RUNNING = f"SELECT count(*) FROM dag_run WHERE dag_id = '{DAG}' AND state IN ('queued', 'running')"

    def __init__(
        self,
        api: t.Callable[[], Api],
        metadata: Database,
        name: str = "load",
        low: int = LOW,
        conf: t.Mapping[str, int] | None = None,
        first: t.Mapping[str, int] | None = None,
    ) -> None:
        self.api = api
        self.metadata = metadata
        self.name = name
        self.low = low
        self.conf = {"tasks": TASKS, **(conf or {})}
        # What only the first run has
        self.first = {**self.conf, **(first or {})}
        self.wanted = True
        self.runs = 0
        self.samples: list[tuple[float, int]] = []

    def look(self) -> None:
        waiting = self.metadata.number(self.WAITING.format(tasks=self.conf["tasks"], dag=DAG))
        self.samples.append((time.time(), waiting))
        conf = self.conf if self.runs else self.first
        if self.wanted and waiting < self.low and self.begin(f"{self.name}_{self.runs + 1}", conf):
            self.runs += 1

    def begin(self, run: str, conf: t.Mapping[str, t.Any]) -> bool:
        """Begins a run of this name, if it can just now."""
        try:
            body = {"logical_date": None, "dag_run_id": run, "conf": dict(conf)}
            self.api().call("POST", f"/api/v2/dags/{DAG}/dagRuns", body)
        except urllib.error.HTTPError as exc:
            if exc.code == 409:  # the answer to an earlier call was lost
                return True
            if exc.code not in (404, 502, 503):  # a DAG that was just deployed takes a moment
                raise
            return False
        except OSError:  # the API server is being restarted
            return False
        return True

    def finish(self, seconds: float = 240.0) -> None:
        """Begins no more and waits until all tasks have ended."""
        self.wanted = False
        until(lambda: self.metadata.number(self.RUNNING) == 0, "all runs of the load have ended", seconds)


class Watch:
    """Who takes tasks from the queue, and whether the API answers: looked at all the time."""

    def __init__(self, lab: Lab) -> None:
        self.names = {lab.address(name): name for name in lab.hosts}
        login = base64.b64encode(f"airflow:{lab.secrets['airflow_broker_password']}".encode()).decode()
        self.request = urllib.request.Request(
            f"http://{lab.address(lab.broker)}:15672/api/consumers/airflow", headers={"Authorization": f"Basic {login}"}
        )
        self.version = f"http://{lab.address(lab.masters[0])}:8080/api/v2/version"
        self.takers: list[tuple[float, frozenset[str]]] = []
        self.answers: list[tuple[float, bool]] = []

    def broker(self) -> None:
        with urllib.request.urlopen(self.request, timeout=10) as response:
            listed = json.loads(response.read())
        found = {entry["channel_details"]["peer_host"] for entry in listed if entry["queue"]["name"] == "default"}
        self.takers.append((time.time(), frozenset(self.names[address] for address in found)))

    def server(self) -> None:
        at = time.time()
        try:
            urllib.request.urlopen(self.version, timeout=5).close()
        except OSError:
            self.answers.append((at, False))
        else:
            self.answers.append((at, True))

    def absences(self, worker: str, began: float, ended: float) -> list[tuple[float, float]]:
        """From when to when a worker took no tasks."""
        found: list[tuple[float, float]] = []
        missing = None
        for at, takers in self.takers:
            if not began <= at <= ended:
                continue
            if worker not in takers and missing is None:
                missing = at
            elif worker in takers and missing is not None:
                found.append((missing, at))
                missing = None
        return found if missing is None else [*found, (missing, ended)]


# --- Playbooks
def kill(process: subprocess.Popen[str]) -> None:
    """Kills a program with all that it has started, which may be in sessions of their own, without warning."""
    children: dict[int, list[int]] = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in brackets may have anything in it.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    family = [process.pid]
    for pid in family:
        family += children.get(pid, [])
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@dataclasses.dataclass
class Ran:
    verb: str
    rc: int
    began: float
    ended: float
    text: str
    log: pathlib.Path

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def said(self) -> str:
        """What a person sees without -vvv."""
        return "\n".join(seen(self.text.splitlines()))

    @property
    def told(self) -> str:
        return f"{self.verb}: exit code {self.rc} after {self.seconds:.0f} s, see {self.log}\n{self.said[-3000:]}"

    @property
    def recap(self) -> dict[str, str]:
        return dict(re.findall(r"^(\S+) +: (ok=.*)$", self.text, re.MULTILINE))


class Cluster:
    """The scenario's cluster, its load, and what is done to it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.lab = Lab()
        self.metadata = Database(self.lab.database, "airflow")
        self.results = Database(self.lab.database, "airflow_results")
        self.load = Load(self.lab.api, self.metadata)
        self.watch = Watch(self.lab)
        looks = ((self.load.look, 1.0), (self.watch.broker, PERIOD), (self.watch.server, PERIOD))
        self.beside = [Beside(look, period) for look, period in looks]
        self.workers = list(self.lab.workers)
        # The third source of the inventory, which a person changes.
        self.folder = folder
        self.variables: dict[str, t.Any] = {}
        self.of_hosts: dict[str, dict[str, t.Any]] = {}
        self.write()
        self.ran: list[Ran] = []
        self.measured: dict[str, t.Any] = {}

    @contextlib.contextmanager
    def running(self) -> collections.abc.Iterator[Cluster]:
        """The cluster with its load and all that looks at it."""
        LOGS.mkdir(parents=True, exist_ok=True)
        for old in LOGS.glob("*.log"):
            old.unlink()
        with contextlib.ExitStack() as stack:
            stack.callback(self.results.close)
            stack.callback(self.metadata.close)
            if self.results.rows("SELECT to_regclass('lab_load')") != [[""]]:
                self.results.rows("TRUNCATE lab_load")  # rows of other tests
            for thread in self.beside:
                stack.enter_context(thread)
            yield self

    def write(self) -> None:
        """The inventory as it is now: its additional workers and changed variables."""
        new: dict[str, t.Any] = dict.fromkeys(name for name in self.workers if name not in self.lab.workers)
        named = new | self.of_hosts
        groups = {"airflow_worker": {"hosts": named}} if named else {"all": {}}
        (self.folder / "group_vars" / "all").mkdir(parents=True, exist_ok=True)
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(groups))
        (self.folder / "group_vars" / "all" / "changed.yml").write_text(yaml.safe_dump(self.variables))

    def play(
        self, name: str, *arguments: str, at: str = "", then: t.Callable[..., t.Any] = kill, note: str = "killed"
    ) -> Ran:
        """Runs a playbook of the collection, at -vvv. When a line of its output is as `at`, `then` gets its process."""
        command = ["ansible-playbook", *self.lab.arguments, "-i", str(self.folder), *arguments]
        environment = PLAIN | {"ANSIBLE_VERBOSITY": "3", "ANSIBLE_LOG_PATH": str(LOG)}
        verb = " ".join([name, *arguments])
        if at:
            verb += f" ({note})"
        path = LOGS / f"{len(self.ran) + 1:02}-{name}.log"
        began = time.time()
        with path.open("w") as stream, path.open() as reader:
            process = subprocess.Popen(
                [*command, f"onprem.airflow.{name}"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                text=True,
            )
            try:
                seen, done = "", not at
                while process.poll() is None:
                    assert time.time() - began < LONG, f"{verb} still runs, see {path}"
                    if not done:
                        seen = seen[seen.rfind("\n") + 1 :] + reader.read()
                        if re.search(at, seen, re.MULTILINE):
                            done = True
                            then(process)
                    time.sleep(0.1)
            finally:
                if process.poll() is None:
                    kill(process)
        ran = Ran(verb, process.returncode, began, time.time(), path.read_text(errors="replace"), path)
        self.ran.append(ran)
        self.hear(ran)
        assert done, f"no line like {at}\n{ran.told}"
        warnings = [told for line in ran.text.splitlines() if (told := warning(line))]
        assert warnings == [], f"{warnings}\n{ran.told}"
        for thread in self.beside:
            assert thread.failure is None, thread.failure
        return ran

    def hear(self, ran: Ran) -> None:
        """Adds to what was seen during a playbook the workers that it started anew, from their first task on."""
        for worker, text in on_all(dict.fromkeys(self.workers, RECEIVED)).items():
            first = float(text or "inf")
            for index, (at, takers) in enumerate(self.watch.takers):
                if ran.began < first <= at <= ran.ended:
                    self.watch.takers[index] = (at, takers | {worker})

    # -- What it looks like
    def hosts(self) -> list[str]:
        return [self.lab.database, self.lab.broker, *self.lab.masters, *self.workers]

    def processes(self, *hosts: str) -> dict[str, dict[str, str]]:
        """The main process of every service of every host."""
        found = services("MainPID", hosts or self.hosts())
        for units in found.values():
            # The watchdog starts anew whenever what it looks after changes; it has nothing to finish.
            units.pop("airflow-watchdog.service", None)
        return {host: {unit: pid for unit, pid in units.items() if pid != "0"} for host, units in found.items()}

    def others(self) -> dict[str, dict[str, str]]:
        """The processes of all hosts that are not workers."""
        return self.processes(self.lab.database, self.lab.broker, *self.lab.masters)

    def admitted(self) -> set[str]:
        """The addresses that the database lets in."""
        rows = self.metadata.rows("SELECT DISTINCT address FROM pg_hba_file_rules WHERE address IS NOT NULL")
        return {row[0] for row in rows}

    def takers(self) -> frozenset[str]:
        """The workers that take tasks just now."""
        return self.watch.takers[-1][1]

    def celery(self, command: str) -> dict[str, t.Any]:
        """What the workers answer to a command of Celery's remote control, by their nodes."""
        with self.lab.mailbox() as mailbox:
            answers = mailbox.multi_call(command, timeout=3)
        return {node: answer for entry in answers for node, answer in entry.items()}

    # -- The load, from the table that its tasks append to
    def starts(self, host: str, after: float, before: float = 0.0) -> list[float]:
        """When tasks started on a host."""
        end = f" AND started < to_timestamp({before})" if before else ""
        return [
            float(row[0])
            for row in self.results.rows(
                "SELECT extract(epoch FROM started) FROM lab_load"
                f" WHERE host = '{host}' AND started > to_timestamp({after}){end} ORDER BY started"
            )
        ]

    def at_work(self, host: str, began: float = 0.0, ended: float = 0.0) -> set[str]:
        """The map indices of the tasks that ran on a host at any time between; without times, that run now."""
        when = f"started < to_timestamp({ended}) AND (ended IS NULL OR ended > to_timestamp({began}))"
        if not ended:
            when = "ended IS NULL"
        return {row[0] for row in self.results.rows(f"SELECT map_index FROM lab_load WHERE host = '{host}' AND {when}")}

    def takes_tasks(self, host: str, after: float) -> float:
        """Waits for the first task that starts on a host; returns when."""
        return float(until(lambda: self.starts(host, after), f"a task starts on {host}")[0])

    def waiting(self, began: float, ended: float) -> int:
        """The least number of tasks that waited in that time."""
        return min((count for at, count in self.load.samples if began <= at <= ended), default=-1)

    # -- Gaps
    def gaps(self, began: float, ended: float) -> dict[str, t.Any]:
        """How long, between two times, no task started, none could be taken, and the API did not answer."""
        # With the last start before, so that a gap which began earlier counts in full.
        last = f"SELECT max(started) FROM lab_load WHERE started < to_timestamp({began})"
        query = (
            f"SELECT extract(epoch FROM started) FROM lab_load WHERE started < to_timestamp({ended})"
            f" AND started >= coalesce(({last}), '-infinity') ORDER BY started"
        )
        times = [float(row[0]) for row in self.results.rows(query)]
        takers = [takers for at, takers in self.watch.takers if began <= at <= ended]
        answers = [answer for at, answer in self.watch.answers if began <= at <= ended]
        return {
            "seconds": round(ended - began, 1),
            "starts": len([at for at in times if at >= began]),
            "longest_between_starts": round(max((b - a for a, b in zip(times, [*times[1:], ended])), default=0.0), 1),
            "without_consumer": PERIOD * sum(1 for found in takers if not found),
            "fewest_consumers": min((len(found) for found in takers), default=-1),
            "without_api": PERIOD * answers.count(False),
            "fewest_waiting": self.waiting(began, ended),
        }
