# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module `files`, through its logic on real paths and through a playbook."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.onprem.airflow.plugins.module_utils._files import (
    FilesError,
    Found,
    Wanted,
    apply,
    compare,
    look,
)

LOCALLY = ("-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}")


def accept(command: str, path: str) -> None:
    """Stands for a checker that finds nothing wrong."""


def refuse(command: str, path: str) -> None:
    raise FilesError(f"{command}: bad")


@pytest.mark.parametrize(
    ("wanted", "found", "what"),
    [
        (Wanted("/x", "file", content="a"), Found("file", b"a", mode="0644"), []),
        (Wanted("/x", "file", content="a"), Found("file", b"b", mode="0644"), ["content"]),
        (Wanted("/x", "file", content="a", mode="0600"), Found("file", b"a", mode="0644"), ["mode 0644 -> 0600"]),
        (Wanted("/x", "file", content="a", mode="640"), Found("file", b"a", mode="0640"), []),
        (Wanted("/x", "file", content="a", owner="u"), Found("file", b"a", owner="root"), ["owner root -> u"]),
        (Wanted("/x", "file", content="a"), Found("absent"), ["absent -> file"]),
        (Wanted("/x", "absent"), Found("absent"), []),
        (Wanted("/x", "absent"), Found("directory"), ["directory -> absent"]),
        (Wanted("/x", "link", link="/a"), Found("link", link="/a"), []),
        (Wanted("/x", "link", link="/a"), Found("link", link="/b"), ["link /b -> /a"]),
        (Wanted("/x", "directory", group="g"), Found("directory", group="h"), ["group h -> g"]),
    ],
)
def test_compare_names_every_difference(wanted: Wanted, found: Found, what: list[str]) -> None:
    assert compare(wanted, found).what == what


def test_a_file_gets_content_and_mode_and_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.conf"
    wanted = Wanted(str(path), "file", content="ä\n", mode="0600")
    apply(wanted, look(str(path)), accept)
    assert path.read_text() == "ä\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not compare(wanted, look(str(path))).what


def test_a_refused_file_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("old")
    with pytest.raises(FilesError):
        apply(Wanted(str(path), "file", content="new", validate="check %s"), look(str(path)), refuse)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.conf"]


def test_a_file_keeps_the_mode_that_is_not_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(0o640)
    apply(Wanted(str(path), "file", content="new"), look(str(path)), accept)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_is_switched_and_never_missing(tmp_path: Path) -> None:
    path = tmp_path / "current"
    for target in ("one", "two"):
        apply(Wanted(str(path), "link", link=target), look(str(path)), accept)
        assert os.readlink(path) == target


def test_the_former_target_of_a_link_is_kept(tmp_path: Path) -> None:
    path, former = tmp_path / "current", tmp_path / "previous"
    for target in ("one", "two", "two", "three"):
        wanted = Wanted(str(path), "link", link=target, former=str(former))
        if compare(wanted, look(str(path))).what:
            apply(wanted, look(str(path)), accept)
    assert (os.readlink(path), os.readlink(former)) == ("three", "two")
    apply(Wanted(str(path), "link", link="two", former=""), look(str(path)), accept)
    assert (os.readlink(path), os.readlink(former)) == ("two", "two")


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(FilesError, match="is a directory, not a file"):
        apply(Wanted(str(tmp_path / "x"), "file", content=""), look(str(tmp_path / "x")), accept)


def test_an_unknown_owner_is_named(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="nobody-of-that-name"):
        apply(Wanted(str(tmp_path / "x"), "file", content="", owner="nobody-of-that-name"), Found("absent"), accept)
    assert not list(tmp_path.iterdir())


def playbook(tmp_path: Path, files: list[dict[str, str]]) -> Path:
    path = tmp_path / "play.yml"
    tasks = [{"name": "Write", "onprem.airflow.files": {"files": files}}]
    path.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    return path


def test_playbook_check_diff_write_and_again(tmp_path: Path, ansible_playbook) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "out" / "x.conf"
    play = playbook(tmp_path, [{"path": str(target), "content": "key = value\n", "mode": "0600"}])
    checked = ansible_playbook(*LOCALLY, play, "--check", "--diff", json_output=False)
    assert checked.rc == 0
    assert "+key = value" in checked.output
    assert not target.exists()
    first = ansible_playbook(*LOCALLY, play)
    assert first.tasks["Write"]["localhost"]["changed"] is True
    assert target.read_text() == "key = value\n"
    assert ansible_playbook(*LOCALLY, play).tasks["Write"]["localhost"]["changed"] is False


def test_playbook_a_refused_file_fails_with_the_reason(tmp_path: Path, ansible_playbook) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "x.sh"
    play = playbook(tmp_path, [{"path": str(target), "content": "if\n", "validate": "sh -n %s"}])
    ran = ansible_playbook(*LOCALLY, play, json_output=False)
    assert ran.rc == 2
    assert "sh -n %s refused the new file" in ran.output
    assert not target.exists()
