# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches the Celery workers of this host: airflow_watchdog.py /etc/airflow/watchdog.json

A worker that is up and takes no tasks is restarted, after its tasks. While a disk is nearly full, workers are stopped.
Runs with the distribution's Python and nothing else, since it has to work when a release of Airflow does not.

The first half decides and does nothing else; the second half looks and acts.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
import typing as t
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit

# --- what to do ------------------------------------------------------------------------------------------------------

# Seconds between two looks.
INTERVAL = 10.0
# A process younger than this is left alone: it may not have come as far as taking tasks.
GRACE = 60.0
# After a restart the next one of the unit waits this long, then twice as long, and so on: what no restart mends is not
# made worse by many.
FIRST_WAIT, LAST_WAIT = 600.0, 6 * 3600.0
# A unit that was stopped for want of space starts again with this much more than the limit.
SPARE = 1.2
WARNING, NOTICE = 4, 5  # as in syslog(3)


@dataclass(frozen=True)
class Settings:
    """What the role says."""

    units: Mapping[str, frozenset[str]]  # their queues
    patience: float = 60.0
    disk_free: int = 512  # MB; 0: the disk is not looked at
    folders: tuple[str, ...] = ()
    management_url: str = ""
    drain_timeout: float = 3600.0


@dataclass(frozen=True)
class Seen:
    """A unit at one moment. C(began) is when its main process started, by the monotonic clock."""

    state: str = "inactive"  # systemd's ActiveState, or changing: a job of systemd waits to stop it
    began: float = 0.0
    enabled: bool = True
    drained: bool = False
    # Seconds since the process was told to take nothing more until its restart.
    leaving: float | None = None
    # The queues that it takes tasks from; None: that cannot be told, for the reason in C(why).
    takes: frozenset[str] | None = None
    why: str = ""
    # Tasks that it runs; None: not known.
    tasks: int | None = None


@dataclass(frozen=True)
class Disk:
    """The file system with the least space of those that a worker writes to."""

    folder: str
    free: int  # MB


@dataclass(frozen=True)
class Memory:
    """What is remembered of a unit from one look to the next; all times by the monotonic clock."""

    began: float = 0.0
    lacking: float | None = None  # since when it takes tasks from less than its queues
    whole: float | None = None  # since when it takes tasks from all of them
    blind: float | None = None  # since when that cannot be told
    blind_told: bool = False
    idle: float | None = None  # since when it is stopping without having a task
    # These outlive a restart of the watchdog.
    restarted: float | None = None
    wait: float = 0.0
    mending: bool = False  # restarted by us, and not seen at work since
    stopped: float | None = None  # when it was stopped by us for want of space


KEPT = ("restarted", "wait", "mending", "stopped")


@dataclass(frozen=True)
class Deed:
    """A line for the journal, and what systemctl is to do, if anything."""

    text: str
    level: int = WARNING
    order: str = ""  # restart | stop | start | kill


def to_be_asked(seen: Seen, settings: Settings, now: float) -> bool:
    """Whether a unit ought to be taking tasks just now."""
    if seen.state != "active" or seen.drained or now - seen.began < GRACE:
        return False
    # Whoever had it finish its tasks restarts it then. Where that was cut off, it would do nothing for good.
    return seen.leaving is None or seen.leaving > settings.drain_timeout + settings.patience


def decide(
    queues: frozenset[str], memory: Memory, seen: Seen, disk: Disk | None, settings: Settings, now: float
) -> tuple[Memory, list[Deed]]:
    """What one look at a unit changes, and what follows from it."""
    if memory.began != seen.began:
        memory = replace(memory, began=seen.began, lacking=None, whole=None, idle=None)
    if memory.stopped is not None:
        return _stopped(memory, seen, disk, settings, now)
    if seen.state == "deactivating" and memory.mending:
        return _stopping(memory, seen, settings, now)
    memory = replace(memory, idle=None)
    # However young it is: without space for their logs it fails tasks as fast as it takes them.
    if seen.state == "active" and seen.enabled and not seen.drained and disk and disk.free < settings.disk_free:
        text = (
            f"stopped, after its tasks: {disk.free} MB are free in {disk.folder}, less than {settings.disk_free};"
            f" it starts again when there are {wanted(settings):.0f}"
        )
        return replace(memory, stopped=now, lacking=None, whole=None), [Deed(text, order="stop")]
    if not to_be_asked(seen, settings, now):
        return replace(memory, lacking=None, whole=None, blind=None), []
    if seen.takes is None:
        return _blind(memory, seen, settings, now)
    missing = sorted(queues - seen.takes)
    return _lacks(memory, seen, missing, settings, now) if missing else _works(memory, queues, now)


