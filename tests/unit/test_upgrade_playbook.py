# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks upgrade and rollback, from host to host: real plays and roles, modules that only take notes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_preflight_inventory import SECRETS

CHECKOUT = Path(__file__).resolve().parents[2]
GROUPS = {
    "postgresql": ["db1"],
    "rabbitmq": ["mq1"],
    "airflow_master": ["master1", "master2"],
    "airflow_worker": ["worker1", "worker2"],
}
HOSTS = [host for hosts in GROUPS.values() for host in hosts]
AIRFLOW = HOSTS[2:]
OLD = "3.3.1-aaaaaaaa"

# Notes its arguments, and answers what the test says for its name and host.
STUB = """#!/usr/bin/python
import json, os, sys, time
DOCUMENTATION = "module: {module}\\nshort_description: x\\noptions: {{}}\\n"
WANT_JSON = True
with open(sys.argv[1], encoding="utf-8") as file:
    arguments = json.load(file)
host = arguments["_ansible_remote_tmp"].rsplit("/", 1)[-1]
check = arguments["_ansible_check_mode"]
noted = {{key: value for key, value in arguments.items() if not key.startswith("_ansible")}}
with open(f"{folder}/noted/{{time.monotonic_ns():020d}}-{{os.getpid()}}.json", "w", encoding="utf-8") as file:
    json.dump({{"module": "{module}", "host": host, "check": check, "arguments": noted}}, file)
with open("{folder}/answers.json", encoding="utf-8") as file:
    answers = json.load(file).get("{module}", {{}})
print(json.dumps({{"changed": False, **answers.get("*", {{}}), **answers.get(host, {{}})}}))
"""
# Added to the filter that derives from all hosts what each needs to know: notes each time that it is asked.
NOTED = """
derive = cluster
def cluster(*arguments):
    with open("{folder}/derived", "a") as file:
        file.write(".")
    return derive(*arguments)
"""
STUBS = (
    "airflow_user canary db_dump db_migrate drain executor_check files preflight release release_check releases service"
    " verify"
).split()


@dataclass
class Cluster:
    """The playbooks of this checkout with a cluster that does not exist."""

    folder: Path
    run: Callable[..., Any]
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def install(self, current: dict[str, str], previous: dict[str, str] | None = None) -> None:
        """What the module releases finds on each host."""
        for host, release in current.items():
            before = (previous or {}).get(host, "")
            names = {release, before} - {""}
            unit = "airflow-scheduler.service" if host.startswith("master") else "airflow-worker.service"
            self.answers["releases"][host] = {
                "current": release,
                "previous": before,
                "installed": {name: {"version": name[:5], "python": "3.13"} for name in names},
                "units": {unit: {"active": "active", "release": release, "held": False}},
                "removed": [],
            }

    def play(self, name: str, *arguments: str) -> Any:
        (self.folder / "answers.json").write_text(json.dumps(self.answers))
        shutil.rmtree(self.folder / "noted", ignore_errors=True)
        (self.folder / "noted").mkdir()
        return self.run(
            *("-i", self.folder / "hosts.yml", f"onprem.airflow.{name}", *arguments),
            json_output=False,
            ANSIBLE_COLLECTIONS_PATH=str(self.folder / "collections"),
            ANSIBLE_CALLBACK_RESULT_FORMAT="yaml",
        )

    def noted(self, *modules: str) -> list[dict[str, Any]]:
        """All calls of these modules, in order."""
        calls = [json.loads(path.read_text()) for path in sorted((self.folder / "noted").iterdir())]
        return [call for call in calls if call["module"] in modules]

    def steps(self) -> list[str]:
        """What was done to the running cluster, in order, one text for what was done to several hosts at once."""
        done: list[tuple[str, list[str]]] = []
        for call in self.noted("service", "db_migrate", "db_dump", "drain", "files", "release", "executor_check"):
            arguments = call["arguments"]
            if call["module"] == "service":
                if arguments.get("outdated") == "report":
                    continue
                units = [unit["name"].split(".")[0].removeprefix("airflow-") for unit in arguments["units"]]
                state = arguments["units"][0].get("state", "started")
                what = f"{state} {','.join(units)}"
            elif call["module"] == "db_migrate":
                if call["check"]:
                    continue
                release = arguments["release"].rpartition("/")[2]
                what = f"{arguments.get('state', 'present')} with {release}"
            elif call["module"] == "files":
                links = [
                    file
                    for file in arguments["files"]
                    if file["path"] in ("/opt/airflow/current", "/opt/airflow/previous")
                ]
                if not links:
                    continue
                what = f"{links[0]['path'].rpartition('/')[2]} {links[0]['link'].rpartition('/')[2]}"
            elif call["module"] == "executor_check":
                what = f"checked as {arguments['roles'][0]}"
            elif call["module"] == "drain":
                what = f"drain {arguments['state']}"
            else:
                what = call["module"]
            if done and done[-1][0] == what:
                done[-1][1].append(call["host"])
            else:
                done.append((what, [call["host"]]))
        return [f"{what}: {' '.join(sorted(hosts))}" for what, hosts in done]


