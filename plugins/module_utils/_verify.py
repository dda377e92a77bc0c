# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: what the hosts of a cluster reported, judged as one document, and its table. Pure.

The document is the content of verify.json; docs/verify.md describes it. No secret may enter it.
"""

from __future__ import annotations

import re
import textwrap
import time
import typing as t
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.onprem.airflow.plugins.module_utils._problems import CHECKS, CODES, Problem
from ansible_collections.onprem.airflow.plugins.module_utils._settings import MUST_MATCH
from ansible_collections.onprem.airflow.plugins.module_utils._verify_causes import explain
from ansible_collections.onprem.airflow.plugins.module_utils._verify_compare import (
    MASTER,
    WORKER,
    Cluster,
    Found,
    Host,
    compare,
    drained_units,
    offsets,
    some,
    unjudged_consumers,
)

SCHEMA = 1
COLLECTION = "onprem.airflow"
TOLERANCE = 5.0
# The table shows every host up to here, beyond it only those that need a look.
FOLD = 40

OK, PROBLEM, CONSEQUENCE, NOT_LOOKED_AT, ABSENT = "ok", "problem", "consequence", "not_looked_at", "absent"
# Of the worker alone: it takes no tasks because somebody wanted it so, which is no problem.
DRAINED = "drained"
# Which check is done on which hosts. What another host reports nevertheless is shown as well.
APPLIES: dict[str, tuple[str, ...]] = {
    "services": ("postgresql", "rabbitmq", MASTER, WORKER),
    "config": (MASTER, WORKER),
    "versions": (MASTER, WORKER),
    "broker": (MASTER, WORKER),
    "queues": (MASTER, WORKER),
    "worker": (WORKER,),
    "database": (MASTER, WORKER),
    "api": (MASTER, WORKER),
    "clock": (MASTER, WORKER),
    "logs": (MASTER,),
    "dags": (MASTER, WORKER),
}
_UNREACHABLE_FIX = "start the host or correct ansible_host, ansible_port, ansible_user or the SSH key; `ssh` must work"
# What is told by a host on which Ansible itself can write no file any more.
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|No usable temporary directory", re.IGNORECASE)
_NO_SPACE_FIX = (
    "free space on the host, above all where Ansible puts its files: the home of the SSH user, /tmp and /var/tmp "
    "(`df -h` and `df -i` there tell which is full). It goes on by itself once there is space"
)
_FAILED_FIX = "the SSH user needs root by sudo and the host python3; run again with -vvv to see all of the error"


def merge_second(result: Mapping[str, t.Any], second: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """A master's result together with that of its second look, which is only at log servers."""
    merged = dict(result)
    if not result.get("report"):
        return merged
    if second.get("failed") or second.get("unreachable") or not second.get("report"):
        # Skipped, or not done at all: nothing was seen of log servers.
        why = _first_line(second.get("msg") or "the second look was not done")
        merged["report"] = {**result["report"], "skipped": [*_list(result["report"].get("skipped"))]}
        if result["report"].get("log_servers") is None:
            merged["report"]["skipped"].append({"check": "logs", "why": why})
        return merged
    report, looked = result["report"], second["report"]
    first = [entry for entry in _list(report.get("skipped")) if entry.get("check") != "logs"]
    merged["report"] = {
        **report,
        "log_servers": looked.get("log_servers") or [],
        "skipped": [*first, *(entry for entry in _list(looked.get("skipped")) if entry.get("check") == "logs")],
    }
    known = {(p.get("code"), p.get("subject"), p.get("what")) for p in _list(result.get("problems"))}
    merged["problems"] = [
        *_list(result.get("problems")),
        *(
            problem
            for problem in _list(second.get("problems"))
            if CODES.get(str(problem.get("code"))) == "logs"
            and (problem.get("code"), problem.get("subject"), problem.get("what")) not in known
        ),
    ]
    return merged


