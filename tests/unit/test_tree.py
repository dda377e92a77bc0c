# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module tree: a folder of the host ends up exactly like one of the control machine, or is left alone."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import re
import stat
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.airflow.plugins.module_utils import _compile, _tree

USER = pwd.getpwuid(os.geteuid()).pw_name
GROUP = grp.getgrgid(os.getegid()).gr_name
EXCLUDE = ["__pycache__", "*.pyc", ".git"]

Content = dict[str, str | bytes]


def fill(root: Path, files: Content) -> Path:
    """Make a folder with these files."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def state(root: Path) -> dict[str, tuple[str, bytes]]:
    """All that is in a folder, with modes; seen without the code under test."""
    found = {}
    for path in [root, *root.rglob("*")]:
        content = os.readlink(path).encode() if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(root))] = (stat.filemode(path.lstat().st_mode), content)
    return found


def write_play(path: Path, tasks: list[dict[str, Any]]) -> None:
    """A playbook that runs the tasks on this machine, by the Python that runs Ansible."""
    variables = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    path.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}]))


@pytest.fixture
def tree(ansible_playbook: Callable[..., Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the module by a real playbook; its result."""

    def run(*arguments: str, **options: Any) -> dict[str, Any]:
        parameters = {"src": f"{tmp_path}/src", "dest": f"{tmp_path}/dest", "file_mode": "0640", "dir_mode": "0750"}
        parameters |= {"owner": USER, "group": GROUP} | options
        write_play(tmp_path / "play.yml", [{"name": "tree", "onprem.airflow.tree": parameters}])
        ran = ansible_playbook("-i", "localhost,", "-c", "local", tmp_path / "play.yml", *arguments)
        result: dict[str, Any] = ran.tasks["tree"]["localhost"]
        result["output"] = ran.output
        return result

    return run


def equalise(source: Path, dest: Path) -> _tree.Plan:
    """What the two parts of the module do, in this process; for cases where a playbook shows nothing more."""
    manifest = _tree.from_plain(_tree.to_plain(_tree.scan_source(str(source), EXCLUDE)))
    owners = _tree.Ownership(file_mode=0o640, dir_mode=0o750)
    plan = _tree.compare(manifest, str(dest), owners)
    archive = source.parent / "archive.tar.gz"
    with archive.open("wb") as handle:
        _tree.pack(str(source), [*plan.added, *plan.updated], handle)
    _tree.apply(manifest, plan, str(dest), owners, str(archive))
    return plan


OLD: Content = {"same.py": "same\n", "changed.py": "old\n", "gone.py": "gone\n", "folder/gone.py": "x", "a/b/c.py": "c"}
NEW: Content = {"same.py": "same\n", "changed.py": "new\n", "new.py": "new\n", "a/b/c.py": "c", "x/y/z ü.py": b"\0\xff"}


