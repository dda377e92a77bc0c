# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(rabbitmq_definitions)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rabbitmq_definitions
short_description: The content of RabbitMQ's definitions file
description:
  - Makes users with salted password hashes, their permissions, virtual hosts and policies from the lists of the role
    P(onprem.airflow.rabbitmq#role).
  - The salts are derived from O(seed) and the users' names, so that the same password always gives the same file.
positional: vhosts, policies, seed
options:
  _input:
    description:
      - The users, each a dictionary with C(name), C(password), and if need be C(tags), C(vhost), and the rights
        C(configure), C(write), C(read) there, V(.*) when not given.
    type: list
    elements: dict
    required: true
  vhosts:
    description: The virtual hosts, each a dictionary with C(name), and if need be C(default_queue_type).
    type: list
    elements: dict
    required: true
  policies:
    description: The policies, each a dictionary with C(vhost), C(name), C(pattern), C(definition).
    type: list
    elements: dict
    required: true
  seed:
    description: Secret text.
    type: str
    required: true
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Make the content
  ansible.builtin.set_fact:
    definitions: "{{ users | onprem.airflow.rabbitmq_definitions(rabbitmq_vhosts, [], rabbitmq_erlang_cookie) }}"
  no_log: true
"""

RETURN = r"""
_value:
  description: The content, to be written as JSON.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.airflow.plugins.module_utils._rabbitmq import definitions


def rabbitmq_definitions(
    users: list[dict[str, t.Any]], vhosts: list[dict[str, t.Any]], policies: list[dict[str, t.Any]], seed: str
) -> dict[str, t.Any]:
    """Make the content; raises AnsibleFilterError naming the key that an entry lacks."""
    try:
        return definitions(users, vhosts, policies, seed)
    except KeyError as exc:
        raise AnsibleFilterError(f"onprem.airflow.rabbitmq_definitions: an entry lacks its key {exc}") from exc


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"rabbitmq_definitions": rabbitmq_definitions}
