# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(hba_rule)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hba_rule
short_description: A rule of pg_hba.conf that lets one client log in to one database
description:
  - Turns a pair of database and client address, as P(ansible.builtin.subelements#filter) makes them, into a rule for
    M(community.postgresql.postgresql_pg_hba), with C(scram-sha-256).
options:
  _input:
    description: A dictionary with C(name) and C(user), and an IP address or network.
    type: list
    elements: raw
    required: true
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Make the rule
  ansible.builtin.set_fact:
    rule: "{{ [{'name': 'airflow', 'user': 'airflow'}, '192.0.2.7'] | onprem.airflow.hba_rule }}"
    # => {contype: host, databases: airflow, users: airflow, address: 192.0.2.7/32, method: scram-sha-256}
"""

RETURN = r"""
_value:
  description: The rule.
  type: dict
"""

import ipaddress
import typing as t

from ansible.errors import AnsibleFilterError


def hba_rule(pair: t.Sequence[t.Any]) -> dict[str, str]:
    """Make the rule; raises AnsibleFilterError on what is neither an address nor a network."""
    database, client = pair
    try:
        address = str(ipaddress.ip_network(client))
    except ValueError as exc:
        raise AnsibleFilterError(f"onprem.airflow.hba_rule: a client of database {database['name']}: {exc}") from exc
    return {
        "contype": "host",
        "databases": database["name"],
        "users": database["user"],
        "address": address,
        "method": "scram-sha-256",
    }


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"hba_rule": hba_rule}
