# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(worker_concurrency)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: worker_concurrency
short_description: Task slots that a worker has room for
description:
  - Two for each CPU, as far as the memory goes (512 MB for the worker, 256 MB for each task), between 1 and 16.
positional: cpus
options:
  _input:
    description: The host's memory in MB.
    type: int
    required: true
  cpus:
    description: The number of its CPUs.
    type: int
    required: true
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Compute the slots
  ansible.builtin.set_fact:
    slots: "{{ 4096 | onprem.airflow.worker_concurrency(2) }}"
    # => 4
"""

RETURN = r"""
_value:
  description: The number of slots.
  type: int
"""

import typing as t

from ansible_collections.onprem.airflow.plugins.module_utils._sizing import default_worker_concurrency


def worker_concurrency(memory_mb: int | str, cpus: int | str) -> int:
    """Compute the number of slots."""
    return default_worker_concurrency(int(memory_mb), int(cpus))


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"worker_concurrency": worker_concurrency}
