# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(worker_units)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: worker_units
short_description: The systemd units of worker services
description:
  - Makes a unit for each service from a unit that all have in common.
  - A unit does not start while its file in C(/etc/airflow/drained) is not empty, see M(onprem.airflow.drain).
positional: unit, program
options:
  _input:
    description: What P(onprem.airflow.worker_services#filter) returns.
    type: list
    elements: dict
    required: true
  unit:
    description: The sections that all units have, each a dictionary.
    type: dict
    required: true
  program:
    description: The path of the C(airflow) command.
    type: str
    required: true
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Services | Write the units
  onprem.airflow.files:
    files: "{{ services | onprem.airflow.worker_units(unit, '/opt/airflow/current/bin/airflow')
      | onprem.airflow.systemd_units }}"
"""

RETURN = r"""
_value:
  description: The sections of each unit by its name, as P(onprem.airflow.systemd_units#filter) takes them.
  type: dict
"""

import typing as t

from ansible_collections.onprem.airflow.plugins.module_utils._drain import flag


def worker_units(
    services: list[dict[str, t.Any]], unit: dict[str, dict[str, t.Any]], program: str
) -> dict[str, dict[str, dict[str, t.Any]]]:
    """Make the units."""
    units = {}
    for position, service in enumerate(services):
        # Not by deepcopy: what Ansible hands over has all of the templating behind it.
        sections = {section: dict(settings) for section, settings in unit.items()}
        name = service["name"]
        command = [program, "celery", "worker", "--queues", ",".join(service["queues"])]
        command += ["--concurrency", str(service["concurrency"])]
        # %% is systemd's way to write a %, and %h is Celery's for the name of the host.
        command += ["--celery-hostname", f"{service['node']}@%%h"] if name else []
        sections.setdefault("Unit", {})["Description"] = "Airflow Celery worker" + (f" {name}" if name else "")
        sections["Unit"]["ConditionFileNotEmpty"] = f"!{flag(service['unit'])}"
        sections.setdefault("Service", {})["ExecStart"] = " ".join(command)
        if position:
            sections["Service"]["Environment"] = f"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT={service['log_port']}"
        units[service["unit"]] = sections
    return units


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"worker_units": worker_units}
