# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watchdog of the workers: what it decides, and how it looks at processes, disks and the broker."""

from __future__ import annotations

import base64
import http.server
import importlib.util
import itertools
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import typing as t
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _drain, _service

PATH = pathlib.Path(__file__).parents[2] / "roles" / "airflow_worker" / "files" / "airflow_watchdog.py"
SPEC = importlib.util.spec_from_file_location("airflow_watchdog", PATH)
assert SPEC and SPEC.loader
dog: t.Any = importlib.util.module_from_spec(SPEC)
sys.modules["airflow_watchdog"] = dog  # dataclasses look for it there
SPEC.loader.exec_module(dog)

UNIT, GPU = "airflow-worker.service", "airflow-worker@gpu.service"
QUEUES = frozenset({"default"})
SETTINGS = dog.Settings(units={UNIT: QUEUES}, disk_free=512, folders=("/logs",))
NOTHING = frozenset[str]()
PLENTY, LITTLE = dog.Disk("/logs", 9000), dog.Disk("/logs", 511)
WELL = dog.Seen(state="active", began=1000.0, takes=QUEUES)
IDLE = replace(WELL, takes=NOTHING, why="it is not connected")
AWAY = replace(WELL, takes=None, why="mq1:5672 does not answer")


class Story:
    """A unit over time; one look every ten seconds, from a time at which its process is old enough."""

    def __init__(self, queues: frozenset[str] = QUEUES, settings: t.Any = SETTINGS, now: float = 2000.0) -> None:
        self.queues, self.settings, self.now = queues, settings, now
        self.memory = dog.Memory()
        self.deeds: list[tuple[float, str, str]] = []  # when, what systemctl does, the line

    def sees(self, seen: t.Any, seconds: float = 10.0, disk: t.Any = PLENTY) -> list[str]:
        """What it has systemctl do while it sees this for so long."""
        told: list[str] = []
        for _ in range(round(seconds / 10)):
            self.memory, deeds = dog.decide(self.queues, self.memory, seen, disk, self.settings, self.now)
            self.deeds += [(self.now, deed.order, deed.text) for deed in deeds]
            told += [deed.order for deed in deeds if deed.order]
            self.now += 10
        return told

    def restarts(self, seen: t.Any, within: float) -> list[float]:
        """The times at which it restarts a unit whose new process is no better, each 20 s after that."""
        began, found = self.now, []
        while self.now < began + within:
            if self.sees(seen) == ["restart"]:
                found.append(self.now - 10)
                seen = replace(seen, began=self.now + 10)
        return found

    @property
    def lines(self) -> list[str]:
        return [text for _now, _order, text in self.deeds]


# --- A worker that takes nothing
def test_a_worker_at_work_is_left_alone_in_silence() -> None:
    story = Story()
    assert story.sees(WELL, 3600) == [] and story.lines == []


def test_it_is_restarted_after_the_patience_and_not_before() -> None:
    story = Story()
    assert story.sees(IDLE, 60) == []
    assert story.sees(IDLE) == ["restart"]
    (line,) = story.lines
    assert "60 s" in line and "default" in line and "it is not connected" in line
    story = Story(settings=replace(SETTINGS, patience=300))
    assert story.sees(IDLE, 300) == [] and story.sees(IDLE) == ["restart"]


def test_a_moment_at_work_starts_the_patience_anew() -> None:
    story = Story()
    story.sees(IDLE, 50)
    story.sees(WELL)
    assert story.sees(IDLE, 60) == []


def test_a_young_process_has_its_grace() -> None:
    story = Story(now=1000.0)
    # 60 s of grace, then 60 s of patience
    assert story.sees(IDLE, 120) == []
    assert story.sees(IDLE) == ["restart"]


def test_another_process_is_judged_anew() -> None:
    story = Story()
    story.sees(IDLE, 50)
    fresh = replace(IDLE, began=story.now - 61)
    assert story.sees(fresh, 60) == [] and story.sees(fresh) == ["restart"]


