# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Breaks the running cluster, one thing at a time: verify names that one, on its host, with its fix, and nothing else.

Only the scenario `verify` runs this; its cluster has two masters. After each fault the cluster is mended. That the next
one is again the only problem shows it; at the end verify has to find nothing at all.
"""

from __future__ import annotations

import base64
import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import time
import typing as t
import urllib.error
import urllib.request
from urllib.parse import quote

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What looks at a running cluster, from the tests of a healthy one
sys.path[:0] = [str(ROOT / "tests" / "lab")]
from conftest import PLAIN, Lab  # type: ignore[import-not-found]  # noqa: E402
from faults import GROUPS, INVENTED, Fault  # type: ignore[import-not-found]  # noqa: E402
from test_access import bare, forms  # type: ignore[import-not-found]  # noqa: E402
from ways import firewall, on_all  # noqa: E402

LOG = ROOT / ".lab" / "ansible.log"
# What verify may take on this cluster, six hosts on one machine with two cores, and its module on a healthy host.
SECONDS = 20.0
CPU_SECONDS = 2.0
WAIT = 60.0


# --- The cluster
class Broker:
    """The broker's own interface, as Airflow's user."""

    vhost = "airflow"

    def __init__(self, lab: t.Any) -> None:
        self.url = f"http://{lab.address(lab.broker)}:15672/api"
        login = f"airflow:{lab.secrets['airflow_broker_password']}"
        self.authorization = f"Basic {base64.b64encode(login.encode()).decode()}"

    def call(self, method: str, path: str, body: t.Any = None) -> t.Any:
        request = urllib.request.Request(
            f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": self.authorization, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read()
        return json.loads(text) if text else None

    def declare(self, queue: str, kind: str) -> None:
        arguments = {"durable": True, "arguments": {"x-queue-type": kind}}
        self.call("PUT", f"queues/{self.vhost}/{queue}", arguments)

    def send(self, queue: str) -> None:
        message = {"properties": {}, "routing_key": queue, "payload": "lost", "payload_encoding": "string"}
        assert self.call("POST", f"exchanges/{self.vhost}/amq.default/publish", message)["routed"]

    def delete(self, queue: str) -> None:
        with contextlib.suppress(urllib.error.HTTPError):  # it is gone already
            self.call("DELETE", f"queues/{self.vhost}/{queue}")

    def waiting(self, queue: str) -> bool:
        """Whether the broker tells of a message; its numbers are some seconds old."""
        return bool(self.call("GET", f"queues/{self.vhost}/{quote(queue)}").get("messages_ready"))

    def consumers(self) -> set[str]:
        """The addresses that take tasks from the default queue."""
        listed = self.call("GET", f"consumers/{self.vhost}")
        return {entry["channel_details"]["peer_host"] for entry in listed if entry["queue"]["name"] == "default"}


@dataclasses.dataclass
class Run:
    rc: int
    seconds: float
    document: dict[str, t.Any]
    text: str

    @property
    def told(self) -> str:
        """What it found, for a person."""
        return f"exit code {self.rc}\n" + json.dumps(self.document.get("problems"), indent=2)


class Cluster:
    """The scenario's cluster, and verify on it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.lab = Lab()
        self.broker = Broker(self.lab)
        self.folder = folder
        self.runs = 0
        self.seen: t.Any = None  # by the last look at a condition
        self.took: list[tuple[str, str, float, Run]] = []

    def verify(self, variables: t.Mapping[str, t.Mapping[str, str]] | None = None) -> Run:
        """Runs verify at -vvv into the scenario's log. Variables are those of single hosts, in a source of its own."""
        self.runs += 1
        folder = self.folder / str(self.runs)
        command = ["ansible-playbook", *self.lab.arguments, "-e", json.dumps({"airflow_verify_dest": str(folder)})]
        if variables:
            source = self.folder / f"{self.runs}.json"
            source.write_text(json.dumps({"all": {"hosts": variables}}))
            command += ["-i", str(source)]
        environment = PLAIN | {"ANSIBLE_VERBOSITY": "3", "ANSIBLE_LOG_PATH": str(LOG)}
        began = time.monotonic()
        done = subprocess.run(
            [*command, "onprem.airflow.verify"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - began
        document = folder / "verify.json"
        text = done.stdout + done.stderr
        assert document.exists(), text[-3000:]
        return Run(done.returncode, seconds, json.loads(document.read_text()), text)

    def green(self) -> Run:
        """Runs verify and expects nothing."""
        run = self.verify()
        assert (run.rc, run.document["problems"]) == (0, []), run.told
        assert run.document["ok"]
        return run

    def wait(self, condition: str = "", *arguments: str) -> None:
        """Until a method of this says yes."""
        end = time.monotonic() + WAIT
        while condition and not getattr(self, condition)(*arguments):
            assert time.monotonic() < end, f"{condition} {arguments} within {WAIT} s: {self.seen!r}"
            time.sleep(0.3)

    def consuming(self) -> bool:
        """Whether both workers take tasks."""
        try:
            self.seen = self.broker.consumers()
        except OSError as exc:  # the broker is just starting, or its virtual host is new
            self.seen = exc
            return False
        return {self.lab.address(worker) for worker in self.lab.workers} <= self.seen

    def waiting(self, queue: str) -> bool:
        return self.broker.waiting(queue)

    def import_errors(self, count: str) -> bool:
        """Whether the DAG processors found so many."""
        self.seen = self.lab.sql("SELECT count(*) FROM import_error")
        return bool(self.seen == [[count]])

    def do(self, steps: t.Iterable[tuple[str, ...]]) -> None:
        for method, *arguments in steps:
            getattr(self.broker, method)(*arguments)

    def mend(self, fault: Fault) -> None:
        with contextlib.ExitStack() as stack:  # from last to first, each whatever becomes of the others
            stack.callback(self.wait, *fault.until_mended)
            stack.callback(on_all, fault.mends)
            stack.callback(self.do, fault.broker_mends)
            if fault.firewall:
                stack.callback(firewall, "-D", *fault.firewall)

    @contextlib.contextmanager
    def broken(self, fault: Fault) -> collections.abc.Iterator[None]:
        """The cluster with the fault; afterwards without it. A test that failed leaves nothing behind for the next."""
        try:
            try:
                on_all(fault.breaks)
                if fault.firewall:
                    firewall("-I", *fault.firewall)
                self.do(fault.broker_breaks)
                self.wait(*fault.until)
                yield
            finally:
                self.mend(fault)
        except BaseException:
            end = time.monotonic() + WAIT
            while self.verify().rc != 0 and time.monotonic() < end:
                pass
            raise


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster(tmp_path_factory.mktemp("verify"))


# --- The tests, in this order
def test_verify_finds_nothing_and_is_quick(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    run = cluster.green()
    reports = {name: host["report"] for name, host in run.document["hosts"].items()}
    with capsys.disabled():
        print(f"\nverify on {len(reports)} healthy hosts: {run.seconds:.1f} s; the module on each, wall and CPU:")
        for name, report in reports.items():
            print(f"  {name:10} {report['wall_seconds']:5.2f} s {report['cpu_seconds']:5.2f} s  {report['seconds']}")
    assert len(reports) == 6
    assert run.document["not_looked_at"] == []
    assert run.seconds < SECONDS
    assert [name for name, report in reports.items() if report["cpu_seconds"] >= CPU_SECONDS] == []


# That nothing is left of one the next one shows, which has to be the only problem.
CASES = [*(fault for faults in GROUPS.values() for fault in faults), "nothing is left"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case if isinstance(case, str) else case.name)
def test_fault(cluster: Cluster, case: Fault | str) -> None:
    if isinstance(case, str):
        cluster.green()
        return
    began = time.monotonic()
    with cluster.broken(case):
        run = cluster.verify(case.variables)
        assert run.rc == 2, run.told
        assert not run.document["ok"]
        problems = run.document["problems"]
        found = [(problem["code"], tuple(problem["hosts"])) for problem in problems]
        assert found == [(case.code, case.hosts)], run.told
        problem = problems[0]
        assert problem["subject"] == case.subject
        assert re.search(case.what, problem["what"]), problem["what"]
        assert re.search(case.fix, problem["fix"]), problem["fix"]
        follows = {entry["code"] for entry in problem["consequences"]}
        assert set(case.shows) <= follows <= {*case.shows, *case.may_show}, run.told
        # The same on the terminal
        assert re.search(rf"\[{case.code}\]", run.text.replace("\n", ""))
    cluster.took.append((case.name, f"{case.code} on {', '.join(case.hosts)}", time.monotonic() - began, run))


def test_the_table_of_all_faults(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """What was found, and how long it took from breaking to mended."""
    with capsys.disabled():
        print()
        for name, found, seconds, run in cluster.took:
            print(f"  {name:50} {found:65} {seconds:5.1f} s, verify {run.seconds:4.1f} s")
    assert cluster.took


def test_no_secret_is_in_all_that_was_said(cluster: Cluster) -> None:
    """Neither of the cluster nor of those that were wrong: in the log at -vvv, in verify.json and verify.html."""
    files = [LOG, *sorted(cluster.folder.glob("*/verify.*"))]
    assert len(files) > 2 * len(cluster.took)
    log = LOG.read_text(errors="replace")
    assert log.count("TASK [Verify | Look at every host]") > len(cluster.took)
    assert "ESTABLISH SSH CONNECTION" in log, "the log is not one with -vvv"
    secrets = {**cluster.lab.secrets, **{f"invented {number}": value for number, value in enumerate(INVENTED)}}
    for file in files:
        text = file.read_text(errors="replace")
        for said in (text, bare(text)):
            for name, secret in secrets.items():
                for form in forms(secret):
                    assert form not in said, f"{name} is in {file}, at character {said.index(form)}"
