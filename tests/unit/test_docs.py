# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written for people is what the code does: tables, samples, names, links."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.airflow.plugins.module_utils import _preflight_inventory as checks
from test_preflight_inventory import COMMAND, KNOWN, inventory

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text()
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
PAGES += sorted((CHECKOUT / "roles").glob("*/README.md"))
EVERYTHING = "\n".join(page.read_text() for page in PAGES)


def load_docs() -> Any:
    spec = importlib.util.spec_from_file_location("docs", CHECKOUT / "lab" / "docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("role", sorted(path.name for path in (CHECKOUT / "roles").iterdir()))
def test_the_variables_of_a_role_are_current(role: str) -> None:
    folder = CHECKOUT / "roles" / role
    assert (folder / "README.md").read_text() == load_docs().readme(folder), "run lab/docs.py"


def test_the_sample_of_the_preflight_is_what_it_says() -> None:
    wrong = inventory(
        {"airflow_databse_host": "db1", "airflow_admin_password": "admin-admin-admin"},
        without=("airflow_fernet_key", "airflow_jwt_secret"),
        groups={"rabbitmq": []},
        hosts={"worker2": {"airflow_address": "worker1"}},
    )
    found = checks.merge(checks.check_inventory(wrong, KNOWN, COMMAND), list(wrong.hosts))
    sample = checks.render(found)
    assert len(found) == 5
    assert sample in README, sample


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)|(?:src|srcset|href)=\"([^\"]+)\"", page.read_text()):
        name = target[0] or target[1]
        assert name.startswith("https://") or (page.parent / name).exists(), name


def tags(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value.get("tags") or []
        for inner in value.values():
            yield from tags(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from tags(inner)


def test_tags_are_all_told() -> None:
    paths = [*(CHECKOUT / "playbooks").glob("*.yml"), *(CHECKOUT / "roles").glob("*/tasks/*.yml")]
    existing = {tag for path in paths for tag in tags(yaml.safe_load(path.read_text()))} - {"always"}
    (cell,) = re.findall(r"^\| `onprem\.airflow\.site` \|.*\| (.*) \|$", README, re.MULTILINE)
    assert set(re.findall(r"`([a-z_]+)`", cell)) == existing


def test_playbooks_and_roles_are_all_told() -> None:
    for kind in ("playbooks", "roles"):
        for path in (CHECKOUT / kind).glob("*.yml" if kind == "playbooks" else "*"):
            assert f"onprem.airflow.{path.stem}" in README, path.name


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    assert (
        set(
            re.findall(
                r"\bmake ([a-z][a-z-]+)", "\n".join(re.findall(r"`[^`]+`|^    .*$|^make .*$", EVERYTHING, re.MULTILINE))
            )
        )
        <= targets
    )


def test_variables_that_are_named_exist() -> None:
    known: set[str] = set(checks.PLAYBOOK_VARIABLES)
    for path in CHECKOUT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            known |= set(entry["options"])
    known |= {path.name for path in (CHECKOUT / "roles").iterdir()} | {"airflow_cluster", "airflow_results"}
    known |= set(tags([yaml.safe_load(path.read_text()) for path in CHECKOUT.glob("roles/*/tasks/*.yml")]))
    known |= {path.stem for path in CHECKOUT.glob("plugins/*/*.py")}
    known |= {"rabbitmq_management", "rabbitmq_prometheus"}
    named = set(re.findall(r"`((?:airflow|postgresql|rabbitmq)_[a-z_]+)`", EVERYTHING))
    assert named - known == set()


def test_files_that_are_named_exist() -> None:
    folders = {"playbooks", "plugins", "roles", "lab", "molecule", "tests", "inventories", "changelogs", "docs"}
    named = set(re.findall(r"`([a-z.]+/[A-Za-z0-9_./-]+)`", EVERYTHING))
    for name in named:
        # What a person makes by following the text is not there yet.
        if name.split("/")[0] in folders and not name.startswith("inventories/production/"):
            assert (CHECKOUT / name.rstrip("/")).exists(), name
