# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control machine's half of a drain: calls the module again and again, says how far it is, keeps the deadline.

The documentation is in plugins/modules/drain.py.
"""

from __future__ import annotations

import time
from typing import Any

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.onprem.airflow.plugins.module_utils import _drain

MODULE = "onprem.airflow.drain"
# Seconds of one call of the module; after each there is a line about how far it is. Long waits need fewer lines.
FIRST_STEP = 5.0
LAST_STEP = 60.0
GROWTH = 1.2
# Seconds that a worker may be silent, as while the broker restarts, until systemd is asked in its place.
SILENCE = 20.0

# What is said while it waits goes to stderr: of what Ansible writes to stdout, a pipe or a file gets nothing before the
# task has ended (Display.display does not flush).
display = Display()


class ActionModule(ActionBase):
    """Waits until the tasks of a host's worker services are done."""

    _supports_check_mode = True
    _supports_diff = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        del tmp
        variables = task_vars or {}
        _validated, arguments = self.validate_argument_spec(argument_spec=_drain.ARGUMENTS)
        if arguments["state"] in ("looked", "undrained") or self._task.check_mode:
            return result | self._call(arguments, {}, variables)
        return result | self._wait(arguments, str(variables.get("inventory_hostname", "")), variables)

    def _call(self, arguments: dict[str, Any], step: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        options = arguments | {"step": step}
        answer: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=options, task_vars=variables)
        return answer

    def _wait(self, arguments: dict[str, Any], host: str, variables: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        end = began + arguments["timeout"]
        heard = began
        length = FIRST_STEP
        step: dict[str, Any] = {"first": True, "wait": min(1.0, arguments["timeout"])}
        changed, died = False, list[str]()
        before: dict[str, Any] = {}
        while True:
            answer = self._call(arguments, step, variables)
            if answer.get("failed") or "units" not in answer:
                return answer
            changed |= bool(answer["changed"])
            units = answer["units"]
            died += _died(before, units, stopped=bool(step.get("systemctl")))
            before = units
            now = time.monotonic()
            waiting = {name: unit for name, unit in units.items() if not unit["done"]}
            if not waiting:
                break
            silent = [name for name, unit in waiting.items() if unit["active"] == "active" and not unit["answers"]]
            heard = heard if silent else now
            step = {"first": False, "wait": max(0.0, min(length, end - now))}
            if silent and now - heard > SILENCE:
                why = next((unit["why"] for unit in waiting.values() if unit.get("why")), "no answer")
                text = f"{host}: {', '.join(silent)} cannot be asked over the broker ({why}), so systemd stops it"
                display.display(text, color=C.COLOR_WARN, stderr=True)
                if arguments["state"] == "restarting":
                    break  # whoever restarts it now has systemd wait for its tasks
                step |= {"systemctl": "stop", "units": silent}
                heard = now
            elif now >= end:
                return self._late(arguments, host, waiting, variables) | {"changed": changed, "died": died}
            left = [task for unit in waiting.values() for task in unit["tasks"]]
            number = sum(unit["number"] for unit in waiting.values())
            display.display(_drain.progress(host, left, number, end - now, time.time()), stderr=True)
            length = min(length * GROWTH, LAST_STEP)
        took = time.monotonic() - began
        if died:
            text = f"{host}: the worker died while it was drained, with these tasks: {'; '.join(died)}."
            display.display(
                f"{text} Airflow runs them again elsewhere once airflow_task_heartbeat_timeout is over, as far as they"
                " have retries left.",
                color=C.COLOR_WARN,
            )
        msg = f"{host} has no tasks left, after {took:.0f} s"
        return {"changed": changed or bool(died), "units": before, "died": died, "seconds": round(took, 1), "msg": msg}

    def _late(
        self, arguments: dict[str, Any], host: str, waiting: dict[str, Any], variables: dict[str, Any]
    ) -> dict[str, Any]:
        """The failure at the deadline."""
        now = time.time()
        names = [_drain.told(task, now) for unit in waiting.values() for task in unit["tasks"]]
        number = sum(unit["number"] for unit in waiting.values())
        text = f"After {arguments['timeout']} s {host} still has {_drain.count(number)} to end"
        text += f": {'; '.join(names)}. " if names else ". "
        if arguments["state"] == "restarting":
            step = {"first": False, "wait": 0, "systemctl": "restart", "units": list(waiting)}
            self._call(arguments, step, variables)
            text += (
                "It takes no new ones; systemd restarts it by itself as soon as they are done. "
                "No other host is touched. Run the same command again to go on with the others, with a larger "
                "airflow_drain_timeout to wait longer"
            )
        else:
            text += (
                "It takes no new ones. Run the same command again to go on waiting, with a larger airflow_drain_timeout"
                f" to wait longer, or take it back: ansible-playbook ... onprem.airflow.undrain --limit {host}"
            )
        return {"failed": True, "msg": text, "units": waiting}


def _died(before: dict[str, Any], now: dict[str, Any], stopped: bool) -> list[str]:
    """The tasks of processes that are gone although they had some, and although nobody stopped them."""
    lost = []
    for name, unit in before.items():
        gone = now[name]["pid"] != unit["pid"]
        if gone and unit["active"] == "active" and not stopped:
            lost += [str(task["name"]) for task in unit["tasks"] if task["since"]]
    return lost
