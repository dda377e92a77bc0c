# Private to the onprem.airflow collection: no interface for others, may change with any release.
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparing a folder of the control machine with one of a host, and making the second equal to the first."""

from __future__ import annotations

import fnmatch
import hashlib
import inspect
import json
import os
import secrets
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from ansible_collections.onprem.airflow.plugins.module_utils import _compile

BLOCK = 1 << 20

# A text diff beyond this helps nobody, and travels from every host.
DIFF_FILE_BYTES = 100_000
DIFF_TOTAL_BYTES = 1_000_000

# How many files that cannot be compiled a message names.
FAULTS_TOLD = 5

# Nothing in or below these is ever a folder of ours alone.
SYSTEM_FOLDERS = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")

# Below these one more level belongs to the system or to a person (/var/lib, /home/ann).
SHARED_FOLDERS = ("/home", "/run", "/var")


class TreeError(Exception):
    """A source or destination that cannot be used as it is."""


@dataclass(frozen=True)
class FileEntry:
    """What a file of the source has to look like on the host."""

    sha256: str
    size: int
    executable: bool


Manifest = dict[str, FileEntry]


@dataclass(frozen=True)
class Ownership:
    """Modes as numbers, owner and group as ids; -1 leaves the id as it is."""

    uid: int = -1
    gid: int = -1
    file_mode: int = 0o644
    dir_mode: int = 0o755

    def mode_of(self, entry: FileEntry) -> int:
        """The mode of a file: an executable one can be executed by whoever may read it."""
        return self.file_mode | ((self.file_mode & 0o444) >> 2 if entry.executable else 0)

    def fits(self, status: os.stat_result, mode: int) -> bool:
        """Whether something has the mode, owner and group that it should have."""
        return (
            stat.S_IMODE(status.st_mode) == mode and self.uid in (-1, status.st_uid) and self.gid in (-1, status.st_gid)
        )


@dataclass
class Plan:
    """What has to happen for the destination to equal the source. Paths are relative to the destination."""

    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    removed_folders: list[str] = field(default_factory=list)
    new_folders: list[str] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything has to happen at all."""
        return any((self.added, self.updated, self.removed, self.removed_folders, self.new_folders, self.fixed))

    def result(self) -> dict[str, Any]:
        """The part of it that a person wants to see."""
        return {
            "changed": self.changed,
            "added": self.added,
            "updated": self.updated,
            "removed": [*self.removed, *(f"{path}/" for path in self.removed_folders)],
            "fixed": self.fixed,
        }


def file_digest(path: str) -> str:
    """SHA-256 of a file, read block by block."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def tree_digest(files: dict[str, str]) -> str:
    """One SHA-256 for a whole tree, from path -> SHA-256 of the file; the same for equal trees on any host."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{files[path]}\n".encode())
    return digest.hexdigest()


def manifest_digest(manifest: Manifest) -> str:
    """The digest of the tree that a manifest describes."""
    return tree_digest({path: entry.sha256 for path, entry in manifest.items()})


def excluded(path: str, patterns: Iterable[str]) -> bool:
    """Whether the last part of a relative path, or for a pattern with a slash the whole path, matches a pattern."""
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern.strip("/")) for pattern in patterns)