def verify(
    hosts: Sequence[Host],
    results: Mapping[str, Mapping[str, t.Any]],
    *,
    version: str = "",
    now: float = 0.0,
    tolerance: float = TOLERANCE,
    must_match: Mapping[str, Iterable[str]] | None = None,
) -> dict[str, t.Any]:
    """The document. results: {host: what executor_check returned there, as Ansible registered it}."""
    cluster = Cluster({host.name: host for host in hosts}, results)
    found: list[Found] = []
    not_looked_at: list[dict[str, str]] = []
    reasons: dict[str, str] = {}
    skipped: dict[tuple[str, str], str] = {}
    for name, host in cluster.hosts.items():
        result = results.get(name) or {}
        if not host.in_run:
            reasons[name] = "left out by --limit"
        elif full := _no_space(result):
            reasons[name] = "has no space left"
            what = f"has no space left, so nothing on it can be looked at: {full}"
            found.append(Found(Problem("disk_full", name, what, _NO_SPACE_FIX, f"host:{name}")))
        elif result.get("unreachable"):
            reasons[name] = "cannot be reached"
            what = f"cannot be reached: {_first_line(result.get('msg'))}"
            found.append(Found(Problem("unreachable", name, what, _UNREACHABLE_FIX, f"host:{name}")))
        elif not result.get("report"):
            reasons[name] = "its check failed"
            what = f"the checks could not run there: {_first_line(result.get('msg') or 'there is no result')}"
            found.append(Found(Problem("check_failed", name, what, _FAILED_FIX, f"host:{name}")))
        else:
            found += [Found(_problem(name, problem)) for problem in _list(result.get("problems"))]
            for entry in _list(result["report"].get("skipped")):
                skipped[name, str(entry["check"])] = str(entry["why"])
    compared = compare(cluster, MUST_MATCH if must_match is None else must_match, tolerance)
    if any(entry.problem.code == "clock_off" for entry in compared):
        # A host alone cannot know whether its clock or the database's is wrong; all of them together do.
        found = [entry for entry in found if entry.problem.code != "clock_off"]
    found += compared

    not_looked_at += [{"host": name, "why": why} for name, why in reasons.items() if why == "left out by --limit"]
    not_looked_at += [{"host": name, "check": check, "why": why} for (name, check), why in skipped.items()]
    if why := unjudged_consumers(cluster):
        not_looked_at.append({"check": "worker", "why": why})

    problems = explain(cluster, found)
    limited = any(not host.in_run for host in cluster.hosts.values())
    walls = [float(cluster.report(name).get("wall_seconds") or 0) for name in cluster.hosts]
    return {
        "schema": SCHEMA,
        "collection": COLLECTION,
        "version": version,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "seconds": round(max(walls, default=0.0), 1),
        "ok": not problems,
        "limited": limited,
        "not_looked_at": not_looked_at,
        "hosts": _hosts(cluster, problems, reasons, skipped),
        "queues": _queues(cluster),
        "problems": problems,
    }


def _problem(host: str, given: Mapping[str, t.Any]) -> Problem:
    """A problem that a host reported. An unknown code, of another version of the module, is still shown."""
    code = str(given.get("code"))
    what = str(given.get("what", ""))
    return Problem(
        code if code in CODES else "check_failed",
        host,
        what if code in CODES else f"{what} ({code})",
        str(given.get("fix", "")),
        str(given.get("subject") or ""),
    )


def _no_space(result: Mapping[str, t.Any]) -> str:
    """What Ansible was told, when a host has no space left for the check itself; empty when that is not so."""
    if result.get("report") or not (result.get("unreachable") or result.get("failed")):
        return ""
    for key in ("msg", "module_stderr", "module_stdout", "exception"):
        for line in str(result.get(key) or "").splitlines():
            if _NO_SPACE.search(line):
                return _first_line(line)
    return ""