def wanted(settings: Settings) -> float:
    """The MB that have to be free before a unit starts again that was stopped for want of them."""
    return settings.disk_free * SPARE


def _stopped(
    memory: Memory, seen: Seen, disk: Disk | None, settings: Settings, now: float
) -> tuple[Memory, list[Deed]]:
    """We have stopped this unit, and start it again, unless somebody else has decided about it meanwhile."""
    since = memory.stopped or 0.0
    forgotten = replace(memory, stopped=None)
    if seen.drained or not seen.enabled:
        what = "drained" if seen.drained else "disabled"
        return forgotten, [Deed(f"is not started again when there is space: it was {what} meanwhile", NOTICE)]
    if seen.began > since:
        return forgotten, [Deed("was started by somebody else", NOTICE)]
    if seen.state not in ("inactive", "failed"):
        return memory, []
    if disk and disk.free < wanted(settings):
        return memory, []
    space = f"{disk.free} MB are free in {disk.folder} again" if disk else "space is no longer looked at"
    return forgotten, [Deed(f"started: {space}, {now - since:.0f} s after it was stopped", NOTICE, "start")]


def _stopping(memory: Memory, seen: Seen, settings: Settings, now: float) -> tuple[Memory, list[Deed]]:
    """It is ending because of us. One that hangs would take as long as the longest task, with no task to wait for."""
    if seen.tasks != 0:
        return replace(memory, idle=None), []
    idle = now if memory.idle is None else memory.idle
    if now - idle < settings.patience:
        return replace(memory, idle=idle), []
    text = f"killed: it runs no task and has not ended for {now - idle:.0f} s of its restart"
    return replace(memory, idle=now), [Deed(text, order="kill")]


def _blind(memory: Memory, seen: Seen, settings: Settings, now: float) -> tuple[Memory, list[Deed]]:
    """Nothing is held against a unit while the broker cannot be asked; what was held before is forgotten."""
    since = now if memory.blind is None else memory.blind
    memory = replace(memory, lacking=None, whole=None, blind=since)
    if memory.blind_told or now - since < settings.patience:
        return memory, []
    text = f"cannot be judged for {now - since:.0f} s, and is left alone: {seen.why}"
    return replace(memory, blind_told=True), [Deed(text, NOTICE)]


def _lacks(
    memory: Memory, seen: Seen, missing: Sequence[str], settings: Settings, now: float
) -> tuple[Memory, list[Deed]]:
    memory, deeds = _sees(memory)
    lacking = now if memory.lacking is None else memory.lacking
    memory = replace(memory, lacking=lacking, whole=None)
    if now - lacking < settings.patience:
        return memory, deeds
    # From the start of the process, if that came later: the tasks of the one before may have taken long.
    if memory.restarted is not None and now < max(memory.restarted, seen.began) + memory.wait:
        return memory, deeds
    wait = min(memory.wait * 2, LAST_WAIT) if memory.wait else FIRST_WAIT
    rest = f", only from {', '.join(sorted(seen.takes))}" if seen.takes else ""
    text = (
        f"restarted, after its tasks: for {now - lacking:.0f} s it takes none from {', '.join(missing)}{rest}"
        f" ({seen.why}); not again within {wait:.0f} s"
    )
    memory = replace(memory, lacking=None, restarted=now, wait=wait, mending=True)
    return memory, [*deeds, Deed(text, order="restart")]


def _works(memory: Memory, queues: Iterable[str], now: float) -> tuple[Memory, list[Deed]]:
    memory, deeds = _sees(memory)
    whole = now if memory.whole is None else memory.whole
    if memory.mending:
        after = now - (memory.restarted or now)
        deeds.append(Deed(f"takes tasks from {', '.join(sorted(queues))}, {after:.0f} s after its restart", NOTICE))
    if now - whole >= memory.wait:
        memory = replace(memory, restarted=None, wait=0.0)
    return replace(memory, lacking=None, whole=whole, mending=False), deeds


