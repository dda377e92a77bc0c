# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: from which release to which, on which host, and why not. Pure; on the control machine."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.onprem.airflow.plugins.module_utils._release import version_of

# The first release line that this collection knows how to run.
OLDEST = (3, 3)


@dataclass(frozen=True)
class Host:
    """A host as the module C(releases) found it, and the release that the inventory gives to it."""

    name: str
    wanted: str
    current: str = ""
    previous: str = ""
    installed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    units: Mapping[str, Mapping[str, t.Any]] = field(default_factory=dict)
    is_master: bool = False

    def version(self, release: str) -> str:
        """The version of Airflow in a release."""
        return str(self.installed.get(release, {}).get("version") or version_of(release))

    def python(self, release: str) -> str:
        """The Python of a release; empty when it is not installed here."""
        return str(self.installed.get(release, {}).get("python", ""))

    def unsettled(self, release: str) -> list[str]:
        """The units that do not run a release yet; a drained one runs it when it is taken back."""
        return sorted(
            name
            for name, unit in self.units.items()
            if not unit["held"] and (unit["active"] != "active" or unit["release"] not in ("", release))
        )

    def is_settled(self, release: str) -> bool:
        """Whether nothing is left to do here for this release."""
        return self.current == release and release in self.installed and not self.unsettled(release)


@dataclass(frozen=True)
class Problem:
    """Why a plan cannot be carried out, on one host or (C(host) empty) anywhere."""

    host: str
    what: str
    fix: str


@dataclass
class Plan:
    """The release that each host gets, or why not.

    C(due) says whether there is anything to do, C(begun) whether a master has its release already.
    """

    targets: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    due: bool = False
    begun: bool = False
    lines: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, t.Any]:
        """Plain data for templates; problems as lines for a person."""
        return {
            "targets": self.targets,
            "problems": told(self.problems),
            "due": self.due,
            "begun": self.begun,
            "lines": self.lines,
        }

    def settle(self, hosts: Sequence[Host]) -> Plan:
        """Compare the targets with what the hosts have."""
        self.due = not all(host.is_settled(self.targets.get(host.name, "")) for host in hosts)
        self.begun = any(host.is_master and host.current == self.targets.get(host.name, "") for host in hosts)
        self.lines = _lines(hosts, self.targets)
        return self


