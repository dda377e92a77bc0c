# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: the worker services of a host, as airflow_worker_services describes them. Pure."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.onprem.airflow.plugins.module_utils._drain import flag

# What may stand between `airflow-worker@` and `.service`, and before the @ of Celery's node name.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
DEFAULT_NODE = "celery"
LOG_PORT = 8793
# The second service's log port, unless it names one; the triggerer's is 8794.
NEXT_LOG_PORT = 8801
KEYS = ("name", "queues", "concurrency", "log_port")


def mistakes(services: t.Any) -> list[str]:
    """What is wrong with a value of airflow_worker_services, each as a phrase for a person."""
    if not isinstance(services, (list, tuple)) or not services:
        return ["is not a list of at least one service"]
    found = []
    for number, service in enumerate(services, 1):
        if not isinstance(service, t.Mapping):
            found.append(f"has no dictionary as its element {number}")
            continue
        found += [f"has the unknown key {key} in its element {number}" for key in service if key not in KEYS]
        name = service.get("name") or ""
        if name and not (isinstance(name, str) and NAME.fullmatch(name)):
            found.append(f"has the name {name!r}, which may hold only letters, digits, - and _")
        if number == 1 and service.get("log_port"):
            found.append("gives a log_port to its first element, which has that of Airflow")
        queues = service.get("queues", ["default"])
        if not isinstance(queues, (list, tuple)) or not queues:
            found.append(f"gives no list of queues to its element {number}")
    if found:
        return found
    for what, values in (
        ("name", [service["name"] for service in expand(services)]),
        ("log port", [service["log_port"] for service in expand(services)]),
    ):
        twice = sorted({str(value) or "(none)" for value in values if values.count(value) > 1})
        found += [f"gives the {what} {value} to several services" for value in twice]
    return found


def expand(
    services: t.Sequence[t.Mapping[str, t.Any]],
    queues: t.Sequence[str] = ("default",),
    concurrency: int = 1,
    log_port: int = LOG_PORT,
) -> list[dict[str, t.Any]]:
    """Every service with all its settings, those that it leaves out from the arguments, and its unit and node.

    API servers ask a host for logs at one port only, and the server there hands out the logs of all its services. So
    the first service has the port that Airflow is configured with, and each other one a port of its own.
    """
    found = []
    for position, service in enumerate(services):
        name = str(service.get("name") or "")
        port = int(service.get("log_port") or (NEXT_LOG_PORT + position - 1 if position else log_port))
        # Of these three all modules know a service.
        check = {
            "unit": f"airflow-worker@{name}.service" if name else "airflow-worker.service",
            "node": name or DEFAULT_NODE,
            "queues": list(dict.fromkeys(str(queue) for queue in service.get("queues") or queues)),
        }
        found.append(
            {
                "name": name,
                **check,
                "concurrency": int(service.get("concurrency") or concurrency),
                "log_port": port,
                "check": check,
                "service": {"name": check["unit"], "hold": flag(str(check["unit"])), "ready": {"port": port}},
            }
        )
    return found


def node_of(unit: str) -> str:
    """What Celery puts before the @ in the name of a unit's node."""
    return unit.removesuffix(".service").partition("@")[2] or DEFAULT_NODE
