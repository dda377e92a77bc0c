# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock files are whole, agree with each other, and what they install works together."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ansible
import pytest
from conftest import COLLECTIONS

LOCKS = Path(__file__).resolve().parents[2] / "roles" / "airflow" / "files" / "locks"
PYTHONS = ("3.11", "3.13")
FILES = tuple(f"python{python}.txt" for python in PYTHONS)


def pins(name: str) -> dict[str, str]:
    """Package and version of every requirement of a lock."""
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (LOCKS / name).read_text(encoding="utf-8"), flags=re.MULTILINE))


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_both_pythons_get_the_same_airflow() -> None:
    first, second = (pins(name) for name in FILES)
    ours = {
        name for name in first | second if name.startswith(("apache-airflow", "celery", "kombu", "amqp", "psycopg"))
    }
    assert {"apache-airflow", "apache-airflow-providers-celery", "apache-airflow-providers-fab"} <= ours
    assert {name: first.get(name) for name in ours} == {name: second.get(name) for name in ours}


@pytest.mark.parametrize("name", FILES)
def test_direct_requirements_are_locked_as_asked(name: str) -> None:
    asked = re.findall(
        r"^([a-z0-9-]+)(?:\[[^]]*\])?==(\S+)", (LOCKS / "requirements.in").read_text(encoding="utf-8"), re.M
    )
    assert len(asked) >= 3
    assert {package: pins(name)[package] for package, _ in asked} == dict(asked)


@pytest.mark.parametrize("name", FILES)
def test_celery_is_one_that_the_provider_can_import(name: str) -> None:
    assert (5, 5) <= number(pins(name)["celery"]) < (5, 7)


@pytest.mark.parametrize("name", [*FILES, "uv.txt"])
def test_every_requirement_has_hashes_and_nothing_else_stands_in_the_file(name: str) -> None:
    text = (LOCKS / name).read_text(encoding="utf-8")
    requirements = [block for block in re.split(r"(?<!\\)\n", text) if block and not block.startswith("#")]
    assert requirements
    for block in requirements:
        first, *hashes = re.split(r"\s*\\\n\s*", block.strip())
        assert re.fullmatch(r"[a-z0-9._-]+==[^\s;]+( ; .+)?", first), first
        assert hashes, f"{first} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", item) for item in hashes), first


@pytest.mark.parametrize("name", [*FILES, "uv.txt", "requirements.in"])
def test_no_index_and_no_path_of_a_machine(name: str) -> None:
    text = (LOCKS / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links|(^|\s)/\w+/", text)


def interpreter(python: str) -> str | None:
    """An interpreter of that version on this machine, or None."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == python:
        return sys.executable
    found = subprocess.run([*uv(), "python", "find", "--no-python-downloads", python], capture_output=True, text=True)
    if found.returncode == 0:
        return found.stdout.strip()
    # pyenv's own interpreters, of which its shims show only the chosen one
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{python}.*/bin/python3"))
    return str(kept[-1]) if kept else None


def uv() -> list[str]:
    """How to call uv."""
    program = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    return [program] if program else [sys.executable, "-m", "uv"]


def installed(python: str) -> Path:
    """The interpreter of an environment made from the lock of one Python; kept between runs, named by its hash."""
    base = interpreter(python)
    if base is None:
        pytest.skip(f"there is no Python {python} on this machine")
    lock = LOCKS / f"python{python}.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onprem-airflow"
    place = cache / f"locked-{python}-{digest}"
    done = place / ".complete"
    if not done.exists():
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob(f"locked-{python}-*"):
            shutil.rmtree(old)
        subprocess.run([*uv(), "venv", "--quiet", "--python", base, str(place)], check=True)
        sync = [*uv(), "pip", "sync", "--quiet", "--require-hashes", "--only-binary", ":all:"]
        subprocess.run([*sync, "--compile-bytecode", "--python", str(place / "bin" / "python"), str(lock)], check=True)
        done.touch()
    return place / "bin" / "python"


@pytest.mark.network
@pytest.mark.parametrize("python", PYTHONS)
def test_the_locked_celery_imports_under_the_locked_provider(python: str, tmp_path: Path) -> None:
    """The module that celery 5.7.0 broke; `airflow celery worker --help` would have gone on working."""
    code = """
import celery, airflow
from airflow.providers.celery.executors import celery_executor, celery_executor_utils
from airflow.providers.fab.auth_manager import fab_auth_manager
from airflow.providers.postgres.hooks import postgres
from airflow.providers.git.bundles import git
import asyncpg, psycopg, psycopg2, statsd
print(celery.__version__, airflow.__version__)
"""
    (tmp_path / "airflow.cfg").touch()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path)}
    ran = subprocess.run(
        [str(installed(python)), "-c", code], env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    locked = pins(f"python{python}.txt")
    assert ran.stdout.split()[-2:] == [locked["celery"], locked["apache-airflow"]]


# Every import of celery.local lasts long enough for the second thread to come while the first is in the middle of it.
TWO_AT_ONCE = """
import importlib.abc, sys, threading, time
from ansible_collections.onprem.airflow.plugins.module_utils import _look

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "celery.local":
            begun.set()
            time.sleep(0.5)

begun = threading.Event()
sys.meta_path.insert(0, Slow())
apps = []
first, second = [threading.Thread(target=lambda: apps.append(_look.celery("memory://", {}))) for _ in range(2)]
first.start()
assert begun.wait(20)
second.start()
first.join(20)
second.join(20)
print(*[app.main for app in apps])
"""


@pytest.mark.network
@pytest.mark.parametrize("python", PYTHONS)
def test_two_workers_of_a_host_are_asked_at_once(python: str, tmp_path: Path) -> None:
    """Two threads that import Celery for the first time, as the look at a host with two services does."""
    (tmp_path / "ansible").symlink_to(Path(ansible.__file__).parent)  # Ansible's module_utils, and nothing else of here
    environment = {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(COLLECTIONS), str(tmp_path)])}
    ran = subprocess.run(
        [str(installed(python)), "-c", TWO_AT_ONCE], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.split() == ["onprem.airflow", "onprem.airflow"], ran.stderr[-3000:]


def test_at_least_one_of_the_two_pythons_is_here() -> None:
    """Else the import above was skipped for both, and nothing was proved."""
    assert any(interpreter(python) for python in PYTHONS)
