# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter C(systemd_units)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: systemd_units
short_description: Unit files from dictionaries, for the module files
description:
  - Turns units into entries for M(onprem.airflow.files), one file each in C(/etc/systemd/system).
  - Sections and settings keep their order. A list gives one line for each of its elements, V(null) leaves a setting
    out.
positional: settings
options:
  _input:
    description: The units by their full names, each a dictionary of sections with their settings.
    type: dict
    required: true
  settings:
    description:
      - Settings for the section C([Service]) that win over those of the unit, by the unit's name without its suffix.
    type: dict
    default: {}
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Services | Write the units
  onprem.airflow.files:
    files: "{{ units | onprem.airflow.systemd_units({'airflow-worker': {'MemoryMax': '8G'}}) }}"
  vars:
    units:
      airflow-worker.service:
        Unit: {Description: Airflow Celery worker}
        Service: {ExecStart: /opt/airflow/current/bin/airflow celery worker}
"""

RETURN = r"""
_value:
  description: Entries for the option O(onprem.airflow.files#module:files).
  type: list
  elements: dict
"""

import typing as t

HEADER = (
    "# Managed by Ansible: settings of your own go into a drop-in (systemctl edit) or into airflow_service_settings.\n"
)


def _line(key: str, value: t.Any) -> str:
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return f"{key}={value}\n"


def _lines(value: t.Any) -> list[t.Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def unit_text(sections: dict[str, dict[str, t.Any]]) -> str:
    """The text of a unit file."""
    parts = []
    for section, settings in sections.items():
        lines = [f"[{section}]\n"]
        for key, value in settings.items():
            lines += [_line(key, one) for one in _lines(value) if one is not None]
        parts.append("".join(lines))
    return HEADER + "\n".join(parts)


def systemd_units(
    units: dict[str, dict[str, dict[str, t.Any]]], settings: dict[str, dict[str, t.Any]] | None = None
) -> list[dict[str, str]]:
    """Make the entries for the module C(files)."""
    entries = []
    for name, sections in units.items():
        own = dict((settings or {}).get(name.rsplit(".", 1)[0], {}))
        # The one setting of which a unit may have lines of its own that another one must not take away.
        if "Environment" in own and "Environment" in sections["Service"]:
            own["Environment"] = [*_lines(sections["Service"]["Environment"]), *_lines(own["Environment"])]
        text = unit_text({**sections, "Service": {**sections["Service"], **own}})
        entries.append({"path": f"/etc/systemd/system/{name}", "content": text, "mode": "0644"})
    return entries


class FilterModule:
    """Register the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"systemd_units": systemd_units}