def number(version: str) -> tuple[int, ...]:
    """A version to compare by; empty when it is none. What follows the third number does not count."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return tuple(map(int, match.groups())) if match else ()


def told(problems: Sequence[Problem]) -> list[str]:
    """A line for each problem; the same one on several hosts is told once."""
    merged: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        merged.setdefault((problem.what, problem.fix), []).append(problem.host)
    return [
        f"{', '.join(hosts)}: {what}. Fix: {fix}" if any(hosts) else f"{what[:1].upper()}{what[1:]}. Fix: {fix}"
        for (what, fix), hosts in merged.items()
    ]


def names(hosts: Iterable[str], limit: int = 8) -> str:
    """Names of hosts, not too many."""
    listed = list(hosts)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


# --- upgrade --------------------------------------------------------------------------------------------------------


def plan_upgrade(hosts: Sequence[Host], absent_masters: Sequence[str] = (), force: bool = False) -> Plan:
    """Take each host to the release that the inventory wants.

    A mixture of the wanted release and one other is an upgrade that was cut off, and goes on. C(absent_masters) are
    those that --limit leaves out; C(force) accepts a mixture of several others.
    """
    plan = Plan({host.name: host.wanted for host in hosts})
    problems = plan.problems
    if absent_masters:
        problems.append(
            Problem(
                names(absent_masters),
                "is left out by --limit, but no master may stay behind: all share one database",
                "leave out workers only",
            )
        )
    running = [host for host in hosts if host.current]
    if not running:
        problems.append(Problem("", "no host has a release of Airflow", "install one with onprem.airflow.site"))
        return plan
    problems += [
        Problem(
            host.name,
            "has no release of Airflow yet",
            f"upgrade without it (--limit '!{host.name}'), then run onprem.airflow."
            + ("site" if host.is_master else "scale_out"),
        )
        for host in hosts
        if not host.current
    ]
    versions = sorted({version_of(host.wanted) for host in hosts}, key=number)
    if len(versions) > 1:
        problems.append(
            Problem(
                "",
                f"the hosts are to get different versions of Airflow ({', '.join(versions)})",
                "set airflow_version for all hosts, not for one host or group",
            )
        )
    for host in running:
        problems += _step_problems(host)
    others = [host for host in running if host.current != host.wanted]
    if not force and (mixture := _mixture(others, {host.name: host.current for host in others})):
        problems.append(
            Problem(
                "",
                f"the hosts run several releases, and none of them is the wanted one: {mixture}",
                "finish that upgrade first (with its airflow_version and airflow_lock), or take it back with "
                "onprem.airflow.rollback; or accept that there is no common way back: -e airflow_force=true",
            )
        )
    return plan.settle(hosts)


def _step_problems(host: Host) -> Iterable[Problem]:
    """Steps that Airflow, or this collection, does not support."""
    old, new = host.version(host.current), version_of(host.wanted)
    before, after = number(old), number(new)
    for which, version, parts in (("runs", old, before), ("is to get", new, after)):
        if not parts:
            yield Problem(
                host.name,
                f"{which} Airflow {version!r}, which is no version such as 3.3.2",
                "write airflow_version as a quoted full version",
            )
        elif parts[:2] < OLDEST:
            yield Problem(
                host.name,
                f"{which} Airflow {version}, which is older than this collection supports",
                "use Airflow 3.3 or a later 3.x",
            )
    if not before or not after:
        return
    if before[0] != after[0]:
        yield Problem(
            host.name,
            f"Airflow {old} and {new} are different major versions; no upgrade in place leads from one to the other",
            f"stay with Airflow {before[0]} in airflow_version",
        )
    elif after < before:
        yield Problem(
            host.name,
            f"runs Airflow {old}, which is newer than the wanted {new}",
            f"set airflow_version to {old} or a later one; to go back, run onprem.airflow.rollback, which takes the "
            "database back too",
        )


def _mixture(hosts: Sequence[Host], releases: Mapping[str, str]) -> str:
    """The releases of these hosts when they are not one; the same lock has another name under another Python."""
    by_python: dict[str, set[str]] = {}
    for host in hosts:
        release = releases[host.name]
        by_python.setdefault(host.python(release), set()).add(release)
    versions = {host.version(releases[host.name]) for host in hosts}
    if len(versions) < 2 and all(len(found) < 2 for found in by_python.values()):
        return ""
    groups: dict[str, list[str]] = {}
    for host in hosts:
        groups.setdefault(releases[host.name], []).append(host.name)
    return "; ".join(f"{release} on {names(members)}" for release, members in sorted(groups.items()))


def _lines(hosts: Sequence[Host], targets: Mapping[str, str]) -> list[str]:
    """What is going to happen where, for a person."""
    steps: dict[str, list[str]] = {}
    for host in hosts:
        target = targets.get(host.name, "")
        if host.current != target:
            steps.setdefault(f"{host.current or 'nothing'} -> {target}", []).append(host.name)
        elif units := host.unsettled(target):
            steps.setdefault(f"has {target}; still to be started with it: {', '.join(units)}", []).append(host.name)
        else:
            steps.setdefault(f"runs {target}", []).append(host.name)
    drained = [host.name for host in hosts if any(unit["held"] for unit in host.units.values())]
    lines = [f"{names(members)}: {step}" for step, members in sorted(steps.items())]
    if drained:
        lines.append(f"{names(drained)}: drained, gets the release and starts with it when it is undrained")
    return lines


# --- rollback -------------------------------------------------------------------------------------------------------


def plan_rollback(hosts: Sequence[Host], to: str = "", absent_masters: Sequence[str] = ()) -> Plan:
    """Take each host back to the release that it had before, or to the one that C(to) names.

    C(to) is the name of a release or a version. A host that lacks the release gets it when it is what the inventory
    wants, since only then is it known what is in it.
    """
    plan = Plan()
    if absent_masters:
        plan.problems.append(
            Problem(
                names(absent_masters),
                "is left out by --limit, but no master may stay behind: all share one database",
                "leave out workers only",
            )
        )
    if not any(host.current for host in hosts):
        plan.problems.append(Problem("", "no host has a release of Airflow", "there is nothing to go back from"))
        return plan
    for host in hosts:
        if to:
            found = [name for name in host.installed if to in (name, host.version(name))]
            if len(found) > 1:
                plan.problems.append(
                    Problem(
                        host.name,
                        f"has several releases of Airflow {to}",
                        f"name one of them: -e airflow_rollback_to={' or '.join(sorted(found))}",
                    )
                )
            elif found:
                plan.targets[host.name] = found[0]
        elif host.previous in host.installed:
            plan.targets[host.name] = host.previous
    _complete(plan, hosts, to)
    known = [host for host in hosts if host.name in plan.targets]
    if not to and (mixture := _mixture(known, plan.targets)):
        plan.problems.append(
            Problem(
                "",
                f"the hosts had different releases before: {mixture}",
                "name the one to go back to, for instance -e airflow_rollback_to="
                + sorted(plan.targets.values(), key=lambda name: number(version_of(name)))[0],
            )
        )
    for host in known:
        target = plan.targets[host.name]
        if number(host.version(target)) > number(host.version(host.current)):
            plan.problems.append(
                Problem(
                    host.name,
                    f"runs {host.current}, which is older than {target}",
                    "to get a newer release, set airflow_version and airflow_lock and run onprem.airflow.upgrade",
                )
            )
    return plan.settle(hosts)


def _complete(plan: Plan, hosts: Sequence[Host], to: str) -> None:
    """Give hosts without a release to go back to (added since) the one of the others."""
    versions = {version_of(name) for name in plan.targets.values()}
    told_already = {problem.host for problem in plan.problems}
    if not plan.targets and not told_already:
        what = f"no host has the release {to}" if to else "no host has an earlier release"
        available = sorted({name for host in hosts for name in host.installed if name != host.current})
        fix = f"name an installed one: -e airflow_rollback_to={' or '.join(available)}" if available else "none is left"
        plan.problems.append(Problem("", what, fix))
        return
    for host in hosts:
        if host.name in plan.targets or host.name in told_already:
            continue
        same = [name for name in plan.targets.values() if name in host.installed]
        if same:
            plan.targets[host.name] = same[0]
        elif host.wanted in plan.targets.values() or {version_of(host.wanted)} == versions:
            plan.targets[host.name] = host.wanted
        else:
            plan.problems.append(
                Problem(
                    host.name,
                    f"does not have the release to go back to ({', '.join(sorted(set(plan.targets.values())))})",
                    "put its airflow_version and airflow_lock back in the inventory, then this playbook installs it "
                    f"there; or go back without this host: --limit '!{host.name}'",
                )
            )
