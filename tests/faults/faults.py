# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What breaks at night. Nobody does anything about it but undo what the fault itself was."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import re
import time
import typing as t

from night import Night, hosts, on, on_all

DB, MQ, MASTER, ONE, OTHER = "db1", "mq1", "master1", "worker1", "worker2"
POSTGRESQL, RABBITMQ, WORKER = "postgresql", "rabbitmq-server", "airflow-worker"
DAGS = "/var/lib/airflow/dags"
# Seconds of what is called two minutes
TWO = 120.0


@dataclasses.dataclass(frozen=True)
class Fault:
    name: str
    # Breaks something on entry and undoes on exit what was done. It may say when it did, if that took longer.
    broken: t.Callable[[Night], contextlib.AbstractContextManager[float | None]]
    # How long it lasts; 0 is over at once
    seconds: float = 0.0
    # The problem that verify has to name meanwhile, and one of its hosts
    named: tuple[str, str] | None = None
    # Hosts whose tasks die with it, or the tasks of the load by their map index
    kills: tuple[str, ...] = ()
    kills_task: int | None = None
    # What the cluster is given before, and the load in its first run
    prepared: t.Callable[[Night], contextlib.AbstractContextManager[None]] = lambda _night: contextlib.nullcontext()
    first: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    # For how long make test has it; None: not at all
    often: float | None = None

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower())


def now(*scripts: tuple[str, str]) -> t.Callable[[Night], contextlib.AbstractContextManager[float | None]]:
    """What happens at once: scripts on hosts."""

    @contextlib.contextmanager
    def broken(_night: Night) -> collections.abc.Iterator[None]:
        for host, script in scripts:
            on(host, script)
        yield

    return broken


def kill(unit: str) -> str:
    """Kills the main process of a unit."""
    return f"kill -9 $(systemctl show --value --property=MainPID {unit})"


@contextlib.contextmanager
def no_tasks(night: Night) -> collections.abc.Iterator[None]:
    night.take_no_tasks(ONE)
    yield


@contextlib.contextmanager
def dead_host(night: Night, host: str) -> collections.abc.Iterator[None]:
    night.kill_host(host)
    try:
        yield
    finally:
        night.start_host(host)
        hosts.wait(host)


@contextlib.contextmanager
def power_cycle(night: Night) -> collections.abc.Iterator[float]:
    """All hosts at once, and then those first that need the others."""
    hosts.podman("kill", "--signal", "KILL", *(hosts.container(host) for host in night.lab.hosts))
    dead = time.time()
    for host in (*night.lab.workers, *night.lab.masters):
        night.start_host(host)
    time.sleep(20)
    night.start_host(MQ)
    time.sleep(20)
    night.start_host(DB)
    for host in night.lab.hosts:
        hosts.wait(host)
    yield dead


@contextlib.contextmanager
def broken_dag(night: Night) -> collections.abc.Iterator[None]:
    """Beside the others, as a hasty copy puts it on all hosts. Airflow opens only files that name airflow and a dag."""
    places = [*night.lab.masters, *night.lab.workers]
    file = f"{DAGS}/lab_broken.py"
    on_all(dict.fromkeys(places, f"install -m 640 -g airflow /dev/stdin {file} <<< 'def airflow_dag(:'"))
    try:
        yield
    finally:
        on_all(dict.fromkeys(places, f"rm -f {file}"))


@contextlib.contextmanager
def little_memory(night: Night) -> collections.abc.Iterator[None]:
    """One worker has a limit that a task goes over."""
    limited = hosts.container(ONE), hosts.container(OTHER)
    for name in limited:
        hosts.podman("update", "--memory", "2g", "--memory-swap", "2g", name)
    try:
        yield
    finally:
        for name in limited:
            hosts.podman("update", "--memory", "20g", "--memory-swap", "20g", name)
        # Podman's monitor leaves a note where the containers were made from.
        (hosts.ROOT / "oom").unlink(missing_ok=True)


@contextlib.contextmanager
def consumer_timeout(night: Night, seconds: int) -> collections.abc.Iterator[None]:
    """The broker's own limit for a task. Setting it restarts the broker."""
    for value in (str(seconds), ""):
        variable = ["-e", f"rabbitmq_consumer_timeout={value}"] if value else []
        done = night.playbook("site", "--limit", MQ, "--tags", "rabbitmq", *variable)
        assert done.returncode == 0, done.stdout + done.stderr
        if value:
            yield


