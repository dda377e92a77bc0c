#!/usr/bin/env python3
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the playbooks beside the same work by bare commands (bench/floor.sh), in turn on fresh hosts of the lab.

    bench/bench.py [--rounds N] [PART ...]

    cluster   from bare hosts to the first finished DAG; then a second run, verify, and one more worker
    ten       ten more workers at once
    growth    1, 3, 10 and 30 more workers: how time and the control machine's CPU grow
    tasks     how quick Airflow itself is, with our settings and with its own

Without a part: cluster. Replaces the lab's hosts. What was measured is in build/bench/, one file for each part;
bench/report.py writes it into docs/speed.md.
"""

from __future__ import annotations

import argparse
import base64
import functools
import json
import os
import pathlib
import platform
import secrets
import statistics
import sys
import threading
import time
import typing as t

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "tests" / "lab")]
import hosts  # noqa: E402
import report  # noqa: E402
import scale  # noqa: E402
from conftest import Api, Lab  # noqa: E402
from strategies import few_collections, mitogen  # noqa: E402

LOGS = ROOT / "build" / "bench"
# More than one of the two workers has slots for: two for each CPU.
FIRST_DAG_TASKS = 3 * (os.cpu_count() or 2)
QUICK_TASKS = 500
# The seconds that a cluster without tasks is looked at.
IDLE = 20
# What we set for speed alone (docs/settings.md), each as Airflow or systemd has it by default.
WITHOUT = {
    "without_sleep": {"airflow_config": {"scheduler": {"scheduler_idle_sleep_time": None}}},
    "without_batch": {"airflow_service_settings": {"airflow-worker": {"CPUSchedulingPolicy": "other"}}},
}
GROWTH = (1, 3, 10, 30)
LONGEST = 900.0
# How Ansible runs, each way with its environment.
WAYS = {"": {}, **({"_mitogen": mitogen() | few_collections()} if mitogen() else {})}
# When each task began, in the logs.
PROFILE = {"ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks"}
Found = dict[str, t.Any]


def fresh() -> Lab:
    """Bare hosts that answer over SSH, and new secrets."""
    for verb in ("destroy", "create", "secrets"):
        scale.lab(*scale.SOURCES, verb=(verb,))
    return Lab()


def login(lab: Lab, password: str, seconds: float = 120) -> Api:
    """The API, as soon as it lets the administrator in."""
    end = time.monotonic() + seconds
    while True:
        try:
            return Api(f"http://{lab.address(lab.masters[0])}:8080", "admin", password)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def first_dag(api: Api) -> None:
    """Returns when a DAG has ended whose tasks ran on two workers."""
    run = api.run_dag("lab_mapped", {"n": FIRST_DAG_TASKS})
    found = api.call("GET", f"/api/v2/dags/lab_mapped/dagRuns/{run}/taskInstances")["task_instances"]
    ran = {entry["hostname"] for entry in found if entry["task_id"] == "where"}
    if len(ran) < 2:
        raise hosts.LabError(f"all tasks of the first DAG ran on {', '.join(ran)}")


def hosts_cpu() -> float:
    """The seconds of CPU that the hosts of the lab have used since they were made."""
    shown = hosts.podman("stats", "--no-stream", "--format", "{{.Name}} {{.CPUNano}}").stdout
    used = dict(line.split() for line in shown.splitlines())
    return sum(int(used[hosts.container(name)]) for name in hosts.inventory_hosts()) / 1e9


def load(api: Api, count: int) -> None:
    """Has tasks wait from when the first of the new workers has started, more than the others take at a time."""

    def post() -> None:
        end = time.monotonic() + LONGEST
        active = [*hosts.ssh(f"worker{scale.FIRST_NUMBER}"), "systemctl is-active --quiet airflow-worker"]
        while hosts.run(active, check=False).returncode != 0 and time.monotonic() < end:
            time.sleep(1)
        body = {"logical_date": None, "conf": {"n": 40 * (1 + count)}}
        api.call("POST", "/api/v2/dags/lab_mapped/dagRuns", body)

    threading.Thread(target=post, daemon=True).start()


# --- Clusters
class Floor:
    """A cluster by bare commands, on fresh hosts; C(seconds) to the first finished DAG, C(cpu) of the hosts.

    C(steps) are those of the worker that was added last, or of the first of several.
    """

    def __init__(self, log: str) -> None:
        self.log = log
        self.lab = fresh()
        names = ("DATABASE_PASSWORD", "BROKER_PASSWORD", "ADMIN_PASSWORD", "JWT_SECRET", "API_SECRET_KEY")
        self.environment = {name: secrets.token_hex(20) for name in names}
        self.environment["FERNET_KEY"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        began = time.monotonic()
        self.first = scale.timed(LOGS / f"{log}.log", ["bench/floor.sh"], self.environment)
        self.api = login(self.lab, self.environment["ADMIN_PASSWORD"])
        first_dag(self.api)
        self.seconds, self.cpu = time.monotonic() - began, hosts_cpu()

    def add(self, count: int) -> list[float]:
        """The seconds from bare hosts to the first task of each of some more workers, in order."""
        workers = scale.new_workers(count)
        scale.inventory(workers)
        sources = (*scale.SOURCES, str(scale.SOURCE))
        scale.lab(*sources, verb=("create",))
        try:
            bare = time.time()
            load(self.api, count)
            scale.timed(LOGS / f"{self.log}-{count}.log", ["bench/floor.sh", *workers], self.environment)
            while True:
                try:
                    started = scale.first_starts(self.lab.database, list(workers), bare)
                    break
                except hosts.LabError:
                    if time.time() - bare > LONGEST:
                        raise
                    time.sleep(0.5)
        finally:
            scale.lab(*sources, verb=("destroy", *workers))
        first = next(iter(workers))
        self.steps = report.steps(report.marked((LOGS / f"floor-{first}.log").read_text()), bare, started[first])
        return sorted(started.values())


class Site:
    """A cluster by site.yml, on fresh hosts; C(seconds) to the first finished DAG, C(cpu) of the hosts."""

    def __init__(self, log: str, variables: t.Mapping[str, str] | None = None) -> None:
        self.log, self.variables, self.runs = log, variables or {}, 0
        self.lab = fresh()
        began = time.monotonic()
        self.first = self.play("site")
        self.api = login(self.lab, self.lab.secrets["airflow_admin_password"])
        first_dag(self.api)
        self.seconds, self.cpu = time.monotonic() - began, hosts_cpu()

    def play(self, verb: str, *sources: str) -> scale.Timed:
        self.runs += 1
        command = scale.playbook(verb, sources=(*scale.SOURCES, *sources))
        return scale.timed(LOGS / f"{self.log}-{self.runs}-{verb}.log", command, {**self.variables, **PROFILE})


# --- The parts
def cluster(number: int) -> Found:
    """One round: the floor, and then ours in each way that Ansible runs."""
    floor = Floor(f"{number}-floor")
    found: Found = {"floor": floor.seconds, "floor_hosts_cpu": floor.cpu, "floor_cpu": floor.first.cpu}
    found |= {"floor_worker": floor.add(1)[-1], "floor_steps": floor.steps}
    for name, variables in WAYS.items():
        site = Site(f"{number}{name}", variables)
        found |= {f"site{name}": site.seconds, f"playbook{name}": site.first.seconds}
        found |= {f"hosts_cpu{name}": site.cpu, f"cpu{name}": site.first.cpu}
        second, verify = site.play("site"), site.play("verify")
        found |= {f"second{name}": second.seconds, f"second_cpu{name}": second.cpu, f"verify{name}": verify.seconds}
        load(site.api, 1)
        log = LOGS / f"{number}{name}-scale_out.log"
        log.unlink(missing_ok=True)
        measured = scale.measure(1, site.lab.database, variables=variables | {"ANSIBLE_LOG_PATH": str(log)})
        ((worker, seconds),) = measured.first_tasks.items()
        found |= {
            f"worker{name}": seconds,
            f"steps{name}": report.steps(report.logged(log.read_text(), worker), measured.bare, seconds),
        }
    return found


def ten(number: int) -> Found:
    floor = Floor(f"{number}-ten-floor").add(10)
    site = Site(f"{number}-ten")
    load(site.api, 10)
    ours = sorted(scale.measure(10, site.lab.database).first_tasks.values())
    return {"floor_first": floor[0], "floor_last": floor[-1], "first": ours[0], "last": ours[-1]}


def with_all_of_them(site: Site, more: Found) -> None:
    """A second run and a verify, while the workers that were added are there."""
    for verb, playbook in (("second", "site"), ("verify", "verify")):
        done = site.play(playbook, str(scale.SOURCE))
        more[verb], more[f"{verb}_cpu"] = done.seconds, done.cpu


def growth(number: int) -> Found:
    """How seconds and the control machine's CPU grow with the number of workers that are added, or are there."""
    site = Site(f"{number}-growth")
    found: Found = {}
    for count in GROWTH:
        more: Found = {}
        then = functools.partial(with_all_of_them, site, more)
        measured = scale.measure(count, site.lab.database, meanwhile=then)
        more |= {"scale_out": measured.scale_out, "scale_out_cpu": measured.scale_out_cpu}
        found[str(count)] = more
    return found


