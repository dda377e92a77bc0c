# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(service_url)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: service_url
short_description: A URL with user and password in which every part is percent-encoded
description:
  - Builds the URL of a broker or database from its parts, so that no character of a password, user or virtual host
    is taken for a part of the URL.
  - Every character but letters, digits, C(-), C(.), C(_) and C(~) is encoded. So is C($), which Airflow would expand
    like a shell.
positional: scheme
options:
  _input:
    description:
      - The parts, as a dictionary with C(host) and C(path) (the database or virtual host, without a slash before it),
        and if need be C(port), C(user), C(password) and C(query), a dictionary.
    type: dict
    required: true
  scheme:
    description: What stands before C(://).
    type: str
    required: true
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Make the URL
  ansible.builtin.set_fact:
    url: "{{ {'host': 'mq1', 'port': 5672, 'user': 'airflow', 'password': 'p@ss/w%rd', 'path': 'airflow'}
             | onprem.airflow.service_url('amqp') }}"
    # => amqp://airflow:p%40ss%2Fw%25rd@mq1:5672/airflow
"""

RETURN = r"""
_value:
  description: The URL.
  type: str
"""

import typing as t
from urllib.parse import quote

from ansible.errors import AnsibleFilterError


def service_url(parts: dict[str, t.Any], scheme: str) -> str:
    """Build the URL; raises AnsibleFilterError naming a part that is missing."""
    missing = [name for name in ("host", "path") if not parts.get(name)]
    if missing:
        raise AnsibleFilterError(f"onprem.airflow.service_url: the {scheme} URL lacks its {' and '.join(missing)}")

    def encoded(name: str) -> str:
        return quote(str(parts[name]), safe="")

    login = ""
    if parts.get("user"):
        login = encoded("user") + (":" + encoded("password") if parts.get("password") else "") + "@"
    host = str(parts["host"])
    host = f"[{host}]" if ":" in host else host
    port = f":{parts['port']}" if parts.get("port") else ""
    pairs = ((quote(str(key), safe=""), quote(str(value), safe="")) for key, value in parts.get("query", {}).items())
    query = "&".join(f"{key}={value}" for key, value in pairs)
    return f"{scheme}://{login}{host}{port}/{encoded('path')}" + (f"?{query}" if query else "")


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"service_url": service_url}
