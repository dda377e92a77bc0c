#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service
short_description: Run systemd units with the configuration that is on disk, and wait until they work
description:
  - Enables and starts units, restarts those that started before one of their files was last written, and waits until
    each of them answers. The files of a unit are its unit file, drop-ins and environment files, and those named here.
  - Takes the place of handlers. A handler that was notified is lost when the run is cut off before it ran, and the
    service then goes on with its old configuration through every later run. Comparing times has no such gap.
  - All units are started at once and waited for together, so that the wait is that of the slowest.
  - When a unit does not answer in time, the task fails with the last lines of its journal.
extends_documentation_fragment: [onprem.airflow.attributes.no_diff]
options:
  units:
    description: The units, all started before the first is waited for.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The full name of the unit, with its suffix.
        type: str
        required: true
      state:
        description: V(started) is enabled and running, V(stopped) is neither, V(restarted) has a new process.
        type: str
        choices: [started, stopped, restarted]
        default: started
      hold:
        description:
          - A file. While it is there and not empty, the unit is neither started nor restarted nor waited for. When it
            was emptied after the unit's process began, the unit needs a restart.
          - See M(onprem.airflow.drain).
        type: path
      restart_after:
        description:
          - Other files and links whose change needs a restart of this unit.
        type: list
        elements: path
        default: []
      outdated:
        description: As O(outdated), for this unit alone.
        type: str
        choices: [restart, report]
      reload_after:
        description: Files whose change needs only a reload.
        type: list
        elements: path
        default: []
      ready:
        description: How the unit shows that it works. Without this it is enough that systemd calls it active.
        type: dict
        suboptions:
          url:
            description: An address that answers with HTTP status 200.
            type: str
          contains:
            description: Text that the body of O(units[].ready.url) holds. JSON is compared without its white space.
            type: str
          port:
            description: A TCP port that accepts connections.
            type: int
          host:
            description: The address of O(units[].ready.port).
            type: str
            default: 127.0.0.1
  restart_after:
    description: Other files and links whose change needs a restart of every unit.
    type: list
    elements: path
    default: []
  outdated:
    description:
      - What is done to a running unit that needs a restart. V(report) names it in RV(outdated) and leaves it as it is,
        for one after the other to be restarted later. What is stopped is started in any case.
    type: str
    choices: [restart, report]
    default: restart
  pattern:
    description:
      - A pattern of the names of units, such as V(airflow-worker*.service). Those in C(/etc/systemd/system) that match
        it and are not in O(units) are named in RV(strays). They are stopped before anything else is started, since
        they may hold its ports, and their unit files are removed.
      - With O(outdated=report) they go on running, and nothing is started beside them.
    type: str
    default: ""
  timeout:
    description: Seconds to wait until every unit works.
    type: int
    default: 120
  stop_timeout:
    description:
      - Seconds that a unit may take to stop before it starts again. They do not count in O(timeout). A Celery worker
        finishes its running tasks first.
    type: int
    default: 90
  journal_lines:
    description: How many of the last lines of the journal a failure shows.
    type: int
    default: 30
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Services | Run the API server and wait until it answers
  onprem.airflow.service:
    units:
      - name: airflow-api-server.service
        ready:
          url: http://127.0.0.1:8080/api/v2/version
    restart_after: [/etc/airflow/airflow.cfg, /opt/airflow/current]
"""

RETURN = r"""
steps:
  description: What was done to each unit, or would be in check mode, in order. Units that needed nothing are left out.
  returned: always
  type: dict
  sample: {"airflow-api-server.service": ["enable", "start"]}
outdated:
  description: Units that need a restart and did not get it.
  returned: always
  type: list
  elements: str
held:
  description: Units that were left as they are because of their O(units[].hold).
  returned: always
  type: list
  elements: str
strays:
  description: Units that match O(pattern) and are not wanted.
  returned: always
  type: list
  elements: str
due:
  description: RV(outdated) and, with O(outdated=report), RV(strays), which all wait for a later call.
  returned: always
  type: list
  elements: str
