# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab seen from outside: its inventory, its hosts over SSH, its API over HTTP."""

from __future__ import annotations

import collections.abc
import contextlib
import json
import os
import pathlib
import shlex
import subprocess
import time
import typing as t
import urllib.error
import urllib.request
from urllib.parse import quote

import kombu
import kombu.pidbox
import pytest
import testinfra

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = os.environ.get("LAB_INVENTORY", "inventories/lab").split(",")
SSH_CONFIG = ROOT / ".lab" / "ssh_config"
# Molecule asks for colours, for more words than we search in, and for a log that is only of its own runs.
# As in the shell of a person, where Python keeps back what it writes into a file.
OURS = ("ANSIBLE_LOG_PATH", "ANSIBLE_VERBOSITY", "PYTHONUNBUFFERED")
PLAIN = {name: value for name, value in os.environ.items() if name not in OURS}
PLAIN |= {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
SECRETS = (
    "airflow_database_password",
    "airflow_results_database_password",
    "airflow_broker_password",
    "airflow_admin_password",
    "airflow_fernet_key",
    "airflow_jwt_secret",
    "airflow_api_secret_key",
    "rabbitmq_erlang_cookie",
)


class Lab:
    """The inventory that the lab was made from, and ways to its hosts."""

    def __init__(self) -> None:
        arguments = [argument for source in SOURCES for argument in ("-i", str(ROOT / source))]
        done = subprocess.run(
            ["ansible-inventory", *arguments, "--list"], cwd=ROOT, env=PLAIN, capture_output=True, text=True, check=True
        )
        inventory = json.loads(done.stdout)
        self.variables: dict[str, dict[str, t.Any]] = inventory["_meta"]["hostvars"]
        self.groups: dict[str, list[str]] = {name: group.get("hosts", []) for name, group in inventory.items()}
        self.hosts = sorted(self.variables)
        self.masters = self.groups["airflow_master"]
        self.workers = self.groups["airflow_worker"]
        self.database = self.groups["postgresql"][0]
        self.broker = self.groups["rabbitmq"][0]
        self.secrets = {name: str(self.variables[self.hosts[0]][name]) for name in SECRETS}
        self.arguments = arguments
        self._api: Api | None = None

    def address(self, host: str) -> str:
        return str(self.variables[host]["ansible_host"])

    @contextlib.contextmanager
    def mailbox(self) -> collections.abc.Iterator[kombu.pidbox.Mailbox]:
        """Celery's remote control of the workers, over the broker."""
        login = f"airflow:{quote(self.secrets['airflow_broker_password'], safe='')}"
        url = f"amqp://{login}@{self.address(self.broker)}:5672/airflow"
        with kombu.Connection(url, connect_timeout=5) as connection:
            yield kombu.pidbox.Mailbox("celery", type="fanout", queue_exclusive=True)(connection)

    def api(self) -> Api:
        """The first master's API, logged in as its administrator when it is first asked for."""
        if self._api is None:
            url = f"http://{self.address(self.masters[0])}:8080"
            self._api = Api(url, "admin", self.secrets["airflow_admin_password"])
        return self._api

    def host(self, name: str, *, sudo: bool = True) -> t.Any:
        """A host to run commands on, as root through sudo or as the ordinary user."""
        return testinfra.get_host(f"ssh://{name}", ssh_config=str(SSH_CONFIG), sudo=sudo)

    def sql(self, query: str, database: str = "airflow") -> list[list[str]]:
        """Rows of a query, run by the database's own administrator on its host."""
        command = ["runuser", "-u", "postgres", "--", "psql", "-XAt", "-F", "\t", "-d", database, "-c", query]
        out = self.host(self.database).check_output(shlex.join(command))
        return [line.split("\t") for line in out.splitlines()]


class Api:
    """Airflow's public API as a logged-in person has it."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url
        self.token = ""
        self.token = self.call("POST", "/auth/token", {"username": user, "password": password})["access_token"]

    def call(self, method: str, path: str, body: dict[str, t.Any] | None = None) -> t.Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"}
            | ({"Authorization": f"Bearer {self.token}"} if self.token else {}),
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read())

    def run_dag(self, dag: str, conf: dict[str, t.Any], timeout: float = 180) -> str:
        """Trigger a DAG and wait until it ended; returns the run's id, fails when it did not succeed."""
        end = time.monotonic() + timeout
        while True:  # a DAG that was just deployed takes a moment to be parsed
            try:
                run = self.call("POST", f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
                break
            except urllib.error.HTTPError as exc:
                if exc.code != 404 or time.monotonic() > end:
                    raise
                time.sleep(1)
        run_id = run["dag_run_id"]
        while run["state"] not in ("success", "failed"):
            assert time.monotonic() < end, f"{dag} {run_id} is still {run['state']} after {timeout} s"
            time.sleep(0.5)
            run = self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run_id}")
        assert run["state"] == "success", run
        return str(run_id)


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="session")
def api(lab: Lab) -> Api:
    return lab.api()


@pytest.fixture(scope="session")
def finished_run(api: Api, lab: Lab) -> str:
    """The id of a run of the lab's DAG that succeeded, with tasks enough for every worker."""
    return api.run_dag("lab_mapped", {"n": 6 * len(lab.workers)})
