# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: draws the cluster that verify looked at, as SVG within a page. Pure."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from ansible_collections.onprem.airflow.plugins.module_utils._verify import (
    ABSENT,
    CONSEQUENCE,
    DRAINED,
    NOT_LOOKED_AT,
    OK,
    PROBLEM,
    slots,
)
from ansible_collections.onprem.airflow.plugins.module_utils._verify_compare import (
    MASTER,
    WORKER,
    drained_units,
    host_of,
)

Document = Mapping[str, t.Any]
# The number of a problem, and whether it is one here or shows as a consequence.
Mark = tuple[int, str]
Marks = Mapping[str, Sequence[Mark]]
CLASSES = {OK: "", PROBLEM: "bad", CONSEQUENCE: "follows", NOT_LOOKED_AT: "unseen", ABSENT: "", DRAINED: "drained"}
ICONS = {
    OK: "s-ok",
    PROBLEM: "s-bad",
    CONSEQUENCE: "s-follows",
    NOT_LOOKED_AT: "s-unseen",
    DRAINED: "s-drained",
}
SEVERITY = (ABSENT, OK, DRAINED, NOT_LOOKED_AT, CONSEQUENCE, PROBLEM)
# So many hosts are drawn one by one; beyond, those that are well and do the same are drawn as one.
SINGLE = 8
ILL = 10
NODE, GAP = 50, 12


@dataclass
class Node:
    """One host, or several that do the same and are all well, or ill."""

    names: list[str]
    title: str
    note: str
    status: str = OK
    numbers: list[Mark] = field(default_factory=list)
    queues: tuple[str, ...] = ()
    y: float = 0.0

    @property
    def middle(self) -> float:
        """Where lines end."""
        return self.y + NODE / 2


def _first(mark: Mark) -> tuple[bool, int]:
    """Problems before consequences."""
    return mark[1] != PROBLEM, mark[0]


def worst(states: Iterable[str]) -> str:
    """The state that matters most."""
    return max(states, key=SEVERITY.index, default=OK)


