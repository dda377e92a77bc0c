# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that needs the packages of a release, where it cannot be run again: under Mitogen."""

from __future__ import annotations

import importlib
import platform
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _respawn

VERSION = ".".join(platform.python_version_tuple()[:2])


class Module:
    """What is used of an AnsibleModule."""

    def fail_json(self, msg: str) -> Any:
        raise SystemExit(msg)


@pytest.fixture
def mitogen(monkeypatch: pytest.MonkeyPatch) -> None:
    def respawn(python: str) -> None:
        raise AttributeError(python)

    monkeypatch.setattr(_respawn, "respawn_module", respawn)
    monkeypatch.setattr(sys, "path", list(sys.path))


def made_for(version: str, folder: Path) -> str:
    """The Python of a release that was made for a version."""
    packages = folder / "lib" / f"python{version}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "only_in_the_release.py").write_text("name = 'the release'\n")
    return str(folder / "bin" / "python")


def test_it_reads_the_packages_of_a_release_for_the_same_python(mitogen: None, tmp_path: Path) -> None:
    _respawn.go_on_under(Module(), made_for(VERSION, tmp_path))  # type: ignore[arg-type]
    assert importlib.import_module("only_in_the_release").name == "the release"


def test_a_release_for_another_python_is_refused_with_what_to_do(mitogen: None, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=rf"{VERSION}.*is missing: .*ANSIBLE_STRATEGY=linear"):
        _respawn.go_on_under(Module(), made_for("3.0", tmp_path))  # type: ignore[arg-type]