def _sees(memory: Memory) -> tuple[Memory, list[Deed]]:
    deeds = [Deed("can be judged again", NOTICE)] if memory.blind_told else []
    return replace(memory, blind=None, blind_told=False), deeds


# --- what systemd, /proc and the disk say ----------------------------------------------------------------------------

DRAINED = "/etc/airflow/drained"
SHOWN = "Id LoadState ActiveState UnitFileState MainPID Job ControlGroup ExecMainStartTimestamp".split()
SHOWN += ["ExecMainStartTimestampMonotonic"]
# What Airflow calls the process of each task. Those of Celery's pool keep the name of their last task.
TASK = b"airflow worker -- "
# The environment has the broker's password; systemctl needs none of it.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
ORDERS = {"kill": ("kill", "--signal=SIGKILL")}


def systemctl(*arguments: str) -> str:
    """Run it; raises OSError or SubprocessError."""
    done = subprocess.run(
        ["systemctl", *arguments], capture_output=True, text=True, timeout=30, check=False, env=ENVIRONMENT
    )
    if done.returncode:
        raise OSError(f"systemctl {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def parse_show(text: str) -> dict[str, dict[str, str]]:
    """What C(systemctl show) says of several units, by their names."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]
    return {block["Id"]: block for block in blocks if "Id" in block}


def seconds(timestamp: str) -> float:
    """C(Sun 2026-11-22 13:21:40.123456 UTC) in seconds since the epoch, 0.0 when there is none."""
    match = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", timestamp)
    if not match:
        return 0.0
    return datetime.strptime(match[0], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()


def look(unit: str, shown: Mapping[str, str], clock: float, drained: str = DRAINED) -> Seen:
    """A unit as systemd shows it, and its note in the folder of the drained ones; nothing of the broker yet."""
    state = shown.get("ActiveState", "inactive")
    if state == "active" and shown.get("Job", "0") not in ("", "0"):
        state = "changing"  # somebody has told systemd already what is to become of it
    leaving, held = None, False
    try:
        note = os.stat(os.path.join(drained, unit.removesuffix(".service")))
        held = note.st_size > 0
        if note.st_mtime > seconds(shown.get("ExecMainStartTimestamp", "")):
            leaving = max(0.0, clock - note.st_mtime)
    except OSError:
        pass  # it was never drained
    return Seen(
        state=state,
        began=int(shown.get("ExecMainStartTimestampMonotonic") or 0) / 1e6,
        enabled=shown.get("LoadState") == "loaded" and shown.get("UnitFileState", "").startswith("enabled"),
        drained=held,
        leaving=leaving,
    )


def tasks_of(group: str, proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> int | None:
    """How many tasks run in a control group; None when that cannot be seen."""
    if not group:
        return None
    try:
        with open(f"{cgroups}{group}/cgroup.procs", encoding="ascii") as stream:
            pids = stream.read().split()
    except OSError:
        return None
    number = 0
    for pid in pids:
        try:
            with open(f"{proc}/{pid}/cmdline", "rb") as title:
                number += title.read(len(TASK)) == TASK
        except OSError:
            continue  # it has ended
    return number


def least_space(folders: Iterable[str]) -> Disk | None:
    """The folder with the least space for a user other than root; None when there is no such folder."""
    found = []
    for folder in folders:
        try:
            stat = os.statvfs(folder)
        except OSError:
            continue
        found.append(Disk(folder, stat.f_bavail * stat.f_frsize >> 20))
    return min(found, key=lambda disk: disk.free, default=None)


@dataclass(frozen=True, order=True)
class Connection:
    """An established TCP connection, each end as the broker names it: 192.0.2.1:5672 or [2001:db8::1]:5672."""

    near: str
    far: str

    @property
    def name(self) -> str:
        return f"{self.near} -> {self.far}"


def connections_of(pid: int, ports: Iterable[int], proc: str = "/proc") -> list[Connection]:
    """The connections of a process to these ports elsewhere. Raises OSError when it is gone or may not be seen."""
    inodes = set()
    for name in os.listdir(f"{proc}/{pid}/fd"):
        try:
            target = os.readlink(f"{proc}/{pid}/fd/{name}")
        except FileNotFoundError:
            continue  # closed meanwhile
        if match := re.fullmatch(r"socket:\[(\d+)\]", target):
            inodes.add(match[1])
    found = []
    for table in ("tcp", "tcp6"):
        try:
            with open(f"{proc}/{pid}/net/{table}", encoding="ascii") as stream:
                rows = [line.split() for line in stream.readlines()[1:]]
        except FileNotFoundError:
            continue  # no IPv6
        for row in rows:
            # proc(5): local and remote end in hexadecimal, state (01: established), inode.
            if row[9] in inodes and row[3] == "01" and int(row[2].rsplit(":", 1)[1], 16) in ports:
                found.append(Connection(end_of(row[1]), end_of(row[2])))
    return found


def end_of(text: str) -> str:
    """C(0E4DD50A:C5F4) of /proc/net/tcp as the broker writes it; groups of four bytes are in the host's own order."""
    address, port = text.split(":")
    groups = (bytes.fromhex(address[i : i + 8]) for i in range(0, len(address), 8))
    raw = b"".join(group[::-1] if sys.byteorder == "little" else group for group in groups)
    plain = socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw).removeprefix("::ffff:")
    return f"[{plain}]:{int(port, 16)}" if ":" in plain else f"{plain}:{int(port, 16)}"