waited:
  description: Seconds until every unit worked.
  returned: always
  type: float
  sample: 6.4
"""

import os
import socket
import time
import typing as t
import urllib.error
import urllib.request

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils._service import (
    PROPERTIES,
    Ready,
    Unit,
    answers,
    decide,
    own_files,
    parse_show,
    strays,
    works,
)

UNITS = "/etc/systemd/system"

# A first probe comes after 0.2 s, later ones more rarely, so that the end of a short wait is noticed at once.
FIRST_DELAY = 0.2
DELAY_FACTOR = 1.3
LAST_DELAY = 0.5


class Systemd:
    """The calls of C(systemctl) that this module makes."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.systemctl = module.get_bin_path("systemctl", required=True)

    def call(self, *arguments: str) -> str:
        rc, out, err = self.module.run_command([self.systemctl, *arguments])
        if rc != 0:
            self.module.fail_json(msg=f"systemctl {' '.join(arguments)}: {(err or out).strip()}")
        return out

    def show(self, names: list[str]) -> dict[str, dict[str, str]]:
        return parse_show(self.call("show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}", "--", *names))


def _modified(unit: Unit, shown: dict[str, str]) -> dict[str, float]:
    times = {}
    for path in (*unit.restart_after, *unit.reload_after, *own_files(shown)):
        try:
            times[path] = os.lstat(path).st_mtime
        except OSError:
            continue
    return times


def _held(path: str | None) -> bool:
    """Whether a file is there and not empty."""
    try:
        return bool(path) and os.path.getsize(str(path)) > 0
    except OSError:
        return False


def _answers(ready: Ready) -> str:
    """An empty text when the unit works, else why not yet."""
    try:
        if ready.url:
            # No proxy: this asks the host about itself.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(ready.url, timeout=5) as response:
                if not answers(ready, response.status, response.read().decode("utf-8", "replace")):
                    return f"{ready.url} answers {response.status}, without {ready.contains}"
        elif ready.port:
            socket.create_connection((ready.host, ready.port), timeout=5).close()
    except (OSError, urllib.error.URLError) as exc:
        return f"{ready.url or f'{ready.host}:{ready.port}'}: {exc}"
    return ""


def _wait(systemd: Systemd, units: list[Unit], leaving: dict[str, str], params: dict[str, t.Any]) -> None:
    """Wait until each unit works. C(leaving) has the start time of each process that is to be replaced first."""
    begun = time.monotonic()
    stopping = 0.0
    delay = FIRST_DELAY
    waiting = {unit.name: unit for unit in units}
    why: dict[str, str] = {}
    while waiting:
        shown = systemd.show(list(waiting))
        is_stopping = False
        for name, unit in list(waiting.items()):
            state = shown[name]["ActiveState"]
            is_stopping = is_stopping or state == "deactivating"
            # A unit that died and waits for its next start shows as activating (auto-restart).
            if state != "active":
                why[name] = f"{state} ({shown[name]['SubState']})"
            elif shown[name]["ExecMainStartTimestamp"] == leaving.get(name):
                why[name] = "still the process from before the restart"
            else:
                why[name] = _answers(unit.ready)
            if not why[name]:
                del waiting[name]
        elapsed = time.monotonic() - begun
        if not waiting:
            return
        if stopping > params["stop_timeout"] or elapsed - stopping > params["timeout"]:
            _fail(systemd, {name: why[name] for name in waiting}, elapsed, params["journal_lines"])
        time.sleep(delay)
        if is_stopping:
            stopping += delay
        delay = min(delay * DELAY_FACTOR, LAST_DELAY)


def _fail(systemd: Systemd, why: dict[str, str], seconds: float, lines: int) -> None:
    """End with the reason and the journal of each unit that does not work."""
    report = []
    for name, reason in why.items():
        journal = systemd.module.run_command(
            ["journalctl", "--unit", name, "--lines", str(lines), "--no-pager", "--output", "short-iso"]
        )[1]
        report.append(f"{name}: {reason}\n{journal.strip()}")
    systemd.module.fail_json(
        msg=f"After {seconds:.0f} s these units do not work. The last lines of their journals:\n\n"
        + "\n\n".join(report)
    )


