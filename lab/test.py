#!/usr/bin/env python3
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the project's tests: lab/test.py [STEP ...]; without a step all of them.

The last line counts tests: those of pytest one by one, every other command as one. Every failure is named before it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

import output
import strategies

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(sys.executable).parent
# The other line of Ansible that is supported; lab/setup.sh makes it where a second Python is.
OTHER = ROOT / ".venv-other" / "bin"
BUILD = ROOT / "build"
INSTALLED = BUILD / "installed"
# Ansible runs sanity tests, and builds, only from a folder of this name; files that git ignores have no place there.
# Nor may it be inside this repository: ansible-test would ask git for the files, which ignores build/.
SCRATCH = tempfile.TemporaryDirectory(prefix="onprem-airflow-test-")
COPY = pathlib.Path(SCRATCH.name) / "ansible_collections" / "onprem" / "airflow"
NOT_SHIPPED = (".ci", "bench", "lab", "molecule", "tests")
JUNIT = pathlib.Path(SCRATCH.name) / "junit.xml"
SCENARIOS = ("default", "single", "verify", "workers")
# Those with the hosts of Debian 12, which run the other line of Ansible: so both lines and both releases have run
# everything, without each of the four together doing so.
DEBIAN_12 = ("single", "verify")
# The one that runs with Mitogen's strategies.
MITOGEN = "default"
STEPS = ("lint", "build", *(f"molecule:{scenario}" for scenario in SCENARIOS), "unit", "sanity", "importer")
# Need no host; beside the scenario that mostly waits they take no time of their own.
BESIDE, WAITS = ("unit", "sanity", "importer"), "molecule:workers"
# What ansible-test fetches from a site of its own, to put pip into the environments of its tests; Python can do that
# by itself, also where only a package index is in reach.
GET_PIP = """import subprocess, sys
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
"""
# Much of a test is a run of Ansible, which takes one core.
PARALLEL = ("-n", "auto", "--dist", "worksteal")


# What to run, and the arguments of run() for it
Command = tuple[list[str], dict[str, object]]


@dataclasses.dataclass
class Outcome:
    name: str
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0
    # What failed, and the first lines of why: the end of a long log is what people see first.
    failures: list[str] = dataclasses.field(default_factory=list)


def copy() -> None:
    """What we ship, as git would commit it, in COPY."""
    shutil.rmtree(COPY, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, COPY / name
        if name.split("/")[0] not in NOT_SHIPPED and (source.exists() or source.is_symlink()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def offer_pip() -> None:
    """Puts GET_PIP where ansible-test looks before it goes to the network."""
    import ansible_test._internal

    source = pathlib.Path(ansible_test._internal.__file__).with_name("python_requirements.py").read_text()
    wanted = re.search(r"\bpip='([0-9.]+)'", source)
    if wanted:
        cache = pathlib.Path.home() / ".ansible" / "test" / "cache" / f"get_pip_{wanted.group(1).replace('.', '_')}.py"
        cache.parent.mkdir(parents=True, exist_ok=True)
        if not cache.exists():
            cache.write_text(GET_PIP)


def run(
    command: list[str],
    *,
    cwd: pathlib.Path = ROOT,
    strict: bool = False,
    tools: pathlib.Path = BIN,
    variables: dict[str, str] | None = None,
) -> Outcome:
    """Runs a command with its output on the screen; returns how many tests passed and failed, and which.

    With `strict` any warning of Ansible is a failure; `variables` are more of its environment. pytest counts its tests
    itself, wherever in the command it runs.
    """
    print(f"\n-- {' '.join(command)}", flush=True)
    JUNIT.unlink(missing_ok=True)
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTEST_ADDOPTS": f"--junitxml={JUNIT} --durations=15",
        "MOLECULE_GLOB": "molecule/*/molecule.yml",
        "PIP_QUIET": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        **(variables or {}),
    }
    warnings: list[str] = []
    with subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        # .lab/ansible.log has all of it.
        for line in output.seen(output.noting(process.stdout, warnings)):
            print(line, end="", flush=True)
    if not strict:
        warnings.clear()
    ok = process.returncode == 0 and not warnings
    outcome = Outcome(" ".join(command))
    if warnings:
        outcome.failures.append(f"Ansible warned {len(warnings)} times, first: {warnings[0]}")
    elif not ok:
        outcome.failures.append(f"exit code {process.returncode}")
    for failure in outcome.failures:
        print(f"-- failed: {failure}", flush=True)
    if not JUNIT.exists():
        outcome.passed, outcome.failed = (1, 0) if ok else (0, 1)
        return outcome
    for suite in xml.etree.ElementTree.parse(JUNIT).getroot().iter("testsuite"):
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        outcome.failed += bad
        outcome.passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
        for case in suite.iter("testcase"):
            for found in [*case.findall("failure"), *case.findall("error")]:
                message = "\n        ".join((found.get("message") or "").splitlines()[:6])
                outcome.failures.append(f"{case.get('classname')}::{case.get('name')}: {message}")
    # A scenario is more than its tests: its own sequence counts as well.
    if not ok:
        outcome.failed = max(outcome.failed, 1)
    elif command[0] != "pytest":
        outcome.passed += 1
    return outcome


def artifact() -> pathlib.Path:
    version = re.search(r"^version: (\S+)", (ROOT / "galaxy.yml").read_text(), re.MULTILINE)
    return BUILD / f"onprem-airflow-{version.group(1) if version else ''}.tar.gz"


def build() -> Command:
    """The command that builds the artifact."""
    copy()
    command = ["ansible-galaxy", "collection", "build", "--force", "--output-path", str(BUILD)]
    return command, {"cwd": COPY, "strict": True}


def install() -> list[Command]:
    """The commands that build the artifact and install it in INSTALLED, without what is there."""
    shutil.rmtree(INSTALLED, ignore_errors=True)
    here = ["env", f"ANSIBLE_COLLECTIONS_PATH={INSTALLED}"]
    command = ["ansible-galaxy", "collection", "install", "--offline", "--no-deps", "-p", str(INSTALLED)]
    return [build(), ([*here, *command, str(artifact())], {"strict": True})]


def commands(step: str) -> list[Command]:
    """The commands of a step, with the arguments that run() takes for each."""
    match step.split(":"):
        case ["lint"]:
            plugins = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "plugins").rglob("*.py"))]
            package = ".ansible/collections/ansible_collections/onprem/airflow"
            return [
                (["ruff", "check", "."], {}),
                (["ruff", "format", "--check", "."], {}),
                (["yamllint", "--strict", "."], {}),
                (["mypy", *(f"{package}/{path}" for path in plugins)], {}),
                *((["mypy", str(path.relative_to(ROOT))], {}) for path in sorted((ROOT / "lab").glob("*.py"))),
                *((["mypy", str(path.relative_to(ROOT))], {}) for path in sorted((ROOT / "bench").glob("*.py"))),
                (["mypy", "roles/airflow_worker/files/airflow_watchdog.py"], {}),
                (["ansible-lint", "--offline", "--strict"], {}),
                (["antsibull-changelog", "lint"], {}),
            ]
        case ["unit"]:
            return [(["pytest", *PARALLEL, "tests/unit"], {})]
        case ["sanity"]:
            copy()
            offer_pip()
            python = f"{sys.version_info.major}.{sys.version_info.minor}"
            return [(["ansible-test", "sanity", "--requirements", "--python", python, "--color", "no"], {"cwd": COPY})]
        case ["build"]:
            return [*install(), (["pytest", *PARALLEL, "tests/artifact"], {})]
        case ["importer"]:
            importer = [sys.executable, "-m", "galaxy_importer.main", artifact().name]
            return [build(), (importer, {"cwd": BUILD})]
        case ["molecule", scenario]:
            tools = OTHER if scenario in DEBIAN_12 and OTHER.exists() else BIN
            molecule = ["molecule", "test", "--no-command-borders", "--scenario-name", scenario]
            # One scenario runs what users install, the others the checkout.
            before = install() if scenario == "single" else []
            variables = strategies.mitogen() if scenario == MITOGEN else {}
            return [*before, (molecule, {"strict": True, "tools": tools, "variables": variables})]
    raise SystemExit(f"test: there is no step {step!r}; there are {', '.join(STEPS)}")


