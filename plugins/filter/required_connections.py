# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(required_connections)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: required_connections
short_description: Database connections that a cluster may open
description:
  - Adds up the connection pools of all services of Airflow and leaves a quarter for restarts.
positional: masters, api_workers
options:
  _input:
    description: The task slots of each worker.
    type: list
    elements: int
    required: true
  masters:
    description: The number of masters.
    type: int
    required: true
  api_workers:
    description: Processes of the API server on each master.
    type: int
    default: 1
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Compute the connections
  ansible.builtin.set_fact:
    connections: "{{ [4, 4] | onprem.airflow.required_connections(1) }}"
    # => 157
"""

RETURN = r"""
_value:
  description: The smallest fitting max_connections.
  type: int
"""

import typing as t

from ansible_collections.onprem.airflow.plugins.module_utils._sizing import required_connections


def connections(concurrencies: t.Iterable[int | str], masters: int | str, api_workers: int | str = 1) -> int:
    """Compute the number of connections."""
    count = int(masters)
    return required_connections(count * int(api_workers), count, count, count, (int(one) for one in concurrencies))


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"required_connections": connections}
