# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: the commands that build one release of Airflow. Pure."""

from __future__ import annotations

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
