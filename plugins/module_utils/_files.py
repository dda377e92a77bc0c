# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: what a path is, what it should be, and the step from one to the other."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import tempfile
import typing as t
from dataclasses import dataclass, field, replace


class FilesError(Exception):
    """A path that cannot be brought into the wanted state; the text names it and what to do."""


@dataclass(frozen=True)
class Wanted:
    """One path and what it should be: a file (C(content)), a link (C(link)), a folder, or gone.

    C(former) is another link, which gets the target that a link had before it was changed.
    """

    path: str
    state: str  # file | directory | link | absent
    content: str | None = None
    link: str | None = None
    owner: str | None = None
    group: str | None = None
    mode: str | None = None
    validate: str | None = None
    former: str | None = None


@dataclass(frozen=True)
class Found:
    """What stands at a path now, without following a link there."""

    state: str  # file | directory | link | other | absent
    content: bytes | None = None
    link: str | None = None
    owner: str | None = None
    group: str | None = None
    mode: str | None = None


@dataclass
class Change:
    """The difference between found and wanted of one path; empty C(what) when there is none."""

    path: str
    what: list[str] = field(default_factory=list)
    before: str = ""
    after: str = ""


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def look(path: str) -> Found:
    """Describe what stands at C(path)."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Found("absent")
    if stat.S_ISLNK(info.st_mode):
        return Found("link", link=os.readlink(path))
    state, content = "other", None
    if stat.S_ISDIR(info.st_mode):
        state = "directory"
    elif stat.S_ISREG(info.st_mode):
        state = "file"
        with open(path, "rb") as stream:
            content = stream.read()
    return Found(
        state,
        content=content,
        owner=_user_name(info.st_uid),
        group=_group_name(info.st_gid),
        mode=f"{info.st_mode & 0o7777:04o}",
    )


def compare(wanted: Wanted, found: Found) -> Change:
    """Name every difference between what is wanted and what was found."""
    change = Change(wanted.path)
    if wanted.state != found.state:
        change.what.append(f"{found.state} -> {wanted.state}")
    if wanted.state == "file":
        before = (found.content or b"").decode("utf-8", "replace")
        if found.state != "file" or before != wanted.content:
            change.before, change.after = before, wanted.content or ""
            if found.state == "file":
                change.what.append("content")
    if wanted.state == "link" and found.state == "link" and wanted.link != found.link:
        change.what.append(f"link {found.link} -> {wanted.link}")
    if wanted.state in ("file", "directory"):
        for name in ("owner", "group", "mode"):
            want, have = getattr(wanted, name), getattr(found, name)
            if name == "mode" and want is not None:
                want = f"{int(want, 8):04o}"
            if want is not None and have is not None and want != have:
                change.what.append(f"{name} {have} -> {want}")
    return change


def _ids(wanted: Wanted) -> tuple[int, int]:
    """The numeric owner and group; -1 leaves as it is."""
    try:
        uid = -1 if wanted.owner is None else pwd.getpwnam(wanted.owner).pw_uid
        gid = -1 if wanted.group is None else grp.getgrnam(wanted.group).gr_gid
    except KeyError as exc:
        raise FilesError(f"{wanted.path}: owner {wanted.owner} or group {wanted.group} does not exist: {exc}") from exc
    return uid, gid


def _write(wanted: Wanted, check: t.Callable[[str, str], None]) -> None:
    """Write beside the target with the final owner and mode, check, rename: a reader sees old or new, never half."""
    folder, name = os.path.split(wanted.path)
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write((wanted.content or "").encode())
            os.fchown(stream.fileno(), *_ids(wanted))
            os.fchmod(stream.fileno(), int(wanted.mode or "0644", 8))
            stream.flush()
            os.fsync(stream.fileno())
        if wanted.validate:
            check(wanted.validate, temporary)
        os.rename(temporary, wanted.path)
    except BaseException:
        os.unlink(temporary)
        raise


def _link(target: str, path: str) -> None:
    """Make a link, in place of another one in one step."""
    temporary = f"{path}.new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.rename(temporary, path)


def apply(wanted: Wanted, found: Found, check: t.Callable[[str, str], None]) -> None:
    """Bring C(wanted.path) from C(found) into the wanted state.

    C(check(command, file)) raises when the command refuses a new file; the old one is then still in place.
    """
    if found.state == wanted.state:  # what is not asked for stays as it is
        wanted = replace(
            wanted,
            owner=wanted.owner or found.owner,
            group=wanted.group or found.group,
            mode=wanted.mode or found.mode,
        )
    if found.state == "other" or (found.state == "directory" and wanted.state in ("file", "link")):
        raise FilesError(f"{wanted.path} is a {found.state}, not a {wanted.state}: move it away first")
    if wanted.state == "absent":
        if found.state == "directory":
            shutil.rmtree(wanted.path)
        elif found.state != "absent":
            os.unlink(wanted.path)
        return
    os.makedirs(os.path.dirname(wanted.path), mode=0o755, exist_ok=True)
    if wanted.state == "link":
        if wanted.former and found.link:
            _link(found.link, wanted.former)  # first: when it ends here, the next run does the same again
        _link(wanted.link or "", wanted.path)
        return
    if wanted.state == "directory":
        if found.state in ("file", "link"):
            raise FilesError(f"{wanted.path} is a {found.state}, not a directory: move it away first")
        os.makedirs(wanted.path, mode=0o700, exist_ok=True)
    elif found.state != "file" or (found.content or b"").decode("utf-8", "replace") != wanted.content:
        _write(wanted, check)
        return
    # lchown: the path may be swapped for a link by whoever owns the folder it stands in.
    os.chown(wanted.path, *_ids(wanted), follow_symlinks=False)
    os.chmod(wanted.path, int(wanted.mode or ("0755" if wanted.state == "directory" else "0644"), 8))
