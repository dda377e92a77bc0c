# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the modules that talk to Airflow's metadata database."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment C(onprem.airflow.metadata)."""

    DOCUMENTATION = r"""
options:
  release:
    description: The folder of the release whose Python and C(airflow) command are used.
    type: path
    default: /opt/airflow/current
  environment_files:
    description: The environment files of the services, as systemd reads them; a later file wins.
    type: list
    elements: path
    required: true
  user:
    description: The user that Airflow's command runs as.
    type: str
    default: airflow
  timeout:
    description: Seconds to wait until the database lets us in.
    type: int
    default: 60
"""
