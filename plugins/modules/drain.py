#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: drain
short_description: Let a Celery worker of Airflow finish its tasks and take no others
description:
  - Tells the worker over the broker, with Celery's own control commands, to take no more tasks, and waits until those
    that it has taken are done. Its process stays up, so that the logs of its tasks can be read meanwhile.
  - While it waits it says now and then how many tasks are left, which, for how long they have been running, and how
    many seconds they have got. After O(timeout) it fails with their names; the worker still takes no new ones, and
    the same task run again goes on waiting.
  - A worker that does not answer over the broker is stopped by systemd in place of that, which lets it finish as well.
  - A drained worker stays so over a restart of its service or host, because its unit does not start while the file
    C(/etc/airflow/drained/UNIT) is not empty.
  - Celery can give a worker its queues back, but then it does not ask for them again when it has lost the broker. So
    O(state=undrained) only empties the file, by which M(onprem.airflow.service) sees that the unit needs a restart.
extends_documentation_fragment: [onprem.airflow.attributes.no_diff]
options:
  units:
    description:
      - The units of the worker services, such as V(airflow-worker.service). One that is not there has nothing to do.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(drained) takes no more tasks until it is V(undrained).
      - V(restarting) takes no more tasks until its process is a new one; whoever asks for that restarts it afterwards.
        A unit that is drained is left alone. After O(timeout) systemd is told to restart the unit as soon as its tasks
        are done, so that it comes back without anybody's help.
      - V(looked) changes nothing and tells what runs here, and who takes tasks from which queue.
    type: str
    choices: [drained, restarting, undrained, looked]
    default: drained
  timeout:
    description: Seconds that the tasks get to finish.
    type: int
    default: 3600
  reason:
    description: By what the unit was drained, for whoever finds it so. The time is added.
    type: str
    default: onprem.airflow.drain
  release:
    description: The link to the installed release, under whose Python the worker is asked.
    type: path
    default: /opt/airflow/current
  home:
    description: The home of the services' user.
    type: path
    default: /var/lib/airflow
  step:
    description: Internal. What the control machine wants of this call.
    type: dict
    default: {}
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Have this worker finish its tasks
  onprem.airflow.drain:
    units: [airflow-worker.service]
    timeout: 600
    reason: the disk is exchanged

- name: Let it run again
  onprem.airflow.drain:
    units: [airflow-worker.service]
    state: undrained
"""

RETURN = r"""
units:
  description: What is known of each unit.
  returned: always
  type: dict
  contains:
    node:
      description: The name of its Celery node.
      type: str
      sample: celery@worker1
    active:
      description: The state that systemd tells.
      type: str
      sample: active
    drained:
      description: Since when and by what it is drained, empty when it is not.
      type: str
    tasks:
      description:
        - The C(name) of each task that it has taken and not finished, and C(since), when it began, in seconds since the
          epoch (0 when it waits).
      type: list
      elements: dict
    number:
      description: How many these are, also where their names cannot be had.
      type: int
    done:
      description: Whether nothing is left to wait for.
      type: bool
    answers:
      description: Whether it answers over the broker.
      type: bool
consumers:
  description: By the names of all Celery nodes that answer, the queues that they take tasks from.
  returned: with O(state=looked)
  type: dict
  sample: {"celery@worker1": ["default"]}
why:
  description: Why nobody could be asked over the broker.
  returned: with O(state=looked), when that failed
  type: str
died:
  description: The tasks that were running when a worker died that was waited for.
  returned: with O(state=drained) and O(state=restarting)
  type: list
  elements: str