def test_it_adds_changes_and_removes_and_then_rests(tree: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    source = fill(tmp_path / "src", {**NEW, "a/__pycache__/c.pyc": "no", ".git/HEAD": "no", "old.pyc": "no"})
    dest = fill(tmp_path / "dest", OLD)
    inode = (dest / "same.py").stat().st_ino
    before = state(dest)

    checked = tree("--check", "--diff")
    assert checked["changed"] and state(dest) == before

    done = tree("--diff")
    assert done["added"] == ["new.py", "x/y/z ü.py"]
    assert done["updated"] == ["changed.py"]
    assert sorted(done["removed"]) == ["folder/", "folder/gone.py", "gone.py"]
    assert {key: checked[key] for key in ("added", "updated", "removed", "fixed", "digest", "files", "diff")} == {
        key: done[key] for key in ("added", "updated", "removed", "fixed", "digest", "files", "diff")
    }
    assert done["files"] == 5
    folders = {".", "a", "a/b", "x", "x/y"}
    assert state(dest) == dict.fromkeys(folders, ("drwxr-x---", b"")) | {
        path: ("-rw-r-----", content.encode() if isinstance(content, str) else content) for path, content in NEW.items()
    }
    assert (dest / "same.py").stat().st_ino == inode
    assert "invocation" not in done

    again = tree()
    assert not again["changed"]
    assert not again["added"] + again["updated"] + again["removed"] + again["fixed"]
    assert again["digest"] == done["digest"]
    assert state(source)["old.pyc"][1] == b"no"


def test_nothing_to_do_costs_one_module_call(
    tree: Callable[..., dict[str, Any]], tmp_path: Path, ansible_playbook: Callable[..., Any]
) -> None:
    fill(tmp_path / "src", NEW)
    tree()
    ran = ansible_playbook("-i", "localhost,", "-c", "local", tmp_path / "play.yml", "-vvv", json_output=False)
    assert ran.output.count("Using module file") == 1
    (tmp_path / "src" / "new.py").write_text("newer")
    ran = ansible_playbook("-i", "localhost,", "-c", "local", tmp_path / "play.yml", "-vvv", json_output=False)
    assert ran.output.count("Using module file") == 2
    assert not list(tmp_path.glob("**/tree.tar.gz"))


def test_the_diff_shows_small_text_and_nothing_else(tree: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    big = "x" * (_tree.DIFF_FILE_BYTES + 1)
    fill(tmp_path / "src", {"text.py": "after\n", "big.py": big, "binary": b"\0after", "new.py": "fresh\n"})
    fill(tmp_path / "dest", {"text.py": "before\n", "big.py": "small", "binary": b"\0before", "old.py": "stale\n"})
    first, *rest = tree("--check", "--diff")["diff"]
    assert set(first["prepared"].splitlines()[1:]) >= {"+ new.py", "~ big.py", "~ binary", "~ text.py", "- old.py"}
    shown = {Path(item["after_header"]).name: (item["before"], item["after"]) for item in rest}
    assert shown == {"text.py": ("before\n", "after\n"), "new.py": ("", "fresh\n"), "old.py": ("stale\n", "")}
    assert "diff" not in tree("--check")


def test_modes_and_owners_are_put_right(tree: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    fill(tmp_path / "src", {"a/plain.py": "1", "a/run.sh": "2"})
    (tmp_path / "src" / "a" / "run.sh").chmod(0o755)
    tree()
    dest = tmp_path / "dest"
    assert state(dest)["a/run.sh"][0] == "-rwxr-x---"
    right = state(dest)
    (dest / "a" / "plain.py").chmod(0o666)
    (dest / "a" / "run.sh").chmod(0o640)
    (dest / "a").chmod(0o777)
    dest.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(dest / "a" / "plain.py", 1, 1)
    done = tree()
    assert done["fixed"] == [".", "a", "a/plain.py", "a/run.sh"] and done["changed"]
    assert not done["added"] + done["updated"] + done["removed"]
    assert state(dest) == right
    assert (dest / "a" / "plain.py").stat().st_uid == os.geteuid()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"x": "file"}, {"x/y.py": "now a folder"}),
        ({"x/y/z.py": "folder"}, {"x": "now a file"}),
        ({"x/y.py": "1", "x/z.py": "2"}, {"x/y.py/a": "deeper", "x/z.py": "2"}),
    ],
)
def test_a_file_becomes_a_folder_and_back(old: Content, new: Content, tmp_path: Path) -> None:
    source = fill(tmp_path / "src", new)
    dest = fill(tmp_path / "dest", old)
    assert equalise(source, dest).changed
    assert {path: item[1].decode() for path, item in state(dest).items() if item[0].startswith("-")} == new
    assert not equalise(source, dest).changed


def test_links_on_the_host_are_replaced_never_followed(tmp_path: Path) -> None:
    source = fill(tmp_path / "src", {"file.py": "right", "folder/inner.py": "right"})
    outside = fill(tmp_path / "outside", {"inner.py": "keep", "file.py": "right"})
    dest = fill(tmp_path / "dest", {})
    (dest / "file.py").symlink_to(outside / "file.py")
    (dest / "folder").symlink_to(outside)
    (dest / "stray").symlink_to(outside)
    kept = state(outside)
    equalise(source, dest)
    assert state(outside) == kept
    assert sorted(state(dest)) == [".", "file.py", "folder", "folder/inner.py"]
    assert not any(item[0].startswith("l") for item in state(dest).values())


def test_links_in_the_source_that_stay_inside_are_followed(tmp_path: Path) -> None:
    source = fill(tmp_path / "src", {"real/a.py": "a"})
    (source / "link.py").symlink_to("real/a.py")
    (source / "folder").symlink_to(source / "real")
    equalise(source, tmp_path / "dest")
    found = state(tmp_path / "dest")
    assert {path for path, item in found.items() if item == ("-rw-r-----", b"a")} == {
        "folder/a.py",
        "link.py",
        "real/a.py",
    }
    assert len(found) == 6


