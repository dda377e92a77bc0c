# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control machine's half of the preflight: what to ask each host, and the list at the end.

The documentation is in plugins/modules/preflight.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.onprem.airflow.plugins.module_utils import _preflight_inventory as checks

MODULE = "onprem.airflow.preflight"
REGISTERED = "__airflow_preflight"
# Set by the playbooks that change the release.
RELEASE_MAY_DIFFER = "__airflow_release_may_differ"
# What the roles read. The hardware subset is left out: it costs most of the time, and waits for dead network mounts;
# memory and CPUs come from our module instead.
GATHER_SUBSET = ["!all", "!min", "distribution", "network", "platform", "python"]
ROLES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "roles")

display = Display()


class ActionModule(ActionBase):
    """scope: host asks one host, scope: report judges the inventory and all answers."""

    _supports_check_mode = True
    _supports_diff = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        del tmp
        variables = task_vars or {}
        _validated, arguments = self.validate_argument_spec(
            argument_spec={"scope": {"type": "str", "choices": ["host", "report"], "default": "host"}}
        )
        if arguments["scope"] == "host":
            result.update(self._check_host(variables))
        else:
            result.update(self._report(variables))
        return result

    # --- scope: host -------------------------------------------------------------------------------------------

    def _check_host(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        name = task_vars["inventory_hostname"]
        # Read through a lazy mapping: a worker looks at two or three other hosts, not at all five hundred.
        inventory = checks.Inventory(_groups(task_vars), _Hosts(task_vars))
        host = inventory.hosts[name]
        services = inventory.services(name)
        options = {
            "scope": "host",
            "services": services,
            "requirements": checks.merged_requirements(host.get("airflow_preflight_requirements")),
            "ports": checks.wanted_ports(inventory, name),
            "peers": checks.wanted_peers(inventory, name),
            # Releases are only made on these hosts, and one's own lock file may be for any Python.
            "python": ""
            if host.get("airflow_lock") or not {"airflow_master", "airflow_worker"} & set(services)
            else str(host.get("airflow_python", "/usr/bin/python3")),
            "check_own_name": "postgresql" in services or "rabbitmq" in services,
            "peer_timeout": _number(host, "airflow_preflight_peer_timeout"),
            "gather_subset": GATHER_SUBSET,
        }
        answer: dict[str, Any] = {"changed": False, "problems": []}
        try:
            before = time.time()
            found = self._execute_module(module_name=MODULE, module_args=options, task_vars=task_vars)
            after = time.time()
            if _failed(answer, name, found):
                return answer
        except AnsibleConnectionFailure as error:
            return answer | {"problems": [_problem("unreachable", name, _unreachable(error), _UNREACHABLE_FIX)]}
        except AnsibleError as error:
            return answer | {"problems": [_problem("cannot_run", name, _cannot_run(str(error)), _CANNOT_RUN_FIX)]}

        machine = found["host"]
        return answer | {
            "problems": [
                {"code": p["code"], "host": name, "what": p["what"], "fix": p["fix"]} for p in found["problems"]
            ],
            "host": machine,
            "clock": [machine["time"] - after, machine["time"] - before],
            "ansible_facts": found["ansible_facts"] | {"_ansible_facts_gathered": True},
            "warnings": found.get("warnings", []),
            # Keeps -v from printing every fact of every host.
            "_ansible_verbose_override": True,
        }

    # --- scope: report -----------------------------------------------------------------------------------------

    def _report(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        groups = _groups(task_vars)
        everyone = _Hosts(task_vars)
        hosts = {name: everyone[name] for name in groups.get(checks.CLUSTER, ())}
        inventory = checks.Inventory(groups, hosts)
        hostvars = task_vars["hostvars"]
        in_this_run = set(task_vars["ansible_play_hosts_all"])

        problems: list[checks.Problem] = []
        clocks: dict[str, tuple[float, float]] = {}
        hostnames: dict[str, str] = {}
        addresses: dict[str, list[str]] = {}
        releases: dict[str, str] = {}
        sizes: dict[str, tuple[int, int]] = {}
        for name in hosts:
            facts = hostvars[name].get("ansible_facts") or {}
            if facts.get("memtotal_mb") and facts.get("processor_vcpus"):
                sizes[name] = (int(facts["memtotal_mb"]), int(facts["processor_vcpus"]))
            if name not in in_this_run:
                continue
            answer = hostvars[name].get(REGISTERED) or {}
            if "host" in answer:
                clocks[name] = (float(answer["clock"][0]), float(answer["clock"][1]))
                hostnames[name] = str(answer["host"]["hostname"])
                if {"airflow_master", "airflow_worker"} & set(inventory.services(name)):
                    releases[name] = str(answer["host"].get("airflow", ""))
                addresses[name] = [
                    str(address)
                    for address in [*facts.get("all_ipv4_addresses", []), *facts.get("all_ipv6_addresses", [])]
                ]
            elif answer.get("unreachable"):
                problems.append(checks.Problem("unreachable", name, _unreachable(answer.get("msg")), _UNREACHABLE_FIX))
            elif answer.get("failed"):
                what = _cannot_run(str(answer.get("msg")))
                problems.append(checks.Problem("cannot_run", name, what, _CANNOT_RUN_FIX))
            problems += [
                checks.Problem(str(p["code"]), str(p["host"]), str(p["what"]), str(p["fix"]))
                for p in answer.get("problems", [])
            ]

        judged = checks.check_inventory(
            inventory,
            known_variables(ROLES),
            secrets_command(task_vars.get("ansible_inventory_sources")),
            os.path.exists,
            sizes,
            locked_version(ROLES),
        )
        own = hosts.get(task_vars["inventory_hostname"])
        tolerance = _number(own, "airflow_preflight_clock_tolerance")
        compared = checks.compare_clocks(clocks, tolerance) + checks.compare_machines(hostnames, addresses)
        own_locks = {str(host.get("airflow_lock", "")) for host in hosts.values()}
        differing = checks.check_releases(
            inventory, releases, locked_version(ROLES), {path: version_of_lock(path) for path in own_locks}
        )
        if task_vars.get(RELEASE_MAY_DIFFER):
            differing = [problem for problem in differing if problem.code != "release_differs"]
        compared += differing
        counted, ignored = checks.split_ignored(
            [*judged, *compared, *problems],
            {name: _codes(host.get("airflow_preflight_ignore", [])) for name, host in hosts.items()},
        )
        counted, ignored = checks.merge(counted, list(hosts)), checks.merge(ignored, list(hosts))

        text = checks.render(counted, ignored)
        if text:
            # A result's msg is printed as one line of JSON; a list must stay readable.
            display.display(f"\n{text}\n", color=C.COLOR_ERROR if counted else C.COLOR_WARN)
        result: dict[str, Any] = {"changed": False, "problem_count": len(counted)}
        if counted:
            count = "1 problem" if len(counted) == 1 else f"{len(counted)} problems"
            result |= {"failed": True, "msg": f"Preflight found {count}, listed above. Nothing was changed."}
        else:
            result["msg"] = f"Preflight found nothing wrong; {len(clocks)} hosts were checked."
        return result


class _Hosts(Mapping[str, checks.Host]):
    """Hosts of the four groups and their parent, each evaluated when it is first asked for."""

    def __init__(self, task_vars: Mapping[str, Any]) -> None:
        groups = _groups(task_vars)
        self._hostvars = task_vars["hostvars"]
        self._names = list(
            dict.fromkeys(name for group in (checks.CLUSTER, *checks.SERVICES) for name in groups.get(group, ()))
        )
        self._read: dict[str, checks.Host] = {}

    def __getitem__(self, name: str) -> checks.Host:
        if name not in self._read:
            if name not in self._names:
                raise KeyError(name)
            self._read[name] = read_host(name, self._hostvars[name])
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_host(name: str, variables: Mapping[str, Any]) -> checks.Host:
    """Evaluate the variables that the checks read."""
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    names = frozenset(str(key) for key in variables)
    for variable in checks.VALUES:
        if variable in names:
            try:
                values[variable] = _plain(variables[variable])
            except AnsibleError as error:
                # The message may quote the value, so for a secret it is left out.
                reason = _first_line(str(error)) if variable not in checks.SECRETS else "its template or vault fails"
                errors[variable] = reason
    return checks.Host(name, names, values, errors)


def known_variables(roles: str) -> set[str] | None:
    """All options of all roles of this collection; None when there are none to be read."""
    names: set[str] = set()
    for role in sorted(os.listdir(roles)) if os.path.isdir(roles) else []:
        for ending in ("yml", "yaml"):
            path = os.path.join(roles, role, "meta", f"argument_specs.{ending}")
            if os.path.isfile(path):
                with open(path, encoding="utf-8") as stream:
                    names |= checks.option_names(yaml.safe_load(stream))
    return names or None


def locked_version(roles: str) -> str:
    """The version of Airflow in this collection's lock files, "" when there are none."""
    folder = os.path.join(roles, "airflow", "files", "locks")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        with open(os.path.join(folder, name), encoding="utf-8") as stream:
            version = checks.version_in_lock(stream.read())
        if version:
            return version
    return ""


def version_of_lock(path: str) -> str:
    """The version of Airflow in a lock file of the user, "" when it cannot be read or says none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return checks.version_in_lock(stream.read())
    except (OSError, UnicodeDecodeError):
        return ""


def secrets_command(sources: Any) -> str:
    """The command that makes the secrets, for the inventory of this run."""
    given = [os.path.relpath(source) if os.path.exists(source) else str(source) for source in sources or []]
    options = "".join(f" -i {source}" for source in given) or " -i <inventory>"
    return f"ansible-playbook{options} onprem.airflow.secrets"


def _plain(value: Any) -> Any:
    """A copy without lazy containers, so that every error of a template shows now."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _groups(task_vars: Mapping[str, Any]) -> dict[str, list[str]]:
    groups = task_vars["groups"]
    return {name: list(groups[name]) for name in (checks.CLUSTER, *checks.SERVICES) if name in groups}


def _number(host: checks.Host | None, variable: str) -> float:
    default = float(checks.PREFLIGHT_DEFAULTS[variable])
    try:
        return float(host.get(variable, default)) if host else default
    except (TypeError, ValueError):
        return default


def _codes(value: Any) -> list[str]:
    return [str(code) for code in (value if isinstance(value, list) else [value])]


_UNREACHABLE_FIX = "start the host or correct ansible_host, ansible_port, ansible_user or the SSH key; `ssh` must work"
_CANNOT_RUN_FIX = (
    "the SSH user needs root by sudo (ansible_become_password or --ask-become-pass when sudo asks for one)"
    " and the host needs python3 (apt-get install python3)"
)


def _failed(answer: dict[str, Any], name: str, found: Mapping[str, Any]) -> bool:
    if not found.get("failed"):
        return False
    text = " ".join(str(found.get(key, "")) for key in ("msg", "module_stderr", "module_stdout"))
    answer["problems"] = [_problem("cannot_run", name, _cannot_run(text), _CANNOT_RUN_FIX)]
    return True


def _problem(code: str, host: str, what: str, fix: str) -> dict[str, str]:
    return {"code": code, "host": host, "what": what, "fix": fix}


def _unreachable(error: Any) -> str:
    return f"cannot be reached: {_first_line(str(error))}"


def _cannot_run(error: str) -> str:
    return f"the checks could not run there: {_first_line(error)}"


def _first_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) < 300 else f"{line[:297]}..."