@pytest.mark.parametrize("state", ["inactive", "failed", "activating", "deactivating", "changing"])
def test_what_is_not_up_is_left_alone(state: str) -> None:
    """Whoever stopped it, it was not the watchdog."""
    story = Story()
    assert story.sees(replace(IDLE, state=state), 3600) == [] and story.lines == []


def test_a_drained_worker_is_left_alone() -> None:
    story = Story()
    assert story.sees(replace(IDLE, drained=True, leaving=5.0), 7200, LITTLE) == [] and story.lines == []


def test_a_worker_that_finishes_its_tasks_is_left_alone() -> None:
    story = Story()
    for leaving in range(0, 3660, 10):
        assert story.sees(replace(IDLE, leaving=float(leaving))) == []
    assert story.lines == []


def test_a_restart_that_was_cut_off_before_it_happened_is_made_up_for() -> None:
    story = Story()
    assert story.sees(replace(IDLE, leaving=3661.0), 70) == ["restart"]


def test_one_of_two_queues_is_too_little() -> None:
    story = Story(frozenset({"default", "gpu"}))
    assert story.sees(WELL, 70) == ["restart"]
    assert "none from gpu, only from default" in story.lines[0]
    # One more than its own is no fault.
    assert Story().sees(replace(WELL, takes=frozenset({"default", "gpu"})), 600) == []


def test_a_broker_that_is_away_makes_it_begin_anew() -> None:
    story = Story()
    story.sees(IDLE, 60)
    story.sees(AWAY)
    assert story.sees(IDLE, 60) == []
    assert story.sees(IDLE) == ["restart"]


def test_nothing_happens_while_the_broker_is_away_and_that_is_said_once() -> None:
    story = Story()
    assert story.sees(AWAY, 7200) == []
    (line,) = story.lines
    assert "mq1:5672 does not answer" in line and "left alone" in line
    story.sees(WELL, 60)
    assert len(story.lines) == 2
    # A short absence is not worth a line.
    story.sees(AWAY, 60)
    story.sees(WELL, 60)
    assert len(story.lines) == 2


def test_the_times_between_restarts_double() -> None:
    found = Story().restarts(IDLE, 100_000)
    gaps = [round(later - earlier) for earlier, later in itertools.pairwise(found)]
    # From the start of the new process, 20 s after the restart.
    assert gaps[:5] == [620, 1220, 2420, 4820, 9620]
    assert gaps[5:] and set(gaps[5:]) <= {19220, 21620}


def test_after_as_long_at_work_as_it_would_wait_a_restart_is_a_first_one() -> None:
    story = Story()
    assert story.sees(IDLE, 70) == ["restart"]
    back = replace(WELL, began=story.now)
    assert story.sees(back, 300) == [] and story.memory.wait == 600
    assert story.sees(replace(IDLE, began=back.began), 300) == []  # it has not been well for long
    story.sees(back, 620)
    assert story.memory.wait == 0
    assert story.sees(replace(IDLE, began=back.began), 70) == ["restart"]


def test_the_end_of_a_restart_is_told_once() -> None:
    story = Story()
    story.sees(IDLE, 70)
    story.sees(replace(WELL, began=story.now), 3600)
    assert len(story.lines) == 2 and "takes tasks from default" in story.lines[1]


# --- One that does not end
STOPPING = replace(IDLE, state="deactivating")


def restarted() -> Story:
    story = Story()
    assert story.sees(IDLE, 70) == ["restart"]
    return story


def test_a_restart_waits_for_tasks_as_long_as_they_take() -> None:
    story = restarted()
    assert story.sees(replace(STOPPING, tasks=2), 86400) == []
    # That it cannot be seen is no reason either.
    assert story.sees(replace(STOPPING, tasks=None), 86400) == []


def test_one_that_hangs_without_a_task_is_killed() -> None:
    story = restarted()
    story.sees(replace(STOPPING, tasks=0), 60)
    story.sees(replace(STOPPING, tasks=1))
    assert story.sees(replace(STOPPING, tasks=0), 60) == []
    assert story.sees(replace(STOPPING, tasks=0)) == ["kill"]


