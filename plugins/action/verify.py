# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what executor_check registered on every host, prints and writes the judgement.

The documentation is in plugins/modules/verify.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.onprem.airflow.plugins.module_utils import _verify, _verify_page
from ansible_collections.onprem.airflow.plugins.module_utils._verify_compare import ROLES, Host, Service

REGISTERED = "__airflow_check"
REGISTERED_LOGS = "__airflow_check_logs"
DEFAULT_QUEUES = ["default"]
COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

display = Display()


class ActionModule(ActionBase):
    """Runs on the control machine only."""

    _supports_check_mode = True
    _supports_diff = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        del tmp
        variables = task_vars or {}
        _validated, arguments = self.validate_argument_spec(
            argument_spec={
                "dest": {"type": "str", "default": "."},
                "tolerance": {"type": "float", "default": _verify.TOLERANCE},
                "workers": {"type": "dict", "default": {}},
                "leaving": {"type": "list", "elements": "str", "default": []},
                "strict": {"type": "bool", "default": False},
            }
        )
        workers = json.loads(json.dumps(arguments["workers"], default=str))
        read = [
            read_host(name, variables, workers.get(name) or {}, leaving=name in arguments["leaving"])
            for name in cluster_hosts(variables)
        ]
        hosts = [host for host in read if host.groups or host.name not in arguments["leaving"]]
        if not hosts:
            raise AnsibleActionFail("the group airflow_cluster has no hosts, so there is nothing to verify")
        document = _verify.verify(
            hosts,
            {host.name: read_result(variables["hostvars"][host.name]) for host in hosts},
            version=collection_version(),
            now=time.time(),
            tolerance=arguments["tolerance"],
        )
        paths = write(document, arguments["dest"])

        colour = bool(C.ANSIBLE_FORCE_COLOR) or (sys.stdout.isatty() and not C.ANSIBLE_NOCOLOR)
        text = _verify.table(document, shutil.get_terminal_size((120, 24)).columns, colour)
        if paths:
            text += f"\nSee {' and '.join(os.path.relpath(path) for path in paths)}."
        # A result's msg is printed as one line of JSON; a table must stay readable.
        display.display(f"\n{text}\n")

        count = len(document["problems"])
        result |= {
            "changed": False,
            # No more, because Ansible prints the result of a task that failed below the table, which has all of it.
            "problem_count": count,
            "document_paths": paths,
            "msg": _verify.verdict(document),
        }
        if count:
            problems = "1 problem" if count == 1 else f"{count} problems"
            result |= {"failed": True, "msg": f"Verify found {problems}, listed above."}
        elif arguments["strict"] and document["not_looked_at"]:
            result |= {"failed": True, "msg": "Verify could not look at everything; what is missing is listed above."}
        return result


def cluster_hosts(task_vars: Mapping[str, Any]) -> list[str]:
    """Hosts of the cluster, in the inventory's order."""
    groups = task_vars["groups"]
    return list(dict.fromkeys(name for group in ("airflow_cluster", *ROLES) for name in groups.get(group, ())))


def read_host(name: str, task_vars: Mapping[str, Any], worker: Mapping[str, Any], leaving: bool = False) -> Host:
    """What the inventory says of a host. One that is C(leaving) is no worker any more."""
    variables = task_vars["hostvars"][name]
    groups = tuple(group for group in ROLES if name in task_vars["groups"].get(group, ()))
    groups = tuple(group for group in groups if not (leaving and group == "airflow_worker"))
    facts = variables.get("ansible_facts") or {}
    addresses = [_value(variables, "airflow_address"), _value(variables, "ansible_host")]
    addresses += [*(facts.get("all_ipv4_addresses") or []), *(facts.get("all_ipv6_addresses") or [])]
    services: tuple[Service, ...] = ()
    queues: Any = []
    if "airflow_worker" in groups:
        services = tuple(
            Service(str(service["unit"]), str(service["node"]), tuple(map(str, service["queues"])))
            for service in worker.get("services") or ()
        )
        queues = list(dict.fromkeys(queue for service in services for queue in service.queues))
        queues = queues or _value(variables, "airflow_worker_queues") or DEFAULT_QUEUES
    return Host(
        name=name,
        groups=groups,
        addresses=tuple(dict.fromkeys(str(address) for address in addresses if address)),
        queues=tuple(str(queue) for queue in ([queues] if isinstance(queues, str) else queues)),
        in_run=name in task_vars["ansible_play_hosts_all"],
        services=services,
    )


def read_result(variables: Mapping[str, Any]) -> dict[str, Any]:
    """What a host answered, with its second look."""
    first, second = variables.get(REGISTERED) or {}, variables.get(REGISTERED_LOGS)
    # To JSON and back, because values that are tagged as Ansible tags them are neither compared nor written so.
    plain: dict[str, Any] = json.loads(json.dumps(first, default=str))
    if "airflow_master" in (variables.get("group_names") or []):
        return _verify.merge_second(plain, json.loads(json.dumps(second or {}, default=str)))
    return plain


def collection_version() -> str:
    """Of this collection: of the installed one, or of a checkout; "" when unknown."""
    try:
        with open(os.path.join(COLLECTION, "MANIFEST.json"), encoding="utf-8") as stream:
            return str(json.load(stream)["collection_info"]["version"])
    except (OSError, ValueError, KeyError):
        pass
    try:
        with open(os.path.join(COLLECTION, "galaxy.yml"), encoding="utf-8") as stream:
            found = re.search(r"^version:\s*(\S+)", stream.read(), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""


def write(document: Mapping[str, Any], dest: str) -> list[str]:
    """verify.json and verify.html in the folder, each in one step."""
    if not dest:
        return []
    folder = os.path.abspath(os.path.expanduser(dest))
    texts = {
        "verify.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n",
        "verify.html": _verify_page.page(document),
    }
    paths = []
    try:
        os.makedirs(folder, exist_ok=True)
        umask = os.umask(0o077)
        os.umask(umask)
        for name, text in texts.items():
            path = os.path.join(folder, name)
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(text)
                os.chmod(temporary, 0o644 & ~umask)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
            paths.append(path)
    except OSError as error:
        raise AnsibleActionFail(f"cannot write to {folder}: {error.strerror or error}") from error
    return paths


def _value(variables: Mapping[str, Any], name: str) -> Any:
    """A variable; None when it is not set or its template fails, which is the preflight's to tell."""
    try:
        return variables.get(name)
    except AnsibleError:
        return None