class Model:
    """What there is to be drawn."""

    def __init__(self, document: Document, numbers: Marks) -> None:
        self.hosts: Mapping[str, t.Any] = document["hosts"]
        self.document = document
        self.numbers = numbers
        self.masters = self.nodes(MASTER)
        self.workers = self.nodes(WORKER)
        self.brokers = self.services("rabbitmq", "broker:", self._broker_addresses())
        self.databases = self.services("postgresql", "database:", self._database_addresses())
        self.queues: list[Mapping[str, t.Any]] = document["queues"]

    def cell(self, name: str, check: str) -> str:
        """The state of a check on a host."""
        return str(self.hosts[name]["checks"][check]["status"])

    def status(self, name: str) -> str:
        """The state of a host: a single check that was left out does not make it unseen."""
        host = self.hosts[name]
        states = [cell["status"] for cell in host["checks"].values()]
        if host["looked_at"]:
            states = [OK if state == NOT_LOOKED_AT else state for state in states]
        return worst(states)

    def note(self, name: str, role: str) -> str:
        """The second line of a node: what is wrong, or what it does."""
        host = self.hosts[name]
        codes = {cell["status"]: cell["detail"] for cell in reversed(host["checks"].values())}
        if PROBLEM in codes or CONSEQUENCE in codes:
            return str(codes.get(PROBLEM) or codes.get(CONSEQUENCE))
        if not host["looked_at"]:
            return "not looked at"
        report = host["report"]
        if role == WORKER:
            running, room = slots(report)
            queues = ", ".join(host["queues"])
            if drained := drained_units(report):
                all_of = len(drained) == len(report["workers"])
                return f"drained, {running} still running" if all_of and running else host["checks"]["worker"]["detail"]
            return f"{queues}, {running} of {room} busy" if room else queues
        units = report.get("units") or []
        return f"{sum(unit.get('active') == 'active' for unit in units)} services up" if role == MASTER else "up"

    def nodes(self, role: str) -> list[Node]:
        """Hosts of a role, those that are well and alike as one where there are many."""
        names = [name for name, host in self.hosts.items() if role in host["roles"]]
        if len(names) <= SINGLE:
            return [self.single(name, role) for name in names]
        # What is only drained comes last: it is as somebody wanted it.
        ill = sorted((n for n in names if self.status(n) != OK), key=lambda name: self.status(name) == DRAINED)
        nodes = [self.single(name, role) for name in ill[:ILL]]
        if rest := ill[ILL:]:
            shown = sorted({mark for name in rest for mark in self.numbers.get(name, ())}, key=_first)
            state = worst(self.status(name) for name in rest)
            queues = tuple(sorted({queue for name in rest for queue in self.hosts[name]["queues"]}))
            note = "drained" if state == DRAINED else "not as they should be"
            nodes.append(Node(rest, f"{len(rest)} more", note, state, shown, queues))
        alike: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            if self.status(name) == OK:
                alike.setdefault(tuple(self.hosts[name]["queues"]), []).append(name)
        for queues, group in alike.items():
            if len(group) == 1:
                nodes.append(self.single(group[0], role))
                continue
            loads = [slots(self.hosts[name]["report"]) for name in group]
            running, room = sum(load[0] for load in loads), sum(load[1] for load in loads)
            kind = "workers" if role == WORKER else "masters"
            note = f"{', '.join(queues)}, {running} of {room} busy" if role == WORKER else "all services up"
            nodes.append(Node(group, f"{len(group)} {kind}", note, OK, [], queues))
        return nodes

    def single(self, name: str, role: str) -> Node:
        """One host."""
        queues = tuple(self.hosts[name]["queues"]) if role == WORKER else ()
        marks = sorted(self.numbers.get(name, ()), key=_first)
        return Node([name], name, self.note(name, role), self.status(name), marks, queues)

    def services(self, role: str, subject: str, addresses: Sequence[str]) -> list[Node]:
        """Brokers or databases: hosts of the inventory, or the addresses that clients use."""
        names = [name for name, host in self.hosts.items() if role in host["roles"]]
        if names:
            return [self.single(name, role) for name in names]
        nodes = []
        for address in addresses:
            mine = [
                (number, PROBLEM)
                for number, problem in enumerate(self.document["problems"], 1)
                if problem["subject"].startswith(subject)
                and host_of(problem["subject"][len(subject) :]) == host_of(address)
            ]
            nodes.append(Node([], address, "not in this inventory", PROBLEM if mine else OK, mine))
        return nodes or [Node([], "unknown", "no address is known", NOT_LOOKED_AT)]

    def _broker_addresses(self) -> list[str]:
        return list(
            dict.fromkeys(
                str(node["address"])
                for host in self.hosts.values()
                for node in (host["report"].get("broker") or {}).get("nodes") or []
            )
        )

    def _database_addresses(self) -> list[str]:
        return list(
            dict.fromkeys(
                str(entry["address"]).partition("/")[0]
                for host in self.hosts.values()
                for entry in (host["report"].get("databases") or {}).values()
                if entry and entry.get("address")
            )
        )

    def times(self, names: Iterable[str], check: str) -> str:
        """The times of a connection of these hosts: 2 ms, or 2–4 ms."""
        values: list[float] = []
        for name in names:
            report = self.hosts[name]["report"]
            found: list[t.Any] = []
            if check == "broker":
                found = [node.get("round_trip_ms") for node in (report.get("broker") or {}).get("nodes") or []]
            elif check == "metadata":
                found = [((report.get("databases") or {}).get("metadata") or {}).get("ms")]
            elif check == "results":
                found = [((report.get("databases") or {}).get("results") or {}).get("ms")]
            elif check == "api":
                found = [entry.get("ms") for entry in report.get("api") or []]
            elif check == "logs":
                found = [entry.get("ms") for entry in report.get("log_servers") or []]
            values += [float(value) for value in found if value is not None]
        if not values:
            return ""
        low, high = f"{min(values):.0f}", f"{max(values):.0f}"
        return f"{high} ms" if low == high else f"{low}–{high} ms"

    def names(self, role: str) -> list[str]:
        """All hosts of a role."""
        return [name for name, host in self.hosts.items() if role in host["roles"]]

    def link(self, node: Node, check: str) -> str:
        """The state of a node's connection."""
        return worst(OK if self.hosts[n]["looked_at"] and s == NOT_LOOKED_AT else s
                     for n in node.names for s in [self.cell(n, check)])  # fmt: skip

    def takes(self, node: Node, queue: Mapping[str, t.Any]) -> str | None:
        """The state of a worker taking tasks from a queue; None when it neither does nor should."""
        takers = set(queue["workers"])
        if queue["name"] in node.queues:
            missing = [name for name in node.names if name not in takers]
            if not missing:
                return OK
            if all(self.is_drained(name, str(queue["name"])) for name in missing):
                return DRAINED
            if all(not self.hosts[name]["looked_at"] for name in missing) and node.status == NOT_LOOKED_AT:
                return NOT_LOOKED_AT
            return PROBLEM if node.status == PROBLEM else CONSEQUENCE
        return OK if takers & set(node.names) else None

    def is_drained(self, name: str, queue: str) -> bool:
        """Whether a worker takes nothing from a queue because all its services that should are drained."""
        workers = self.hosts[name]["report"].get("workers") or ()
        meant = [worker for worker in workers if queue in worker["queues"]]
        return bool(meant) and all(worker.get("drained") for worker in meant)