# --- what the broker says --------------------------------------------------------------------------------------------

PORTS = {"amqp": 5672, "pyamqp": 5672, "amqps": 5671}
CONNECT_TIMEOUT, ANSWER_TIMEOUT = 3.0, 5.0
ANSWER_LIMIT = 8 << 20


class Unknown(Exception):
    """What a worker takes cannot be told, for this reason."""


@dataclass(frozen=True)
class Url:
    """The way to the broker, from Celery's setting: one URL, or several parted by ;."""

    nodes: tuple[tuple[str, int], ...] = ()
    # The Authorization of a request; not in repr(), so that no message shows it.
    login: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Url:
        nodes, login = [], ""
        for one in text.split(";"):
            try:
                url = urlsplit(one.strip())
                default = PORTS.get(url.scheme)
                if default is None or not url.hostname:
                    continue
                nodes.append((url.hostname, url.port or default))
            except ValueError:
                continue
            if not login:
                words = f"{unquote(url.username or 'guest')}:{unquote(url.password or 'guest')}"
                login = f"Basic {base64.b64encode(words.encode()).decode()}"
        return cls(tuple(nodes), login)


@dataclass
class Asked:
    """What one round has found out about the broker as a whole; None: nothing yet."""

    answers: str | None = None


@dataclass
class Broker:
    """Whom the broker gives tasks to, in few and cheap requests: a cluster has as many watchdogs as workers."""

    url: Url
    management_url: str
    # The far ends at which the broker calls a connection as this host does. At any other one, an address translation or
    # a proxy may stand in between: then a connection that the broker does not know is no reason for anything.
    trusted: set[str] = field(default_factory=set)
    # By unit, its connections and those of their channels that had consumers.
    channels: dict[str, tuple[list[Connection], list[str]]] = field(default_factory=dict)

    @property
    def api(self) -> str:
        """The management URL for a message, where no login may stand."""
        return re.sub(r"//[^/@]*@", "//", self.management_url)

    def takes(self, unit: str, pid: int, queues: frozenset[str], asked: Asked) -> tuple[frozenset[str], str]:
        """The queues that a unit's process takes tasks from, and why these are not all. Raises Unknown."""
        if not self.url.nodes:
            raise Unknown("AIRFLOW__CELERY__BROKER_URL names no RabbitMQ")
        try:
            connections = sorted(connections_of(pid, {port for _host, port in self.url.nodes}))
        except OSError as exc:
            raise Unknown(f"its connections cannot be seen: {exc}") from exc
        if connections and not self.management_url:
            return queues, ""  # more cannot be seen without it
        if asked.answers:
            raise Unknown(asked.answers)
        found, strange = frozenset[str](), ""
        try:
            if connections:
                found, strange = self._given(unit, connections, queues)
        except Unknown as exc:
            asked.answers = str(exc)
            raise
        if queues <= found:
            return found, ""
        # Something is missing: is it the worker's fault?
        if asked.answers is None:
            asked.answers = self._trouble()
        if asked.answers:
            raise Unknown(asked.answers)
        if strange:
            raise Unknown(
                f"the broker knows no connection {strange}; an address translation or a proxy may stand in between"
            )
        if not connections:
            return found, "it is not connected to the broker, which answers"
        return found, f"its connection to the broker, {connections[0].name}, is there"

    def _given(self, unit: str, connections: list[Connection], queues: frozenset[str]) -> tuple[frozenset[str], str]:
        """The queues of all consumers of these connections, and a connection that the broker may call otherwise."""
        before, channels = self.channels.pop(unit, ([], []))
        if channels and before == connections:
            found = self._queues(channels)
            if queues <= found:
                self.channels[unit] = connections, channels
                return found, ""
        channels, unknown = [], []
        for connection in connections:
            # By a part of their names, for all that one would ask of a single connection makes a crash report in the
            # broker when it is gone. The broker walks over all its channels for this, so it is not asked every time.
            listed = self._named("channels", connection.name, "name,consumer_count")
            mine = [item for item in listed if str(item.get("name", "")).startswith(f"{connection.name} (")]
            channels += [str(item["name"]) for item in mine if item.get("consumer_count") != 0]
            if mine or connection.far in self.trusted or self._known(connection):
                self.trusted.add(connection.far)
            else:
                unknown.append(connection)
        if channels:
            self.channels[unit] = connections, channels
        strange = [connection.name for connection in unknown if connection.far not in self.trusted]
        return self._queues(channels), " or ".join(strange)

    def _queues(self, channels: Iterable[str]) -> frozenset[str]:
        found = set()
        for name in channels:
            status, answer = self._get(f"channels/{quote(name, safe='')}")
            # For one that is gone, it says 500 to whoever may see only what is his own, else 404.
            if status in (404, 500):
                continue
            if status != 200 or not isinstance(answer, dict):
                raise Unknown(f"{self.api} says {status}")
            found |= {str(consumer["queue"]["name"]) for consumer in answer.get("consumer_details", [])}
        return frozenset(found)

    def _known(self, connection: Connection) -> bool:
        return any(item.get("name") == connection.name for item in self._named("connections", connection.name))

    def _named(self, kind: str, name: str, columns: str = "name") -> list[dict[str, t.Any]]:
        query = f"name={quote(name, safe='')}&use_regex=false&page=1&page_size=100&columns={columns}"
        status, answer = self._get(f"{kind}?{query}")
        if status != 200 or not isinstance(answer, dict):
            raise Unknown(f"{self.api} says {status}")
        return [item for item in answer.get("items", []) if isinstance(item, dict)]

    def _trouble(self) -> str:
        """Why the broker itself may be what keeps workers from their queues; empty when it is well."""
        why = []
        for host, port in self.url.nodes:
            try:
                socket.create_connection((host, port), timeout=CONNECT_TIMEOUT).close()
                break
            except OSError as exc:
                why.append(f"{host}:{port} does not answer ({exc})")
        else:
            return "; ".join(why)
        if not self.management_url:
            return ""
        try:
            status, _answer = self._get("health/checks/alarms")
        except Unknown as exc:
            return str(exc)
        # While its memory or disk has run out, it does not let a worker finish its start.
        if status == 503:
            return "the broker has an alarm: its memory or disk has run out"
        return "" if status in (200, 404) else f"{self.api} says {status}"  # 404: older than these checks

    def _get(self, path: str) -> tuple[int, t.Any]:
        """A request to the management API: status and answer."""
        try:
            url = urlsplit(self.management_url)
            kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
            connection = kind(url.hostname or "", url.port, timeout=ANSWER_TIMEOUT)
            try:
                headers = {"Authorization": self.url.login, "Accept": "application/json"}
                connection.request("GET", f"{url.path.rstrip('/')}/api/{path}", headers=headers)
                response = connection.getresponse()
                body = response.read(ANSWER_LIMIT)
            finally:
                connection.close()
            return response.status, json.loads(body) if response.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise Unknown(f"{self.api} does not answer: {exc or type(exc).__name__}") from exc