def _hosts(
    cluster: Cluster,
    problems: Sequence[Mapping[str, t.Any]],
    reasons: Mapping[str, str],
    skipped: Mapping[tuple[str, str], str],
) -> dict[str, t.Any]:
    causes: dict[tuple[str, str], str] = {}
    effects: dict[tuple[str, str], str] = {}
    for problem in problems:
        for name in problem["hosts"]:
            causes.setdefault((name, problem["check"]), problem["code"])
        for consequence in problem["consequences"]:
            effects.setdefault((consequence["host"], CODES[consequence["code"]]), consequence["code"])
    ahead = offsets(cluster)
    hosts: dict[str, t.Any] = {}
    for name, host in cluster.hosts.items():
        report = cluster.report(name)
        drained, services = len(drained_units(report)), len(cluster.workers(name))
        cells: dict[str, dict[str, str]] = {}
        for check in CHECKS:
            applies = any(role in host.groups for role in APPLIES[check])
            if (name, check) in causes:
                cells[check] = {"status": PROBLEM, "detail": causes[name, check]}
            elif (name, check) in effects:
                cells[check] = {"status": CONSEQUENCE, "detail": effects[name, check]}
            elif not applies:
                cells[check] = {"status": ABSENT, "detail": ""}
            elif check == "worker" and drained and drained == services:
                cells[check] = {"status": DRAINED, "detail": "drained"}
            elif name in reasons:
                cells[check] = {"status": NOT_LOOKED_AT, "detail": reasons[name]}
            elif (name, check) in skipped:
                cells[check] = {"status": NOT_LOOKED_AT, "detail": skipped[name, check]}
            elif check == "worker" and drained:
                cells[check] = {"status": DRAINED, "detail": f"{drained} of {services} drained"}
            else:
                cells[check] = {"status": OK, "detail": _detail(check, report, ahead.get(name))}
        hosts[name] = {
            "groups": list(host.groups),
            "roles": list(host.roles),
            "queues": list(host.queues) if WORKER in host.groups else [],
            "looked_at": name not in reasons,
            "checks": cells,
            # A fingerprint tells whether two hosts have the same secret; that has been judged, so nobody needs it.
            "report": {key: value for key, value in report.items() if key != "fingerprints"},
        }
    return hosts


def _detail(check: str, report: Mapping[str, t.Any], ahead: float | None) -> str:
    """A few characters for a cell that is ok."""
    texts = {
        "services": lambda: _up(report.get("units") or []),
        "versions": lambda: str((report.get("versions") or {}).get("apache-airflow", "")),
        "broker": lambda: _ms(node.get("round_trip_ms") for node in (report.get("broker") or {}).get("nodes") or []),
        "queues": lambda: _number(len(report.get("queues") or []), "queue"),
        "worker": lambda: "{}/{}".format(*load) if (load := slots(report))[1] else "",
        "database": lambda: _ms(entry.get("ms") for entry in (report.get("databases") or {}).values() if entry),
        "api": lambda: _ms(entry.get("ms") for entry in report.get("api") or []),
        "clock": lambda: "" if ahead is None else _offset(ahead),
        "logs": lambda: _ms(entry.get("ms") for entry in report.get("log_servers") or []),
        "dags": lambda: _files(report),
    }
    return texts[check]() if check in texts else ""


def slots(report: Mapping[str, t.Any]) -> tuple[int, int]:
    """How many tasks the workers of a host run, and for how many they have room."""
    workers = report.get("workers") or ()
    running, room = (sum(int(worker.get(key) or 0) for worker in workers) for key in ("running", "concurrency"))
    return running, room


def drained_workers(document: Mapping[str, t.Any]) -> list[tuple[str, str]]:
    """The hosts with a drained worker, each with the services that are, where it has others, and what is noted."""
    found = []
    for name, host in document["hosts"].items():
        drained = drained_units(host["report"])
        several = len(host["report"].get("workers") or ()) > 1
        notes = [f"{unit.removesuffix('.service')} {text}" if several else text for unit, text in drained.items()]
        if notes:
            found.append((name, "; ".join(notes)))
    return found


def undrain(names: Iterable[str]) -> str:
    """How to take workers back."""
    return f"ansible-playbook onprem.airflow.undrain --limit {','.join(names)}"


def _up(units: Sequence[Mapping[str, t.Any]]) -> str:
    return f"{sum(unit.get('active') == 'active' for unit in units)} up" if units else ""


def _ms(values: Iterable[float | None]) -> str:
    """The slowest of some times."""
    known = [value for value in values if value is not None]
    return f"{max(known):.0f} ms" if known else ""


