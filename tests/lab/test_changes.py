# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person changes in the inventory takes effect with the next run, and what he takes back is gone."""

from __future__ import annotations

import pathlib
import subprocess
import typing as t
import urllib.error

import pytest
import yaml
from conftest import PLAIN, ROOT, Api  # type: ignore[import-not-found]
from test_access import broker_login, login_from  # type: ignore[import-not-found]

# As nasty as the lab's own.
NEW = "changed @/%:#'$\\ {} %s"


def site(lab: t.Any, *arguments: str) -> str:
    command = ["ansible-playbook", *lab.arguments, *arguments, "onprem.airflow.site"]
    done = subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_changed_passwords_and_users_take_effect_and_can_be_taken_back(lab: t.Any, tmp_path: pathlib.Path) -> None:
    if len(lab.hosts) > 1:
        pytest.skip("the same roles on one host take half the time; the inventory with one host runs it")
    url = f"http://{lab.address(lab.masters[0])}:8080"
    names = ("airflow_results_database_password", "airflow_broker_password", "airflow_admin_password")
    old = {name: lab.secrets[name] for name in names}
    new = {name: f"{name.split('_')[1]} {NEW}" for name in names}
    watcher = {"name": "watcher", "password": f"watcher {NEW}", "vhost": "airflow", "tags": ["monitoring"]}
    overlay = tmp_path / "changes.yml"
    overlay.write_text(yaml.safe_dump(new | {"rabbitmq_extra_users": [watcher]}))

    def works(password: dict[str, str]) -> None:
        host = lab.workers[0]
        broker_login(lab, "airflow", password["airflow_broker_password"], "airflow")
        results = password["airflow_results_database_password"]
        assert login_from(lab, host, "airflow_results", "airflow_results", results).returncode == 0
        Api(url, "admin", password["airflow_admin_password"]).run_dag("lab_mapped", {"n": 2})

    def is_refused(password: dict[str, str]) -> None:
        with pytest.raises(Exception, match=r"403|ACCESS_REFUSED"):
            broker_login(lab, "airflow", password["airflow_broker_password"], "airflow")
        results = password["airflow_results_database_password"]
        assert login_from(lab, lab.workers[0], "airflow_results", "airflow_results", results).returncode != 0
        with pytest.raises(urllib.error.HTTPError, match="401"):
            Api(url, "admin", password["airflow_admin_password"])

    works(old)
    site(lab, "-e", f"@{overlay}")
    works(new)
    is_refused(old)
    broker_login(lab, "watcher", watcher["password"], "airflow")

    site(lab)
    works(old)
    is_refused(new)
    with pytest.raises(Exception, match=r"403|ACCESS_REFUSED"):
        broker_login(lab, "watcher", watcher["password"], "airflow")
    assert "changed=0" in site(lab), "a third run changes nothing"