def main() -> None:
    ready_spec = {
        "type": "dict",
        "options": {
            "url": {"type": "str"},
            "contains": {"type": "str"},
            "port": {"type": "int"},
            "host": {"type": "str", "default": "127.0.0.1"},
        },
    }
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "state": {"choices": ["started", "stopped", "restarted"], "default": "started"},
                    "hold": {"type": "path"},
                    "restart_after": {"type": "list", "elements": "path", "default": []},
                    "outdated": {"choices": ["restart", "report"]},
                    "reload_after": {"type": "list", "elements": "path", "default": []},
                    "ready": ready_spec,
                },
            },
            "restart_after": {"type": "list", "elements": "path", "default": []},
            "outdated": {"choices": ["restart", "report"], "default": "restart"},
            "pattern": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 120},
            "stop_timeout": {"type": "int", "default": 90},
            "journal_lines": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    units = [
        Unit(
            name=unit["name"],
            state=unit["state"],
            restart_after=(*module.params["restart_after"], *unit["restart_after"], *filter(None, [unit["hold"]])),
            reload_after=tuple(unit["reload_after"]),
            ready=Ready(**(unit["ready"] or {})),
            held=_held(unit["hold"]),
        )
        for unit in module.params["units"]
    ]
    report = module.params["outdated"] == "report"
    later = {
        unit["name"] for unit in module.params["units"] if (unit["outdated"] or module.params["outdated"]) == "report"
    }
    stray = strays(os.listdir(UNITS), module.params["pattern"], [unit.name for unit in units])
    systemd = Systemd(module)
    begun = time.monotonic()
    shown = systemd.show([unit.name for unit in units])
    # A unit file that was just written is not known yet, one that was changed is known in its old form.
    if not module.check_mode and any(
        state["NeedDaemonReload"] == "yes" or state["LoadState"] == "not-found" for state in shown.values()
    ):
        systemd.call("daemon-reload")
        shown = systemd.show([unit.name for unit in units])
    steps = {}
    outdated = []
    for unit in units:
        wanted = decide(unit, shown[unit.name], _modified(unit, shown[unit.name]))
        if unit.name in later and "restart" in wanted and works(shown[unit.name]):
            outdated.append(unit.name)
            wanted.remove("restart")
        if report and stray and "start" in wanted:
            wanted.remove("start")
        if wanted:
            steps[unit.name] = wanted
    if not module.check_mode and stray and not report:
        systemd.call("disable", "--quiet", "--now", "--", *stray)
        for name in stray:
            os.unlink(os.path.join(UNITS, name))
        systemd.call("daemon-reload")
    if not module.check_mode:
        for verb in ("enable", "disable"):
            names = [name for name, wanted in steps.items() if verb in wanted]
            if names:
                systemd.call(verb, "--quiet", "--", *names)
        for verb in ("stop", "start", "restart", "reload"):
            names = [name for name, wanted in steps.items() if verb in wanted]
            if names and verb == "start":
                # One that gave up starting often stays "failed" with its counter; begin afresh.
                systemd.call("reset-failed", "--", *names)
            if names:
                systemd.call(verb, "--no-block", "--", *names)
        leaving = {name: shown[name]["ExecMainStartTimestamp"] for name, wanted in steps.items() if "restart" in wanted}
        left_alone = [unit.name for unit in units if unit.state == "stopped" or unit.held or (report and stray)]
        left_alone += outdated
        _wait(systemd, [unit for unit in units if unit.name not in left_alone], leaving, module.params)
    if not report:
        steps |= {name: ["stop", "disable", "remove"] for name in stray}
    module.exit_json(
        changed=bool(steps),
        steps=steps,
        outdated=outdated,
        held=[unit.name for unit in units if unit.held],
        strays=stray,
        due=[*outdated, *(stray if report else [])],
        waited=round(time.monotonic() - begun, 1),
    )


if __name__ == "__main__":
    main()