def test_one_that_somebody_else_stops_is_not_killed() -> None:
    assert Story().sees(replace(STOPPING, tasks=0), 86400) == []


# --- Disks
def test_it_stops_for_want_of_space_and_starts_again_with_some_more() -> None:
    story = Story()
    assert story.sees(WELL, disk=dog.Disk("/logs", 512)) == []
    assert story.sees(WELL, disk=LITTLE) == ["stop"]
    assert "511 MB" in story.lines[0] and "/logs" in story.lines[0] and "614" in story.lines[0]
    assert story.sees(replace(WELL, state="deactivating"), 600, LITTLE) == []
    gone = replace(WELL, state="inactive")
    assert story.sees(gone, 600, LITTLE) == []
    assert story.sees(gone, 600, dog.Disk("/logs", 614)) == []
    assert story.sees(gone, 600, dog.Disk("/logs", 615)) == ["start"]
    assert len(story.lines) == 2


def test_it_waits_for_the_tasks_of_one_that_it_has_stopped() -> None:
    story = Story()
    story.sees(WELL, disk=LITTLE)
    assert story.sees(replace(WELL, state="deactivating", tasks=0), 600) == []
    assert story.sees(replace(WELL, state="inactive")) == ["start"]


def test_it_starts_nothing_that_it_has_not_stopped() -> None:
    story = Story()
    assert story.sees(replace(WELL, state="inactive"), 600, LITTLE) == []
    assert story.sees(replace(WELL, state="inactive"), 600, PLENTY) == []


@pytest.mark.parametrize(
    ("meanwhile", "said"),
    [({"drained": True}, "drained"), ({"enabled": False}, "disabled")],
    ids=["drained", "disabled"],
)
def test_what_was_decided_otherwise_meanwhile_stays_stopped(meanwhile: dict[str, bool], said: str) -> None:
    story = Story()
    story.sees(WELL, disk=LITTLE)
    story.sees(replace(WELL, state="inactive", **meanwhile), 60, LITTLE)
    assert story.sees(replace(WELL, state="inactive"), 600) == []
    assert said in story.lines[1]


def test_one_that_somebody_started_is_stopped_again_however_young_it_is() -> None:
    story = Story()
    story.sees(WELL, disk=LITTLE)
    story.sees(replace(WELL, state="inactive"), 60, LITTLE)
    fresh = replace(WELL, began=story.now)
    assert story.sees(fresh, 10, LITTLE) == []  # it is told that somebody has started it
    assert story.sees(fresh, 10, LITTLE) == ["stop"]


def test_one_whose_tasks_end_is_stopped_as_well_without_space() -> None:
    assert Story().sees(replace(IDLE, leaving=10.0), disk=LITTLE) == ["stop"]


def test_a_disabled_unit_is_not_stopped_as_it_would_not_be_started() -> None:
    assert Story().sees(replace(WELL, enabled=False), 600, LITTLE) == []


def test_without_a_limit_disks_are_not_looked_at_and_what_was_stopped_starts() -> None:
    story = Story()
    story.sees(WELL, disk=LITTLE)
    story.settings = replace(SETTINGS, disk_free=0)
    assert story.sees(replace(WELL, state="inactive"), disk=None) == ["start"]
    assert story.sees(replace(WELL, began=story.now), 600, None) == []


def test_the_disk_with_the_least_space_counts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.statvfs(tmp_path)
    assert dog.least_space([f"{tmp_path}/none"]) is None
    assert dog.least_space([str(tmp_path)]).free == pytest.approx(stat.f_bavail * stat.f_frsize / 1048576, abs=64)

    class Fake(t.NamedTuple):
        f_bavail: int
        f_bfree: int = 1 << 40  # what root alone may use does not count
        f_frsize: int = 1048576

    monkeypatch.setattr(os, "statvfs", lambda path: Fake({"/a": 7, "/b": 3}[path]))
    assert dog.least_space(["/a", "/b"]) == dog.Disk("/b", 3)


