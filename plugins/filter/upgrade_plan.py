# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(upgrade_plan)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: upgrade_plan
short_description: Which release each host gets, or why it must not
description:
  - Judges what M(onprem.airflow.releases) found on the hosts and which release the inventory wants.
  - Both are variables of the hosts, C(__airflow_releases) and C(__airflow_wanted), which the tasks file C(releases) of
    the role P(onprem.airflow.airflow#role) makes.
positional: hostvars
options:
  _input:
    description: The names of the hosts of this run.
    type: list
    elements: str
    required: true
  hostvars:
    description: The magic variable C(hostvars).
    type: dict
    required: true
  masters:
    description: The names of all masters.
    type: list
    elements: str
    default: []
  force:
    description: Whether hosts may run several other releases.
    type: bool
    default: false
  back:
    description: Whether to go back to the release before, in place of the wanted one.
    type: bool
    default: false
  to:
    description: With O(back), the name or the version of the release to go back to.
    type: str
    default: ""
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Tell what an upgrade would do
  ansible.builtin.debug:
    msg: "{{ (ansible_play_hosts | onprem.airflow.upgrade_plan(hostvars)).lines }}"
"""

RETURN = r"""
_value:
  description:
    - C(targets), the release that each host gets; C(lines), what that means, for a person; C(problems), why it must not
      be done, a line each.
    - C(due), whether there is anything to do; C(begun), whether a master has its release already.
  type: dict
"""

import typing as t

from ansible_collections.onprem.airflow.plugins.module_utils._upgrade import Host, plan_rollback, plan_upgrade


def upgrade_plan(
    hosts: t.Sequence[str],
    hostvars: t.Mapping[str, t.Any],
    masters: t.Sequence[str] = (),
    force: bool = False,
    back: bool = False,
    to: str = "",
) -> dict[str, t.Any]:
    """Read the hosts' variables and plan."""
    found = []
    for name in hosts:
        releases = hostvars[name]["__airflow_releases"]
        found.append(
            Host(
                name,
                wanted=str(hostvars[name]["__airflow_wanted"]["release"]),
                is_master=name in masters,
                **{key: releases[key] for key in ("current", "previous", "installed", "units")},
            )
        )
    absent = [name for name in masters if name not in hosts]
    return (plan_rollback(found, str(to), absent) if back else plan_upgrade(found, absent, force)).as_dict()


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"upgrade_plan": upgrade_plan}