"""

import os
import socket
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils import _control, _look
from ansible_collections.onprem.airflow.plugins.module_utils._drain import ARGUMENTS, flag, held, mark
from ansible_collections.onprem.airflow.plugins.module_utils._respawn import go_on_under
from ansible_collections.onprem.airflow.plugins.module_utils._service import seconds
from ansible_collections.onprem.airflow.plugins.module_utils._workers import node_of

# Seconds that a worker may take to answer. Asking everybody always takes all of them.
ANSWER = 2.0
PAUSE = 0.5


class Worker:
    """The worker services of this host."""

    def __init__(self, module: AnsibleModule, has_libraries: bool) -> None:
        self.module = module
        self.has_libraries = has_libraries
        self.units: list[str] = module.params["units"]
        self.control: _control.Control | None = None

    def looked(self) -> dict[str, t.Any]:
        """What each unit is and does."""
        shown = _look.units(self.units)
        return {unit: self._one(unit, shown.get(unit, {})) for unit in self.units}

    def connect(self, shown: t.Mapping[str, str]) -> _control.Control | None:
        """The way to the workers; None on a host without a release."""
        if self.control is None and self.has_libraries:
            try:
                url, settings = _control.broker_of(shown, self.module.params["release"], self.module.params["home"])
            except (OSError, UnicodeDecodeError) as exc:
                self.module.fail_json(msg=f"The settings of {self.units[0]} cannot be read: {exc}")
            self.control = _control.Control(url, settings, ANSWER)
        return self.control

    def _one(self, unit: str, shown: t.Mapping[str, str]) -> dict[str, t.Any]:
        active, pid = shown.get("ActiveState", "inactive"), int(shown.get("MainPID") or 0)
        found: dict[str, t.Any] = {
            "node": f"{node_of(unit)}@{socket.gethostname()}",
            "active": active,
            "pid": pid,
            "drained": held(unit),
            "tasks": [],
            "number": 0,
            "done": True,
            "answers": False,
        }
        if active in ("inactive", "failed", "activating") or not pid:
            return found
        state = self.module.params["state"]
        if state == "restarting" and seconds(shown.get("ExecMainStartTimestamp", "")) > _written(unit):
            return found  # a new process already
        control = self.connect(shown) if active != "deactivating" else None
        taken = None
        try:
            only_look = self.module.check_mode or state not in ("drained", "restarting")
            if control and (only_look or control.stop_taking(found["node"])):
                taken = control.tasks(found["node"])
        except Exception as exc:  # kombu's errors of a connection, of which there are many kinds
            found["why"] = str(exc)
        if taken is None:
            number = _running(shown)
            return found | {"number": number, "done": False}
        told = [{"name": task.name, "since": task.since} for task in taken]
        return found | {"tasks": told, "number": len(told), "done": not told, "answers": True}


def _there(units: list[str]) -> list[str]:
    shown = _look.units(units)
    return [unit for unit in units if shown.get(unit, {}).get("LoadState") == "loaded"]


def _written(unit: str) -> float:
    try:
        return os.stat(flag(unit)).st_mtime
    except OSError:
        return float("inf")


def _running(shown: t.Mapping[str, str]) -> int:
    """How many tasks a unit runs, from the title that Airflow gives the process of each.

    Not from their supervisors: those are Celery's pool, and keep the title of the last task while they have none.
    """
    group = shown.get("ControlGroup", "")
    try:
        with open(f"/sys/fs/cgroup{group}/cgroup.procs", encoding="ascii") as stream:
            pids = stream.read().split()
    except OSError:
        return 0
    number = 0
    for pid in pids if group else []:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as title:
                number += title.read().startswith(b"airflow worker -- ")
        except OSError:
            continue
    return number


def main() -> None:
    spec = ARGUMENTS | {"step": {"type": "dict", "default": {}}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    params = module.params
    python = os.path.join(params["release"], "bin", "python")
    asks = params["state"] != "undrained" and os.path.exists(python)
    if asks:
        go_on_under(module, python)  # Celery is that of the services
    worker = Worker(module, has_libraries=asks)
    result: dict[str, t.Any] = {"changed": False}
    step = params["step"]
    if params["state"] != "looked" and step.get("first", True):
        # A note for a unit that is not there would be found by the one that comes some day.
        for unit in _there(params["units"]):
            result["changed"] |= mark(unit, params["state"], params["reason"], dry=module.check_mode)
    if step.get("systemctl") and not module.check_mode:
        module.run_command(["systemctl", step["systemctl"], "--no-block", "--", *step["units"]], check_rc=True)
    end = time.monotonic() + float(step.get("wait") or 0.0)
    while True:
        result["units"] = worker.looked()
        late = time.monotonic() + PAUSE > end
        if late or module.check_mode or all(unit["done"] for unit in result["units"].values()):
            break
        time.sleep(PAUSE)
    if params["state"] == "looked":
        shown = _look.units(params["units"])
        control = worker.connect(next(iter(shown.values()), {}))
        try:
            result["consumers"] = control.consumers() if control else {}
        except Exception as exc:  # as above
            result |= {"consumers": {}, "why": str(exc) or type(exc).__name__}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
