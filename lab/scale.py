#!/usr/bin/env python3
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures how soon new workers take tasks: one, then ten at once, each on a bare host that was just made.

    lab/scale.py [--keep] [COUNT ...]     other counts than 1 and 10; --keep leaves the last workers in the cluster

Needs the lab as `make lab` leaves it, and a cluster that rests: what runs on it takes time away from what is measured.
A worker's first task is the canary that scale_out ends with. Afterwards the workers leave with scale_in, and their
hosts are removed. The output of the playbooks, and the measured times, are in build/scale/.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
import typing as t

import hosts
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(sys.executable).parent
LOGS = ROOT / "build" / "scale"
# The inventory source with the new workers. The cluster's secrets stay beside the source that the lab was made from.
SOURCE = ROOT / ".lab" / "scale"
SOURCES = os.environ.get("LAB_INVENTORY", "inventories/lab").split(",")
# worker11 to worker20, at addresses that nobody else has.
FIRST_NUMBER, FIRST_ADDRESS = 11, 31
MOST = 30
# Many small workers share this machine's memory and cores; beyond ten of them there is room for one task each.
CONCURRENCY = 2
MANY = 10


@dataclasses.dataclass
class Timed:
    """Seconds by the clock, and of this machine's CPU: of the command and of all that it started here."""

    seconds: float
    cpu: float


@dataclasses.dataclass
class Measured:
    """Seconds; the first ones from when the bare hosts answered over SSH, which C(bare) has since the epoch."""

    workers: int
    hosts: float
    bare: float
    scale_out: float
    scale_out_cpu: float
    first_tasks: dict[str, float]
    scale_in: float | None = None

    def __str__(self) -> str:
        times = sorted(self.first_tasks.values())
        text = f"{self.workers:7} {times[0]:11.0f} s {times[-1]:11.0f} s {self.scale_out:11.0f} s"
        return text if self.scale_in is None else f"{text} {self.scale_in:11.0f} s"


def environment(*sources: str) -> dict[str, str]:
    return os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "LAB_INVENTORY": ",".join(sources),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }


def lab(*sources: str, verb: tuple[str, ...]) -> None:
    """lab/hosts.py for the hosts of these sources."""
    done = subprocess.run([sys.executable, "lab/hosts.py", *verb], cwd=ROOT, env=environment(*sources))
    if done.returncode != 0:  # it has said why
        raise hosts.LabError(f"lab/hosts.py {verb[0]} failed")


def timed(log: pathlib.Path, command: list[str], variables: t.Mapping[str, str] | None = None) -> Timed:
    """Runs a command with its output in a file; C(variables) are more of its environment."""
    began = time.monotonic()
    with log.open("w") as stream:
        everything = environment(*SOURCES) | dict(variables or {})
        process = subprocess.Popen(command, cwd=ROOT, env=everything, stdout=stream, stderr=stream)
        _pid, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise hosts.LabError(f"{' '.join(command)} ended with {process.returncode}, see {log}")
    return Timed(time.monotonic() - began, used.ru_utime + used.ru_stime)


def playbook(verb: str, *arguments: str, sources: t.Sequence[str] = SOURCES) -> list[str]:
    """The command that runs a playbook of the collection."""
    inventory = [word for source in sources for word in ("-i", source)]
    return ["ansible-playbook", *inventory, *arguments, f"onprem.airflow.{verb}"]


def new_workers(count: int) -> dict[str, str]:
    """Names and addresses."""
    return {f"worker{FIRST_NUMBER + n}": f"10.213.77.{FIRST_ADDRESS + n}" for n in range(count)}