# --- the loop --------------------------------------------------------------------------------------------------------


def read_settings(text: str) -> Settings:
    """The settings as the role writes them."""
    told = json.loads(text)
    return Settings(
        units={str(unit): frozenset(map(str, queues)) for unit, queues in told["units"].items()},
        patience=float(told["patience"]),
        disk_free=int(told["disk_free"]),
        folders=tuple(map(str, told["folders"])),
        management_url=str(told["management_url"]),
        drain_timeout=float(told["drain_timeout"]),
    )


def tell(text: str, level: int = NOTICE) -> None:
    """A line in the journal; systemd reads the level from its beginning."""
    print(f"<{level}>{' '.join(text.split())}", flush=True)


@dataclass
class Watchdog:
    """All of it."""

    settings: Settings
    broker: Broker
    path: str  # of what outlives a restart; it is gone after a boot, as the monotonic clock is
    call: Callable[..., str] = systemctl
    clock: Callable[[], float] = time.monotonic
    drained: str = DRAINED
    memories: dict[str, Memory] = field(default_factory=dict)

    def load(self) -> None:
        try:
            with open(self.path, encoding="utf-8") as stream:
                told = json.load(stream)
            self.broker.trusted = set(map(str, told["trusted"]))
            self.memories = {
                unit: Memory(**{name: kept[name] for name in KEPT})
                for unit, kept in told["units"].items()
                if unit in self.settings.units
            }
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            tell(f"{self.path} cannot be read, so what was stopped is not started again: {exc}", WARNING)

    def save(self) -> None:
        units = {unit: {name: getattr(memory, name) for name in KEPT} for unit, memory in sorted(self.memories.items())}
        text = json.dumps({"trusted": sorted(self.broker.trusted), "units": units})
        with open(f"{self.path}.new", "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(f"{self.path}.new", self.path)

    def kept(self) -> t.Any:
        """What save() writes, to be compared."""
        return set(self.broker.trusted), {
            unit: [getattr(memory, name) for name in KEPT] for unit, memory in self.memories.items()
        }

    def round(self) -> None:
        """Look at every unit once, and do what follows."""
        settings = self.settings
        if not settings.units:
            return
        shown = parse_show(
            self.call("show", "--timestamp=us+utc", f"--property={','.join(SHOWN)}", "--", *sorted(settings.units))
        )
        disk = least_space(settings.folders) if settings.disk_free else None
        asked = Asked()
        for unit, queues in settings.units.items():
            before = self.kept()
            memory = self.memories.get(unit, Memory())
            seen = self._look(unit, queues, memory, shown.get(unit, {}), asked)
            self.memories[unit], deeds = decide(queues, memory, seen, disk, settings, self.clock())
            # Before it is done: what is stopped and forgotten would stay so for good.
            try:
                if self.kept() != before:
                    self.save()
            except OSError:
                self.memories[unit] = memory
                raise
            for deed in deeds:
                try:
                    if deed.order:
                        self.call(*ORDERS.get(deed.order, (deed.order, "--no-block")), "--", unit)
                except (OSError, subprocess.SubprocessError) as exc:
                    self.memories[unit] = memory  # nothing was done, so the next round tries again
                    self.save()
                    tell(f"{unit}: {deed.text}; that failed: {exc}", WARNING)
                else:
                    tell(f"{unit}: {deed.text}", deed.level)

    def _look(self, unit: str, queues: frozenset[str], memory: Memory, shown: Mapping[str, str], asked: Asked) -> Seen:
        seen = look(unit, shown, time.time(), self.drained)
        if seen.state == "deactivating" and memory.mending:
            return replace(seen, tasks=tasks_of(shown.get("ControlGroup", "")))
        if memory.stopped is not None or not to_be_asked(seen, self.settings, self.clock()):
            return seen
        try:
            takes, why = self.broker.takes(unit, int(shown.get("MainPID") or 0), queues, asked)
        except Unknown as exc:
            return replace(seen, why=str(exc))
        return replace(seen, takes=takes, why=why)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: airflow_watchdog.py SETTINGS", file=sys.stderr)
        return 2
    with open(arguments[0], encoding="utf-8") as stream:
        settings = read_settings(stream.read())
    broker = Broker(Url.parse(os.environ.get("AIRFLOW__CELERY__BROKER_URL", "")), settings.management_url)
    watchdog = Watchdog(settings, broker, os.path.join(os.environ.get("RUNTIME_DIRECTORY", "."), "state.json"))
    watchdog.load()
    failure = ""
    while True:
        began = time.monotonic()
        try:
            watchdog.round()
            failure = ""
        except (OSError, subprocess.SubprocessError) as exc:
            if str(exc) != failure:  # once, however long it lasts
                tell(f"cannot look after the workers: {exc}", WARNING)
            failure = str(exc)
        time.sleep(max(1.0, INTERVAL - (time.monotonic() - began)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
