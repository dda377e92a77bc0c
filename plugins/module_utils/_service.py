# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: what a systemd unit needs, from what systemd says of it. No calls, no module."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

# The properties that decide() and the module read; `systemctl show --timestamp=us+utc` is in systemd 252 and 257.
PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "ExecMainStartTimestamp",
    "StateChangeTimestamp",
    "FragmentPath",
    "DropInPaths",
    "EnvironmentFiles",
)


@dataclass(frozen=True)
class Ready:
    """How a unit shows that it works: an HTTP answer, or a port that accepts; nothing given: that it is active."""

    url: str | None = None
    contains: str | None = None
    port: int | None = None
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Unit:
    """A unit as it should be. One that is C(held) is left as it is, neither started nor restarted nor waited for."""

    name: str
    state: str = "started"  # started | stopped | restarted
    restart_after: tuple[str, ...] = ()
    reload_after: tuple[str, ...] = ()
    ready: Ready = field(default_factory=Ready)
    held: bool = False


def parse_show(text: str) -> dict[str, dict[str, str]]:
    """Read C(systemctl show) of several units (blocks parted by an empty line) into C({Id: {property: value}})."""
    units: dict[str, dict[str, str]] = {}
    for block in text.strip().split("\n\n"):
        properties: dict[str, str] = {}
        for line in block.splitlines():
            name, equals, value = line.partition("=")
            if equals:  # a list such as EnvironmentFiles comes as a line for each element
                properties[name] = f"{properties[name]}\n{value}" if name in properties else value
        if "Id" in properties:
            units[properties["Id"]] = properties
    return units


def seconds(timestamp: str) -> float:
    """Seconds since the epoch of C(Sun 2026-11-22 13:21:40.123456 UTC) or C(@1795353700.123456); 0.0 when unset."""
    from datetime import UTC, datetime

    if timestamp.startswith("@"):
        return float(timestamp[1:])
    match = re.search(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(\.\d+)? UTC", timestamp)
    if not match:
        return 0.0
    whole = datetime.strptime(f"{match[1]} {match[2]}", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return whole.timestamp() + float(match[3] or 0)


def environment_files(shown: Mapping[str, str]) -> list[str]:
    """The environment files of a unit, in the order in which systemd reads them."""
    return [line.split(" (ignore_errors=")[0] for line in shown.get("EnvironmentFiles", "").splitlines()]


def own_files(shown: Mapping[str, str]) -> list[str]:
    """The files that make a unit what it is: its unit file, the drop-ins, the environment files."""
    files = [shown.get("FragmentPath", ""), *shown.get("DropInPaths", "").split(), *environment_files(shown)]
    return [path for path in files if path]


def decide(unit: Unit, shown: dict[str, str], modified: dict[str, float]) -> list[str]:
    """Name the steps that bring a unit from what C(shown) says into the wanted state, in order.

    C(modified) gives the time of the last change of each of the unit's files, in seconds since the epoch; a file that
    does not exist is absent from it.
    """
    steps = []
    active = shown.get("ActiveState", "inactive")
    # static, indirect, generated, alias: something else starts the unit, there is nothing to enable.
    enabled = shown.get("UnitFileState") in ("enabled", "enabled-runtime", "static", "indirect", "generated", "alias")
    if unit.state == "stopped":
        if active not in ("inactive", "failed"):
            steps.append("stop")
        if shown.get("UnitFileState") == "enabled":
            steps.append("disable")
        return steps
    if not enabled:
        steps.append("enable")
    if unit.held:
        return steps
    started = seconds(shown.get("ExecMainStartTimestamp", ""))
    settled = max(started, seconds(shown.get("StateChangeTimestamp", "")))
    if active not in ("active", "reloading", "activating", "deactivating"):
        steps.append("start")
    elif unit.state == "restarted" or any(
        modified.get(path, 0.0) > started for path in (*unit.restart_after, *own_files(shown))
    ):
        steps.append("restart")
    elif active == "deactivating":
        steps.append("start")
    elif any(modified.get(path, 0.0) > settled for path in unit.reload_after):
        steps.append("reload")
    return steps


def works(shown: Mapping[str, str]) -> bool:
    """Whether a unit has a process that may be in the middle of something: a restart would disturb it."""
    return shown.get("ActiveState") in ("active", "reloading", "deactivating")


def strays(listed: Iterable[str], pattern: str, wanted: Collection[str]) -> list[str]:
    """The unit files of a folder that match a pattern and are not wanted; without a pattern none."""
    return sorted(name for name in listed if fnmatch.fnmatchcase(name, pattern) and name not in wanted)


def answers(ready: Ready, status: int, body: str) -> bool:
    """Whether an HTTP answer says that the unit works: status 200, and the text asked for in the body."""
    if status != 200:
        return False
    if ready.contains is None:
        return True
    with contextlib.suppress(ValueError):  # the same text however the server spaces its JSON
        body = json.dumps(json.loads(body), separators=(",", ":"))
    return ready.contains in body
