# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(left_alone)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: left_alone
short_description: The queues that nobody would take tasks from without these workers
description:
  - Judges what M(onprem.airflow.drain) has seen with O(onprem.airflow.drain#module:state=looked), on all hosts that are
    to be drained together.
options:
  _input:
    description: The results of the module by the names of the hosts.
    type: dict
    required: true
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Refuse
  ansible.builtin.assert:
    that: (looks | onprem.airflow.left_alone) | length == 0
"""

RETURN = r"""
_value:
  description: A sentence for each such queue.
  type: list
  elements: str
"""

import typing as t

from ansible_collections.onprem.airflow.plugins.module_utils._drain import left_alone


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"left_alone": left_alone}