def make_link(target: str) -> Callable[[Path], None]:
    """A way to put a link into a source."""
    return lambda source: (source / "bad").symlink_to(target)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (make_link("/etc/hostname"), "bad: a link that leads out of the folder"),
        (make_link("../dest"), "bad: a link that leads out of the folder"),
        (make_link("nowhere"), "bad: a link to nothing"),
        (make_link("."), "bad: a link to a folder that it is in"),
        (lambda source: os.mkfifo(source / "bad"), "bad: neither a file nor a folder"),
        (lambda source: open(os.fsencode(source) + b"/b\xff", "w").close(), "its name is not UTF-8"),
    ],
)
def test_a_source_that_cannot_be_copied_is_refused_by_name(
    spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    source = fill(tmp_path / "src", NEW)
    spoil(source)
    with pytest.raises(_tree.TreeError, match=re.escape(message)):
        _tree.scan_source(str(source), EXCLUDE)


def test_every_problem_of_a_source_is_told_at_once(tree: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    source = fill(tmp_path / "src", NEW)
    (source / "one").symlink_to("/etc/hostname")
    (source / "a" / "two").symlink_to("nowhere")
    before = state(fill(tmp_path / "dest", OLD))
    refused = tree()
    assert refused["failed"] and "one: a link that leads out" in refused["msg"]
    assert "a/two: a link to nothing" in refused["msg"]
    assert state(tmp_path / "dest") == before


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"src": "/nowhere/dags"}, "src /nowhere/dags does not exist on the control machine"),
    ({"src": "dags"}, "src has to be an absolute path"),
    ({"src": "/etc/hostname"}, "is not a folder"),
    ({"src": None}, "src"),
    ({"exclude": ["*"]}, "would be emptied"),
    ({"owner": "nobody-of-this-name"}, "There is no user nobody-of-this-name"),
    ({"group": "nobody-of-this-name"}, "There is no group nobody-of-this-name"),
    ({"file_mode": "rw"}, "octal"),
    ({"colour": "red"}, "colour"),
    ({"dest": "/var/lib"}, "is a folder of the system"),
    ({"compile_with": "/nowhere/python"}, "compile_with: /nowhere/python cannot be run on this host: No such file"),
    ({"compile_with": "/bin/false"}, "/bin/false could not check the DAGs: it ended with 1. Nothing of "),
]


def test_wrong_options_are_refused(ansible_playbook: Callable[..., Any], tmp_path: Path) -> None:
    before = state(fill(tmp_path / "dest", OLD))
    right = {"src": str(fill(tmp_path / "src", NEW)), "dest": str(tmp_path / "dest")}
    tasks = []
    for number, (wrong, _message) in enumerate(WRONG_OPTIONS):
        options = {key: value for key, value in (right | wrong).items() if value is not None}
        tasks.append({"name": f"{number}", "onprem.airflow.tree": options, "ignore_errors": True})
    write_play(tmp_path / "play.yml", tasks)
    ran = ansible_playbook("-i", "localhost,", "-c", "local", tmp_path / "play.yml")
    for number, (wrong, message) in enumerate(WRONG_OPTIONS):
        refused = ran.tasks[f"{number}"]["localhost"]
        assert refused.get("failed") and message in refused["msg"], (wrong, refused)
    assert state(tmp_path / "dest") == before


@pytest.mark.parametrize(
    "dest",
    [
        "/",
        "/etc",
        "/etc/",
        "/etc/airflow",
        "/usr/share/dags",
        "/usr/local/bin",
        "/var",
        "/var/lib",
        "/home",
        "/home/ann",
        "/opt",
        "/srv",
        "/tmp",
        "/lib/systemd/system",
        "/run/airflow",
    ],
)
def test_folders_of_the_system_are_refused(dest: str) -> None:
    with pytest.raises(_tree.TreeError, match="is a folder of the system"):
        _tree.check_destination(dest)


@pytest.mark.parametrize("dest", ["", ".", "dags", "/var/lib/airflow/../../dags", "//etc/airflow", "/a//b", "/a/./b"])
def test_paths_that_are_not_plain_are_refused(dest: str) -> None:
    with pytest.raises(_tree.TreeError, match="has to be an absolute path"):
        _tree.check_destination(dest)


