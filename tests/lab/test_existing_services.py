# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL and RabbitMQ that exist already elsewhere: the lab's own, taken for somebody else's."""

from __future__ import annotations

import pathlib
import re
import subprocess
import typing as t

import pytest
from conftest import PLAIN, ROOT  # type: ignore[import-not-found]
from test_refusals import Cluster  # type: ignore[import-not-found]


def test_existing_servers_are_used_by_their_addresses(lab: t.Any, tmp_path: pathlib.Path) -> None:
    if len(lab.hosts) == 1:
        pytest.skip("the inventory with several hosts runs it")
    cluster = Cluster(lab)
    cluster.groups["postgresql"] = []
    cluster.groups["rabbitmq"] = []
    airflow = {*lab.masters, *lab.workers}
    cluster.hosts = {name: variables for name, variables in cluster.hosts.items() if name in airflow}
    cluster.set(airflow_database_host=lab.database, airflow_broker_host=lab.broker)

    command = ["ansible-playbook", "-i", str(cluster.write(tmp_path / "existing.json")), "onprem.airflow.site"]
    done = subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    recap = dict(re.findall(r"^(\S+) +: (ok=.*)$", done.stdout, re.MULTILINE))
    assert set(recap) == airflow, "other hosts were contacted"
    for host, counts in recap.items():
        assert "changed=0" in counts, f"{host} is another now:\n{done.stdout}"
    roles = set(re.findall(r"^TASK \[onprem\.airflow\.(\w+) : ", done.stdout, re.MULTILINE))
    assert roles == {"airflow", "airflow_master", "airflow_worker"}
