# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(environment_file)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: environment_file
short_description: The text of an environment file for systemd and the shell
description:
  - Turns a dictionary into lines C(NAME="value"), sorted by name, quoted so that systemd's C(EnvironmentFile=) and a
    POSIX shell read back exactly the same value, whatever characters it holds.
positional: []
options:
  _input:
    description: Values by name.
    type: dict
    required: true
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Make the text
  ansible.builtin.set_fact:
    text: "{{ {'AIRFLOW_HOME': '/var/lib/airflow'} | onprem.airflow.environment_file }}"
    # => AIRFLOW_HOME="/var/lib/airflow"
"""

RETURN = r"""
_value:
  description: The text, ending in a line break.
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.airflow.plugins.module_utils._environment import quote, render


def environment_file(values: dict[str, t.Any]) -> str:
    """Render a dictionary; names the entry (never its value) that cannot be written."""
    for name, value in values.items():
        try:
            quote(str(value))
        except ValueError as exc:
            raise AnsibleFilterError(f"onprem.airflow.environment_file: {name}: {exc}") from exc
    return render(values)


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"environment_file": environment_file}