# --- shapes ----------------------------------------------------------------------------------------------------


def cut(text: str, width: float, size: float = 13.5, bold: bool = False) -> str:
    """As much of a text as has room."""
    room = int(width / (size * (0.57 if bold else 0.53)))
    return text if len(text) <= room else f"{text[: max(room - 1, 1)]}…"


def draw_node(node: Node, x: float, width: float) -> str:
    """A host: its state as shape and colour, its name, what it does or what is wrong."""
    badges = "".join(
        badge(number, x + width - 20 - 25 * position, node.middle, state)
        for position, (number, state) in enumerate(reversed(node.numbers[:3]))
    )
    room = width - 50 - 25 * min(len(node.numbers), 3)
    stack = ""
    if len(node.names) > 1:
        stack = f'<rect class="stack" x="{x + 5:.0f}" y="{node.y + 5:.0f}" width="{width:.0f}" height="{NODE}" rx="8"/>'
    title = ", ".join(node.names[:30]) + (" …" if len(node.names) > 30 else "")
    return (
        f'<g class="node {CLASSES[node.status]}"><title>{escape(title or node.title)}: {escape(node.note)}</title>'
        f"{stack}"
        f'<rect x="{x:.0f}" y="{node.y:.0f}" width="{width:.0f}" height="{NODE}" rx="8"/>'
        f'<use href="#{ICONS[node.status]}" x="{x + 12:.0f}" y="{node.y + 10:.0f}" width="15" height="15"/>'
        f'<text class="name" x="{x + 35:.0f}" y="{node.y + 22:.0f}">{escape(cut(node.title, room, bold=True))}</text>'
        f'<text class="small" x="{x + 35:.0f}" y="{node.y + 39:.0f}">{escape(cut(node.note, room, 12.5))}</text>'
        f"{badges}</g>"
    )


def badge(number: int, x: float, y: float, status: str) -> str:
    """The number of a problem, which leads to it."""
    kind = "" if status == PROBLEM else " follows"
    text = f'<text x="{x:.0f}" y="{y + 4.2:.1f}" text-anchor="middle">{number}</text>'
    shape = f'<path d="M{x:.0f} {y - 12:.1f}l12 12-12 12-12-12z"/>'
    return f'<a href="#p{number}" aria-label="problem {number}"><g class="badge{kind}">{shape}{text}</g></a>'


def wire(points: str, status: str, middle: tuple[float, float] | None = None, heavy: bool = False) -> str:
    """A connection. One that does not work is dashed and crossed out."""
    kind = CLASSES[status] or ("heavy" if heavy else "")
    drawn = f'<path class="wire {kind}" d="{points}"/>'
    if middle and status in (PROBLEM, CONSEQUENCE):
        x, y = middle
        drawn += f'<path class="cut {CLASSES[status]}" d="M{x - 5:.1f} {y - 5:.1f}l10 10m0-10l-10 10"/>'
    return drawn


def label(text: str, x: float, y: float, status: str = OK) -> str:
    """Words on a line."""
    if not text:
        return ""
    width = len(text) * 6.6 + 12
    return (
        f'<g class="label {CLASSES[status]}">'
        f'<rect x="{x - width / 2:.0f}" y="{y - 10:.0f}" width="{width:.0f}" height="20" rx="4"/>'
        f'<text x="{x:.0f}" y="{y + 4.2:.1f}" text-anchor="middle">{escape(text)}</text></g>'
    )


