# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: workers that take no more tasks, and what they still have to finish."""

from __future__ import annotations

import json
import os
import time
import typing as t
from dataclasses import dataclass

# A file here that is not empty says that the unit of its name is drained. The unit's ConditionFileNotEmpty= keeps it
# from starting then, so that it stays drained over a restart of its service or host. Emptying the file makes it newer
# than the process, which by that counts as outdated: a run that is cut off in between loses nothing.
FOLDER = "/etc/airflow/drained"
# How many tasks a line of progress names.
NAMED = 3

# The options of the task; the action checks them, and the module has them to be documented and called alike.
ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "units": {"type": "list", "elements": "str", "required": True},
    "state": {"choices": ["drained", "restarting", "undrained", "looked"], "default": "drained"},
    "timeout": {"type": "int", "default": 3600},
    "reason": {"type": "str", "default": "onprem.airflow.drain"},
    "release": {"type": "path", "default": "/opt/airflow/current"},
    "home": {"type": "path", "default": "/var/lib/airflow"},
}


# --- the file that says so -------------------------------------------------------------------------------------------


def flag(unit: str, folder: str = FOLDER) -> str:
    """The file that says whether a unit is drained."""
    return os.path.join(folder, unit.removesuffix(".service"))


def held(unit: str, folder: str = FOLDER) -> str:
    """Since when and by whom a unit is drained; empty when it is not."""
    try:
        with open(flag(unit, folder), encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def mark(unit: str, state: str, reason: str, folder: str = FOLDER, dry: bool = False) -> bool:
    """Write the file of a unit; returns whether that changes anything. A drained unit is not marked for a restart."""
    path, now = flag(unit, folder), held(unit, folder)
    # Only a drained unit can be undrained, and it is marked for nothing else.
    if bool(now) != (state == "undrained"):
        return False
    text = ""  # for a restart it is enough that the file is newer than the process
    if state == "drained":
        text = f"since {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} by {reason}\n"
    if dry:
        return True
    os.makedirs(folder, mode=0o755, exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.utime(path)  # writing nothing into an empty file does not change its time
    return True


# --- what a worker still has to do -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A task that a worker has taken. C(since) is when it began to run, in seconds since the epoch; 0 when it waits."""

    name: str
    since: float = 0.0


def task_name(request: t.Mapping[str, t.Any]) -> str:
    """The name of the task in a message as Celery tells it.

    Airflow's message is JSON in the first argument. It also holds the task's token, so nothing else of it is used.
    """
    arguments = request.get("args") or []
    try:
        instance = json.loads(arguments[0])["ti"]
        name = f"{instance['dag_id']}.{instance['task_id']}"
        index = int(instance.get("map_index", -1))
        return f"{name}{f'[{index}]' if index >= 0 else ''} of {instance['run_id']}"
    except (IndexError, KeyError, TypeError, ValueError):
        return f"the message {request.get('id', '')}"


def tasks(active: t.Iterable[t.Mapping[str, t.Any]], reserved: t.Iterable[t.Mapping[str, t.Any]]) -> list[Task]:
    """The tasks of a worker, from its answers to Celery's C(active) and C(reserved); one in both runs."""
    found = {str(request.get("id")): Task(task_name(request)) for request in reserved}
    found |= {
        str(request.get("id")): Task(task_name(request), float(request.get("time_start") or 0.0)) for request in active
    }
    return sorted(found.values(), key=lambda task: (not task.since, task.since, task.name))


def told(task: t.Mapping[str, t.Any], now: float) -> str:
    """A task in words."""
    since = float(task["since"] or 0.0)
    return f"{task['name']} ({f'runs for {max(0.0, now - since):.0f} s' if since else 'waits for a slot'})"


def count(number: int) -> str:
    """A number of tasks in words."""
    return "1 task" if number == 1 else f"{number} tasks"


def progress(host: str, left: t.Sequence[t.Mapping[str, t.Any]], number: int, seconds_left: float, now: float) -> str:
    """One line: how many tasks are still to end, which, and how long they have got."""
    names = "; ".join(told(task, now) for task in left[:NAMED])
    names += f"; {len(left) - NAMED} more" if len(left) > NAMED else ""
    return f"{host}: {count(number)} still to end, {max(0.0, seconds_left):.0f} s left{f': {names}' if names else ''}"


# --- who would miss it -----------------------------------------------------------------------------------------------


def left_alone(looks: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
    """The queues that nobody would read any more when all these hosts leave, each as a sentence.

    C(looks) has by host what the module returned for C(state=looked). That nobody could be asked is a reason, too.
    """
    silent = {look["why"]: host for host, look in looks.items() if look.get("why")}
    if silent:
        return [f"{host} cannot ask over the broker who takes tasks from where ({why})" for why, host in silent.items()]
    leaving = {unit["node"]: host for host, look in looks.items() for unit in look.get("units", {}).values()}
    readers: dict[str, set[str]] = {}
    for look in looks.values():
        for node, queues in look.get("consumers", {}).items():
            for queue in queues:
                readers.setdefault(queue, set()).add(node)
    found = []
    for queue, nodes in sorted(readers.items()):
        if nodes <= set(leaving):
            hosts = sorted({leaving[node] for node in nodes})
            verb = "is the last that takes" if len(hosts) == 1 else "are the last that take"
            found.append(f"{', '.join(hosts)} {verb} tasks from the queue {queue}")
    return found