def quick(made: Floor | Site, name: str) -> Found:
    """What Airflow takes for tasks that do nothing: many at once, and one after the other."""
    idle = hosts_cpu()
    time.sleep(IDLE)
    began = hosts_cpu()
    many = made.api.run_dag("lab_quick", {"n": QUICK_TASKS}, 1200)
    used = hosts_cpu() - began
    chain = made.api.run_dag("lab_chain", {}, 600)
    duration = "SELECT extract(epoch FROM end_date - start_date) FROM dag_run WHERE run_id = '{}'"
    seconds, in_turn = (float(made.lab.sql(duration.format(run))[0][0]) for run in (many, chain))
    median = "percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM start_date - scheduled_dttm))"
    waited = made.lab.sql(f"SELECT {median} FROM task_instance WHERE run_id = '{chain}'")
    return {
        f"{name}_per_minute": QUICK_TASKS * 60 / seconds,
        f"{name}_cpu": used / QUICK_TASKS,
        f"{name}_chain": in_turn,
        f"{name}_wait": float(waited[0][0]),
        f"{name}_idle_cpu": (began - idle) / IDLE,
    }


def tasks(number: int) -> Found:
    """Airflow's own speed: on a cluster with its own settings, on ours, and on ours without one of ours for speed."""
    found = quick(Floor(f"{number}-tasks-stock"), "stock")
    site = Site(f"{number}-tasks")
    found |= quick(site, "ours")
    changed = LOGS / "without.json"
    for name, variables in WITHOUT.items():
        changed.write_text(json.dumps({"all": {"vars": variables}}))
        site.play("site", str(changed))
        found |= quick(site, name)
    return found


