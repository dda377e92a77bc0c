# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(rabbitmq_password_hash)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rabbitmq_password_hash
short_description: RabbitMQ's salted hash of a password
description:
  - Makes the C(password_hash) of a definitions file, for the algorithm C(rabbit_password_hashing_sha256).
  - The salt is derived from O(seed), so that the same password always gives the same hash.
positional: seed
options:
  _input:
    description: The password.
    type: str
    required: true
  seed:
    description: Text that is secret and differs by user.
    type: str
    required: true
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Hash the password
  ansible.builtin.set_fact:
    hash: "{{ airflow_broker_password | onprem.airflow.rabbitmq_password_hash(rabbitmq_erlang_cookie ~ 'airflow') }}"
  no_log: true
"""

RETURN = r"""
_value:
  description: The hash, in base64.
  type: str
"""

import typing as t

from ansible_collections.onprem.airflow.plugins.module_utils._rabbitmq import password_hash


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"rabbitmq_password_hash": password_hash}
