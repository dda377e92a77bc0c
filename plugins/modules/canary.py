#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: canary
short_description: Send a task through every queue of every worker of Airflow, and read its result and log back
description:
  - Runs the DAGs that the role P(onprem.airflow.airflow#role) puts on masters and workers (C(airflow_canary)), in
    rounds, until each worker has taken a canary from each of its queues, or the time is over.
  - A worker counts as proved when its canary succeeded, said by the inventory's name which host it was on, gave its
    result back, and left a log that the API server can fetch from it.
  - Tells all that is not proved in one list, and fails when there is something in it.
  - Run it on a master. An action plugin of the same name runs on the control machine, decides on the rounds and shows
    how far they are; the module itself talks to the API server of its host.
  - Changes no setting. The runs stay in Airflow's history; those that have not ended when the time is over are
    marked as failed.
attributes:
  check_mode:
    description: Can run in C(check_mode) and then sends nothing; says what it would send.
    support: full
  diff_mode:
    description: Returns what it changed, or would change, when in diff mode.
    support: none
options:
  workers:
    description:
      - The workers by their names, each a dictionary with its C(queues), the C(names) it may be known by, and the
        C(services) that serve the queues, each with its C(unit) and C(queues). Without services it is one,
        V(airflow-worker.service).
      - C(drained) are those of its units that are drained. They get no canary; a queue that nobody else serves is told
        at once.
    type: dict
    required: true
  only:
    description: Names of the hosts to look at. Without a worker among them, all workers are.
    type: list
    elements: str
    default: []
  enabled:
    description: Whether the canary's DAGs are deployed; otherwise it fails at once, saying so.
    type: bool
    default: true
  timeout:
    description: Seconds within which everything must be proved.
    type: int
    default: 120
  url:
    description: The address of the API server.
    type: str
    default: http://127.0.0.1:8080
  user:
    description: A user of Airflow who may run DAGs.
    type: str
    required: true
  password:
    description: The password of this user.
    type: str
    required: true
  step:
    description: What to do in this call of the module. Filled by the action plugin.
    type: dict
    default: {}
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Smoke | Send canaries
  onprem.airflow.canary:
    workers:
      worker1: {queues: [default]}
      worker2: {queues: [default, gpu], names: [worker2.example.com]}
    user: admin
    password: "{{ airflow_admin_password }}"
  run_once: true
"""

RETURN = r"""
canaries:
  description: What was proved.
  returned: always
  type: list
  elements: dict
  sample: [{"queue": "default", "worker": "worker1", "hostname": "worker1", "seconds": 4.7, "log": "ok"}]
failures:
  description: What was not, with a code, the host, what is wrong, and what to do.
  returned: always
  type: list
  elements: dict
drained:
  description: Workers that got no canary because they are drained, with the services, where they have others.
  returned: always
  type: list
  elements: str
left_out:
  description: Workers that were not looked at.
  returned: always
  type: list
  elements: str
"""

import http.client
import json
import time
import typing as t
import urllib.error
import urllib.request
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils import _canary


class Api:
    """The API server of this host, for one user."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url.rstrip("/")
        # A proxy of the environment has no way to this host.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token = ""
        self._token = self("POST", "/auth/token", {"username": user, "password": password})["access_token"]

    def __call__(self, method: str, path: str, body: t.Any = None) -> t.Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=30) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            raise _canary.ApiError(error.code, _canary.detail(error.code, error.read())) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise _canary.ApiError(0, f"{self._url} gives no answer: {reason}") from error


def work(api: Api, step: dict[str, t.Any]) -> dict[str, t.Any]:
    """One call: look for DAGs, send, wait, and read what has come back."""
    end = time.monotonic() + step["wait"]
    token = step["token"]
    missing, known, errors = _canary.missing_dags(api, step["queues"]) if step["queues"] else ([], 0, [])
    # Nothing else to do: wait for the DAGs.
    while missing and not (errors or step["start"] or step["pending"]) and time.monotonic() < end:
        if len(missing) < len(step["queues"]):
            break  # some can be used
        time.sleep(1)
        missing, known, errors = _canary.missing_dags(api, step["queues"])
    pending = [_canary.Canary(**canary) for canary in step["pending"]]
    number = step["number"]
    for queue, count in step["start"].items():
        for _each in range(count):
            pending.append(_canary.start(api, queue, _canary.run_id(token, number), token))
            number += 1
    while pending:
        found = _canary.states(api, token)
        for canary in pending:
            _canary.update(canary, found.get(canary.run, {"state": "failed"}))
        if all(canary.ended for canary in pending) or time.monotonic() > end:
            break
        time.sleep(0.5)
    read = {tuple(pair) for pair in step["read"]}
    for canary in pending:
        if canary.ended or step["last"]:
            look(api, canary, read, token)
    if step["last"]:
        for canary in pending:
            if not canary.ended:
                api("PATCH", f"{_canary.path_of(canary, task=False)}?update_mask=state", {"state": "failed"})
    return {
        "missing": missing,
        "known": known,
        "errors": errors,
        "ended": [asdict(canary) for canary in pending if canary.ended],
        "pending": [asdict(canary) for canary in pending if not canary.ended],
    }


def look(api: Api, canary: _canary.Canary, read: set[tuple[t.Any, ...]], token: str) -> None:
    """Ask for the rest of what is to be known of a canary; a log once for each queue and host."""
    _canary.look(api, canary)
    pair = (canary.queue, canary.host)
    if (not canary.host and not canary.ended) or (canary.state == "success" and pair in read):
        return
    for attempt in range(3):
        began = time.monotonic()
        _canary.read_log(api, canary, token)
        # Its last lines may be on their way; a worker that does not answer has had its time.
        if canary.log == "ok" or attempt == 2 or canary.state != "success" or time.monotonic() - began > 2:
            break
        time.sleep(1)
    read.add(pair)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_canary.ARGUMENTS,
            "step": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    if module.check_mode or not module.params["step"]:
        module.exit_json(changed=False)
    try:
        api = Api(module.params["url"], module.params["user"], module.params["password"])
        module.exit_json(changed=False, **work(api, module.params["step"]))
    except _canary.ApiError as error:
        module.fail_json(msg=str(error), status=error.status)


if __name__ == "__main__":
    main()