# --- What systemd says
SHOWN = {
    "Id": UNIT,
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "MainPID": "17",
    "ControlGroup": "/system.slice/airflow-worker.service",
    "ExecMainStartTimestamp": "Sun 2026-11-22 13:21:40.500000 UTC",
    "ExecMainStartTimestampMonotonic": "1000500000",
}
STARTED = 1795353700.5


def test_it_reads_what_systemd_shows() -> None:
    text = "\n\n".join(
        "\n".join(f"{key}={value}" for key, value in {**SHOWN, "Id": unit}.items()) for unit in (UNIT, GPU)
    )
    shown = dog.parse_show(text)
    assert list(shown) == [UNIT, GPU] and shown[GPU]["MainPID"] == "17"
    # As the collection does, which reads the same.
    assert dog.seconds(SHOWN["ExecMainStartTimestamp"]) == _service.seconds(SHOWN["ExecMainStartTimestamp"]) == STARTED
    assert dog.seconds("n/a") == dog.seconds("") == 0.0
    seen = dog.look(UNIT, shown[UNIT], STARTED + 9, "/nowhere")
    assert (seen.state, seen.began, seen.enabled, seen.drained, seen.leaving) == ("active", 1000.5, True, False, None)


@pytest.mark.parametrize(
    ("changed", "state", "enabled"),
    [
        ({"Job": "812"}, "changing", True),
        ({"ActiveState": "deactivating", "Job": "812"}, "deactivating", True),
        ({"UnitFileState": "disabled"}, "active", False),
        ({"LoadState": "masked", "UnitFileState": "masked", "ActiveState": "inactive"}, "inactive", False),
        ({"LoadState": "not-found", "UnitFileState": "", "ActiveState": "inactive"}, "inactive", False),
    ],
)
def test_units_that_somebody_changes(changed: dict[str, str], state: str, enabled: bool) -> None:
    seen = dog.look(UNIT, {**SHOWN, **changed}, STARTED + 9, "/nowhere")
    assert (seen.state, seen.enabled) == (state, enabled)


@pytest.mark.parametrize(
    ("text", "after_start", "drained", "leaving"),
    [("since now by me\n", 5, True, 95.0), ("", 5, False, 95.0), ("", -5, False, None), ("since\n", -5, True, None)],
    ids=["drained", "leaving", "restarted since", "drained before its start"],
)
def test_it_reads_the_notes_of_drain(
    tmp_path: pathlib.Path, text: str, after_start: float, drained: bool, leaving: float | None
) -> None:
    note = pathlib.Path(_drain.flag(GPU, str(tmp_path)))
    note.write_text(text)
    os.utime(note, (STARTED + after_start, STARTED + after_start))
    seen = dog.look(GPU, SHOWN, STARTED + 100, str(tmp_path))
    assert (seen.drained, seen.leaving) == (drained, leaving)
    assert dog.DRAINED == _drain.FOLDER


def test_it_counts_tasks_by_their_titles(tmp_path: pathlib.Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "cgroup.procs").write_text("1\n2\n3\n4\n")
    titles = {
        "1": b"airflow worker -- 0199\0",
        "2": b"airflow supervisor: 0199\0",
        "3": b"/opt/python\0airflow worker -- ",
    }
    for pid, title in titles.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(title)
    assert dog.tasks_of("/group", str(tmp_path), str(tmp_path)) == 1
    # Not seen is not none: for want of tasks it kills.
    assert dog.tasks_of("", str(tmp_path), str(tmp_path)) is None
    assert dog.tasks_of("/other", str(tmp_path), str(tmp_path)) is None


# --- Connections
def test_ends_are_written_as_the_broker_writes_them() -> None:
    if sys.byteorder == "little":
        assert dog.end_of("0E4DD50A:C5F4") == "10.213.77.14:50676"
        assert (
            dog.end_of("B80D01200000000000000000150000000:1628".replace("0000000:", "000000:")) == "[2001:db8::15]:5672"
        )
        assert dog.end_of("0000000000000000FFFF00000E4DD50A:1628") == "10.213.77.14:5672"


