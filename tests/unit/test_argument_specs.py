# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of the roles: documented, with the same default everywhere, used, and existing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.onprem.airflow.plugins.module_utils import _preflight_inventory, _secrets
from conftest import COLLECTIONS
from jinja2 import meta, nodes

CHECKOUT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (CHECKOUT / "roles").iterdir())
PUBLIC = ("airflow_", "postgresql_", "rabbitmq_")
# Roles whose variables a role may read: itself, and those that have to be applied before it.
BEFORE = {"airflow_master": ["airflow"], "airflow_worker": ["airflow"]}
SECRET = re.compile(r"(password|secret|secret_key|fernet_key|cookie)$")


class Anything(dict[str, Any]):
    """Filters and tests of any name: only the variables matter here."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, str)


JINJA = jinja2.Environment()
JINJA.filters, JINJA.tests = Anything(JINJA.filters), Anything(JINJA.tests)


class Loader(yaml.SafeLoader):
    """YAML as Ansible's files have it."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def load(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader)


def defaults(role: str) -> dict[str, Any]:
    return load(CHECKOUT / "roles" / role / "defaults" / "main.yml") or {}


def entries(role: str) -> dict[str, Any]:
    found: dict[str, Any] = load(CHECKOUT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    return found


def options(role: str, entry: str = "main") -> dict[str, dict[str, Any]]:
    return entries(role)[entry]["options"] or {}


def every_option(found: dict[str, dict[str, Any]], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Options with those inside of them, by their path."""
    for name, option in found.items():
        yield f"{path}{name}", option
        yield from every_option(option.get("options") or {}, f"{path}{name}.")


ALL_DEFAULTS = {name: value for role in ROLES for name, value in defaults(role).items()}
ALL_OPTIONS = {name for role in ROLES for entry in entries(role) for name in options(role, entry)}


# --- Jinja of YAML files and templates ---------------------------------------------------------------------------


def expressions(value: Any, key: str = "") -> Iterator[str]:
    """Every Jinja template in a YAML structure; conditions count as templates."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from expressions(name)
            yield from expressions(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner, key)
    elif isinstance(value, str):
        if key in ("when", "until", "failed_when", "changed_when", "that"):
            yield "{{ " + value + " }}"
        elif "{{" in value or "{%" in value:
            yield value


def assigned(value: Any) -> Iterator[str]:
    """Variables that tasks make: by register and vars."""
    if isinstance(value, dict):
        if "register" in value:
            yield value["register"]
        if isinstance(value.get("vars"), dict):
            yield from value["vars"]
        for inner in value.values():
            yield from assigned(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from assigned(inner)


def guarded(path: Path) -> set[str]:
    """Variables that a file reads only with a default, or after asking whether they are defined."""
    found: set[str] = set()
    for template in parsed(path):
        asking = [node for node in template.find_all(nodes.Filter) if node.name == "default"]
        asking += [node for node in template.find_all(nodes.Test) if node.name == "defined"]
        found |= {node.node.name for node in asking if isinstance(node.node, nodes.Name)}
    return found


def role_files(role: str, *folders: str) -> list[Path]:
    """Files of a role in these folders; without any, all that hold Jinja."""
    found = [CHECKOUT / "roles" / role / folder for folder in folders or ("tasks", "vars", "templates", "defaults")]
    return sorted(path for folder in found for path in folder.rglob("*") if path.is_file())


def parsed(path: Path) -> Iterator[nodes.Template]:
    """The templates of a file."""
    for text in [path.read_text()] if path.suffix == ".j2" else expressions(load(path)):
        # Ansible leaves a backslash in a text of Jinja alone.
        yield JINJA.parse(text.replace("\\", "\\\\"))


def variables_read(path: Path) -> set[str]:
    return {name for template in parsed(path) for name in meta.find_undeclared_variables(template)}


PLAYBOOK_FILES = sorted((CHECKOUT / "playbooks").rglob("*.yml"))
READ_IN_ROLES = {role: {path: variables_read(path) for path in role_files(role)} for role in ROLES}
READ_IN_PLAYBOOKS = {path: variables_read(path) for path in PLAYBOOK_FILES}


# --- Defaults and specification ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_of_the_specification(role: str) -> None:
    """The text of a Jinja default too: ansible-doc shows it, the role uses the other."""
    documented = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert documented == defaults(role)


@pytest.mark.parametrize("role", ROLES)
def test_what_has_no_default_is_named_in_the_defaults_as_required(role: str) -> None:
    text = (CHECKOUT / "roles" / role / "defaults" / "main.yml").read_text()
    named = dict(re.findall(r"^# ([a-z_]+): \((required[^)]*)\)", text, re.MULTILINE))
    without = {name: option for name, option in options(role).items() if "default" not in option}
    assert set(named) == set(without)
    for name, words in named.items():
        # "required on masters" cannot be required of every host that the role runs on.
        assert without[name].get("required", False) == (not words.startswith("required on")), name


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_described_and_typed(role: str) -> None:
    for entry in entries(role):
        assert entries(role)[entry]["short_description"] and entries(role)[entry]["description"]
        for path, option in every_option(options(role, entry)):
            description = option.get("description") or ""
            assert "".join(description).strip(), f"{role}: {path} has no description"
            assert option.get("type"), f"{role}: {path} has no type"
            assert option["type"] != "list" or option.get("elements"), f"{role}: {path} does not say of what"


@pytest.mark.parametrize("role", ROLES)
def test_secrets_have_no_default_and_are_not_logged(role: str) -> None:
    for entry in entries(role):
        for path, option in every_option(options(role, entry)):
            if SECRET.search(path):
                assert option.get("no_log") is True, f"{role}: {path} may be logged"
                assert "default" not in option, f"{role}: {path} has a default"


def test_the_secrets_that_one_command_makes_are_those_of_the_roles() -> None:
    everything = [one for role in ROLES for one in options(role).items()]
    without = {name for name, option in everything if option.get("no_log") and "default" not in option}
    assert without == set(_secrets.NAMES) == set(_preflight_inventory.SECRETS)
    (play,) = load(CHECKOUT / "playbooks" / "secrets.yml")
    assert set(play["vars"]["__airflow_secrets_names"]) == without


@pytest.mark.parametrize("role", ROLES)
def test_defaults_fit_their_types(role: str) -> None:
    types = {"str": str, "path": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict}
    for path, option in every_option(options(role)):
        value = option.get("default")
        if value is not None and not (isinstance(value, str) and "{{" in value):
            assert isinstance(value, types[option["type"]]), f"{role}: {path}"
            assert value in option.get("choices", [value]), f"{role}: {path}"


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_its_tasks_and_references_exist(role: str) -> None:
    for entry in entries(role):
        assert (CHECKOUT / "roles" / role / "tasks" / f"{entry}.yml").is_file()
    text = (CHECKOUT / "roles" / role / "meta" / "argument_specs.yml").read_text()
    for name in re.findall(r"\bO\(([a-z_]+)\)", text):
        assert name in {name for entry in entries(role) for name in options(role, entry)}, name
    for name, kind in re.findall(r"\b[PMO]\(onprem\.airflow\.([a-z_]+)#([a-z]+)", text):
        where = {"role": f"roles/{name}", "module": f"plugins/modules/{name}.py", "filter": f"plugins/filter/{name}.py"}
        assert (CHECKOUT / where[kind]).exists(), name


@pytest.mark.parametrize("role", ROLES)
def test_every_public_variable_begins_with_a_role(role: str) -> None:
    """So that the preflight can tell a misspelt one."""
    prefix = "airflow_" if role.startswith("airflow") else f"{role}_"
    assert all(name.startswith(prefix) for name in [*defaults(role), *options(role)])
    inside = load(CHECKOUT / "roles" / role / "vars" / "main.yml")
    assert all(name.startswith(f"__{prefix}") for name in inside)


# --- Use ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_that_a_role_reads_exists(role: str) -> None:
    within = [role, *BEFORE.get(role, [])]
    cluster = set(load(CHECKOUT / "playbooks" / "vars" / "cluster.yml"))
    known = {name for one in within for entry in entries(one) for name in options(one, entry)}
    inside = {name for one in within for name in load(CHECKOUT / "roles" / one / "vars" / "main.yml")}
    inside |= {name for one in within for path in role_files(one, "tasks") for name in assigned(load(path))}
    for path, names in READ_IN_ROLES[role].items():
        for name in names:
            where = f"{path.relative_to(CHECKOUT)} reads {name}"
            if name.startswith("__airflow_cluster_"):
                assert name in cluster, where
                assert name in guarded(path), (
                    f"{where} without a default: the role would not work without the playbooks"
                )
            elif name.startswith("__"):
                assert name in inside, where
            elif name.startswith(PUBLIC):
                # rabbitmq follows one variable of the cluster, with its default for use without it
                assert name in known or (role, name) == ("rabbitmq", "airflow_longest_task"), where


def test_every_variable_that_a_playbook_reads_exists() -> None:
    assert READ_IN_PLAYBOOKS
    known = ALL_OPTIONS | set(_preflight_inventory.PLAYBOOK_VARIABLES)
    for path, names in READ_IN_PLAYBOOKS.items():
        for name in names:
            assert not name.startswith(PUBLIC) or name in known, f"{path.name} reads {name}"


@pytest.mark.parametrize("name", sorted(ALL_DEFAULTS))
def test_every_variable_is_used(name: str) -> None:
    """In a role or a playbook, in the filter `cluster`, or, for those of the preflight, in its code."""
    if name.startswith("airflow_preflight_"):
        assert name in _preflight_inventory.PREFLIGHT_DEFAULTS
        return
    read = [names for role in READ_IN_ROLES.values() for names in role.values()] + list(READ_IN_PLAYBOOKS.values())
    # The filter reads other hosts' variables by their names.
    assert (
        any(name in names for names in read)
        or f'"{name}"' in (CHECKOUT / "plugins" / "filter" / "cluster.py").read_text()
    )


@pytest.mark.parametrize("role", ROLES)
def test_roles_name_no_group(role: str) -> None:
    """Addresses reach them as variables, so that a role serves any inventory."""
    for path, names in READ_IN_ROLES[role].items():
        assert not names & {"groups", "group_names"}, path


# --- The same default wherever one stands -------------------------------------------------------------------------


def jinja_defaults(template: nodes.Template) -> Iterator[tuple[str, nodes.Expr]]:
    """(variable, the expression it defaults to) of every `variable | default(...)`."""
    for found in template.find_all(nodes.Filter):
        if found.name in ("default", "d") and isinstance(found.node, nodes.Name) and found.args:
            yield found.node.name, found.args[0]


def expression(value: Any) -> nodes.Expr:
    """What a default of a role is, as Jinja sees it."""
    text = str(value)
    template = value if isinstance(value, str) and text.startswith("{{") else "{{ " + repr(value) + " }}"
    (output,) = JINJA.parse(template).body
    assert isinstance(output, nodes.Output)
    return output.nodes[0]


def cluster_defaults() -> list[tuple[str, str, nodes.Expr]]:
    paths = [*PLAYBOOK_FILES, *(path for role in ROLES for path in role_files(role))]
    found = [(path, *one) for path in paths for template in parsed(path) for one in jinja_defaults(template)]
    return [(str(path.relative_to(CHECKOUT)), name, value) for path, name, value in found if name in ALL_DEFAULTS]


def test_a_default_of_a_playbook_is_that_of_the_role() -> None:
    """A playbook cannot see a role's defaults, so they stand there a second time."""
    found = cluster_defaults()
    named = {name for _path, name, _value in found}
    assert {"airflow_database_name", "airflow_queue_type", "airflow_broker_user"} <= named
    for path, name, value in found:
        if path == "playbooks/deploy_dags.yml":  # the same for not set and for set to nothing
            continue
        assert value == expression(ALL_DEFAULTS[name]), f"{path}: {name}"


def test_defaults_in_code_are_those_of_the_roles() -> None:
    for name, value in _preflight_inventory.PREFLIGHT_DEFAULTS.items():
        assert ALL_DEFAULTS[name] == value
    for name, value in _preflight_inventory.PASSWORDS.values():
        assert ALL_DEFAULTS[name] == value
    paths = [*(CHECKOUT / "plugins").rglob("*preflight*.py"), CHECKOUT / "plugins" / "filter" / "cluster.py"]
    code = "".join(path.read_text() for path in paths)
    numbers = re.findall(r'get\("((?:airflow|postgresql|rabbitmq)_[a-z_]+)"\)?(?:,| or) (\d+)\)', code)
    assert {("postgresql_port", "5432"), ("airflow_master_api_workers", "1")} <= set(numbers)
    for name, value in numbers:
        default = ALL_DEFAULTS[name]
        # The port of the results follows that of the metadata database.
        assert (ALL_DEFAULTS["airflow_database_port"] if "{{" in str(default) else default) == int(value), name


# --- For people ---------------------------------------------------------------------------------------------------


def test_ansible_doc_shows_the_roles(tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").touch()
    environment = {
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_HOME": str(tmp_path),
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
    }
    command = [sys.executable, "-m", "ansible", "doc", "-t", "role", *(f"onprem.airflow.{role}" for role in ROLES)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    # ansible-core 2.21 warns of a collection inside itself.
    warnings = [line for line in ran.stderr.splitlines() if line and "/_protomatter'" not in line]
    assert ran.returncode == 0 and not warnings, ran.stderr
    assert [name for name in sorted(ALL_OPTIONS) if name not in ran.stdout] == []
