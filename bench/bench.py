#!/usr/bin/env python3
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures playbooks beside the same work by bare commands (bench/floor.sh), in turn on fresh hosts of the lab.

    bench/bench.py [--rounds N] [PART ...]

    cluster   from bare hosts to the first finished DAG; a second run, verify, and one more worker
    ten       ten more workers at once
    growth    1, 3, 10 and 30 workers: seconds and the control machine's CPU of scale_out, of a second run, of verify
    tasks     how quick Airflow itself is, with our settings and with stock ones

Without a part: cluster and ten. Replaces the lab's hosts. Results go into build/bench/, one file for each part; bench/report.py
writes them into docs/speed.md.
"""

from __future__ import annotations

import argparse
import base64
import collections.abc
import dataclasses
import json
import os
import pathlib
import platform
import secrets
import statistics
import subprocess
import sys
import time
import typing as t
import urllib.error

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "tests" / "lab")]
import hosts  # noqa: E402
import scale  # noqa: E402
from conftest import Api, Lab  # noqa: E402

LOGS = ROOT / "build" / "bench"
# As many tasks as the two workers have slots: all run at once, on both.
FIRST_DAG_TASKS = 6
GROWTH = (1, 3, 10, 30)


def mitogen() -> dict[str, str]:
    """The environment in which Ansible uses Mitogen's strategies; empty where it is not installed."""
    try:
        import ansible_mitogen
    except ImportError:
        return {}
    folder = pathlib.Path(ansible_mitogen.__file__).parent / "plugins" / "strategy"
    return {"ANSIBLE_STRATEGY_PLUGINS": str(folder), "ANSIBLE_STRATEGY": "mitogen_linear"}


@dataclasses.dataclass
class Timed:
    """Seconds by the clock, and of the CPU on the control machine: the program and all that it started here."""

    seconds: float
    cpu: float


def timed(log: str, command: list[str], environment: t.Mapping[str, str] | None = None) -> Timed:
    """Runs a command; its output goes into a file."""
    path = LOGS / f"{log}.log"
    began = time.monotonic()
    with path.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env=scale.environment(*scale.SOURCES) | dict(environment or {}), stdout=stream, stderr=stream
        )
        _pid, status, used = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise hosts.LabError(f"{command[0]} ended with {code}, see {path}")
    return Timed(time.monotonic() - began, used.ru_utime + used.ru_stime)


def play(log: str, verb: str, *arguments: str, environment: t.Mapping[str, str] | None = None) -> Timed:
    sources = [word for source in scale.SOURCES for word in ("-i", source)]
    return timed(log, ["ansible-playbook", *sources, *arguments, f"onprem.airflow.{verb}"], environment)


def fresh() -> None:
    """Bare hosts that answer over SSH."""
    scale.lab(*scale.SOURCES, verb=("destroy",))
    scale.lab(*scale.SOURCES, verb=("create",))
    scale.lab(*scale.SOURCES, verb=("secrets",))


# --- What both ways end with
def login(address: str, password: str, seconds: float = 60) -> Api:
    """The API, as soon as it lets the administrator in."""
    end = time.monotonic() + seconds
    while True:
        try:
            return Api(f"http://{address}:8080", "admin", password)
        except (OSError, urllib.error.URLError):
            if time.monotonic() > end:
                raise
            time.sleep(0.3)


def first_dag(api: Api) -> None:
    """Returns when a DAG has ended whose tasks ran on two workers."""
    run = api.run_dag("lab_mapped", {"n": FIRST_DAG_TASKS})
    found = api.call("GET", f"/api/v2/dags/lab_mapped/dagRuns/{run}/taskInstances")["task_instances"]
    ran = {entry["hostname"] for entry in found if entry["task_id"] == "where"}
    if len(ran) < 2:
        raise hosts.LabError(f"all tasks of the first DAG ran on {', '.join(ran)}")


# --- The parts
def strategies() -> dict[str, dict[str, str]]:
    """How Ansible runs: with its own strategies, and with Mitogen's where that is installed."""
    return {"": {}, **({"_mitogen": mitogen()} if mitogen() else {})}


def floor_secrets() -> dict[str, str]:
    names = ("DATABASE_PASSWORD", "BROKER_PASSWORD", "ADMIN_PASSWORD", "JWT_SECRET", "API_SECRET_KEY")
    return {name: secrets.token_hex(20) for name in names} | {
        "FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    }


def floor_cluster(log: str) -> tuple[Api, dict[str, str], float]:
    """A cluster by bare commands: its API, its secrets, and the seconds from bare hosts to the first finished DAG."""
    fresh()
    lab, environment = Lab(), floor_secrets()
    began = time.monotonic()
    timed(log, ["bench/floor.sh"], environment)
    api = login(lab.address(lab.masters[0]), environment["ADMIN_PASSWORD"])
    first_dag(api)
    return api, environment, time.monotonic() - began


def floor_worker(log: str, api: Api, database: str, environment: t.Mapping[str, str]) -> float:
    """Seconds from a bare host to its first task, by bare commands."""
    name = f"worker{scale.FIRST_NUMBER}"
    scale.inventory({name: f"10.213.77.{scale.FIRST_ADDRESS}"})
    scale.lab(*scale.SOURCES, str(scale.SOURCE), verb=("create",))
    bare = time.time()
    timed(log, ["bench/floor.sh", name], environment)
    # More tasks than the others take at a time: it has one as soon as it asks.
    api.call("POST", "/api/v2/dags/lab_mapped/dagRuns", {"logical_date": None, "conf": {"n": 40}})
    while True:
        try:
            return scale.first_starts(database, [name], bare)[name]
        except hosts.LabError:
            if time.time() - bare > 300:
                raise
            time.sleep(0.5)
        finally:
            scale.lab(*scale.SOURCES, str(scale.SOURCE), verb=("destroy", name))


def cluster(number: int) -> dict[str, float]:
    """One round: the floor, and then ours in each way that Ansible runs."""
    found: dict[str, float] = {}
    lab = Lab()
    api, environment, found["floor"] = floor_cluster(f"{number}-floor")
    found["floor_worker"] = floor_worker(f"{number}-floor-worker", api, lab.database, environment)
    for name, strategy in strategies().items():
        fresh()
        lab = Lab()  # with the new secrets
        began = time.monotonic()
        done = play(f"{number}-site{name}", "site", environment=strategy)
        found[f"playbook{name}"], found[f"playbook_cpu{name}"] = done.seconds, done.cpu
        first_dag(login(lab.address(lab.masters[0]), lab.secrets["airflow_admin_password"]))
        found[f"site{name}"] = time.monotonic() - began
        for verb, playbook in (("second", "site"), ("verify", "verify")):
            done = play(f"{number}-{verb}{name}", playbook, environment=strategy)
            found[f"{verb}{name}"], found[f"{verb}_cpu{name}"] = done.seconds, done.cpu
        measured = scale.measure(1, lab.database, keep=False, environment=strategy)
        found[f"worker{name}"] = max(measured.first_tasks.values())
    return found
