# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: what verify found, as one page for a browser. Pure.

The page needs nothing but itself: no script, no font, no image from elsewhere. Problems are numbered, and the numbers
lead from the picture and the grid to the list.
"""

from __future__ import annotations

import math
import re
import time
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ansible_collections.onprem.airflow.plugins.module_utils._problems import CHECKS, CODES
from ansible_collections.onprem.airflow.plugins.module_utils._verify import (
    CONSEQUENCE,
    DRAINED,
    NOT_LOOKED_AT,
    OK,
    PROBLEM,
    drained_workers,
    slots,
    undrain,
    unseen,
)
from ansible_collections.onprem.airflow.plugins.module_utils._verify_compare import PACKAGES
from ansible_collections.onprem.airflow.plugins.module_utils._verify_picture import narrow, wide
from ansible_collections.onprem.airflow.plugins.module_utils._verify_style import STYLE, SYMBOLS

Document = Mapping[str, t.Any]
# Beyond so many hosts those that are all ok are folded away.
FOLD = 24
MEANING = {
    OK: "ok",
    PROBLEM: "problem",
    CONSEQUENCE: "follows from a problem",
    NOT_LOOKED_AT: "not looked at",
    DRAINED: "drained, takes no tasks",
}


def page(document: Document) -> str:
    """The whole page."""
    numbers = Numbers(document)
    title = headline(document)
    parts = [
        _top(document, title),
        _picture(document, numbers),
        _problems(document, numbers),
        _drained(document),
        _unseen(document),
        _grid(document, numbers),
        _queues(document, numbers),
        _latencies(document),
        _versions(document),
        _foot(document),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{SYMBOLS}\n<main>\n"
        + "\n".join(filter(None, parts))
        + "\n</main>\n</body>\n</html>\n"
    )


class Numbers:
    """Which problems, by number from 1, show where."""

    def __init__(self, document: Document) -> None:
        self.of: dict[tuple[str, str], list[tuple[int, str]]] = {}
        self.hosts: dict[str, list[tuple[int, str]]] = {}
        for number, problem in enumerate(document["problems"], 1):
            for name in problem["hosts"]:
                self._add(name, problem["check"], number, PROBLEM)
            for entry in problem["consequences"]:
                self._add(entry["host"], CODES.get(entry["code"], "services"), number, CONSEQUENCE)

    def _add(self, host: str, check: str, number: int, status: str) -> None:
        cell = self.of.setdefault((host, check), [])
        if all(number != known for known, _status in cell):
            cell.append((number, status))
        mine = self.hosts.setdefault(host, [])
        if all(number != known for known, _status in mine):
            mine.append((number, status))


def headline(document: Document) -> str:
    """The verdict in a few words."""
    count = len(document["problems"])
    looked = sum(1 for host in document["hosts"].values() if host["looked_at"])
    hosts = _count(looked, "host")
    if not count:
        return f"Nothing is wrong on {hosts}" if looked else "No host was looked at"
    ill = len({name for problem in document["problems"] for name in problem["hosts"]})
    return f"{_count(count, 'problem')} on {_count(ill, 'host')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _icon(name: str, label: str = "") -> str:
    hidden = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    return f'<svg class="i" {hidden}><use href="#{name}"/></svg>'


def _prose(text: str) -> str:
    """Escaped, with what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _section(name: str, title: str, content: str, note: str = "") -> str:
    extra = f'<p class="note">{note}</p>' if note else ""
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{extra}\n{content}</section>'


def _top(document: Document, title: str) -> str:
    hosts = document["hosts"]
    looked = sum(1 for host in hosts.values() if host["looked_at"])
    known = [queue["messages"] for queue in document["queues"] if queue["messages"] is not None]
    waiting = f"{sum(known)} in {_count(len(known), 'queue')}" if known else "unknown"
    running = room = 0
    versions: list[str] = []
    for host in hosts.values():
        load = slots(host["report"])
        running, room = running + load[0], room + load[1]
        version = (host["report"].get("versions") or {}).get("apache-airflow")
        if version and version not in versions:
            versions.append(str(version))
    roles = {
        role: sum(role in host["roles"] for host in hosts.values()) for role in ("airflow_master", "airflow_worker")
    }
    drained = f" ({count} drained)" if (count := len(drained_workers(document))) else ""
    facts = [
        ("hosts looked at", str(looked) if looked == len(hosts) else f"{looked} of {len(hosts)}"),
        ("masters, workers", f"{roles['airflow_master']}, {roles['airflow_worker']}{drained}"),
        ("tasks running", f"{running} of {room} slots" if room else "unknown"),
        ("messages waiting", waiting),
        ("Airflow", ", ".join(versions[:3]) or "unknown"),
    ]
    kind = "good" if document["ok"] and not document["limited"] else "fair" if document["ok"] else "bad"
    icon = {"good": "s-ok", "fair": "s-unseen", "bad": "s-bad"}[kind]
    left = sum(1 for host in hosts.values() if not host["looked_at"])
    sub = f"Looked at {_when(document['time'])}, in {document['seconds']:g} s."
    if not document["ok"]:
        shows = sum(len(problem["consequences"]) for problem in document["problems"])
        subject = "It shows" if len(document["problems"]) == 1 else "They show"
        sub += f" {subject} in {_count(shows, 'other place')} as well." if shows else ""
    if left:
        sub += f" {_count(left, 'host')} not looked at."
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return (
        f'<header><p class="over">Airflow cluster</p><h1 class="{kind}">{_icon(icon)}<span>{escape(title)}</span></h1>'
        f'<p class="sub">{escape(sub)}</p><dl class="facts">{cells}</dl></header>'
    )


