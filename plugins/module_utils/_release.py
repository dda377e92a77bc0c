# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: the releases of a host, and the commands that build one.

The syntax stays that of Python 3.8, because the preflight looks for a release on hosts of any system.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass

# Written last, so a release without it is one whose installation was cut off.
MARKER = ".complete"


@dataclass(frozen=True)
class Source:
    """Where packages come from; an empty text means the installer's own default."""

    index_url: str = ""
    find_links: str = ""
    ca_file: str = ""
    offline: bool = False


def installer_environment(source: Source) -> dict[str, str]:
    """The environment of pip and uv. Addresses go here and not in argv, because an index URL may hold a password."""
    environment = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_PYTHON_DOWNLOADS": "never"}
    if source.ca_file:
        environment["SSL_CERT_FILE"] = source.ca_file
        environment["PIP_CERT"] = source.ca_file
    if source.index_url:
        environment["PIP_INDEX_URL"] = source.index_url
        environment["UV_DEFAULT_INDEX"] = source.index_url
    if source.find_links:
        environment["PIP_FIND_LINKS"] = source.find_links
        environment["UV_FIND_LINKS"] = source.find_links
    if source.offline:
        environment["PIP_NO_INDEX"] = "1"
        environment["UV_NO_INDEX"] = "1"
    return environment


def is_hashed(lock: str) -> bool:
    """Whether the text of a requirements file pins by hash; then every package of it must."""
    return "--hash=" in lock


def install_command(uv: str, python: str, lock: str, path: str, constraints_url: str) -> list[str]:
    """The C(uv) command that fills the environment of C(python) from the file C(path) with the text C(lock).

    C(sync) installs exactly a full lock; requirements that are not hashed are resolved, within the constraints.
    """
    if is_hashed(lock):
        return [uv, "pip", "sync", "--python", python, "--require-hashes", "--compile-bytecode", path]
    command = [uv, "pip", "install", "--python", python, "--compile-bytecode", "--requirements", path]
    return [*command, "--constraints", constraints_url] if constraints_url else command


# --- The releases of a host: folders below C(root)/releases, and two links beside it


@dataclass(frozen=True)
class Installed:
    """A release whose installation was finished, and when that was."""

    version: str
    python: str
    since: float


def version_of(name: str) -> str:
    """The version of Airflow in the name of a release, C(3.3.2-1a2b3c4d)."""
    return name.rpartition("-")[0] or name


def linked(root: str, name: str) -> str:
    """The release that the link C(current) or C(previous) leads to; empty without one."""
    try:
        target = os.readlink(os.path.join(root, name))
    except OSError:
        return ""
    folder, release = os.path.split(os.path.join(root, target.rstrip("/")))
    return release if folder == os.path.join(root, "releases") else ""


def installed(root: str) -> dict[str, Installed]:
    """The finished releases of a host by their names. What is in one says its version, its name could lie."""
    found = {}
    for marker in glob.glob(os.path.join(glob.escape(root), "releases", "*", MARKER)):
        folder = os.path.dirname(marker)
        name = os.path.basename(folder)
        version, python = version_of(name), ""
        for path in glob.glob(f"{glob.escape(folder)}/lib/python3*/site-packages/apache_airflow_core-*.dist-info"):
            match = re.search(r"/lib/python([^/]+)/.*-([^-/]+)\.dist-info$", path)
            if match:
                python, version = match[1], match[2]
        found[name] = Installed(version, python, os.stat(marker).st_mtime)
    return found


def current_version(root: str) -> str:
    """The version of Airflow in the current release; empty without one."""
    found = installed(root).get(linked(root, "current"))
    return found.version if found else ""


def release_of(pid: int, root: str, proc: str = "/proc") -> str:
    """The release that a process has loaded its libraries from; empty when it has none of ours.

    Its command line names C(current), which may have been switched since; the mapped files name the real folder.
    """
    try:
        with open(f"{proc}/{pid}/maps", encoding="utf-8", errors="replace") as stream:
            match = re.search(re.escape(root) + r"/releases/([^/\s]+)/", stream.read())
    except OSError:
        return ""
    return match[1] if match else ""


def in_use(root: str, proc: str = "/proc") -> set[str]:
    """The releases that any process of the host has loaded its libraries from."""
    pids = [int(name) for name in os.listdir(proc) if name.isdigit()]
    return {release for release in (release_of(pid, root, proc) for pid in pids) if release}


def to_remove(found: dict[str, Installed], needed: set[str], keep: int) -> list[str]:
    """The releases to remove, oldest first, so that C(keep) are left; more, when more are C(needed)."""
    newest = sorted(found, key=lambda name: found[name].since, reverse=True)
    others = [name for name in newest if name not in needed]
    return others[max(0, keep - len(needed & set(found))) :][::-1]


def unfinished(root: str) -> list[str]:
    """What an installation that was cut off left behind. Only for who holds the lock of the installations."""
    folder = os.path.join(root, "releases")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    paths = [os.path.join(folder, name) for name in sorted(names)]
    return [path for path in paths if os.path.isdir(path) and not os.path.exists(os.path.join(path, MARKER))]