def scan_source(root: str, exclude: Iterable[str]) -> Manifest:
    """Every file below root. Links are followed when they stay inside; anything else that is no file is an error."""
    if not os.path.isabs(root):
        raise TreeError(f"src has to be an absolute path, not {root!r}.")
    if not os.path.isdir(root):
        what = "is not a folder" if os.path.exists(root) else "does not exist on the control machine"
        raise TreeError(f"src {root} {what}.")
    patterns = list(exclude)
    inside = os.path.realpath(root)
    manifest: Manifest = {}
    problems: list[str] = []

    def visit(folder: str, prefix: str, above: tuple[str, ...]) -> None:
        for entry in sorted(os.scandir(folder), key=lambda item: item.name):
            path = prefix + entry.name
            if excluded(path, patterns):
                continue
            try:
                path.encode("utf-8")
            except UnicodeEncodeError:
                problems.append(f"{path.encode('utf-8', 'backslashreplace').decode()}: its name is not UTF-8")
                continue
            real = os.path.realpath(entry.path)
            if entry.is_symlink():
                if real != inside and not real.startswith(inside + os.sep):
                    problems.append(f"{path}: a link that leads out of the folder, to {os.readlink(entry.path)}")
                    continue
                if not os.path.exists(real):
                    problems.append(f"{path}: a link to nothing, {os.readlink(entry.path)}")
                    continue
            if os.path.isdir(real):
                if real in above:
                    problems.append(f"{path}: a link to a folder that it is in, {os.readlink(entry.path)}")
                else:
                    visit(entry.path, f"{path}/", (*above, real))
            elif os.path.isfile(real):
                status = os.stat(real)
                executable = bool(status.st_mode & stat.S_IXUSR)
                manifest[path] = FileEntry(file_digest(real), status.st_size, executable)
            else:
                problems.append(f"{path}: neither a file nor a folder")

    try:
        visit(root, "", (inside,))
    except OSError as error:
        raise TreeError(f"{error.filename} cannot be read: {error.strerror}.") from error
    if problems:
        raise TreeError(f"src {root} cannot be copied. " + "; ".join(problems) + ". Remove these, or exclude them.")
    return manifest


def to_plain(manifest: Manifest) -> dict[str, list[Any]]:
    """The manifest as it travels to the host."""
    return {path: [entry.sha256, entry.size, entry.executable] for path, entry in manifest.items()}


def from_plain(plain: dict[str, list[Any]]) -> Manifest:
    """The manifest as it arrived, refused when a path would lead out of the destination."""
    for path in plain:
        if not path or path.startswith("/") or {"", ".", ".."} & set(path.split("/")):
            raise TreeError(f"{path!r} is not a path inside a folder.")
    return {path: FileEntry(str(item[0]), int(item[1]), bool(item[2])) for path, item in plain.items()}


def pack(root: str, paths: Iterable[str], target: IO[bytes]) -> None:
    """Write the named files into a tar archive."""
    with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1) as archive:
        for path in paths:
            try:
                with open(os.path.join(root, path), "rb") as handle:
                    member = tarfile.TarInfo(path)
                    member.size = os.fstat(handle.fileno()).st_size
                    archive.addfile(member, handle)
            except OSError as error:
                raise TreeError(f"{path} changed while src was read ({error}); run this again.") from error


def check_destination(dest: str) -> None:
    """Refuse a destination that holds, or may hold, what is not ours to remove."""
    # normpath leaves two slashes at the beginning alone, as POSIX allows.
    if not os.path.isabs(dest) or dest.startswith("//") or os.path.normpath(dest) != (dest.rstrip("/") or "/"):
        raise TreeError(f"dest has to be an absolute path without '..', not {dest!r}.")
    for path in (os.path.normpath(dest), os.path.realpath(dest)):
        parts = path.strip("/").split("/")
        own_local = parts[:2] == ["usr", "local"] and len(parts) > 3
        system = any(path == folder or path.startswith(f"{folder}/") for folder in SYSTEM_FOLDERS) and not own_local
        shared = f"/{parts[0]}" in SHARED_FOLDERS and len(parts) < 3
        if len(parts) < 2 or system or shared:
            also = "" if path == os.path.normpath(dest) else f" (which leads to {path})"
            raise TreeError(
                f"dest {dest}{also} is a folder of the system: everything in it that src lacks would be removed."
                " Give a folder that has no other use."
            )
    if os.path.islink(dest.rstrip("/")):
        raise TreeError(f"dest {dest} is a link, to {os.readlink(dest.rstrip('/'))}; give the folder itself.")
    if os.path.lexists(dest) and not os.path.isdir(dest):
        raise TreeError(f"dest {dest} is not a folder.")


