# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The artifact, as a site gets it: installed in a folder of its own (lab/test.py build does that), used from another.

The checkout is out of Ansible's sight here, so a file that was not shipped is missed. molecule/single converges a host
from the same copy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
COLLECTIONS = CHECKOUT / "build" / "installed"
COPY = COLLECTIONS / "ansible_collections" / "onprem" / "airflow"
PLAYBOOKS = sorted(path.stem for path in (CHECKOUT / "playbooks").glob("*.yml"))
ROLES = sorted(path.name for path in (CHECKOUT / "roles").iterdir())
SHIPPED_FOLDERS = {"changelogs", "docs", "inventories", "meta", "playbooks", "plugins", "roles"}
SHIPPED_FILES = {"CHANGELOG.rst", "CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md"}

Ansible = Callable[..., str]


def names(folder: Path) -> set[str]:
    """The files below a folder, in the form of an archive's names, without what Python writes when it runs them."""
    found = {path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"}
    return {str(path.relative_to(folder)) for path in found}


def members(archive: Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return {member.name for member in opened if member.isfile()}


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    """Run a command of Ansible in another folder; anything on stderr, a warning for instance, fails the test."""

    def run(program: str, *arguments: str | Path, rc: int = 0) -> str:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        (tmp_path / "ansible.cfg").touch()
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        environment = kept | {
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
        }
        command = [sys.executable, "-m", "ansible", program, *map(str, arguments)]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
        assert ran.returncode == rc, ran.stdout + ran.stderr
        assert not ran.stderr
        return ran.stdout

    return run


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """The example, copied out of the installed collection as the README says."""
    return Path(shutil.copytree(COPY / "inventories" / "example", tmp_path / "production"))


def test_ansible_knows_the_copy_and_no_other(ansible: Ansible) -> None:
    found = json.loads(ansible("galaxy", "collection", "list", "onprem.airflow", "--format", "json"))
    version = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["version"]
    assert found == {str(COLLECTIONS / "ansible_collections"): {"onprem.airflow": {"version": version}}}


def test_it_holds_what_users_need_and_nothing_else() -> None:
    shipped = names(COPY)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.split("\0") if name.split("/")[0] in SHIPPED_FOLDERS}
    kept_back = {name for name in tracked if name.startswith(("inventories/lab/", "changelogs/fragments/"))}
    missing = {name for name in tracked - kept_back - shipped if (CHECKOUT / name).exists()}
    assert not missing
    assert {name.split("/")[0] for name in shipped} <= SHIPPED_FOLDERS | SHIPPED_FILES
    assert {name.split("/")[1] for name in shipped if name.startswith("inventories/")} == {"example", "single"}
    assert not {name for name in shipped if "secret" in name} - {
        "playbooks/secrets.yml",
        "plugins/module_utils/_secrets.py",
        "plugins/modules/secrets.py",
    }
    assert not {name for name in shipped if name.endswith((".pyc", ".retry"))}


def test_building_without_our_makefile_ships_the_same(ansible: Ansible, tmp_path: Path) -> None:
    """What git ignores (.venv, .lab with its secrets) stays out by galaxy.yml alone."""
    ansible("galaxy", "collection", "build", CHECKOUT, "--output-path", tmp_path)
    (archive,) = tmp_path.glob("onprem-airflow-*.tar.gz")
    assert members(archive) == names(COPY)


def listed(task: dict[str, t.Any]) -> list[str]:
    """What --list-tasks has of a task: its name, the role that it imports, or the tasks of its block."""
    if "block" in task:
        return [name for inner in task["block"] for name in listed(inner)]
    if role := task.get("ansible.builtin.import_role"):
        return [f"{role['name'].split('.')[-1]} : "]
    # What is in a file of tasks is in the role or beside the playbook; meta tasks are not listed.
    return [] if task.keys() & {"ansible.builtin.import_tasks", "ansible.builtin.meta"} else [task["name"]]


@pytest.mark.parametrize("option", ["--syntax-check", "--list-tasks"])
@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook_is_found_by_its_name(playbook: str, option: str, ansible: Ansible, inventory: Path) -> None:
    output = ansible("playbook", "-i", inventory, f"onprem.airflow.{playbook}", option)
    if option == "--list-tasks":
        plays = yaml.safe_load((CHECKOUT / "playbooks" / f"{playbook}.yml").read_text())
        tasks = [name for play in plays for task in play.get("tasks", []) for name in listed(task)]
        tasks += [f"{role['role'].split('.')[-1]} : " for play in plays for role in play.get("roles", [])]
        assert tasks and not [task for task in tasks if task not in output]


@pytest.mark.parametrize("kind", ["module", "filter"])
def test_every_plugin_has_its_page(kind: str, ansible: Ansible) -> None:
    folder = CHECKOUT / "plugins" / ("modules" if kind == "module" else kind)
    expected = {f"onprem.airflow.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"}
    assert set(json.loads(ansible("doc", "-t", kind, "--list", "--json", "onprem.airflow"))) == expected
    pages = json.loads(ansible("doc", "-t", kind, "--json", *sorted(expected)))
    for name, page in pages.items():
        assert page["doc"]["short_description"] and page["examples"].strip() and page["return"], name
        assert str(page["doc"]["filename"]).startswith(str(COPY)), name
    ansible("doc", "-t", kind, *sorted(expected))  # the page for people


def test_every_role_has_its_page(ansible: Ansible) -> None:
    roles = [f"onprem.airflow.{role}" for role in ROLES]
    pages = json.loads(ansible("doc", "-t", "role", "--json", *roles))
    assert sorted(pages) == roles
    for role, page in pages.items():
        assert Path(page["path"]) == COPY, role
        assert page["entry_points"]["main"]["options"], role
    page = ansible("doc", "-t", "role", *roles)
    assert all(role in page.lower() for role in ROLES)


def test_from_the_example_to_the_preflights_verdict(ansible: Ansible, inventory: Path) -> None:
    """Copy the inventory, make its secrets, and let preflight look: what a new user does before any host changes."""
    said = ansible("playbook", "-i", inventory, "onprem.airflow.secrets")
    made = inventory / "group_vars" / "all" / "airflow_secrets.yml"
    secrets = yaml.safe_load(made.read_text())
    assert made.stat().st_mode & 0o777 == 0o600
    assert len(secrets) == 8 and all(secrets.values())
    assert all(name in said and value not in said for name, value in secrets.items())

    # Six hosts that all are this machine: preflight has to say so, whatever else it finds here.
    here = ["-e", "ansible_connection=local", "-e", "ansible_become=false", "-e", "airflow_address=127.0.0.1"]
    here += ["-e", f"ansible_python_interpreter={sys.executable}"]
    output = ansible("playbook", "-i", inventory, "onprem.airflow.preflight", *here, rc=2)
    assert re.search(r"\[duplicate_address\]", output), output
    assert not re.search(r"\[secret_\w+\]", output), output
    assert not [name for name, value in secrets.items() if value in output]


def test_the_locks_are_the_checkouts() -> None:
    locks = Path("roles", "airflow", "files", "locks")
    expected = {path.name: path.read_bytes() for path in (CHECKOUT / locks).iterdir()}
    assert {path.name: path.read_bytes() for path in (COPY / locks).iterdir()} == expected
    assert [name for name in expected if name.startswith("python3.")]
