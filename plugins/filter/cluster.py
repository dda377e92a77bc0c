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
positional: hostvars
options:
  _input:
    description: The magic variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The magic variable C(hostvars).
    type: dict
    required: true
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
    - C(connections), the database connections to allow for, in steps of 100.
    - C(workers), by the names of the workers the C(queues) that each serves and the C(names) it may be known by, and
      C(canaries), by the ids of their DAGs the queues of all workers.
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

# Link-local addresses never reach another host's pg_hba.conf: they need a zone.
LOCAL = re.compile(r"127\.|169\.254\.|::1$|fe80:")


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


def _concurrency(host: str, hostvars: t.Mapping[str, t.Any]) -> int:
    facts = _facts(host, hostvars)
    default = default_worker_concurrency(int(facts.get("memtotal_mb") or 0), int(facts.get("processor_vcpus") or 1))
    return int(hostvars[host].get("airflow_worker_concurrency") or default)


def _worker(host: str, hostvars: t.Mapping[str, t.Any]) -> dict[str, list[str]]:
    variables = hostvars[host]
    queues = [str(queue) for queue in variables.get("airflow_worker_queues") or ["default"]]
    names = [host, _address(host, hostvars), str(variables.get("ansible_host") or host)]
    return {"queues": list(dict.fromkeys(queues)), "names": list(dict.fromkeys(names))}


def cluster(groups: t.Mapping[str, list[str]], hostvars: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Derive everything from groups and hostvars."""
    masters, workers = list(groups.get("airflow_master") or []), list(groups.get("airflow_worker") or [])
    clients = list(dict.fromkeys(masters + workers))

    def first(group: str) -> str:
        hosts = groups.get(group) or []
        return _address(hosts[0], hostvars) if hosts else ""

    api_workers = sum(int(hostvars[host].get("airflow_master_api_workers") or 1) for host in masters)
    count = len(masters)
    slots = [_concurrency(host, hostvars) for host in workers]
    connections = required_connections(api_workers, count, count, count, slots)
    served = {host: _worker(host, hostvars) for host in workers}
    return {
        "database_host": first("postgresql"),
        "broker_host": first("rabbitmq"),
        "api_host": f"[{master}]" if ":" in (master := first("airflow_master")) else master,
        "master_ips": _ips(masters, hostvars),
        "client_ips": _ips(clients, hostvars),
        "unknown": [host for host in clients if "all_ipv4_addresses" not in _facts(host, hostvars)],
        # In steps, because a change restarts PostgreSQL and one more worker should not.
        "connections": max(200, math.ceil(connections / 100) * 100),
        "workers": served,
        "canaries": canaries(queue for worker in served.values() for queue in worker["queues"]),
    }


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"cluster": cluster}
