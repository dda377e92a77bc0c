#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: executor_check
short_description: Prove that tasks can run on a host of an Airflow cluster
description:
  - Follows the path of a task on one host of a running cluster, and tells everything that would keep it from running.
    Processes that are up prove little, so it logs in to the broker with the library that Celery uses, sends itself a
    message and reads it back, asks the worker which queues it reads and the broker who reads them, logs in to the
    databases, calls the API server, and reads the configuration as the services see it.
  - Runs under the Python of the installed release, so with the very libraries of the services, on a host of Airflow.
    On one that has only PostgreSQL or RabbitMQ it looks at their services and file systems.
  - A worker that is drained is reported as such and not blamed for taking no tasks.
  - Reads only. The one thing it makes is a private queue on the broker that vanishes with the connection.
  - The playbook C(onprem.airflow.verify) runs it on all hosts and compares them.
extends_documentation_fragment: [onprem.airflow.attributes.read_only]
options:
  name:
    description: The host's name in the inventory, for what is reported. Without it, the name that the host has itself.
    type: str
  roles:
    description: What the host is. Without it, what is installed on it.
    type: list
    elements: str
    choices: [postgresql, rabbitmq, airflow_master, airflow_worker]
    default: []
  services:
    description:
      - The services of a worker that the inventory gives to this host. The first one has the log server that API
        servers ask.
      - Any other service of a worker that runs is a problem.
    type: list
    elements: dict
    default: [{unit: airflow-worker.service, node: celery, queues: [default]}]
    suboptions:
      unit:
        description: The name of its unit.
        type: str
        default: airflow-worker.service
      node:
        description: Celery's name for it, without the host.
        type: str
        default: celery
      queues:
        description: The queues that it reads.
        type: list
        elements: str
        default: [default]
  queue_type:
    description: The type that the queues should have.
    type: str
    choices: [quorum, classic]
    default: quorum
  management_url:
    description:
      - The address of RabbitMQ's management plugin, for instance V(http://mq1:15672), from which the types of queues
        and the list of consumers come. The user of the broker needs the tag C(management).
      - Without it, these two are not looked at.
    type: str
    default: ""
  log_servers:
    description: The log servers of workers that a master has to reach. Used for O(checks=logs) only.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: The worker's name in the inventory.
        type: str
        required: true
      name:
        description: The name that Airflow records for the worker, C(report.identity.log_name) of its own check.
        type: str
        required: true
      port:
        description: The port of the log server.
        type: int
        default: 8793
  checks:
    description:
      - What to look at. V(host) is everything on the host and its connections.
      - V(logs) only asks the O(log_servers), as an API server does, with a signed request.
    type: list
    elements: str
    choices: [host, logs]
    default: [host]
  nonce:
    description:
      - A secret of this run, from which and a secret of the cluster a fingerprint is made. Hosts that get the same one
        can be compared; nothing can be recovered from a fingerprint without it. Without it, a random one.
    type: str
  clock_tolerance:
    description: Seconds that the clock may differ from that of the database.
    type: float
    default: 5
  timeout:
    description: Seconds that each connection may take.
    type: float
    default: 4
  settle:
    description: Seconds after its start in which a worker may still be connecting; it is waited for that long.
    type: float
    default: 30
  disk_free:
    description:
      - Free space in MB that the file systems need to which the services of a master or a worker write, those of the
        log folder, O(home) and C(/tmp); of a small C(/tmp) a tenth is enough. Give it what
        C(airflow_watchdog_disk_free) is, below which the watchdog stops a worker.
      - With V(0) only one that has no space left at all counts as full.
      - PostgreSQL needs 256 MB, and RabbitMQ what C(disk_free_limit.absolute) of its C(rabbitmq.conf) says.
    type: int
    default: 512
  release:
    description: The link to the installed release.
    type: path
    default: /opt/airflow/current
  home:
    description: The home of the services' user.
    type: path
    default: /var/lib/airflow
  strict:
    description: Whether the task fails when something is wrong. All problems are told in any case.
    type: bool
    default: true
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Prove that this worker can run tasks
  onprem.airflow.executor_check:
    roles: [airflow_worker]
    services:
      - queues: [default, etl]
    management_url: http://mq1.example.com:15672