@pytest.fixture
def cluster(tmp_path: Path, ansible_playbook: Callable[..., Any]) -> Cluster:
    target = tmp_path / "collections" / "ansible_collections" / "onprem" / "airflow"
    target.mkdir(parents=True)
    for name in ("roles", "playbooks"):
        shutil.copytree(CHECKOUT / name, target / name)
    for name in ("meta", "galaxy.yml"):
        (target / name).symlink_to(CHECKOUT / name)
    for name in ("doc_fragments", "module_utils"):
        (target / "plugins").mkdir(exist_ok=True)
        (target / "plugins" / name).symlink_to(CHECKOUT / "plugins" / name)
    shutil.copytree(CHECKOUT / "plugins" / "filter", target / "plugins" / "filter")
    with (target / "plugins" / "filter" / "cluster.py").open("a") as file:
        file.write(NOTED.format(folder=tmp_path))
    (target / "plugins" / "modules").mkdir()
    for module in STUBS:
        text = STUB.format(module=module, folder=tmp_path)
        (target / "plugins" / "modules" / f"{module}.py").write_text(text)
    # Verify has tests of its own.
    look = {
        "hosts": "airflow_cluster",
        "gather_facts": False,
        "tasks": [{"onprem.airflow.verify": {}, "run_once": True}],
    }
    (target / "playbooks" / "verify.yml").write_text(yaml.safe_dump([look]))
    # Without Debian's packages and the user.
    install = target / "roles" / "airflow" / "tasks" / "install.yml"
    install.write_text(
        yaml.safe_dump([{"name": "Install", "onprem.airflow.release": {"path": "{{ __airflow_release }}"}}])
    )
    shared = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "ansible_become": False,
        "ansible_remote_tmp": f"{tmp_path}/tmp/{{{{ inventory_hostname }}}}",
        **SECRETS,
    }
    children = {group: {"hosts": dict.fromkeys(hosts)} for group, hosts in GROUPS.items()}
    inventory = {"all": {"vars": shared, "children": {"airflow_cluster": {"children": children}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory, allow_unicode=True))
    facts = {
        "distribution": "Debian",
        "distribution_major_version": "13",
        "python": {"version": {"major": 3, "minor": 13}},
        "memtotal_mb": 4096,
        "processor_vcpus": 2,
        "all_ipv4_addresses": ["192.0.2.1"],
        "all_ipv6_addresses": [],
    }
    nothing: dict[str, Any] = {"current": "", "previous": "", "installed": {}, "units": {}, "removed": []}
    made = Cluster(tmp_path, ansible_playbook)
    made.answers = {
        "preflight": {"*": {"ansible_facts": facts, "problems": []}},
        "releases": {"*": nothing},
        "release_check": {"*": {"problems": [], "version": "3.3.2"}},
        "db_migrate": {"*": {"behind": []}},
        "db_dump": {"*": {"path": "/var/backups/airflow/a.dump"}},
        "service": {"*": {"steps": {}, "outdated": [], "held": [], "strays": [], "due": []}},
        "executor_check": {"*": {"problems": [], "report": {}}},
    }
    made.install(dict.fromkeys(AIRFLOW, OLD))
    return made


def wanted(cluster: Cluster, known: list[str] = []) -> str:  # noqa: B006  # made once for all tests
    """The release that the inventory names, from a run that only looks."""
    if known:
        return known[0]
    ran = cluster.play("upgrade", "--check")
    assert ran.rc == 0, ran.output
    known.append(str(cluster.noted("release")[0]["arguments"]["path"].rpartition("/")[2]))
    return known[0]


REST = "scheduler,dag-processor,triggerer"
ALL = f"api-server,{REST}"


def test_upgrade_without_a_migration(cluster: Cluster) -> None:
    new = wanted(cluster)
    (cluster.folder / "derived").unlink()
    ran = cluster.play("upgrade")
    assert ran.rc == 0, ran.output
    # Not by every task of every host, which would cost the square of their number.
    assert len((cluster.folder / "derived").read_text()) <= len(HOSTS)
    assert cluster.steps() == [
        "release: master1 master2 worker1 worker2",
        "db_dump: db1",
        f"previous {OLD}: master1 master2 worker1 worker2",
        f"current {new}: master1",
        "present with current: master1",
        "started api-server: master1",
        f"current {new}: master2",
        "present with current: master2",
        "started api-server: master2",
        f"started {ALL}: master1",
        "checked as airflow_master: master1",
        f"started {ALL}: master2",
        "checked as airflow_master: master2",
        f"current {new}: worker1",
        "started worker,watchdog: worker1",
        "checked as airflow_worker: worker1",
        f"current {new}: worker2",
        "started worker,watchdog: worker2",
        "checked as airflow_worker: worker2",
    ]
    assert f"master1, master2, worker1, worker2: {OLD} -> {new}" in ran.output
    assert f"All hosts run {new}." in ran.output
    assert "onprem.airflow.rollback" in ran.output
    assert len(cluster.noted("verify")) == 1
    assert {call["arguments"].get("keep") for call in cluster.noted("releases")} == {None, 3}


def test_a_migration_stops_all_schedulers_first(cluster: Cluster) -> None:
    new = wanted(cluster)
    cluster.answers["db_migrate"]["*"]["behind"] = ["alembic_version: a -> b"]
    ran = cluster.play("upgrade")
    assert ran.rc == 0, ran.output
    steps = cluster.steps()
    at = steps.index(f"stopped {REST}: master1 master2")
    assert steps[at + 1] == f"present with {new}: master1"
    assert steps[at - 1] == f"previous {OLD}: master1 master2 worker1 worker2"
    assert steps[at + 2] == f"current {new}: master1"


def test_nothing_to_do(cluster: Cluster) -> None:
    new = wanted(cluster)
    cluster.install(dict.fromkeys(AIRFLOW, new), dict.fromkeys(AIRFLOW, OLD))
    ran = cluster.play("upgrade")
    assert ran.rc == 0, ran.output
    assert "Nothing to do" in ran.output
    assert cluster.steps() == []
    assert cluster.noted("verify", "executor_check") == []


def test_an_upgrade_that_was_cut_off_goes_on_without_another_dump(cluster: Cluster) -> None:
    new = wanted(cluster)
    cluster.install({"master1": new}, {"master1": OLD})
    ran = cluster.play("upgrade")
    assert ran.rc == 0, ran.output
    steps = cluster.steps()
    assert not [step for step in steps if step.startswith("db_dump")]
    assert f"previous {OLD}: master2 worker1 worker2" in steps
    assert {call["host"] for call in cluster.noted("release_check")} == {"master2", "worker1", "worker2"}


@pytest.mark.parametrize(
    ("module", "answer", "host", "told", "last"),
    [
        ("release", {"failed": True, "msg": "no index"}, "worker2", "before it touched anything", "release"),
        ("db_dump", {"failed": True, "msg": "disk full"}, "db1", "could not be dumped", "db_dump"),
        (
            "airflow_user",
            {"failed": True, "msg": "x"},
            "master1",
            "at the API server of master1. Switched to {new} so far: master1.",
            "present with current",
        ),
        (
            "executor_check",
            {"problems": [{"code": "c", "check": "api", "what": "w", "fix": "f"}]},
            "master2",
            "of master2. Switched to {new} so far: master1, master2.",
            "checked as airflow_master",
        ),
        (
            "executor_check",
            {"problems": [{"code": "c", "check": "worker", "what": "w", "fix": "f"}]},
            "worker1",
            "at the workers worker1. Switched to {new} so far: master1, master2, worker1.",
            "checked as airflow_worker",
        ),
    ],
)
def test_a_stage_that_fails_says_where_everything_stands(
    cluster: Cluster, module: str, answer: dict[str, Any], host: str, told: str, last: str
) -> None:
    new = wanted(cluster)
    cluster.answers.setdefault(module, {})[host] = answer
    ran = cluster.play("upgrade")
    assert ran.rc == 2, ran.output
    output = " ".join(ran.output.split())
    assert told.format(new=new) in output
    assert "onprem.airflow.upgrade" in output
    assert cluster.steps()[-1].startswith(last)
    assert ("onprem.airflow.rollback" in output) == (module not in ("release", "db_dump"))


def test_settings_that_the_release_does_not_know_are_told_once(cluster: Cluster) -> None:
    problem = {"code": "key_unknown", "what": "[a] b means nothing", "fix": "Take it out and run onprem.airflow.site."}
    for host in ("master1", "worker1"):
        cluster.answers["release_check"][host] = {"problems": [problem]}
    ran = cluster.play("upgrade")
    assert ran.rc == 2, ran.output
    line = "master1, worker1: [a] b means nothing. Fix: Take it out and run onprem.airflow.upgrade."
    assert line in " ".join(ran.output.split())
    assert cluster.steps() == ["release: master1 master2 worker1 worker2"]


def test_what_must_not_be_done_is_refused_before_anything(cluster: Cluster) -> None:
    cluster.install({"worker2": ""})
    ran = cluster.play("upgrade", "-e", "airflow_database_host=elsewhere")
    assert ran.rc == 2, ran.output
    output = " ".join(ran.output.split())
    assert "worker2: has no release of Airflow yet" in output
    assert "airflow_backup=false" in output
    assert cluster.steps() == []


# --- Rollback
def test_rollback_takes_workers_first_and_the_schema_before_the_masters(cluster: Cluster) -> None:
    new = "3.3.2-bbbbbbbb"
    cluster.install(dict.fromkeys(AIRFLOW, new), dict.fromkeys(AIRFLOW, OLD))
    cluster.answers["db_migrate"]["*"] = {"ahead": ["alembic_version: b -> a"]}
    ran = cluster.play("rollback")
    assert ran.rc == 0, ran.output
    assert cluster.steps() == [
        f"previous {OLD}: master1 master2 worker1 worker2",
        f"current {OLD}: worker1",
        "started worker,watchdog: worker1",
        "checked as airflow_worker: worker1",
        f"current {OLD}: worker2",
        "started worker,watchdog: worker2",
        "checked as airflow_worker: worker2",
        f"stopped {REST}: master1 master2",
        f"downgraded with {OLD}: master1",
        f"current {OLD}: master1",
        "present with current: master1",
        "started api-server: master1",
        f"current {OLD}: master2",
        "present with current: master2",
        "started api-server: master2",
        f"started {ALL}: master1",
        "checked as airflow_master: master1",
        f"started {ALL}: master2",
        "checked as airflow_master: master2",
    ]
    assert 'airflow_version: "3.3.1"' in " ".join(ran.output.split())
    # The way back stays what it is: rolled back twice is rolled back.
    links = [
        file for call in cluster.noted("files") for file in call["arguments"]["files"] if "current" in file["path"]
    ]
    assert {file.get("former") for file in links} <= {"", None}


def test_rollback_with_nothing_to_do(cluster: Cluster) -> None:
    cluster.install(dict.fromkeys(AIRFLOW, OLD), dict.fromkeys(AIRFLOW, OLD))
    cluster.answers["db_migrate"]["*"] = {"ahead": []}
    ran = cluster.play("rollback")
    assert ran.rc == 0, ran.output
    assert cluster.steps() == []
    assert "Nothing to do." in ran.output
    assert cluster.noted("verify") == []


def test_rollback_of_an_upgrade_that_only_migrated(cluster: Cluster) -> None:
    cluster.install(dict.fromkeys(AIRFLOW, OLD), dict.fromkeys(AIRFLOW, OLD))
    cluster.answers["db_migrate"]["*"] = {"ahead": ["alembic_version: b -> a"]}
    ran = cluster.play("rollback")
    assert ran.rc == 0, ran.output
    assert f"downgraded with {OLD}: master1" in cluster.steps()
    assert f"started {ALL}: master2" in cluster.steps()