def done(step: str) -> Outcome:
    """Runs a step."""
    print(f"\n== {step}", flush=True)
    outcome = Outcome(step)
    began = time.monotonic()
    for command, arguments in commands(step):
        part = run(command, **arguments)  # type: ignore[arg-type]
        outcome.passed += part.passed
        outcome.failed += part.failed
        outcome.failures += [f"{part.name}: {failure}" for failure in part.failures]
    outcome.seconds = time.monotonic() - began
    return outcome


def done_beside(step: str, others: collections.abc.Sequence[str]) -> tuple[Outcome, Outcome]:
    """Runs a step, and others at low priority in a process of their own, whose output comes when all have ended."""
    log = BUILD / "beside.log"
    log.parent.mkdir(exist_ok=True)
    print(f"\n-- beside what follows: {', '.join(others)}, see {log.relative_to(ROOT)}", flush=True)
    began = time.monotonic()
    with log.open("w") as stream:
        command = ["nice", "-n", "19", sys.executable, __file__, *others]
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    outcome = done(step)
    beside = Outcome(", ".join(others))
    failed = process.wait()
    text = log.read_text(errors="replace")
    print(text, flush=True)
    counts = re.findall(r"^(\d+) passed, (\d+) failed$", text, re.MULTILINE)
    beside.passed, beside.failed = map(int, counts[-1]) if counts else (0, 1)
    beside.failed = max(beside.failed, int(failed != 0))
    beside.failures = [f"see {log.relative_to(ROOT)}"] if beside.failed else []
    beside.seconds = time.monotonic() - began
    return outcome, beside


def main(steps: list[str]) -> int:
    # Molecule's log goes there; Ansible warns at every start while the folder is missing, and a warning is a failure.
    (ROOT / ".lab").mkdir(mode=0o700, exist_ok=True)
    outcomes: list[Outcome] = []
    for step in steps or [step for step in STEPS if step not in BESIDE]:
        if step == WAITS and not steps:
            outcomes += done_beside(step, BESIDE)
        else:
            outcomes.append(done(step))
    print()
    for outcome in outcomes:
        verdict = "FAILED" if outcome.failed else "ok"
        counts = f"{outcome.passed} passed, {outcome.failed} failed"
        print(f"{verdict:7} {outcome.name:20} {outcome.seconds:6.0f} s  {counts}")
        for failure in outcome.failures:
            print(f"        {failure}")
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"\n{sum(outcome.passed for outcome in outcomes)} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