def test_it_finds_the_connections_of_a_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            peer, _address = server.accept()
            with peer:
                own = client.getsockname()[1]
                assert dog.connections_of(os.getpid(), {port}) == [
                    dog.Connection(f"127.0.0.1:{own}", f"127.0.0.1:{port}")
                ]
                assert dog.connections_of(os.getpid(), {port + 1}) == []
                # Of another process they are not.
                assert dog.connections_of(os.getppid(), {port}) == []
        # The far end has closed it: CLOSE_WAIT is no connection.
        assert dog.connections_of(os.getpid(), {port}) == []
    with pytest.raises(OSError):
        dog.connections_of(2**22 + 1, {port})


def test_urls_of_the_broker() -> None:
    url = dog.Url.parse("amqp://airflow:p%40ss%3B%2F@mq1:5673/airflow;amqps://airflow:x@mq2//;pyamqp://[2001:db8::5]/a")
    assert url.nodes == (("mq1", 5673), ("mq2", 5671), ("2001:db8::5", 5672))
    assert base64.b64decode(url.login.removeprefix("Basic ")) == b"airflow:p@ss;/"
    assert url.login not in repr(url)
    for other in ("", "redis://cache:6379/0", "amqp://airflow:x@mq1:port/", "sqs://"):
        assert dog.Url.parse(other).nodes == ()


# --- The broker
class Api(http.server.BaseHTTPRequestHandler):
    """RabbitMQ's management API as a user sees it who has only the tag management."""

    server: Management

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        status, answer = self.server.answer(self.path, self.headers.get("Authorization", ""))
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: t.Any) -> None:
        pass