def stack_up(nodes: Sequence[Node], top: float) -> float:
    """Give the nodes their places, one below the other; the lower end."""
    for node in nodes:
        node.y = top
        top += NODE + GAP + (6 if len(node.names) > 1 else 0)
    return top - GAP


def curve(x1: float, y1: float, x2: float, y2: float) -> str:
    """A line that leaves and arrives level."""
    bend = (x2 - x1) * 0.5
    return f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"


def _svg(width: float, height: float, parts: Sequence[str], model: Model) -> str:
    words = (
        f"{len(model.names(MASTER))} masters, {len(model.names(WORKER))} workers, {len(model.queues)} queues;"
        f" {len(model.document['problems'])} problems"
    )
    return (
        f'<svg viewBox="-2 0 {width + 8:.0f} {height:.0f}" role="group" aria-label="The cluster: {words}">'
        f"{''.join(parts)}</svg>"
    )


# --- side by side, for a desk ----------------------------------------------------------------------------------

WIDTH = 1080.0
LEFT, CENTRE, RIGHT = (0.0, 240.0), (400.0, 300.0), (830.0, 250.0)
PILL = 32.0


def wide(document: Document, numbers: Marks) -> str:
    """Masters on the left, broker with its queues and database in the middle, workers on the right."""
    model = Model(document, numbers)
    top = 72.0
    # --- places
    middle_x, middle_w = CENTRE
    y = stack_up(model.brokers, top + 10)
    pills: dict[str, float] = {}
    y += 10 if model.queues else 0
    for queue in model.queues:
        pills[queue["name"]] = y + PILL / 2
        y += PILL + 8
    broker_end = y + (2 if model.queues else 10)
    database_top = broker_end + 64
    centre_end = stack_up(model.databases, database_top)
    heights = [_height(model.masters), _height(model.workers), centre_end - top]
    tall = max(heights)
    stack_up(model.masters, top + (tall - heights[0]) / 2)
    stack_up(model.workers, top + (tall - heights[1]) / 2)
    if heights[2] < tall:
        shift = (tall - heights[2]) / 2
        for node in (*model.brokers, *model.databases):
            node.y += shift
        pills = {name: place + shift for name, place in pills.items()}
        broker_end, database_top = broker_end + shift, database_top + shift
    broker_top = model.brokers[0].y - 10
    bottom = top + tall
    left_end, right_start = LEFT[0] + LEFT[1], RIGHT[0]
    middle_end = middle_x + middle_w
    wires: list[str] = []
    labels: list[str] = []

    # --- masters: each to broker and database
    broker_in = [broker_top + (model.brokers[0].middle - broker_top) * 1.0]
    for node in model.masters:
        for check, target in (("broker", broker_in[0]), ("database", model.databases[0].middle)):
            state = model.link(node, check)
            half = ((left_end + middle_x) / 2, (node.middle + target) / 2)
            wires.append(wire(curve(left_end, node.middle, middle_x, target), state, half))
    if text := model.times(model.names(MASTER), "broker"):
        labels.append(label(text, middle_x - 50, broker_in[0]))
    if text := model.times(model.names(MASTER), "metadata"):
        labels.append(label(text, middle_x - 50, model.databases[0].middle))

    # --- workers: what they take, and the database of results
    for queue in model.queues:
        place = pills[queue["name"]]
        for node in model.workers:
            takes = model.takes(node, queue)
            if takes is not None:
                half = ((middle_end + right_start) / 2, (node.middle + place) / 2)
                line = curve(middle_end - 14, place, right_start, node.middle)
                wires.append(wire(line, takes, half, heavy=len(node.names) > 1))
    rail = right_start - 26
    if model.workers:
        ends = [node.y + NODE - 12 for node in model.workers]
        target = model.databases[0].middle
        well = [(node, end) for node, end in zip(model.workers, ends) if model.link(node, "database") in (OK, ABSENT)]
        if well:
            low, high = min(target, *(end for _n, end in well)), max(target, *(end for _n, end in well))
            path = f"M{middle_end:.0f} {target:.1f}H{rail:.0f}M{rail:.0f} {low:.1f}V{high:.1f}"
            path += "".join(f"M{rail:.0f} {end:.1f}H{right_start:.0f}" for _node, end in well)
            wires.insert(0, wire(path, OK))
        for node, end in zip(model.workers, ends):
            state = model.link(node, "database")
            if state not in (OK, ABSENT):
                half = ((middle_end + right_start) / 2, (end + target) / 2)
                wires.append(wire(curve(middle_end, target, right_start, end), state, half))
        if text := model.times(model.names(WORKER), "results"):
            labels.append(label(text, (middle_end + rail) / 2, target))
        # --- workers call masters' API over the top; masters fetch logs below
        if model.masters:
            wires += _across(model, "api", model.workers, top - 56, -1, labels)
            wires += _across(model, "logs", model.masters, bottom + 30, 1, labels)

    # --- boxes
    parts = [_head("Masters", LEFT[0], top - 14, model.masters), _head("Workers", RIGHT[0], top - 14, model.workers)]
    parts += wires
    parts.append(
        f'<rect class="box" x="{middle_x:.0f}" y="{broker_top:.0f}" width="{middle_w:.0f}"'
        f' height="{broker_end - broker_top:.0f}" rx="10"/>'
    )
    parts.append(f'<text class="head" x="{middle_x:.0f}" y="{broker_top - 9:.0f}">Broker and queues</text>')
    parts.append(f'<text class="head" x="{middle_x:.0f}" y="{model.databases[0].y - 9:.0f}">Database</text>')
    parts += [draw_node(node, middle_x + 10, middle_w - 20) for node in model.brokers]
    for queue in model.queues:
        parts.append(_pill(model, queue, middle_x + 10, pills[queue["name"]] - PILL / 2, middle_w - 20))
    parts += [draw_node(node, middle_x, middle_w) for node in model.databases]
    parts += [draw_node(node, *LEFT) for node in model.masters]
    parts += [draw_node(node, *RIGHT) for node in model.workers]
    parts += labels
    return _svg(WIDTH, bottom + 52, parts, model)


