# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control machine's half of the smoke test: rounds of canaries, how far they are, and the list at the end.

The documentation is in plugins/modules/canary.py.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict
from typing import Any

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.onprem.airflow.plugins.module_utils import _canary

MODULE = "onprem.airflow.canary"
# Seconds of one call of the module; after each there is a line about how far it is.
STEP = 8.0
# Seconds until a DAG that was just deployed must have been read, which the DAG processor does every half minute.
GRACE = 45.0
# Seconds that the API server may be away, as while it is restarted.
SILENCE = 15.0

# What is said while it waits goes to stderr, for the reason that drain.py tells.
display = Display()


class ActionModule(ActionBase):
    """Runs rounds until all is proved or the time is over."""

    _supports_check_mode = True
    _supports_diff = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        del tmp
        _validated, arguments = self.validate_argument_spec(argument_spec=_canary.ARGUMENTS)
        smoke = wanted(arguments["workers"], arguments["only"])
        result |= {"changed": False, "canaries": [], "failures": []}
        result |= {"left_out": smoke.left_out, "drained": smoke.drained}
        if not arguments["enabled"]:
            what = "airflow_canary is false, so there is no canary to send"
            fix = "set airflow_canary to true and run the playbook onprem.airflow.site"
            return result | _verdict(smoke, [_canary.Problem("canary_disabled", "inventory", what, fix)])
        if not smoke.wanted and smoke.drained:
            unread = smoke.unread()
            return result | {"failures": [asdict(problem) for problem in unread]} | _verdict(smoke, unread)
        if not smoke.wanted:
            what = "there is no worker, so no task can run"
            fix = "put a host into the group airflow_worker and run the playbook onprem.airflow.site"
            return result | _verdict(smoke, [_canary.Problem("no_worker", "inventory", what, fix)])
        if self._task.check_mode:
            display.display(f"\n{smoke.would()}\n")
            return result | {"msg": smoke.would()}

        began = time.monotonic()
        problems = self._rounds(smoke, arguments, task_vars or {})
        result["canaries"] = [
            {"queue": queue, "worker": name, "hostname": canary.host, "seconds": canary.seconds, "log": canary.log}
            for (queue, name), canary in sorted(smoke.proven.items())
        ]
        result["failures"] = [asdict(problem) for problem in problems]
        result |= _verdict(smoke, problems, time.monotonic() - began)
        return result

    def _rounds(
        self, smoke: _canary.Smoke, arguments: dict[str, Any], task_vars: dict[str, Any]
    ) -> list[_canary.Problem]:
        """Send until nothing is open; returns everything that is not proved."""
        began = time.monotonic()
        end = began + arguments["timeout"]
        sent = 0
        smoke.unknown = {queue for queue, _name in smoke.wanted}
        silent = 0.0  # when the API server fell silent, 0 while it answers
        told: dict[str, Any] = {"missing": [], "known": 0, "errors": []}
        while True:
            now = time.monotonic()
            last = now >= end
            start = {} if last else smoke.next_round(now, end)
            if not (last or start or smoke.pending or smoke.unknown):
                if end - now < _canary.NEEDED:
                    break  # nothing is under way, and nothing more will be sent
                time.sleep(0.5)
                continue
            step = {
                "token": smoke.token,
                "queues": sorted(smoke.unknown),
                "start": start,
                "number": sent,
                "pending": [asdict(canary) for canary in smoke.pending],
                "read": [[canary.queue, canary.host] for canary in smoke.proven.values()],
                "wait": 0 if last else min(STEP, end - now),
                "last": last,
            }
            sent += sum(start.values())
            options = {key: arguments[key] for key in ("workers", "url", "user", "password")} | {"step": step}
            answer = self._execute_module(module_name=MODULE, module_args=options, task_vars=task_vars)
            if answer.get("failed"):
                silent = silent or now
                if last or answer.get("status") != 0 or time.monotonic() - silent > SILENCE:
                    return [_refused(answer, arguments)]
                display.display(f"Smoke: {answer['msg']}; trying again", stderr=True)
                time.sleep(1)
                continue
            silent = 0.0
            if smoke.unknown:
                told = answer
                smoke.unknown = set(answer["missing"])
            for canary in answer["ended"]:
                smoke.judge(_canary.Canary(**canary))
            smoke.pending = [_canary.Canary(**canary) for canary in answer["pending"]]
            now = time.monotonic()
            readable = [pair for pair in smoke.open if pair[0] not in smoke.unknown]
            hopeless = smoke.unknown and (told["errors"] or now - began > min(GRACE, arguments["timeout"]))
            if last or (not readable and (not smoke.unknown or hopeless)):
                break
            if smoke.open and sent:
                display.display(smoke.progress(end - now), stderr=True)
        problems = smoke.finish(time.monotonic() - began)
        if smoke.unknown:
            problems += _canary.without_dags(sorted(smoke.unknown), told["known"], told["errors"])
        return problems


def wanted(workers: dict[str, Any], only: list[str]) -> _canary.Smoke:
    """What a smoke test of these workers has to prove."""
    known = {name: _canary.read_worker(name, worker) for name, worker in workers.items()}
    demanded = [name for name in known if name in only] or list(known)
    return _canary.Smoke(known, demanded, secrets.token_hex(6))


def _refused(answer: dict[str, Any], arguments: dict[str, Any]) -> _canary.Problem:
    """What it means that the API server refused, or that the module did not run."""
    status, text = answer.get("status"), str(answer.get("msg") or "the module gave no answer")
    if status == 0:
        fix = "see that airflow-api-server runs on the master: `systemctl status airflow-api-server`"
        return _canary.Problem("api_silent", "masters", text, fix)
    if status in (401, 403):
        what = f"the API server refuses the user {arguments['user']}: {text}"
        fix = "run the playbook onprem.airflow.site, which gives airflow_admin_user its password and the role Admin"
        return _canary.Problem("login_refused", "masters", what, fix)
    if status is None:
        return _canary.Problem("check_failed", "masters", text, "the reason stands above; run with -vvv to see more")
    fix = "look at `journalctl -u airflow-api-server` on the master"
    return _canary.Problem("api_error", "masters", f"the API server refuses a request: {text}", fix)


def _verdict(smoke: _canary.Smoke, problems: list[_canary.Problem], seconds: float = 0.0) -> dict[str, Any]:
    """The end on the screen, and the result's message."""
    if smoke.wanted and (smoke.proven or smoke.failed):
        display.display(f"\n{_canary.table(smoke)}\n\n")
    if smoke.left_out:
        display.display(f"Not looked at, because not asked for: {', '.join(smoke.left_out)}\n\n")
    if smoke.drained:
        display.display(f"Not looked at, because drained: {', '.join(smoke.drained)}\n\n")
    if not problems and not smoke.wanted:
        display.display("No canary was sent.\n\n")
        return {"msg": "No canary was sent: every worker looked at is drained"}
    if not problems:
        text = f"A canary came back from every queue of every worker looked at: {len(smoke.wanted)}, in {seconds:.0f} s"
        display.display(f"{text}\n\n", color=C.COLOR_OK)
        return {"msg": text}
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    display.display(f"Smoke found {count}:\n\n{_canary.render(problems)}\n\n", color=C.COLOR_ERROR)
    return {"failed": True, "msg": f"Smoke found {count}, listed above."}