@pytest.mark.parametrize(
    "dest", ["/var/lib/airflow/dags", "/srv/dags", "/opt/airflow/dags/", "/usr/local/airflow/dags"]
)
def test_folders_of_our_own_are_accepted(dest: str) -> None:
    _tree.check_destination(dest)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda dest: dest.symlink_to("/var/tmp"), "system"),
        (lambda dest: dest.symlink_to(dest.parent / "src"), "is a link"),
        (lambda dest: dest.write_text("file"), "is not a folder"),
    ],
)
def test_a_destination_of_another_kind_is_refused(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    fill(tmp_path / "src", NEW)
    make(tmp_path / "dest")
    with pytest.raises(_tree.TreeError, match=message):
        _tree.compare(_tree.scan_source(str(tmp_path / "src"), EXCLUDE), str(tmp_path / "dest"), _tree.Ownership())


def test_a_parent_that_is_missing_is_named(tree: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    fill(tmp_path / "src", NEW)
    assert tree("--check", dest=f"{tmp_path}/no/dest")["added"]
    refused = tree(dest=f"{tmp_path}/no/dest")
    assert refused["failed"] and f"{tmp_path}/no does not exist" in refused["msg"]


def test_check_mode_works_before_the_user_exists(tree: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    fill(tmp_path / "src", NEW)
    checked = tree("--check", owner="nobody-of-this-name", group="nobody-of-this-name")
    assert checked["changed"] and len(checked["added"]) == 5 and not checked.get("failed")


def test_an_empty_source_empties_only_when_allowed(tree: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    fill(tmp_path / "src", {".git/HEAD": "only this"})
    dest = fill(tmp_path / "dest", OLD)
    refused = tree()
    assert refused["failed"] and "allow_empty" in refused["msg"] and len(state(dest)) > 5
    assert tree(allow_empty=True)["changed"]
    assert list(state(dest)) == ["."]


def test_many_and_large_files(tree: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    files: Content = {f"d{number % 50}/f{number}.py": f"x = {number}\n" for number in range(2000)}
    files["large.bin"] = os.urandom(20_000_000)
    fill(tmp_path / "src", files)
    done = tree()
    assert len(done["added"]) == 2001
    assert {path: item[1] for path, item in state(tmp_path / "dest").items() if item[0].startswith("-")} == {
        path: content.encode() if isinstance(content, str) else content for path, content in files.items()
    }
    assert not tree()["changed"]


def test_the_digest_is_that_of_paths_and_contents() -> None:
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"1", b"2"))
    digest = _tree.tree_digest({"a.py": one, "b.py": two})
    assert digest == hashlib.sha256(f"a.py\0{one}\nb.py\0{two}\n".encode()).hexdigest()
    assert digest == _tree.tree_digest({"b.py": two, "a.py": one})
    others: tuple[dict[str, str], ...] = ({"a.py": two, "b.py": one}, {"a.py": one}, {"a.py": one, "c.py": two}, {})
    assert len({digest, *map(_tree.tree_digest, others)}) == 5


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a//b", "./a"])
def test_a_manifest_cannot_lead_out_of_the_destination(path: str) -> None:
    with pytest.raises(_tree.TreeError, match="is not a path inside a folder"):
        _tree.from_plain({path: ["0" * 64, 0, False]})


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a/__pycache__", "__pycache__", True),
        ("a/b.pyc", "*.pyc", True),
        ("a/b.py", "*.pyc", False),
        ("a/tests", "a/tests", True),
        ("a/tests", "/a/tests", True),
        ("b/a/tests", "a/tests", False),
        (".github", ".git", False),
        ("A.PYC", "*.pyc", False),
    ],
)
def test_what_is_excluded(path: str, pattern: str, expected: bool) -> None:
    assert _tree.excluded(path, [pattern]) is expected


def test_a_file_that_changes_while_it_is_sent_is_not_taken(tmp_path: Path) -> None:
    source = fill(tmp_path / "src", {"a.py": "scanned", "b.py": "b"})
    manifest = _tree.scan_source(str(source), EXCLUDE)
    (source / "a.py").write_text("changed")
    archive = tmp_path / "archive"
    with archive.open("wb") as handle:
        _tree.pack(str(source), manifest, handle)
    dest = fill(tmp_path / "dest", {"a.py": "old"})
    owners = _tree.Ownership()
    plan = _tree.compare(manifest, str(dest), owners)
    with pytest.raises(_tree.TreeError, match="changed on the control machine"):
        _tree.apply(manifest, plan, str(dest), owners, str(archive))
    assert {path: item[1] for path, item in state(dest).items() if item[0].startswith("-")} == {"a.py": b"old"}


def test_a_file_that_vanishes_while_it_is_sent_is_named(tmp_path: Path) -> None:
    source = fill(tmp_path / "src", {"a.py": "a"})
    with pytest.raises(_tree.TreeError, match=r"b\.py changed while"):
        _tree.pack(str(source), ["a.py", "b.py"], BytesIO())


def test_a_run_that_was_cut_off_is_repaired_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "src", NEW)
    dest = fill(tmp_path / "dest", OLD)
    manifest = _tree.scan_source(str(source), EXCLUDE)
    archive = tmp_path / "archive"
    with archive.open("wb") as handle:
        _tree.pack(str(source), manifest, handle)
    monkeypatch.setattr(os, "unlink", lambda path: None)
    monkeypatch.setattr(_tree, "take_over", cut := Cut(3))
    owners = _tree.Ownership()
    with pytest.raises(KeyboardInterrupt):
        _tree.apply(manifest, _tree.compare(manifest, str(dest), owners), str(dest), owners, str(archive))
    monkeypatch.undo()
    assert cut.left == 0 and any(path.name.endswith(".new") for path in dest.rglob("*"))
    equalise(source, dest)
    found = {path for path, item in state(dest).items() if item[0].startswith("-")}
    assert found == set(NEW)


