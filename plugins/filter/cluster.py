# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(cluster)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster
short_description: What the hosts of a cluster need to know of each other
description:
  - Derives from the inventory's groups who talks to whom and at which addresses.
positional: hostvars, leaving
options:
  _input:
    description: The magic variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The magic variable C(hostvars).
    type: dict
    required: true
  leaving:
    description: Workers that leave the cluster. They count no more.
    type: list
    elements: str
    default: []
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Tell the broker's address
  ansible.builtin.debug:
    msg: "{{ (groups | onprem.airflow.cluster(hostvars)).broker_host }}"
"""

RETURN = r"""
_value:
  description:
    - C(database_host), C(broker_host) and C(api_host), the address of the first host of each group, empty without;
      C(api_host) as a URL has it, an IPv6 address in brackets.
    - C(master_ips) and C(client_ips), the IP addresses of the masters, and of masters and workers, as far as known.
    - C(unknown), the masters and workers whose facts have not been gathered.
    - C(connections), the database connections to allow for, in steps of 500.
    - C(workers), by the names of the workers the C(queues) that each serves, the C(names) it may be known by, and its
      C(services) with C(unit), C(node) (what Celery puts before the @) and C(queues) of each.
    - C(canaries), by the ids of their DAGs the queues of all workers.
    - C(batch), how many workers a change may take at once, as the keyword C(serial) has it.
  type: dict
"""

import math
import re
import typing as t

from ansible_collections.onprem.airflow.plugins.module_utils._canary import canaries
from ansible_collections.onprem.airflow.plugins.module_utils._sizing import (
    default_worker_concurrency,
    required_connections,
)
from ansible_collections.onprem.airflow.plugins.module_utils._workers import expand, mistakes

# Link-local addresses never reach another host's pg_hba.conf: they need a zone.
LOCAL = re.compile(r"127\.|169\.254\.|::1$|fe80:")

# Connections of PostgreSQL; each costs it some kilobytes of memory.
STEP = 500
# How many workers a change takes at once, unless airflow_batch says something else.
BATCH = "25%"


def _address(host: str, hostvars: t.Mapping[str, t.Any]) -> str:
    return str(hostvars[host].get("airflow_address") or host)


def _facts(host: str, hostvars: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return hostvars[host].get("ansible_facts") or {}


def _ips(hosts: list[str], hostvars: t.Mapping[str, t.Any]) -> list[str]:
    found = []
    for host in hosts:
        facts = _facts(host, hostvars)
        addresses = [*(facts.get("all_ipv4_addresses") or []), *(facts.get("all_ipv6_addresses") or [])]
        found += sorted(address for address in addresses if not LOCAL.match(address))
    return found


def _worker(host: str, hostvars: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    variables, facts = hostvars[host], _facts(host, hostvars)
    default = default_worker_concurrency(int(facts.get("memtotal_mb") or 0), int(facts.get("processor_vcpus") or 1))
    wanted = variables.get("airflow_worker_services") or [{}]
    # The preflight tells what is wrong with it; until then it counts as one ordinary service.
    services = expand(
        [{}] if mistakes(wanted) else wanted,
        variables.get("airflow_worker_queues") or ["default"],
        int(variables.get("airflow_worker_concurrency") or default),
    )
    names = [host, _address(host, hostvars), str(variables.get("ansible_host") or host)]
    return {
        "queues": list(dict.fromkeys(queue for service in services for queue in service["queues"])),
        "names": list(dict.fromkeys(names)),
        "services": [service["check"] for service in services],
        "slots": [service["concurrency"] for service in services],
    }


def cluster(
    groups: t.Mapping[str, list[str]], hostvars: t.Mapping[str, t.Any], leaving: t.Collection[str] = ()
) -> dict[str, t.Any]:
    """Derive everything from groups and hostvars."""
    masters = list(groups.get("airflow_master") or [])
    workers = [host for host in groups.get("airflow_worker") or [] if host not in leaving]
    clients = list(dict.fromkeys(masters + workers))

    def first(group: str) -> str:
        hosts = groups.get(group) or []
        return _address(hosts[0], hostvars) if hosts else ""

    api_workers = sum(int(hostvars[host].get("airflow_master_api_workers") or 1) for host in masters)
    count = len(masters)
    served = {host: _worker(host, hostvars) for host in workers}
    slots = [slots for worker in served.values() for slots in worker.pop("slots")]
    connections = required_connections(api_workers, count, count, count, slots)
    known = [*workers, *masters, *(groups.get("airflow_cluster") or [])]
    return {
        "database_host": first("postgresql"),
        "broker_host": first("rabbitmq"),
        "api_host": f"[{master}]" if ":" in (master := first("airflow_master")) else master,
        "master_ips": _ips(masters, hostvars),
        "client_ips": _ips(clients, hostvars),
        "unknown": [host for host in clients if "all_ipv4_addresses" not in _facts(host, hostvars)],
        # In large steps, because a change restarts PostgreSQL and more workers should not.
        "connections": math.ceil(connections / STEP) * STEP,
        "workers": served,
        "canaries": canaries(queue for worker in served.values() for queue in worker["queues"]),
        "batch": (hostvars[known[0]].get("airflow_batch") if known else None) or BATCH,
    }


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"cluster": cluster}
