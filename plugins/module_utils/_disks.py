# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: the file systems that the services of a host write to. Looks only; L(_judge) judges."""

from __future__ import annotations

import json
import os
import re
import typing as t

from ansible_collections.onprem.airflow.plugins.module_utils._look import database_clusters
from ansible_collections.onprem.airflow.plugins.module_utils._preflight_host import read_text

MB = 1 << 20
MASTER, WORKER, BROKER, DATABASE = "airflow_master", "airflow_worker", "rabbitmq", "postgresql"
LOGS = "/var/log/airflow"
# Below it PostgreSQL has little more than the next sixteen files of its write-ahead log, without which it stops.
DATABASE_NEEDS = 256 * MB
# RabbitMQ's own default.
BROKER_NEEDS = 50_000_000
# A /tmp in memory may well be smaller than what is asked of a disk.
SHARE_OF_TMP = 0.1
# What the watchdog keeps of each worker, and how much more than its limit there has to be before it starts one again
# (roles/airflow_worker/files/airflow_watchdog.py).
WATCHDOG_STATE = "/run/airflow-watchdog/state.json"
SPARE = 1.2
# As rabbitmq.conf takes them.
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
UNITS |= {f"{unit}ib": size for unit, size in UNITS.items() if unit}
UNITS |= {f"{unit}b": 1000**power for power, unit in enumerate("kmgtp", 1)}


class Place(t.NamedTuple):
    """A folder that services of a role write to, and the bytes that have to be free there.

    No more than C(share) of the file system: a small one is not full for being small.
    """

    role: str
    path: str
    needed: int = 0
    share: float = 1.0


class FileSystem(t.NamedTuple):
    """A file system, by its mount point; sizes in bytes. C(inodes) that are free: None where it has no fixed number.

    C(short) are the roles whose services have too little space on it, with what they need.
    """

    mount: str
    folders: tuple[str, ...]
    free: int
    size: int
    inodes: int | None
    short: dict[str, int]

    def as_dict(self) -> dict[str, t.Any]:
        """The part of it that a report tells."""
        return {
            "mount": self.mount,
            "folders": list(self.folders),
            "free_mb": self.free // MB,
            "size_mb": self.size // MB,
            "free_inodes": self.inodes,
            "short": list(self.short),
        }


def places(
    roles: t.Collection[str],
    needed: t.Mapping[str, int],
    home: str,
    logs: str = "",
    databases: str = "/etc/postgresql",
    broker: str = "/etc/rabbitmq/rabbitmq.conf",
) -> list[Place]:
    """Where services of these roles write. C(needed) is what those of Airflow need, by role."""
    found = []
    for role in (MASTER, WORKER):
        if role in roles:
            found += [Place(role, path, needed[role]) for path in (logs or LOGS, home)]
            found.append(Place(role, "/tmp", needed[role], SHARE_OF_TMP))
    if BROKER in roles:
        # The broker raises its alarm for the first of them only.
        limit = broker_limit(read_text(broker))
        found += [Place(BROKER, "/var/lib/rabbitmq", limit), Place(BROKER, "/var/log/rabbitmq")]
    if DATABASE in roles:
        folders = [*database_folders(databases), "/var/log/postgresql"]
        found += [Place(DATABASE, path, DATABASE_NEEDS) for path in folders]
    return found


def held(units: t.Collection[str], path: str = WATCHDOG_STATE) -> bool:
    """Whether the watchdog has stopped one of these workers for want of space, and not started it since."""
    try:
        kept = json.loads(read_text(path))["units"]
        return any(kept[unit]["stopped"] is not None for unit in units if unit in kept)
    except (ValueError, KeyError, TypeError):
        return False


def broker_limit(text: str) -> int:
    """The free bytes below which RabbitMQ takes no messages, from its rabbitmq.conf."""
    found = re.findall(r"^\s*disk_free_limit\.absolute\s*=\s*(\d+)\s*([A-Za-z]*)", text, re.MULTILINE)
    if not found:
        return BROKER_NEEDS
    number, unit = found[-1]
    return int(number) * UNITS.get(unit.lower(), 1)


def database_folders(root: str = "/etc/postgresql") -> list[str]:
    """The data folder of every PostgreSQL cluster of this host, and that of its write-ahead log if it is elsewhere."""
    folders = []
    for version, name in database_clusters(root):
        text = read_text(os.path.join(root, version, name, "postgresql.conf"))
        told = re.findall(r"^\s*data_directory\s*=?\s*'([^']+)'", text, re.MULTILINE)
        folder = told[-1] if told else f"/var/lib/postgresql/{version}/{name}"
        wal = os.path.join(folder, "pg_wal")
        folders += [folder, os.path.realpath(wal)] if os.path.islink(wal) else [folder]
    return folders


def file_systems(wanted: t.Iterable[Place]) -> list[FileSystem]:
    """Each file system that has one of the places, once. A place that is not there counts for nothing."""
    found: dict[int, tuple[os.statvfs_result, list[Place]]] = {}
    for place in wanted:
        try:
            device, status = os.stat(place.path).st_dev, os.statvfs(place.path)
        except OSError:
            continue
        if status.f_blocks:
            found.setdefault(device, (status, []))[1].append(place)
    return [_measured(status, mine) for status, mine in found.values()]


def _measured(status: os.statvfs_result, mine: t.Sequence[Place]) -> FileSystem:
    # What a user other than root may take; services are none.
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    inodes = status.f_favail if status.f_files else None
    short: dict[str, int] = {}
    for place in mine:
        needed = min(place.needed, int(place.share * size))
        if free < max(needed, 1) or inodes == 0:
            short[place.role] = max(needed, short.get(place.role, 0))
    folders = tuple(dict.fromkeys(place.path for place in mine))
    return FileSystem(mount_point(folders[0]), folders, free, size, inodes, short)


def mount_point(path: str) -> str:
    """Where the file system of a folder begins."""
    path = os.path.realpath(path)
    device = os.stat(path).st_dev
    while path != "/" and os.stat(os.path.dirname(path)).st_dev == device:
        path = os.path.dirname(path)
    return path