PARTS: dict[str, t.Callable[[int], Found]] = {"cluster": cluster, "ten": ten, "growth": growth, "tasks": tasks}


def machine() -> Found:
    """What the figures are of."""
    import ansible.release

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30),
        "release": os.environ.get("LAB_RELEASE") or hosts.RELEASES[0],
        "ansible": ansible.release.__version__,
        "python": platform.python_version(),
    }


def told(part: str, rounds: list[Found]) -> str:
    lines = [f"{part}, {len(rounds)} rounds"]
    for name in rounds[0]:
        values = [found[name] for found in rounds]
        if all(isinstance(value, float) for value in values):
            each = ", ".join(f"{value:.1f}" for value in values)
            lines.append(f"  {name:20} {statistics.median(values):8.1f}   ({each})")
        else:
            lines += [f"  {name:20} {value}" for value in values]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each part is measured (default: 3)")
    parser.add_argument("parts", metavar="PART", nargs="*", default=["cluster"], help=", ".join(PARTS))
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    LOGS.mkdir(parents=True, exist_ok=True)
    scale.LOGS.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        rounds: list[Found] = []
        for number in range(1, arguments.rounds + 1):
            try:
                rounds.append(PARTS[part](number))
            except hosts.LabError as error:
                print(f"bench: {error}", file=sys.stderr)
                return 1
            text = json.dumps({"machine": machine(), "rounds": rounds}, indent=2)
            (LOGS / f"{part}.json").write_text(f"{text}\n")
            print(f"{part}, round {number}: {json.dumps(rounds[-1])}", flush=True)
        print(told(part, rounds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