class Cut:
    """Stands for a function that is interrupted at its n-th call."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, *_arguments: object) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


# --- What cannot be compiled ----------------------------------------------------------------------------------------

DAG = "from airflow.sdk import DAG\n"
BROKEN = DAG + "\nwith DAG('daily':\n    pass\n"
CANNOT = re.compile(r"etl/daily\.py, line 3: .+ \(Python 3\.\d+\)\. No DAG on this host was changed\. Mend it; ")


@pytest.mark.parametrize("arguments", [(), ("--check",), ("--check", "--diff")], ids=" ".join)
def test_a_dag_that_cannot_be_compiled_is_refused_before_anything_changes(
    arguments: tuple[str, ...], tree: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    source = fill(tmp_path / "src", {**NEW, "etl/daily.py": BROKEN, "good.py": DAG})
    dest = fill(tmp_path / "dest", {**OLD, "etl/daily.py": DAG})
    before = state(dest)
    refused = tree(*arguments, compile_with=sys.executable)
    assert refused["failed"] and CANNOT.match(refused["msg"]), refused["msg"]
    assert refused["msg"].endswith("-e airflow_dags_check=false")
    assert state(dest) == before and not list(tmp_path.glob("**/tree.tar.gz"))

    (source / "etl" / "daily.py").write_text(DAG + "print('mended')\n")
    assert tree(*arguments, compile_with=sys.executable)["updated"] == ["changed.py", "etl/daily.py"]
    assert (state(dest) == before) == bool(arguments)


def test_hosts_that_differ_come_to_the_same_answer(tree: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Another host lacks the broken file that this one has: neither changes."""
    source = fill(tmp_path / "src", {"etl/daily.py": BROKEN})
    assert tree()["added"] == ["etl/daily.py"]
    assert not tree(compile_with=sys.executable)["changed"]
    fill(source, {"new.py": "x = 1\n"})
    before = state(tmp_path / "dest")
    assert CANNOT.match(tree(compile_with=sys.executable)["msg"])
    (source / "new.py").unlink()
    fill(tmp_path / "dest", {"gone.py": ""})
    assert CANNOT.match(tree(compile_with=sys.executable)["msg"])
    (tmp_path / "dest" / "gone.py").unlink()
    assert state(tmp_path / "dest") == before


def test_a_check_costs_no_module_call_more(
    tree: Callable[..., dict[str, Any]], tmp_path: Path, ansible_playbook: Callable[..., Any]
) -> None:
    fill(tmp_path / "src", {**NEW, "etl/daily.py": DAG})
    tree("--check", compile_with=sys.executable)
    for calls in (2, 1):
        ran = ansible_playbook("-i", "localhost,", "-c", "local", tmp_path / "play.yml", "-vvv", json_output=False)
        assert ran.rc == 0 and ran.output.count("Using module file") == calls


def broken(contents: Content) -> list[str]:
    """The files that are refused."""
    plain = {path: text.encode() if isinstance(text, str) else text for path, text in contents.items()}
    return [fault.path for fault in _compile.faults(plain)]