def walk(dest: str, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Relative path and status of everything below a folder, no link followed, folders before what is in them."""
    for entry in sorted(os.scandir(os.path.join(dest, prefix)), key=lambda item: item.name):
        path = prefix + entry.name
        yield path, entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            yield from walk(dest, f"{path}/")


def folders_of(manifest: Manifest) -> set[str]:
    """Every folder that has a file somewhere below it; the root is not among them."""
    found: set[str] = set()
    for path in manifest:
        while "/" in path:
            path = path.rsplit("/", 1)[0]
            found.add(path)
    return found


def compare(manifest: Manifest, dest: str, ownership: Ownership) -> Plan:
    """What has to happen for dest to hold what the manifest says and nothing else."""
    check_destination(dest)
    plan = Plan()
    folders = folders_of(manifest)
    seen: set[str] = set()
    if os.path.isdir(dest):
        if not ownership.fits(os.stat(dest), ownership.dir_mode):
            plan.fixed.append(".")
        for path, status in walk(dest):
            seen.add(path)
            is_folder = stat.S_ISDIR(status.st_mode)
            if is_folder and path in folders:
                if not ownership.fits(status, ownership.dir_mode):
                    plan.fixed.append(path)
            elif is_folder:
                plan.removed_folders.append(path)
                if path in manifest:
                    plan.updated.append(path)
            elif path not in manifest:
                plan.removed.append(path)
                if path in folders:
                    plan.new_folders.append(path)
            elif not same_content(os.path.join(dest, path), status, manifest[path]):
                plan.updated.append(path)
            elif not ownership.fits(status, ownership.mode_of(manifest[path])):
                plan.fixed.append(path)
    else:
        plan.new_folders.append(".")
    plan.new_folders.extend(sorted(folders - seen))
    plan.added.extend(sorted(manifest.keys() - seen))
    return plan


def same_content(path: str, status: os.stat_result, entry: FileEntry) -> bool:
    """Whether a path is a plain file with the content it should have."""
    return stat.S_ISREG(status.st_mode) and status.st_size == entry.size and file_digest(path) == entry.sha256


def apply(manifest: Manifest, plan: Plan, dest: str, ownership: Ownership, archive: str | None) -> None:
    """Carry out a plan. Files appear before others go, each in one step: no reader meets half a file."""
    for path in plan.removed:
        if path in plan.new_folders:
            os.unlink(os.path.join(dest, path))
    for path in plan.removed_folders:
        if path in manifest:
            shutil.rmtree(os.path.join(dest, path))
    for path in sorted(plan.new_folders, key=lambda item: (item != ".", item)):
        make_folder(os.path.join(dest, path) if path != "." else dest, ownership)
    wanted = {*plan.added, *plan.updated}
    if wanted:
        unpack(manifest, wanted, dest, ownership, archive)
    for path in plan.removed:
        full = os.path.join(dest, path)
        if path not in plan.new_folders and os.path.lexists(full):
            os.unlink(full)
    for path in reversed(plan.removed_folders):
        full = os.path.join(dest, path)
        if path not in manifest and os.path.isdir(full):
            os.rmdir(full)
    for path in plan.fixed:
        mode = ownership.mode_of(manifest[path]) if path in manifest else ownership.dir_mode
        take_over(os.path.join(dest, path) if path != "." else dest, mode, ownership)


def check_compiles(manifest: Manifest, plan: Plan, dest: str, archive: str | None, python: str) -> None:
    """Refuse a source with DAGs that the named Python cannot compile, before anything of it is written.

    The whole source is looked at, also what a host has already. So hosts that differ come to the same answer.
    """
    question = {
        "paths": [path for path in manifest if _compile.relevant(path)],
        "sent": [path for path in (*plan.added, *plan.updated) if _compile.relevant(path)],
        "dest": dest,
        "archive": archive,
    }
    # A process of its own: it may be another Python, and what a strange file does to a compiler stays there.
    command = [python, "-I", "-S", "-B", "-W", "ignore", "-c", inspect.getsource(_compile)]
    try:
        ran = subprocess.run(command, input=json.dumps(question).encode(), capture_output=True, check=False)
    except OSError as error:
        raise TreeError(
            f"compile_with: {python} cannot be run on this host: {error.strerror}. Nothing of {dest} was changed."
        ) from error
    try:
        found = json.loads(ran.stdout)
    except ValueError as error:
        last = ran.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1] or f"it ended with {ran.returncode}"
        raise TreeError(
            f"{python} could not check the DAGs: {last}. Nothing of {dest} was changed."
            " To deploy them without the check: -e airflow_dags_check=false"
        ) from error
    if found["faults"]:
        faults = [_compile.Fault(*fault) for fault in found["faults"]]
        raise TreeError(refusal(faults, found["python"]))


def refusal(faults: list[_compile.Fault], python: str) -> str:
    """What a person is told of files that cannot be compiled."""
    told = [f"{item.path}{f', line {item.line}' if item.line else ''}: {item.what}" for item in faults[:FAULTS_TOLD]]
    more = f"; and {len(faults) - FAULTS_TOLD} more files" if len(faults) > FAULTS_TOLD else ""
    them = "it" if len(faults) == 1 else "them"
    return (
        f"{'; '.join(told)}{more} (Python {python}). No DAG on this host was changed. Mend {them}; or name {them} in"
        f" .airflowignore, if Airflow need not open {them}; or deploy {them} nevertheless: -e airflow_dags_check=false"
    )


def make_folder(path: str, ownership: Ownership) -> None:
    """A new folder, not open to anyone else before it has its owner."""
    parent = os.path.dirname(path.rstrip("/"))
    if not os.path.isdir(parent):
        raise TreeError(f"{parent} does not exist; make it first.")
    os.mkdir(path, 0o700)
    take_over(path, ownership.dir_mode, ownership)


def take_over(path: str, mode: int, ownership: Ownership) -> None:
    """Set owner, group and mode; in this order, because a change of owner can take bits of the mode away."""
    os.chown(path, ownership.uid, ownership.gid, follow_symlinks=False)
    os.chmod(path, mode)


def unpack(manifest: Manifest, wanted: set[str], dest: str, ownership: Ownership, archive: str | None) -> None:
    """Write the wanted files from the archive, each beside its place and then renamed."""
    left = set(wanted)
    with tarfile.open(archive, mode="r|gz") if archive else _no_archive() as members:
        for member in members:
            source = members.extractfile(member) if member.name in left else None
            if source is not None:
                write_file(source, os.path.join(dest, member.name), manifest[member.name], ownership)
                left.remove(member.name)
    if left:
        raise TreeError(f"{', '.join(sorted(left))} did not arrive: dest changed meanwhile; run this again.")


def _no_archive() -> Any:
    raise TreeError("dest changed while it was compared; run this again.")


def write_file(source: IO[bytes], path: str, entry: FileEntry, ownership: Ownership) -> None:
    """One file, complete and with its owner and mode before it gets its name."""
    folder, name = os.path.split(path)
    # No .py at the end: Airflow must not take the unfinished file for a DAG. Cut, so that a long name stays within 255.
    beside = os.path.join(folder, f".{name[:60]}.{secrets.token_hex(8)}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        digest = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as target:
            while block := source.read(BLOCK):
                digest.update(block)
                target.write(block)
        if digest.hexdigest() != entry.sha256:
            raise TreeError(f"{path} changed on the control machine while it was copied; run this again.")
        take_over(beside, ownership.mode_of(entry), ownership)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def texts(dest: str, paths: Iterable[str]) -> dict[str, str]:
    """What the named files hold, as far as they are small and text: for a diff."""
    found: dict[str, str] = {}
    left = DIFF_TOTAL_BYTES
    for path in paths:
        text = text_of(os.path.join(dest, path), left)
        if text is not None:
            found[path] = text
            left -= len(text)
    return found


def text_of(path: str, limit: int) -> str | None:
    """The content of a small text file, or None."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, "rb") as handle:
            content = handle.read(min(DIFF_FILE_BYTES, limit) + 1)
        if len(content) > min(DIFF_FILE_BYTES, limit) or b"\0" in content:
            return None
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def diffs(plan: dict[str, Any], dest: str, old: dict[str, str], new: dict[str, str]) -> list[dict[str, str]]:
    """Ansible's diffs: first the list of files, then the text of those that are small text files."""
    signs = (("added", "+"), ("updated", "~"), ("removed", "-"), ("fixed", "m"))
    lines = [f"{sign} {path}\n" for key, sign in signs for path in plan[key]]
    found = [{"prepared": f"{dest} (+ added, ~ updated, - removed, m owner or mode)\n" + "".join(lines)}]
    for path in [*plan["added"], *plan["updated"], *plan["removed"]]:
        before = old.get(path, "" if path in plan["added"] else None)
        after = new.get(path, "" if path in plan["removed"] else None)
        if before is not None and after is not None and before != after:
            full = os.path.join(dest, path)
            found.append({"before_header": full, "after_header": full, "before": before, "after": after})
    return found