class Management(http.server.ThreadingHTTPServer):
    """The broker: C(consumers) has the queues of each channel of each connection; it also listens for AMQP."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Api)
        self.consumers: dict[str, dict[int, list[str]]] = {}
        self.paths: list[str] = []
        self.alarm = False
        self.broken = 0
        self.amqp = socket.create_server(("127.0.0.1", 0))
        self.clients: list[socket.socket] = []
        self.login = f"Basic {base64.b64encode(b'airflow:p@ss').decode()}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def connect(self, channels: dict[int, list[str]] | None = None) -> str:
        """A connection of this process; the name that the broker has for it."""
        client = socket.create_connection(self.amqp.getsockname())
        while True:  # the watchdog may have knocked before
            peer, (host, port) = self.amqp.accept()
            self.clients.append(peer)
            if client.getsockname() == (host, port):
                break
        self.clients.append(client)
        name = f"{host}:{port} -> 127.0.0.1:{self.amqp.getsockname()[1]}"
        if channels is not None:
            self.consumers[name] = channels
        return name

    def answer(self, path: str, login: str) -> tuple[int, t.Any]:
        if self.broken:
            return self.broken, {"error": "no"}
        if login != self.login:
            return 401, {"error": "not_authorized"}
        url = urlsplit(path)
        query = {key: value[0] for key, value in parse_qs(url.query).items()}
        if url.path == "/api/health/checks/alarms":
            return (503, {"status": "failed"}) if self.alarm else (200, {"status": "ok"})
        if url.path == "/api/connections":
            return 200, {"items": [{"name": name} for name in self.consumers if query["name"] in name]}
        if url.path == "/api/channels":
            items = [
                {"name": f"{name} ({number})", "consumer_count": len(queues)}
                for name, channels in self.consumers.items()
                for number, queues in channels.items()
                if query["name"] in name
            ]
            return 200, {"items": items}
        name, _space, number = unquote(url.path.removeprefix("/api/channels/")).rpartition(" ")
        queues = self.consumers.get(name, {}).get(int(number.strip("()")))
        if queues is None:
            return 500, None  # so it says to a user who may see only what is his own
        return 200, {"consumer_details": [{"queue": {"name": queue, "vhost": "airflow"}} for queue in queues]}

    def close(self) -> None:
        for client in (*self.clients, self.amqp):
            client.close()
        self.shutdown()
        self.server_close()


@pytest.fixture
def mq() -> Iterator[Management]:
    management = Management()
    thread = threading.Thread(target=management.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield management
    management.close()
    thread.join()


def broker_of(mq: Management, url: str | None = None, password: str = "p%40ss") -> t.Any:
    port = mq.amqp.getsockname()[1]
    return dog.Broker(
        dog.Url.parse(f"amqp://airflow:{password}@127.0.0.1:{port}/airflow"), mq.url if url is None else url
    )


def takes(broker: t.Any, queues: frozenset[str] = QUEUES) -> tuple[frozenset[str], str]:
    found: tuple[frozenset[str], str] = broker.takes(UNIT, os.getpid(), queues, dog.Asked())
    return found


def unknown(broker: t.Any) -> str:
    with pytest.raises(dog.Unknown) as raised:
        takes(broker)
    return str(raised.value)


def test_it_asks_whom_the_broker_gives_tasks_to(mq: Management) -> None:
    broker = broker_of(mq)
    mq.connect({1: [], 2: ["default"]})
    mq.connect({1: ["gpu"]})
    mq.consumers["127.0.0.1:1 -> 127.0.0.1:5672"] = {1: ["other"]}
    assert takes(broker, frozenset({"default", "gpu"})) == ({"default", "gpu"}, "")
    # From then on only about the channels that matter.
    mq.paths.clear()
    assert takes(broker, frozenset({"default", "gpu"}))[0] == {"default", "gpu"}
    assert len(mq.paths) == 2 and all("?" not in path for path in mq.paths)


def test_consumers_that_are_gone_are_missed_and_others_found(mq: Management) -> None:
    broker = broker_of(mq)
    name = mq.connect({1: [], 2: ["default"]})
    takes(broker)
    mq.consumers[name] = {1: []}
    found, why = takes(broker)
    assert found == NOTHING and name in why
    mq.consumers[name] = {1: [], 3: ["default"]}
    assert takes(broker)[0] == QUEUES


def test_a_name_that_only_begins_alike_is_another_connection(mq: Management) -> None:
    broker = broker_of(mq)
    name = mq.connect({1: []})
    mq.consumers[f"1{name}"] = {1: ["default"]}
    mq.consumers[f"{name}1"] = {1: ["default"]}
    assert takes(broker)[0] == NOTHING


def test_no_connection_to_a_broker_that_answers_is_no_task(mq: Management) -> None:
    found, why = takes(broker_of(mq))
    assert found == NOTHING and "not connected" in why


def test_behind_an_address_translation_nothing_is_known(mq: Management) -> None:
    broker = broker_of(mq)
    name = mq.connect()
    assert f"no connection {name}" in unknown(broker)


def test_a_connection_that_the_broker_has_forgotten_takes_nothing(mq: Management) -> None:
    """Once the broker has called one as this host does, there is no translation: what it does not know is dead."""
    broker = broker_of(mq)
    del mq.consumers[mq.connect({1: ["default"]})]
    unknown(broker)
    mq.connect({1: ["default"]})
    assert takes(broker)[0] == QUEUES
    mq.consumers.clear()
    found, why = takes(broker)
    assert found == NOTHING and "its connection" in why


def test_a_connection_that_never_came_as_far_as_a_channel_takes_nothing(mq: Management) -> None:
    mq.connect({})
    assert takes(broker_of(mq))[0] == NOTHING


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda mq: setattr(mq, "alarm", True), "alarm"),
        (lambda mq: setattr(mq, "broken", 400), "says 400"),
        (lambda mq: setattr(mq, "login", "another"), "says 401"),
        (lambda mq: mq.amqp.close(), "does not answer"),
    ],
    ids=["alarm", "no statistics", "password", "port closed"],
)
def test_nothing_is_said_of_a_worker_while_the_broker_is_not_well(
    mq: Management, change: Callable[[Management], None], said: str
) -> None:
    broker = broker_of(mq)
    change(mq)
    assert said in unknown(broker)


def test_nothing_is_said_of_a_worker_without_an_answer_of_the_api(mq: Management) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    broker = broker_of(mq, f"http://watcher:hidden@127.0.0.1:{port}")
    told = unknown(broker)
    assert "does not answer" in told and "hidden" not in told
    mq.connect({1: ["default"]})
    assert "does not answer" in unknown(broker)


def test_what_was_found_out_holds_for_all_units_of_a_round(mq: Management) -> None:
    broker, asked = broker_of(mq), dog.Asked()
    mq.alarm = True
    for unit in (UNIT, GPU):
        with pytest.raises(dog.Unknown):
            broker.takes(unit, os.getpid(), QUEUES, asked)
    assert len(mq.paths) == 1


def test_without_the_api_only_connections_are_seen(mq: Management) -> None:
    broker = broker_of(mq, "")
    assert takes(broker)[0] == NOTHING
    mq.connect()
    assert takes(broker)[0] == QUEUES
    assert mq.paths == []


def test_another_kind_of_broker_is_none_of_its_business() -> None:
    broker = dog.Broker(dog.Url.parse("redis://cache:6379/0"), "")
    assert "AIRFLOW__CELERY__BROKER_URL" in unknown(broker)


# --- All of it
class Systemd:
    """systemctl: what it was told, and units of this process."""

    def __init__(self, *units: str) -> None:
        self.units = {unit: {**SHOWN, "Id": unit, "MainPID": str(os.getpid())} for unit in units}
        self.told: list[str] = []
        self.refuses = False

    def __call__(self, *arguments: str) -> str:
        if arguments[0] == "show":
            blocks = ["\n".join(f"{key}={value}" for key, value in unit.items()) for unit in self.units.values()]
            return "\n\n".join(blocks)
        if self.refuses:
            raise OSError("systemctl: no")
        self.told.append(" ".join(arguments))
        return ""


class Host:
    """A watchdog with a clock of its own."""

    def __init__(self, mq: Management, path: pathlib.Path, systemd: Systemd, **settings: t.Any) -> None:
        self.mq, self.path, self.systemd, self.now = mq, path, systemd, 2000.0
        self.settings = replace(SETTINGS, **{"units": dict.fromkeys(systemd.units, QUEUES), "folders": (), **settings})
        self.boot()

    def boot(self) -> None:
        """The watchdog starts, again perhaps."""
        self.watchdog = dog.Watchdog(
            self.settings,
            broker_of(self.mq),
            str(self.path / "state.json"),
            call=self.systemd,
            clock=lambda: self.now,
            drained=str(self.path / "drained"),
        )
        self.watchdog.load()

    def rounds(self, number: int) -> list[str]:
        before = len(self.systemd.told)
        for _ in range(number):
            self.watchdog.round()
            self.now += 10
        return self.systemd.told[before:]


def test_it_restarts_what_takes_nothing_and_nothing_beside(
    mq: Management, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    systemd = Systemd(UNIT, GPU)
    host = Host(mq, tmp_path, systemd, units={UNIT: frozenset({"default"}), GPU: frozenset({"gpu"})})
    mq.connect({1: ["default"]})
    assert host.rounds(6) == []
    assert capsys.readouterr().out == ""
    assert host.rounds(10) == [f"restart --no-block -- {GPU}"]
    out = capsys.readouterr().out
    assert out.startswith(f"<4>{GPU}: restarted") and out.count("\n") == 1 and "p@ss" not in out
    # A restart of the watchdog is no way around the time between two of them.
    host.boot()
    assert host.rounds(40) == []


def test_it_remembers_what_it_has_stopped(
    mq: Management, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = Systemd(UNIT)
    host = Host(mq, tmp_path, systemd)
    mq.connect({1: ["default"]})
    disk = LITTLE
    monkeypatch.setattr(dog, "least_space", lambda folders: disk)
    assert host.rounds(1) == [f"stop --no-block -- {UNIT}"]
    systemd.units[UNIT] |= {"ActiveState": "inactive", "MainPID": "0"}
    host.boot()
    assert host.rounds(3) == []
    disk = PLENTY
    assert host.rounds(3) == [f"start --no-block -- {UNIT}"]
    host.boot()
    assert host.rounds(3) == []


def test_what_systemd_refuses_is_tried_again(
    mq: Management, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = Systemd(UNIT)
    host = Host(mq, tmp_path, systemd)
    monkeypatch.setattr(dog, "least_space", lambda folders: LITTLE)
    systemd.refuses = True
    assert host.rounds(2) == []
    assert json.loads((tmp_path / "state.json").read_text())["units"][UNIT]["stopped"] is None
    systemd.refuses = False
    assert host.rounds(1) == [f"stop --no-block -- {UNIT}"]


def test_what_cannot_be_remembered_is_not_done(
    mq: Management, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(mq, tmp_path, Systemd(UNIT))
    monkeypatch.setattr(dog, "least_space", lambda folders: LITTLE)
    host.watchdog.path = f"{tmp_path}/none/state.json"
    for _ in range(2):
        with pytest.raises(OSError):
            host.rounds(1)
    assert host.systemd.told == []
    host.watchdog.path = f"{tmp_path}/state.json"
    assert host.rounds(1) == [f"stop --no-block -- {UNIT}"]


def test_a_state_that_is_broken_is_told_and_left(
    mq: Management, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("", "{}", "[1]", '{"trusted": [], "units": {"airflow-worker.service": {}}}'):
        (tmp_path / "state.json").write_text(text)
        Host(mq, tmp_path, Systemd(UNIT))
        assert "cannot be read" in capsys.readouterr().out


def test_a_drained_unit_costs_the_broker_nothing(mq: Management, tmp_path: pathlib.Path) -> None:
    (tmp_path / "drained").mkdir()
    _drain.mark(UNIT, "drained", "test", str(tmp_path / "drained"))
    host = Host(mq, tmp_path, Systemd(UNIT))
    assert host.rounds(20) == [] and mq.paths == []


def test_one_that_hangs_is_killed_whole(
    mq: Management, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = Systemd(UNIT)
    host = Host(mq, tmp_path, systemd)
    assert host.rounds(7) == [f"restart --no-block -- {UNIT}"]
    systemd.units[UNIT]["ActiveState"] = "deactivating"
    monkeypatch.setattr(dog, "tasks_of", lambda group: 0)
    assert host.rounds(7) == [f"kill --signal=SIGKILL -- {UNIT}"]


def test_settings_as_the_role_writes_them() -> None:
    told = {"units": {UNIT: ["default", "gpu"]}, "patience": 60, "disk_free": 512, "folders": ["/a"]}
    found = dog.read_settings(json.dumps({**told, "management_url": "http://mq1:15672", "drain_timeout": 3600}))
    assert found == dog.Settings({UNIT: frozenset({"default", "gpu"})}, 60, 512, ("/a",), "http://mq1:15672", 3600)


def test_systemctl_gets_no_secret(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemctl"
    program.write_text('#!/bin/sh\nif [ "$1" = fail ]; then echo "no such unit" >&2; exit 5; fi\necho "$*"; env\n')
    program.chmod(0o755)
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "amqp://airflow:p%40ss@mq1/airflow")
    monkeypatch.setattr(dog, "ENVIRONMENT", {**dog.ENVIRONMENT, "PATH": f"{tmp_path}:/usr/bin:/bin"})
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    out = dog.systemctl("restart", "--no-block", "--", UNIT)
    assert out.startswith(f"restart --no-block -- {UNIT}\n") and "p%40ss" not in out
    with pytest.raises(OSError, match="no such unit"):
        dog.systemctl("fail")


def test_lines_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    dog.tell("a\n<0>b", 4)
    assert capsys.readouterr().out == "<4>a <0>b\n"


def test_it_runs_as_the_unit_runs_it(tmp_path: pathlib.Path) -> None:
    """By the distribution's Python without site packages, as far as its first round."""
    settings = {"units": {}, "patience": 60, "disk_free": 512, "folders": [], "management_url": "", "drain_timeout": 1}
    (tmp_path / "watchdog.json").write_text(json.dumps(settings))
    command = [sys.executable, "-I", "-S", str(PATH), str(tmp_path / "watchdog.json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path, text=True)
    time.sleep(1)
    assert process.poll() is None, process.communicate()[0]
    process.terminate()
    assert process.communicate(timeout=10)[0] == ""