def _height(nodes: Sequence[Node]) -> float:
    return sum(NODE + GAP + (6 if len(node.names) > 1 else 0) for node in nodes) - GAP if nodes else NODE


def _head(text: str, x: float, y: float, nodes: Sequence[Node]) -> str:
    place = nodes[0].y - 10 if nodes else y
    return f'<text class="head" x="{x:.0f}" y="{place:.0f}">{text if nodes else f"{text}: none"}</text>'


def _across(model: Model, check: str, callers: Sequence[Node], y: float, side: int, labels: list[str]) -> list[str]:
    """The line between masters and workers that passes the middle: calls of the API above, logs below."""
    left, right = LEFT[0] + LEFT[1] / 2 + 40, RIGHT[0] + RIGHT[1] / 2 + 20
    ends = (model.masters, model.workers)
    near = [min(n.y for n in nodes) - 4 if side < 0 else max(n.y for n in nodes) + NODE + 4 for nodes in ends]
    states = [model.link(node, check) for node in callers]
    known = [OK if s == ABSENT else s for s in states]
    ill = _ill(model, callers, check)
    # Where it fails for some only, the words tell whom.
    some_work = len(ill) < len(model.names(WORKER)) if check == "logs" else OK in known
    state = OK if some_work else worst(known)
    path = (
        f"M{left:.0f} {near[0]:.1f}V{y - side * 10:.1f}Q{left:.0f} {y:.1f} {left + 10:.0f} {y:.1f}"
        f"H{right - 10:.0f}Q{right:.0f} {y:.1f} {right:.0f} {y - side * 10:.1f}V{near[1]:.1f}"
    )
    names = model.names(MASTER if check == "logs" else WORKER)
    words = "logs" if check == "logs" else "execution API"
    text = " ".join(filter(None, [words, model.times(names, check)]))
    text += f", fails for {_several(ill)}" if ill else ""
    labels.append(label(text, (left + right) / 2, y, worst(known)))
    return [wire(path, state, None)]


def _ill(model: Model, callers: Sequence[Node], check: str) -> list[str]:
    """Workers whose connection fails; for logs those whose log cannot be read."""
    if check == "logs":
        entries = [e for p in model.document["problems"] for e in ({**p, "host": ""}, *p["consequences"])]
        return list(dict.fromkeys(e["subject"].partition(":")[2] for e in entries if e["subject"].startswith("log:")))
    return [name for node in callers for name in node.names if model.cell(name, check) in (PROBLEM, CONSEQUENCE)]