def _offset(seconds: float) -> str:
    return f"{seconds * 1000:+.0f} ms" if abs(seconds) < 0.995 else f"{seconds:+.1f} s"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s" if count else ""


def _files(report: Mapping[str, t.Any]) -> str:
    bundles = (report.get("dags") or {}).get("bundles") or {}
    # Of a large tree the files are counted and not named.
    return _number(sum(tree.get("count") or len(tree.get("files") or {}) for tree in bundles.values() if tree), "file")


def _queues(cluster: Cluster) -> list[dict[str, t.Any]]:
    """The queues as the broker tells, and who takes tasks from each."""
    queues: dict[str, dict[str, t.Any]] = {}
    takers: dict[str, set[str]] = {}
    for name in cluster.members(MASTER, WORKER):
        report = cluster.report(name)
        for entry in report.get("queues") or []:
            known = queues.setdefault(str(entry["name"]), {"name": str(entry["name"])})
            for key in ("type", "durable", "messages", "consumers"):
                if known.get(key) is None:
                    known[key] = entry.get(key)
        for queue in (queue for worker in cluster.workers(name) for queue in worker.get("active_queues") or []):
            takers.setdefault(str(queue), set()).add(name)
        for entry in report.get("consumers") or []:
            host = cluster.find(str(entry.get("host") or ""))
            if host and WORKER in cluster.hosts[host].groups:
                takers.setdefault(str(entry["queue"]), set()).add(host)
    declared = {queue for name in cluster.members(WORKER) for queue in cluster.hosts[name].queues}
    wanted = {
        str(entry["queue"]) for name in cluster.members(MASTER) for entry in cluster.report(name).get("unserved") or []
    }
    for queue in sorted((declared | wanted) - set(queues)):
        queues[queue] = {"name": queue, "type": None, "durable": None, "messages": None, "consumers": None}
    return [
        {**entry, "workers": [name for name in cluster.hosts if name in takers.get(queue, ())]}
        for queue, entry in sorted(queues.items())
    ]


# --- the table -------------------------------------------------------------------------------------------------

_COLOURS = {OK: "32", PROBLEM: "1;31", CONSEQUENCE: "33", NOT_LOOKED_AT: "36", ABSENT: "2", DRAINED: "35"}


def table(document: Mapping[str, t.Any], width: int = 120, colour: bool = False) -> str:
    """The document for a terminal."""
    hosts: Mapping[str, t.Any] = document["hosts"]
    lines: list[str] = []
    shown = list(hosts)
    folded: list[str] = []
    if len(hosts) > FOLD:
        folded = [name for name in hosts if _quiet(hosts[name])]
        shown = [name for name in hosts if name not in set(folded)]
    if shown:
        lines += _grid({name: hosts[name] for name in shown}, width, colour)
    if folded:
        lines.append(f"{_number(len(folded), 'host')}{'' if not shown else ' more'}: all ok")
    lines.append("")
    marks = {cell["status"] for host in hosts.values() for cell in host["checks"].values()}
    legend = {PROBLEM: "BAD: a problem", CONSEQUENCE: "(bad): follows from one", NOT_LOOKED_AT: "?: not looked at"}
    if used := [text for status, text in legend.items() if status in marks]:
        lines += [", ".join(used), ""]

    for problem in document["problems"]:
        what = f"{_who(problem['hosts'], hosts)}: {problem['what']} [{problem['code']}]"
        lines += [_painted(line, PROBLEM, colour) for line in _wrapped(what, width, "  ", "    ")]
        lines += _wrapped(f"fix: {problem['fix']}", width, "      ", "           ")
        if problem["consequences"]:
            lines += _wrapped(f"which also shows as: {consequences(problem, hosts)}", width, "      ", "           ")
        lines.append("")
    if drained := drained_workers(document):
        alike: dict[str, list[str]] = {}
        for name, text in drained:
            alike.setdefault(text, []).append(name)
        told = some([f"{some(names)} ({text})" for text, names in alike.items()], 8)
        back = undrain(name for name, _text in drained)
        lines += [*_wrapped(f"Drained: {told}. To take back: `{back}`", width, "", "  "), ""]
    if document["not_looked_at"]:
        lines.append("Not looked at:")
        for text in unseen(document["not_looked_at"]):
            lines += _wrapped(text, width, "  ", "    ")
        lines.append("")
    lines.append(_painted(verdict(document), OK if document["ok"] else PROBLEM, colour))
    return "\n".join(lines)