@pytest.mark.parametrize(
    "text",
    [
        "#!/usr/bin/python2\nprint 'dag'\n",
        "print 'airflow'\n",
        "{% for x in y %}\n",
        b"\xff\xfe",
    ],
)
def test_what_airflow_does_not_open_may_hold_anything(text: str | bytes) -> None:
    assert broken({"a.py": text, "b.txt": BROKEN, "c.py.j2": BROKEN, "d.py": DAG}) == []


@pytest.mark.parametrize(
    "text",
    [
        BROKEN,
        BROKEN.upper(),
        "# airflow asset\nreturn 1\n",
        b"airflow = 'dag \xff'\n",
        DAG + "x = '\0'\n",
        DAG + "(" * 500,
    ],
)
def test_what_airflow_opens_has_to_compile(text: str | bytes) -> None:
    assert broken({"a/b.py": text, "good.py": DAG}) == ["a/b.py"]


@pytest.mark.parametrize(
    ("line", "helper", "refused"),
    [
        ("import common", "common.py", True),
        ("import common.sub", "common/__init__.py", True),
        ("import common.sub as x", "common/sub.py", True),
        ("from common import sub", "common/sub.py", True),
        ("from common.sub import x", "common/sub/__init__.py", True),
        ("def task():\n    import common", "common.py", True),
        ("import common", "other.py", False),
        ("import common", "etl/common.py", False),
        ("import common", "common/sub.py", False),
        ("from . import sub", "etl/sub.py", True),
        ("from .sub import x", "etl/sub.py", True),
        ("from ..common import x", "common.py", True),
        ("import queue", "queue.py", False),
    ],
)
def test_what_a_dag_imports_has_to_compile_too(line: str, helper: str, refused: bool) -> None:
    assert broken({"etl/daily.py": f"{DAG}{line}\n", helper: "print 'Python 2'\n"}) == [helper] * refused


def test_imports_are_followed_round_in_circles() -> None:
    files: Content = {"a.py": DAG + "import b\n", "b.py": "import c\n", "c.py": "import a, d\n", "d.py": "x ="}
    assert broken(files) == ["d.py"]


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ("", ["a.py", "x/a.py", "x/b.py", "x/y/a.py"]),
        ("a.py", ["x/b.py"]),
        ("/a.py", ["x/a.py", "x/b.py", "x/y/a.py"]),
        ("x/", ["a.py"]),
        ("a.py/", ["a.py", "x/a.py", "x/b.py", "x/y/a.py"]),
        ("x/*.py # but not below", ["a.py", "x/y/a.py"]),
        ("**/y/*", ["a.py", "x/a.py", "x/b.py"]),
        ("x/**", ["a.py"]),
        ("x/*/", ["a.py", "x/a.py", "x/b.py"]),
        ("[!b].py", ["x/b.py"]),
        ("?.py\n!b.py", ["x/b.py"]),
        ("# a.py\n[\n/\n", ["a.py", "x/a.py", "x/b.py", "x/y/a.py"]),
    ],
)
def test_airflowignore(lines: str, left: list[str]) -> None:
    paths = ["a.py", "x/a.py", "x/b.py", "x/y/a.py"]
    assert _compile.opened({**dict.fromkeys(paths, BROKEN.encode()), ".airflowignore": lines.encode()}) == left
    below = {**dict.fromkeys(paths, BROKEN.encode()), "x/.airflowignore": b"/a.py"}
    assert _compile.opened(below) == ["a.py", "x/b.py", "x/y/a.py"]


def test_an_ignored_file_that_a_dag_imports_has_to_compile() -> None:
    files: Content = {"common/x.py": BROKEN, "a.py": DAG + "import common.x\n", ".airflowignore": "common"}
    assert broken(files) == ["common/x.py"]


def test_the_message_names_some_files_and_counts_the_others() -> None:
    faults = [_compile.Fault(f"{number}.py", number, "wrong") for number in range(8)]
    told = _tree.refusal(faults, "3.13")
    assert told.startswith("0.py: wrong; 1.py, line 1: wrong; 2.py, line 2: wrong;")
    assert "4.py" in told and "5.py" not in told
    assert "; and 3 more files (Python 3.13). No DAG on this host was changed. Mend them; " in told
    assert "more" not in _tree.refusal(faults[:5], "3.13")