FAULTS = (
    Fault(
        "worker host killed",
        lambda night: dead_host(night, OTHER),
        seconds=235,
        named=("unreachable", OTHER),
        kills=(OTHER,),
        often=20,
    ),
    Fault("worker process killed with -9", now((ONE, kill(WORKER))), kills=(ONE,)),
    Fault("a worker that is up and takes no tasks", no_tasks, named=("worker_not_consuming", ONE)),
    Fault("RabbitMQ restarted", now((MQ, f"systemctl restart {RABBITMQ}")), often=0),
    Fault("RabbitMQ killed", now((MQ, kill(RABBITMQ)))),
    Fault(
        "RabbitMQ away for 2 minutes",
        lambda night: night.stopped(MQ, RABBITMQ),
        seconds=TWO,
        named=("unit_stopped", MQ),
        often=60,
    ),
    Fault(
        "RabbitMQ frozen for 2 minutes",
        lambda night: night.frozen(MQ),
        seconds=TWO,
        named=("broker_timeout", MASTER),
    ),
    Fault("PostgreSQL restarted", now((DB, f"systemctl restart {POSTGRESQL}"))),
    Fault("PostgreSQL killed", now((DB, "kill -9 $(head -n 1 /var/lib/postgresql/*/main/postmaster.pid)"))),
    Fault(
        "PostgreSQL away for 2 minutes",
        lambda night: night.stopped(DB, POSTGRESQL),
        seconds=TWO,
        named=("unit_stopped", DB),
    ),
    Fault(
        "API server away for 2 minutes",
        lambda night: night.stopped(MASTER, "airflow-api-server"),
        seconds=TWO,
        named=("unit_stopped", MASTER),
        often=60,
    ),
    Fault("scheduler killed", now((MASTER, kill("airflow-scheduler")))),
    Fault("DAG processor killed", now((MASTER, kill("airflow-dag-processor")))),
    Fault(
        "one worker cut off from the broker for 2 minutes",
        lambda night: night.cut(ONE, MQ),
        seconds=TWO,
        named=("broker_timeout", ONE),
    ),
    Fault(
        "one worker cut off from the master for 2 minutes",
        lambda night: night.cut(OTHER, MASTER),
        seconds=TWO,
        named=("api_timeout", OTHER),
    ),
    Fault(
        "disk full on the broker",
        lambda night: night.full_disk(MQ, "/var/lib/rabbitmq", leave=100),
        seconds=60,
        named=("disk_full", MQ),
        prepared=lambda night: night.small_disk(MQ, "/var/lib/rabbitmq", "2300M", RABBITMQ),
    ),
    Fault(
        "disk full on a worker",
        # What is left is less than the watchdog's limit: disks fill slowly, and what runs can still write its log.
        lambda night: night.full_disk(ONE, "/var/log/airflow", leave=200),
        seconds=60,
        named=("disk_full", ONE),
        # In a container a service does not see what is mounted after its start.
        prepared=lambda night: night.small_disk(ONE, "/var/log/airflow", "800M", f"{WORKER} airflow-watchdog"),
    ),
    Fault(
        "disk full on the database",
        lambda night: night.full_disk(DB, "/var/lib/postgresql"),
        seconds=60,
        named=("disk_full", DB),
        prepared=lambda night: night.small_disk(DB, "/var/lib/postgresql", "900M", POSTGRESQL),
    ),
    Fault(
        "a task of 40 minutes, and RabbitMQ's limit after it, at a tenth",
        lambda _night: contextlib.nullcontext(),
        seconds=250,
        prepared=lambda night: consumer_timeout(night, 300),
        first={"spanning": 2, "span": 240},
    ),
    Fault(
        "a task longer than RabbitMQ's limit",
        lambda _night: contextlib.nullcontext(),
        seconds=150,
        prepared=lambda night: consumer_timeout(night, 60),
        first={"spanning": 2, "span": 150},
    ),
    Fault("all hosts power-cycled, started in the worst order", power_cycle, kills=(ONE, OTHER)),
    Fault("a DAG with a syntax error", broken_dag, seconds=30, named=("dag_import_error", MASTER)),
    Fault(
        "memory used up by one task",
        lambda _night: contextlib.nullcontext(),
        prepared=little_memory,
        first={"megabytes": 3000},
        kills_task=0,
    ),
)