def verdict(document: Mapping[str, t.Any]) -> str:
    """The last line."""
    looked_at = sum(1 for host in document["hosts"].values() if host["looked_at"])
    total = len(document["hosts"])
    scope = _number(looked_at, "host") if looked_at == total else f"{looked_at} of {_number(total, 'host')}"
    if document["ok"]:
        return f"Verified {scope}: nothing is wrong."
    return f"Verified {scope}: {_number(len(document['problems']), 'problem')}."


def consequences(problem: Mapping[str, t.Any], hosts: Mapping[str, t.Any]) -> str:
    """What follows from a problem, by code: broker_refused on worker1 and worker2."""
    by_code: dict[str, list[str]] = {}
    for entry in problem["consequences"]:
        names = by_code.setdefault(entry["code"], [])
        if entry["host"] not in names:
            names.append(entry["host"])
    return "; ".join(f"{code} on {_who(names, hosts)}" for code, names in by_code.items())


def unseen(entries: Sequence[Mapping[str, str]]) -> list[str]:
    """What was not looked at, the same reason once."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        grouped.setdefault((entry.get("check", ""), entry["why"]), []).append(entry.get("host", ""))
    return [
        ", ".join(filter(None, [some([name for name in names if name], 8), check])) + f": {why}"
        for (check, why), names in grouped.items()
    ]


def _quiet(host: Mapping[str, t.Any]) -> bool:
    return all(cell["status"] in (OK, ABSENT) for cell in host["checks"].values())


def _who(names: Sequence[str], hosts: Mapping[str, t.Any]) -> str:
    return f"all {len(names)} hosts" if len(names) > 3 and len(names) == len(hosts) else some(names)


def _cell(cell: Mapping[str, str]) -> str:
    marks = {PROBLEM: "BAD", CONSEQUENCE: "(bad)", NOT_LOOKED_AT: "?", ABSENT: "-"}
    return marks.get(cell["status"]) or (cell["detail"] if cell["detail"] else "ok")


def _grid(hosts: Mapping[str, t.Any], width: int, colour: bool) -> list[str]:
    """One line for each host. Where the terminal is too narrow for all checks, they are continued below."""
    rows = {name: {check: _cell(host["checks"][check]) for check in CHECKS} for name, host in hosts.items()}
    first = max(4, *(len(name) for name in hosts))
    widths = {check: max(len(check), *(len(row[check]) for row in rows.values())) for check in CHECKS}
    blocks: list[list[str]] = [[]]
    used = first
    for check in CHECKS:
        if blocks[-1] and used + 2 + widths[check] > width:
            blocks.append([])
            used = first
        blocks[-1].append(check)
        used += 2 + widths[check]
    lines: list[str] = []
    for block in blocks:
        lines += [""] if lines else []
        lines.append("  ".join(["host".ljust(first), *(check.ljust(widths[check]) for check in block)]).rstrip())
        for name, row in rows.items():
            cells = [
                _painted(row[check].ljust(widths[check]), hosts[name]["checks"][check]["status"], colour)
                for check in block
            ]
            lines.append("  ".join([name.ljust(first), *cells]).rstrip())
    return lines


def _painted(text: str, status: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS[status]}m{text}\x1b[0m" if colour else text


def _wrapped(text: str, width: int, first: str, later: str) -> list[str]:
    # Names and addresses stay whole, to be found and copied.
    return textwrap.wrap(
        text,
        max(width, 60),
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _list(value: t.Any) -> list[t.Any]:
    return list(value or [])


def _first_line(value: t.Any) -> str:
    line = " ".join(str(value or "").split())
    return line if len(line) < 300 else f"{line[:297]}..."