- name: The same on a host with two services
  onprem.airflow.executor_check:
    roles: [airflow_worker]
    services:
      - {unit: airflow-worker@light.service, node: light, queues: [default]}
      - {unit: airflow-worker@gpu.service, node: gpu, queues: [gpu]}

- name: Look without failing, and act on what is wrong
  onprem.airflow.executor_check:
    strict: false
  register: check

- name: Tell it
  ansible.builtin.debug:
    msg: "{{ check.problems | map(attribute='what') }}"
"""

RETURN = r"""
ok:
  description: Whether nothing is wrong.
  returned: always
  type: bool
problems:
  description: Everything that is wrong.
  returned: always
  type: list
  elements: dict
  contains:
    code:
      description: What kind of problem it is; docs/verify.md lists all.
      type: str
      sample: broker_login_refused
    check:
      description: The part that it belongs to.
      type: str
      sample: broker
    host:
      description: The host that has it.
      type: str
      sample: worker1
    subject:
      description: The thing that is wrong.
      type: str
      sample: broker:mq1:5672
    what:
      description: What is wrong, in words.
      type: str
      sample: "RabbitMQ at mq1:5672 refuses the connection: nothing listens there"
    fix:
      description: What to do about it.
      type: str
      sample: "start it: `systemctl start rabbitmq-server` there"
report:
  description:
    - What was seen, right or wrong, without secrets. docs/verify.md documents every field.
    - Parts that do not apply to the roles of the host are absent.
  returned: always
  type: dict
  sample: {roles: [airflow_worker], broker: {nodes: [{address: "mq1:5672", login_ms: 8.1, round_trip_ms: 2.2}]}}
"""

import os
import secrets
import socket
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils._executor_check import Host, Options
from ansible_collections.onprem.airflow.plugins.module_utils._respawn import go_on_under

ROLES = ("postgresql", "rabbitmq", "airflow_master", "airflow_worker")
SERVICE: dict[str, t.Any] = {"unit": "airflow-worker.service", "node": "celery", "queues": ["default"]}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "roles": {"type": "list", "elements": "str", "choices": list(ROLES), "default": []},
            "services": {
                "type": "list",
                "elements": "dict",
                "default": [dict(SERVICE)],
                "options": {
                    "unit": {"type": "str", "default": SERVICE["unit"]},
                    "node": {"type": "str", "default": SERVICE["node"]},
                    "queues": {"type": "list", "elements": "str", "default": SERVICE["queues"]},
                },
            },
            "queue_type": {"type": "str", "choices": ["quorum", "classic"], "default": "quorum"},
            "management_url": {"type": "str", "default": ""},
            "log_servers": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "host": {"type": "str", "required": True},
                    "name": {"type": "str", "required": True},
                    "port": {"type": "int", "default": 8793},
                },
            },
            "checks": {"type": "list", "elements": "str", "choices": ["host", "logs"], "default": ["host"]},
            "nonce": {"type": "str", "no_log": True},
            "clock_tolerance": {"type": "float", "default": 5},
            "timeout": {"type": "float", "default": 4},
            "settle": {"type": "float", "default": 30},
            "disk_free": {"type": "int", "default": 512},
            "release": {"type": "path", "default": "/opt/airflow/current"},
            "home": {"type": "path", "default": "/var/lib/airflow"},
            "strict": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    python = os.path.join(module.params["release"], "bin", "python")
    has_libraries = os.path.exists(python)
    if has_libraries:
        go_on_under(module, python)  # kombu, Celery and psycopg are those of the services
    params: dict[str, t.Any] = {
        **module.params,
        "name": module.params["name"] or socket.gethostname(),
        "nonce": module.params["nonce"] or secrets.token_hex(16),
    }
    strict = params.pop("strict")
    host = Host(Options(**params), has_libraries=has_libraries)
    problems, report = host.check()
    result = {"changed": False, "ok": not problems, "problems": problems, "report": report}
    if problems and strict:
        told = "; ".join(f"{problem['what']} [{problem['code']}] Fix: {problem['fix']}" for problem in problems)
        module.fail_json(msg=f"{len(problems)} problems: {told}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
