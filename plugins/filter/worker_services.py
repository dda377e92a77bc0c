# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(worker_services)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: worker_services
short_description: The worker services of a host with all their settings
description:
  - Completes the elements of C(airflow_worker_services) and adds the names of unit and Celery node.
positional: queues, concurrency, log_port
options:
  _input:
    description: Dictionaries with any of C(name), C(queues), C(concurrency) and C(log_port).
    type: list
    elements: dict
    required: true
  queues:
    description: The queues of a service that names none.
    type: list
    elements: str
    required: true
  concurrency:
    description: Tasks that run at once in a service that does not say.
    type: int
    required: true
  log_port:
    description:
      - The log port of the first service, which API servers ask. Others get 8801, 8802 and so on, unless they name one.
    type: int
    required: true
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Tell the units
  ansible.builtin.debug:
    msg: "{{ [{}, {'name': 'gpu', 'queues': ['gpu']}] | onprem.airflow.worker_services(['default'], 4, 8793) }}"
    # => airflow-worker.service, and airflow-worker@gpu.service with the node name gpu and the log port 8801
"""

RETURN = r"""
_value:
  description:
    - Dictionaries with C(name), C(unit), C(node), C(queues), C(concurrency) and C(log_port).
    - C(service) is the element for the option O(onprem.airflow.service#module:units), and C(check) the one for
      O(onprem.airflow.executor_check#module:services).
  type: list
  elements: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.airflow.plugins.module_utils._workers import expand, mistakes


def worker_services(
    services: list[dict[str, t.Any]], queues: list[str], concurrency: int | str, log_port: int | str
) -> list[dict[str, t.Any]]:
    """Complete the services; the preflight has told what is wrong with them before."""
    if wrong := mistakes(services):
        raise AnsibleFilterError(f"airflow_worker_services {'; '.join(wrong)}")
    return expand(services, queues, int(concurrency), int(log_port))


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"worker_services": worker_services}