def inventory(workers: dict[str, str], concurrency: int = CONCURRENCY) -> None:
    """Writes the source. Of its hosts inventory_dir is another one, so what is relative to it is given."""
    common = {
        "__lab_folder": str(ROOT / ".lab"),
        "airflow_dags_source": str(ROOT / "lab" / "dags"),
        "airflow_verify_dest": str(LOGS),
        "airflow_worker_concurrency": concurrency,
    }
    group = {name: {"ansible_host": address} | common for name, address in workers.items()}
    SOURCE.mkdir(parents=True, exist_ok=True)
    (SOURCE / "hosts.yml").write_text(yaml.safe_dump({"airflow_worker": {"hosts": group}}))


def database_host() -> str:
    words = [word for source in SOURCES for word in ("-i", source)]
    done = subprocess.run(
        ["ansible-inventory", *words, "--list"], cwd=ROOT, env=environment(*SOURCES), capture_output=True, check=True
    )
    return str(json.loads(done.stdout)["postgresql"]["hosts"][0])


def first_starts(database: str, workers: list[str], since: float) -> dict[str, float]:
    """When the first task started on each worker, by the metadata database, in seconds after a time."""
    names = ", ".join(f"'{name}'" for name in workers)
    query = (
        "SELECT hostname, extract(epoch FROM min(start_date)) FROM task_instance"
        f" WHERE hostname IN ({names}) AND start_date > to_timestamp({since}) GROUP BY hostname"
    )
    command = shlex.join(["sudo", "runuser", "-u", "postgres", "--", "psql", "-XAt", "-d", "airflow", "-c", query])
    rows = hosts.run([*hosts.ssh(database), f"cd / && {command}"]).stdout.split()
    found = {name: float(at) - since for name, at in (row.split("|") for row in rows)}
    if missing := sorted(set(workers) - set(found)):
        raise hosts.LabError(f"no task has started on {', '.join(missing)}")
    return found


def measure(
    count: int,
    database: str,
    keep: bool = False,
    variables: t.Mapping[str, str] | None = None,
    meanwhile: t.Callable[[], None] = lambda: None,
) -> Measured:
    """Adds workers and takes them away again. C(variables) are more of the playbooks' environment."""
    workers = new_workers(count)
    inventory(workers, CONCURRENCY if count <= MANY else 1)
    sources = (*SOURCES, str(SOURCE))
    try:
        began = time.monotonic()
        lab(*sources, verb=("create",))
        seconds, bare = time.monotonic() - began, time.time()
        out = timed(LOGS / f"{count}-out.log", playbook("scale_out", sources=sources), variables)
        started = first_starts(database, list(workers), bare)
        measured = Measured(count, seconds, bare, out.seconds, out.cpu, started)
        meanwhile()
        if not keep:
            command = playbook("scale_in", "-e", f"airflow_leaving={','.join(workers)}", sources=sources)
            measured.scale_in = timed(LOGS / f"{count}-in.log", command, variables).seconds
    except BaseException:
        keep = True  # for whoever wants to see why
        raise
    finally:
        if not keep:
            lab(*sources, verb=("destroy", *workers))
            shutil.rmtree(SOURCE)
            lab(*SOURCES, verb=("create",))  # the way to the hosts without them
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the last workers in the cluster")
    parser.add_argument("counts", metavar="COUNT", type=int, nargs="*", default=[1, 10])
    arguments = parser.parse_args()
    if not all(1 <= count <= MOST for count in arguments.counts):
        parser.error(f"a count is from 1 to {MOST}")
    LOGS.mkdir(parents=True, exist_ok=True)
    results = []
    try:
        database = database_host()
        for number, count in enumerate(arguments.counts, start=1):
            results.append(measure(count, database, arguments.keep and number == len(arguments.counts)))
            print(f"{count} workers: {results[-1]}", flush=True)
    except hosts.LabError as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    finally:
        with contextlib.suppress(OSError):
            text = json.dumps([dataclasses.asdict(result) for result in results], indent=2)
            (LOGS / "scale.json").write_text(f"{text}\n")
    print(f"\n{'workers':>7} {'first task':>13} {'last first':>13} {'scale_out':>13} {'scale_in':>13}")
    for result in results:
        print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