def _when(text: str) -> str:
    try:
        return time.strftime("%d %B %Y, %H:%M UTC", time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")).lstrip("0")
    except ValueError:
        return text


def _legend(document: Document) -> str:
    entries = [("s-ok", OK), ("s-bad", PROBLEM), ("s-follows", CONSEQUENCE), ("s-unseen", NOT_LOOKED_AT)]
    entries += [("s-drained", DRAINED)] if drained_workers(document) else []
    return (
        '<p class="legend">'
        + "".join(f'<span class="{icon[2:]}">{_icon(icon)}{MEANING[status]}</span>' for icon, status in entries)
        + "</p>"
    )


def _picture(document: Document, numbers: Numbers) -> str:
    drawn = (
        f'<figure class="wide">{wide(document, numbers.hosts)}</figure>'
        f'<figure class="narrow">{narrow(document, numbers.hosts)}</figure>'
    )
    note = "Who talks to whom, and how long an answer takes. Numbers are those of the problems below."
    note = note if document["problems"] else f"{note.partition('.')[0]}."
    return _section("cluster", "Cluster", drawn + _legend(document), note)


# --- problems --------------------------------------------------------------------------------------------------


def _problems(document: Document, numbers: Numbers) -> str:
    if not document["problems"]:
        return ""
    entries = []
    for number, problem in enumerate(document["problems"], 1):
        hosts = _chips(problem["hosts"], len(document["hosts"]))
        entries.append(
            f'<li id="p{number}"><span class="no" aria-hidden="true">{number}</span><div>'
            f'<h3><span class="who">{hosts}</span> {_prose(problem["what"])}</h3>'
            f'<p class="fix"><b>Fix</b> <span>{_prose(problem["fix"])}</span></p>'
            f"{_consequences(problem, len(document['hosts']))}"
            f'<p class="code"><code>{escape(problem["code"])}</code> in {escape(problem["check"])}'
            + (f", {escape(problem['subject'])}" if ":" in problem["subject"] else "")
            + "</p></div></li>"
        )
    return _section("problems", "Problems", f'<ol class="problems">{"".join(entries)}</ol>')


def _chips(names: Sequence[str], total: int) -> str:
    if len(names) > 3 and len(names) == total:
        return f"all {total} hosts"
    shown = ", ".join(escape(name) for name in names[:6])
    if len(names) <= 6:
        return shown
    rest = escape(", ".join(names[6:]))
    return f'{shown} <span title="{rest}">and {len(names) - 6} more</span>'


def _consequences(problem: Mapping[str, t.Any], total: int) -> str:
    entries = problem["consequences"]
    if not entries:
        return ""
    by_code: dict[str, list[Mapping[str, str]]] = {}
    for entry in entries:
        by_code.setdefault(entry["code"], []).append(entry)
    rows = []
    for code, group in by_code.items():
        names = list(dict.fromkeys(entry["host"] for entry in group))
        texts = list(dict.fromkeys(entry["what"] for entry in group))
        what = escape(texts[0]) + (f" (and {len(texts) - 1} alike)" if len(texts) > 1 else "")
        rows.append(f"<li><b>{_chips(names, total)}</b> {what} <code>{escape(code)}</code></li>")
    return (
        f"<details{' open' if len(rows) <= 3 else ''}><summary>Also shows in {_count(len(entries), 'other place')}"
        f'</summary><ul class="also">{"".join(rows)}</ul></details>'
    )


def _drained(document: Document) -> str:
    found = drained_workers(document)
    if not found:
        return ""
    icon = _icon("s-drained")
    rows = "".join(
        f"<li>{icon}<span><b>{escape(name)}</b> {escape(text)}; to take it back:"
        f" <code>{escape(undrain([name]))}</code></span></li>"
        for name, text in found
    )
    return _section("drained", "Drained", f'<ul class="left-out">{rows}</ul>')


def _unseen(document: Document) -> str:
    if not document["not_looked_at"]:
        return ""
    icon = _icon("s-unseen")
    rows = "".join(f"<li>{icon}<span>{escape(text)}</span></li>" for text in unseen(document["not_looked_at"]))
    return _section("unseen", "Not looked at", f'<ul class="left-out">{rows}</ul>')


# --- the grid --------------------------------------------------------------------------------------------------


def _grid(document: Document, numbers: Numbers) -> str:
    hosts = document["hosts"]
    quiet = [
        name
        for name, host in hosts.items()
        if all(cell["status"] in (OK, "absent") for cell in host["checks"].values())
    ]
    if len(hosts) <= FOLD:
        quiet = []
    loud = [name for name in hosts if name not in set(quiet)]
    content = _table({name: hosts[name] for name in loud}, numbers, "Hosts and checks") if loud else ""
    if quiet:
        words = "more, all ok" if loud else "all ok"
        inner = _table({name: hosts[name] for name in quiet}, numbers, "Hosts that are ok")
        content += f'<details class="fold"><summary>{_count(len(quiet), "host")} {words}</summary>{inner}</details>'
    return _section("checks", "Checks", content)


def _table(hosts: Mapping[str, t.Any], numbers: Numbers, label: str) -> str:
    head = "".join(f'<th scope="col">{check}</th>' for check in CHECKS)
    rows = []
    for name, host in hosts.items():
        cells = "".join(_cell(host["checks"][check], numbers.of.get((name, check), [])) for check in CHECKS)
        rows.append(f'<tr><th scope="row">{escape(name)}<small>{_roles(host["roles"])}</small></th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="grid">'
        f'<thead><tr><th scope="col">host</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _roles(roles: Iterable[str]) -> str:
    return ", ".join(role.removeprefix("airflow_") for role in roles)


def _cell(cell: Mapping[str, str], found: Sequence[tuple[int, str]]) -> str:
    status, detail = cell["status"], cell["detail"]
    if found:
        first = min(found, key=lambda entry: (entry[1] != PROBLEM, entry[0]))
        marks = "".join(
            f'<a class="{"bad" if state == PROBLEM else "follows"}" href="#p{number}"'
            f' aria-label="{MEANING[state]} {number}">{number}</a>'
            for number, state in sorted(found, key=lambda entry: (entry[1] != PROBLEM, entry[0]))
        )
        return f'<td class="{"bad" if first[1] == PROBLEM else "follows"}" title="{escape(detail)}">{marks}</td>'
    if status == OK:
        return f"<td>{escape(detail) or 'ok'}</td>"
    if status == DRAINED:
        return f'<td class="drained">{escape(detail)}</td>'
    if status == NOT_LOOKED_AT:
        return f'<td class="unseen" title="{escape(detail)}"><span>not seen</span></td>'
    return '<td class="none"><span aria-label="does not apply">–</span></td>'


# --- queues ----------------------------------------------------------------------------------------------------


def _queues(document: Document, numbers: Numbers) -> str:
    if not document["queues"]:
        return ""
    about: dict[str, list[tuple[int, str]]] = {}
    for number, problem in enumerate(document["problems"], 1):
        about.setdefault(problem["subject"], []).append((number, PROBLEM))
        for entry in problem["consequences"]:
            mine = about.setdefault(entry["subject"], [])
            if all(number != known for known, _state in mine):
                mine.append((number, CONSEQUENCE))
    rows = []
    for queue in document["queues"]:
        marks = "".join(
            f'<a class="{"bad" if state == PROBLEM else "follows"}" href="#p{number}">{number}</a>'
            for number, state in about.get(f"queue:{queue['name']}", [])
        )
        workers = _chips(queue["workers"], 0) if queue["workers"] else '<span class="dim">nobody</span>'
        rows.append(
            f'<tr><th scope="row">{escape(queue["name"])} {marks}</th>'
            f"<td>{escape(str(queue['type'] or 'unknown'))}</td>"
            f'<td class="n">{_known(queue["messages"])}</td><td class="n">{_known(queue["consumers"])}</td>'
            f"<td>{workers}</td></tr>"
        )
    head = '<th scope="col">queue</th><th scope="col">type</th><th scope="col" class="n">waiting</th>'
    head += '<th scope="col" class="n">consumers</th><th scope="col">workers that take from it</th>'
    return _section(
        "queues",
        "Queues",
        '<div class="scroll" tabindex="0" role="region" aria-label="Queues"><table class="plain"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>",
    )


def _known(value: t.Any) -> str:
    return "–" if value is None else escape(str(value))


# --- latencies -------------------------------------------------------------------------------------------------


def _latencies(document: Document) -> str:
    kinds: dict[str, dict[str, float]] = {"broker": {}, "database": {}, "API server": {}, "logs": {}}
    clocks: dict[str, float] = {}
    for name, host in document["hosts"].items():
        report = host["report"]
        values = {
            "broker": [n.get("round_trip_ms") for n in (report.get("broker") or {}).get("nodes") or []],
            "database": [entry.get("ms") for entry in (report.get("databases") or {}).values() if entry],
            "API server": [entry.get("ms") for entry in report.get("api") or []],
        }
        for kind, measured in values.items():
            known = [float(value) for value in measured if value is not None]
            if known:
                kinds[kind][name] = max(known)
        for entry in report.get("log_servers") or []:
            if entry.get("ms") is not None and not entry.get("problem"):
                ms = max(float(entry["ms"]), kinds["logs"].get(entry["name"], 0.0))
                kinds["logs"][str(entry["name"])] = ms
        offset = (report.get("clock") or {}).get("database_offset")
        if offset is not None:
            clocks[name] = abs(float(offset)) * 1000
    rows = [_strip(kind, values) for kind, values in kinds.items() if values]
    if clocks:
        rows.append(_strip("clock, off by", clocks))
    if not rows:
        return ""
    ticks = "".join(
        f'<span style="left:{_place(value):.1f}%">{text}</span>'
        for value, text in ((0.1, "0.1"), (1, "1"), (10, "10"), (100, "100 ms"), (1000, "1 s"), (10000, "10 s"))
    )
    axis = f'<div class="axis" aria-hidden="true"><span></span><div>{ticks}</div><span></span></div>'
    note = "Each mark is one host, on a logarithmic scale; a taller one stands for several."
    return _section("times", "Times", f'<div class="strips">{"".join(rows)}{axis}</div>', note)


def _place(ms: float) -> float:
    """Percent of the scale from 0.1 ms to 10 s."""
    return min(100.0, max(0.0, (math.log10(max(ms, 0.1)) + 1) / 5 * 100))


def _strip(kind: str, values: Mapping[str, float]) -> str:
    ranked = sorted(values.items(), key=lambda entry: entry[1])
    middle = ranked[len(ranked) // 2][1]
    slowest, worst = ranked[-1]
    # Where many hosts are at the same place one mark stands for them, the darker the more.
    places: dict[int, list[tuple[str, float]]] = {}
    for name, value in ranked:
        places.setdefault(round(_place(value) * 4), []).append((name, value))
    marks = "".join(
        f'<i style="left:{place / 4:.2f}%" class="{"many" if len(group) > 2 else ""}"'
        f' title="{escape(", ".join(f"{name} {_ms(value)}" for name, value in group[:8]))}'
        f'{" and more" if len(group) > 8 else ""}"></i>'
        for place, group in places.items()
    )
    words = f"median {_ms(middle)}, most {_ms(worst)} on {escape(slowest)}" if len(ranked) > 1 else _ms(worst)
    return f'<div class="strip"><b>{kind}</b><div class="track">{marks}</div><span>{words}</span></div>'


def _ms(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


# --- versions --------------------------------------------------------------------------------------------------


def _versions(document: Document) -> str:
    found: dict[str, dict[str, list[str]]] = {}
    for name, host in document["hosts"].items():
        for package, version in (host["report"].get("versions") or {}).items():
            if PACKAGES.match(package):
                found.setdefault(package, {}).setdefault(str(version), []).append(name)
    if not found:
        return ""
    same = {package: next(iter(versions)) for package, versions in found.items() if len(versions) == 1}
    parts = []
    if len(same) < len(found):
        rows = []
        for package, versions in sorted((p, v) for p, v in found.items() if p not in same):
            for version, names in sorted(versions.items(), key=lambda entry: -len(entry[1])):
                cells = f"<td>{escape(version)}</td><td>{_chips(names, 0)}</td>"
                rows.append(f'<tr><th scope="row">{escape(package)}</th>{cells}</tr>')
        parts.append(
            '<div class="scroll" tabindex="0" role="region" aria-label="Versions that differ">'
            '<table class="plain"><thead><tr>'
            '<th scope="col">differs</th><th scope="col">version</th><th scope="col">hosts</th></tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )
    if same:
        cells = "".join(
            f"<div><dt>{escape(package)}</dt><dd>{escape(version)}</dd></div>"
            for package, version in sorted(same.items())
        )
        parts.append(f'<dl class="versions">{cells}</dl>')
    return _section("versions", "Versions", "".join(parts), "The same on all hosts that were looked at, unless told.")


def _foot(document: Document) -> str:
    return (
        f"<footer>{escape(document['collection'])} {escape(document['version'])}, verify.json schema"
        f" {document['schema']}, {escape(document['time'])}. The codes are explained in docs/verify.md.</footer>"
    )