def _several(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) <= 2 else f"{len(names)} workers"


def _pill(model: Model, queue: Mapping[str, t.Any], x: float, y: float, width: float) -> str:
    state = OK if queue["workers"] or queue["consumers"] else CONSEQUENCE
    mine = [
        number
        for number, problem in enumerate(model.document["problems"], 1)
        if problem["subject"] == f"queue:{queue['name']}"
    ]
    state = PROBLEM if mine else state
    waiting = queue["messages"]
    note = "unknown" if waiting is None else "empty" if not waiting else f"{waiting} waiting"
    if waiting is not None and not queue["workers"] and not queue["consumers"]:
        note += ", nobody takes"
    icon = f'<use href="#{ICONS[state]}" x="{x + 12:.0f}" y="{y + 9:.0f}" width="14" height="14"/>'
    return (
        f'<g class="node {CLASSES[state]}">'
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{PILL:.0f}" rx="16"/>'
        f'{icon}<text class="name" x="{x + 35:.0f}" y="{y + 20.5:.1f}">'
        f"{escape(cut(str(queue['name']), width * 0.45, bold=True))}</text>"
        f'<text class="small" x="{x + width - (14 if not mine else 38):.0f}" y="{y + 20.5:.1f}" text-anchor="end">'
        f"{escape(note)}</text>{''.join(badge(n, x + width - 18, y + PILL / 2, PROBLEM) for n in mine[:1])}</g>"
    )


# --- one below the other, for a phone --------------------------------------------------------------------------


def narrow(document: Document, numbers: Marks) -> str:
    """Database, masters, broker with its queues, workers, from top to bottom."""
    model = Model(document, numbers)
    width, x, room = 340.0, 0.0, 308.0
    parts: list[str] = []
    wires: list[str] = []
    labels: list[str] = []
    rail = width - 12

    def title(text: str, y: float) -> None:
        parts.append(f'<text class="head" x="{x:.0f}" y="{y:.0f}">{text}</text>')

    y = 14.0
    title("Database", y)
    y = stack_up(model.databases, y + 10)
    database = model.databases[0]
    y += 44
    title("Masters", y)
    masters_end = stack_up(model.masters, y + 10) if model.masters else y + 10
    y = masters_end + 44
    title("Broker and queues", y)
    y = stack_up(model.brokers, y + 10) + 8
    for queue in model.queues:
        parts.append(_pill(model, queue, x, y, room))
        y += PILL + 6
    broker_end = y
    y += 40
    title("Workers", y)
    y = stack_up(model.workers, y + 10) if model.workers else y + 10

    # Everything hangs on one rail, which all hosts use to reach the database, and on short lines in between.
    users = [*model.masters, *model.workers]
    states = [model.link(node, "database") for node in users]
    last = max((node.middle for node in users), default=database.middle)
    wires.append(wire(f"M{room:.0f} {database.middle:.1f}H{rail:.0f}V{last:.1f}", OK))
    for node, state in zip(users, states):
        known = OK if state == ABSENT else state
        half = ((room + rail) / 2, node.middle)
        wires.append(wire(f"M{room:.0f} {node.middle:.1f}H{rail:.0f}", known, half))
    labels.append(label(model.times(model.hosts, "metadata") or model.times(model.hosts, "results"), room - 30,
                        database.y + NODE + 20))  # fmt: skip
    for nodes, start, end in (
        (model.masters, masters_end + 4, model.brokers[0].y - 4),
        (model.workers, broker_end, model.workers[0].y - 4 if model.workers else 0.0),
    ):
        if nodes:
            states = [OK if s == ABSENT else s for s in (model.link(node, "broker") for node in nodes)]
            state = OK if OK in states else worst(states)
            wires.append(wire(f"M150 {start:.1f}V{end:.1f}", state, (150, (start + end) / 2)))
            ill = _ill(model, nodes, "broker")
            text = model.times([name for node in nodes for name in node.names], "broker")
            text = ", ".join(filter(None, [text, f"fails for {_several(ill)}" if ill else ""]))
            labels.append(label(text, 166 + len(text) * 3.3, (start + end) / 2, worst(states)))
    drawn = [draw_node(node, x, room) for node in (*model.databases, *model.masters, *model.brokers, *model.workers)]
    return _svg(width, y + 12, [*wires, *parts, *drawn, *labels], model)
