#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Find everything that would make the installation of an Airflow cluster fail
description:
  - Checks the inventory and every host before anything is changed, and reports all problems in one list,
    each with host, what is wrong, and the fix.
  - Reads only; nothing is changed anywhere.
  - An action plugin of the same name runs on the control machine and fills all options but O(scope) from the inventory;
    the module itself runs on the host and looks at its system, memory, disk, ports and peers.
  - With O(scope=host) the task never fails, not even for a host that cannot be reached; it hands back the problems.
    The task must be registered as C(__airflow_preflight), where O(scope=report) finds the result of each host.
  - The variables C(airflow_preflight_*) steer the checks; the role P(onprem.airflow.airflow#role) documents them.
options:
  scope:
    description:
      - V(host) checks this host and gathers the few facts that the roles use.
      - V(report) checks the inventory, compares the hosts, prints the list and fails when it is not empty.
        Use it with C(run_once).
    type: str
    choices: [host, report]
    default: host
  services:
    description: Services placed on this host. Filled by the action plugin.
    type: list
    elements: str
    choices: [postgresql, rabbitmq, airflow_master, airflow_worker]
    default: []
  requirements:
    description: Memory and disk for each service, in MB. Filled by the action plugin.
    type: dict
    default: {}
  ports:
    description: Ports that services placed on this host will listen on. Filled by the action plugin.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: Number of the TCP port.
        type: int
        required: true
      service:
        description: Service that listens on the port.
        type: str
        required: true
  peers:
    description: What this host must be able to reach. Filled by the action plugin.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: Name or address.
        type: str
        required: true
      port:
        description: Number of the TCP port; V(0) only resolves the name.
        type: int
        default: 0
      need:
        description: What the peer is for, in words.
        type: str
        required: true
      variable:
        description: How to change the address, in words.
        type: str
        required: true
      must_listen:
        description: Whether a refused connection is a problem.
        type: bool
        default: false
  python:
    description: The Python that releases are made with, whose version is checked; empty checks none.
    type: str
    default: /usr/bin/python3
  check_own_name:
    description: Whether the host must be able to resolve its own host name.
    type: bool
    default: false
  peer_timeout:
    description: Seconds that a peer may take to answer.
    type: float
    default: 3
  total_timeout:
    description: Seconds that all peers together may take.
    type: float
    default: 30
  gather_subset:
    description: The facts to gather, as for M(ansible.builtin.setup). Filled by the action plugin; empty gathers none.
    type: list
    elements: str
    default: []
author:
  - onprem.airflow authors (@onprem-airflow)
attributes:
  check_mode:
    support: full
    description: Can run in check mode and then does the same.
  diff_mode:
    support: N/A
    description: Nothing is changed, so there is no difference to show.
  platform:
    support: full
    platforms: debian
    description: Hosts of other systems are reported as a problem.
"""

EXAMPLES = r"""
- name: Check all hosts
  hosts: airflow_cluster
  gather_facts: false
  become: true
  any_errors_fatal: true
  tasks:
    - name: Preflight | Check the host
      onprem.airflow.preflight:
        scope: host
      register: __airflow_preflight

    - name: Preflight | Report everything that is wrong
      onprem.airflow.preflight:
        scope: report
      run_once: true
"""

RETURN = r"""
problems:
  description: Problems of this host (O(scope=host)).
  returned: when O(scope=host)
  type: list
  elements: dict
  contains:
    code:
      description: Stable short name of the kind of problem.
      type: str
      sample: port_taken
    host:
      description: Name of the host in the inventory.
      type: str
      sample: db1
    what:
      description: What is wrong.
      type: str
      sample: port 5432, which PostgreSQL needs, is taken by docker-proxy (pid 812, unit docker.service)
    fix:
      description: What to do.
      type: str
      sample: stop and disable that program or move it to another port, or place the service on another host
host:
  description: What the hosts are compared by.
  returned: when O(scope=host) and the host could be reached
  type: dict
  contains:
    hostname:
      description: Host name of the machine.
      type: str
      sample: db1
    memory_mb:
      description: Total memory in MB.
      type: int
      sample: 3919
    cpus:
      description: Number of processors.
      type: int
      sample: 2
    time:
      description: Clock of the host in seconds since 1970, UTC.
      type: float
      sample: 1795350000.5
    airflow:
      description: Version of Airflow in the current release of the host; empty when there is none.
      type: str
      sample: 3.3.2
clock:
  description: The least and the most that the host's clock is ahead of the control machine's, in seconds.
  returned: when O(scope=host) and the host could be reached
  type: list
  elements: float
  sample: [-0.4, 0.3]
ansible_facts:
  description: The facts of O(gather_subset), and memory and processors.
  returned: when O(scope=host) and the host could be reached
  type: dict
  sample: {"ansible_distribution_major_version": "13", "ansible_memtotal_mb": 3919, "ansible_processor_vcpus": 2}
problem_count:
  description: Number of problems in the whole list.
  returned: when O(scope=report)
  type: int
  sample: 0
"""

import os
import socket
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.facts import ansible_facts
from ansible_collections.onprem.airflow.plugins.module_utils import _preflight_host as checks
from ansible_collections.onprem.airflow.plugins.module_utils._release import current_version

PATHS = {
    "postgresql": "/var/lib/postgresql",
    "rabbitmq": "/var/lib/rabbitmq",
    "airflow_master": "/opt/airflow",
    "airflow_worker": "/opt/airflow",
}
# What exists once the service was installed and has its data or release in place.
MARKS = {
    "postgresql": "/var/lib/postgresql",
    "rabbitmq": "/var/lib/rabbitmq/mnesia",
    "airflow_master": "/opt/airflow/current",
    "airflow_worker": "/opt/airflow/current",
}


def existing_parent(path: str) -> str:
    """The path itself, or the nearest folder above it that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def disk_problems(services: list[str], requirements: dict) -> list[dict[str, str]]:
    """Measure the file systems that the services would fill."""
    places = {path: existing_parent(path) for path in PATHS.values()}
    device_of = {path: os.stat(place).st_dev for path, place in places.items()}
    place_of: dict[int, str] = {}
    free_mb: dict[int, int] = {}
    for path, place in places.items():
        status = os.statvfs(place)
        place_of.setdefault(device_of[path], place)
        free_mb[device_of[path]] = status.f_bavail * status.f_frsize // (1024 * 1024)
    installed = {service for service in services if os.path.exists(MARKS[service])}
    needs = checks.disk_needs(services, requirements, PATHS, installed, device_of)
    return checks.check_disk(needs, free_mb, place_of)


def port_problems(ports: list[dict]) -> list[dict[str, str]]:
    """Find out who listens on the ports."""
    wanted = {int(entry["port"]) for entry in ports}
    listeners: dict[int, set[str]] = {}
    for name in ("tcp", "tcp6"):
        for port, inodes in checks.parse_listeners(checks.read_text(f"/proc/net/{name}")).items():
            if port in wanted:
                listeners.setdefault(port, set()).update(inodes)
    owners = checks.listen_owners(set().union(*listeners.values())) if listeners else {}
    return checks.check_ports(ports, listeners, owners)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "scope": {"type": "str", "choices": ["host", "report"], "default": "host"},
            "services": {
                "type": "list",
                "elements": "str",
                "choices": ["postgresql", "rabbitmq", "airflow_master", "airflow_worker"],
                "default": [],
            },
            "requirements": {"type": "dict", "default": {}},
            "ports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "port": {"type": "int", "required": True},
                    "service": {"type": "str", "required": True},
                },
            },
            "peers": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "host": {"type": "str", "required": True},
                    "port": {"type": "int", "default": 0},
                    "need": {"type": "str", "required": True},
                    "variable": {"type": "str", "required": True},
                    "must_listen": {"type": "bool", "default": False},
                },
            },
            "python": {"type": "str", "default": "/usr/bin/python3"},
            "check_own_name": {"type": "bool", "default": False},
            "peer_timeout": {"type": "float", "default": 3},
            "total_timeout": {"type": "float", "default": 30},
            "gather_subset": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    now = time.time()
    options = module.params
    services = options["services"]
    hostname = socket.gethostname()
    memory_mb = checks.parse_memory_mb(checks.read_text("/proc/meminfo"))
    os_release = checks.parse_os_release(checks.read_text("/etc/os-release"))

    problems = checks.check_system(os_release, os.uname().machine, os.path.isdir("/run/systemd/system"))
    python = options["python"]
    if python and not any(found["code"] == "unsupported_os" for found in problems):
        out = err = ""
        if os.path.exists(python):
            _rc, out, err = module.run_command([python, "-V"])
        problems += checks.check_python(python, checks.parse_python_version(out + err))
    problems += checks.check_memory(memory_mb, services, options["requirements"])
    problems += disk_problems(services, options["requirements"])
    problems += port_problems(options["ports"])

    peers = list(options["peers"])
    if options["check_own_name"]:
        peers.insert(
            0,
            {
                "host": hostname,
                "port": 0,
                "need": "its own host name",
                "variable": "give the host a name that resolves (hostnamectl set-hostname)",
            },
        )
    results = checks.probe_peers(peers, options["peer_timeout"], options["total_timeout"])
    problems += checks.check_peers(peers, results, options["peer_timeout"])

    cpus = checks.count_cpus(checks.read_text("/proc/cpuinfo"))
    # In this process and not by a task of its own, which would cost every host another start of Python.
    gathered = ansible_facts(module, options["gather_subset"]) if options["gather_subset"] else {}
    module.exit_json(
        changed=False,
        problems=problems,
        ansible_facts={
            **{f"ansible_{name}": value for name, value in gathered.items()},
            "ansible_memtotal_mb": memory_mb,
            "ansible_processor_vcpus": cpus,
        },
        host={
            "hostname": hostname,
            "memory_mb": memory_mb,
            "cpus": cpus,
            "time": now,
            "airflow": current_version("/opt/airflow"),
        },
    )


if __name__ == "__main__":
    main()
