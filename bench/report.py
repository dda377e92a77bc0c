#!/usr/bin/env python3
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what bench/bench.py measured into docs/speed.md, each part between its marks, and draws docs/speed-*.svg.

uv run --no-project --with matplotlib bench/report.py
"""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import statistics
import time
import typing as t

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "bench"
PAGE = ROOT / "docs" / "speed.md"
# Plays that take fewer seconds are not told.
TOLD = 0.3
# How Airflow was set up, by the names in the results.
TASKS = {
    "stock": "Airflow's own settings",
    "ours": "ours",
    "without_sleep": "ours without `scheduler_idle_sleep_time`",
    "without_batch": "ours without `batch`",
}
# The steps to a new worker's first task, each with what ends it in Ansible's log: the beginning of a play, or the
# result of a task on the new worker; the last one ends with that task. bench/floor.sh marks those that it has.
STEPS = {
    "start": ("`ansible-playbook` starts", "PLAY [Preflight]"),
    "preflight": ("preflight of all hosts", "PLAY [Find the new workers]"),
    "find": ("find the new workers", "PLAY [Refuse what would restart the database]"),
    "room": ("see that the database has room for them", "PLAY [Install databases, brokers and Airflow]"),
    "packages": ("packages of Debian", "done TASK [onprem.airflow.airflow : Install | Install the packages]"),
    "release": ("user, and the release by `uv`", "done TASK [onprem.airflow.airflow : Install | Install the release]"),
    "settings": ("settings, secrets, DAGs, unit", "done TASK [onprem.airflow.airflow : Units | Write them]"),
    "service": ("the service starts, and its first task", ""),
}
Found = dict[str, t.Any]


def median(rounds: list[Found], name: str) -> float:
    return statistics.median(found[name] for found in rounds)


def spread(rounds: list[Found], name: str, factor: float = 1) -> str:
    """The median, and of several rounds the least and the most."""
    values = [factor * found[name] for found in rounds]
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def ratio(rounds: list[Found], name: str, base: str) -> str:
    """The median of the ratios of each round, and the least and the most: what disturbs a round disturbs both."""
    values = [found[name] / found[base] for found in rounds]
    if len(values) == 1:
        return f"{values[0]:.2f} ×"
    return f"{statistics.median(values):.2f} × ({min(values):.2f} to {max(values):.2f})"


def table(heads: t.Sequence[str], rows: t.Iterable[t.Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def ways(rounds: list[Found]) -> list[str]:
    """How Ansible ran, as the ends of names in the results."""
    return [way for way in ("", "_mitogen") if f"site{way}" in rounds[0]]


def cluster(rounds: list[Found]) -> str:
    rows = []
    for what, name, base in (
        ("bare hosts to the first finished DAG", "site", "floor"),
        ("one more worker, bare host to its first task", "worker", "floor_worker"),
        ("a second run of `site` that changes nothing", "second", ""),
        ("`verify`", "verify", ""),
    ):
        names = [f"{name}{way}" for way in ways(rounds)]
        rows.append(
            [
                what,
                spread(rounds, base) if base else "",
                *(spread(rounds, each) + (f": {ratio(rounds, each, base)}" if base else "") for each in names),
            ]
        )
    heads = ["what", "bare commands, s", "ours, s", "ours with Mitogen, s"][: len(rows[0])]
    used = [
        [
            "of the hosts",
            spread(rounds, "floor_hosts_cpu"),
            *(spread(rounds, f"hosts_cpu{way}") for way in ways(rounds)),
        ],
        ["of the control machine", spread(rounds, "floor_cpu"), *(spread(rounds, f"cpu{way}") for way in ways(rounds))],
        ["of the control machine, second run", "", *(spread(rounds, f"second_cpu{way}") for way in ways(rounds))],
    ]
    cpu = table(["CPU seconds, bare hosts to the first DAG", *heads[1:]], used)
    return f"{table(heads, rows)}\n\n{cpu}\n\n{stages(rounds)}\n\n{worker(rounds)}"


def plays(log: pathlib.Path) -> dict[str, float]:
    """The seconds of each play by a log of profile_tasks, in order; plays of one name are added up."""
    begun: list[tuple[str, float]] = []
    name = ""
    for line in log.read_text().splitlines():
        if line.startswith("PLAY ["):
            name = line[len("PLAY [") : line.rindex("]")]
        elif line.startswith("PLAY RECAP"):
            name = ""
        elif match := re.search(r"\(\d+:\d\d:\d\d\.\d+\) +(\d+):(\d\d):(\d\d\.\d+) \*", line):
            hours, minutes, seconds = match.groups()
            begun.append((name, int(hours) * 3600 + int(minutes) * 60 + float(seconds)))
    found: dict[str, float] = {}
    for (name, begin), (_next, end) in itertools.pairwise(begun):
        if name:
            found[name] = found.get(name, 0.0) + end - begin
    return found


def marked(log: str) -> dict[str, float]:
    """When the steps had ended that bench/floor.sh marks, in seconds since the epoch."""
    return {name: float(at) for name, at in re.findall(r"^mark (\S+) ([\d.]+)$", log, re.MULTILINE)}


def logged(log: str, host: str) -> dict[str, float]:
    """When the steps had ended, in seconds since the epoch, by the text of Ansible's log (C(ANSIBLE_LOG_PATH))."""
    names = {ending: name for name, (_what, ending) in STEPS.items()}
    found: dict[str, float] = {}
    shown = ""
    for at, milliseconds, text in re.findall(r"^(\S+ \S+),(\d+) p=.*?\| (.*)$", log, re.MULTILINE):
        if text.startswith(("PLAY [", "TASK [")):
            shown = event = text.rstrip(" *")
        elif re.match(rf"(ok|changed): \[{host}\b", text):
            event = f"done {shown}"
        else:
            continue
        if event in names:
            seconds = time.mktime(time.strptime(at, "%Y-%m-%d %H:%M:%S"))
            found.setdefault(names[event], seconds + int(milliseconds) / 1000)
    return found


def steps(ended: t.Mapping[str, float], began: float, first_task: float) -> dict[str, float]:
    """The seconds of each step, by the times at which they ended; the first task was C(first_task) after C(began)."""
    found: dict[str, float] = {}
    before = began
    ended = {**ended, "service": began + first_task}
    for name in filter(ended.__contains__, STEPS):
        found[name], before = ended[name] - before, ended[name]
    return found


def stages(rounds: list[Found]) -> str:
    """What each play of a run of site on bare hosts takes, the median of the rounds."""
    each = {
        way: [plays(RESULTS / f"{number}{way}-1-site.log") for number in range(1, len(rounds) + 1)]
        for way in ways(rounds)
    }
    names = dict.fromkeys(name for logs in each.values() for found in logs for name in found)
    taken = {
        name: [statistics.median(found.get(name, 0.0) for found in logs) for logs in each.values()] for name in names
    }
    rows = [[name, *(f"{value:.1f}" for value in values)] for name, values in taken.items() if max(values) >= TOLD]
    return table(["plays of `site` on bare hosts, s", *("ours", "ours with Mitogen")[: len(each)]], rows)


def worker(rounds: list[Found]) -> str:
    """The steps to the first task of one more worker, the median of the rounds."""
    names = ["floor_steps", *(f"steps{way}" for way in ways(rounds))]
    each = {name: [found[name] for found in rounds] for name in names}
    rows = [
        [what, *(f"{median(found, step):.1f}" if step in found[0] else "" for found in each.values())]
        for step, (what, _ending) in STEPS.items()
    ]
    heads = ["one more worker, s", "bare commands", "ours", "ours with Mitogen"]
    return table(heads[: len(names) + 1], rows)


def ten(rounds: list[Found]) -> str:
    rows = [
        [what, spread(rounds, f"floor_{name}"), f"{spread(rounds, name)}: {ratio(rounds, name, f'floor_{name}')}"]
        for what, name in (("the first of them", "first"), ("the last", "last"))
    ]
    return table(["ten more workers, bare hosts to the first task of", "bare commands, s", "ours, s"], rows)


def growth(rounds: list[Found]) -> str:
    counts = list(rounds[0])
    rows = []
    for count in counts:
        mine = [found[count] for found in rounds]
        everyone = int(count) + 5
        rows.append(
            [
                count,
                f"{median(mine, 'scale_out'):.0f}",
                f"{median(mine, 'scale_out_cpu') / int(count):.1f}",
                f"{median(mine, 'second'):.0f}",
                f"{median(mine, 'second_cpu') / everyone:.1f}",
                f"{median(mine, 'verify'):.1f}",
                f"{median(mine, 'verify_cpu') / everyone:.2f}",
            ]
        )
    heads = (
        "workers added",
        "`scale_out`, s",
        "CPU/new host",
        "second `site`, s",
        "CPU/host",
        "`verify`, s",
        "CPU/host",
    )
    return table(heads, rows)


def tasks(rounds: list[Found]) -> str:
    rows = [
        [what, *(spread(rounds, f"{name}_{figure}", factor) for name in TASKS)]
        for what, figure, factor in (
            ("tasks a minute, of 500 at once", "per_minute", 1),
            ("milliseconds of all hosts' CPU for one of them", "cpu", 1000),
            ("20 tasks one after the other, s", "chain", 1),
            ("… milliseconds from scheduled to running, median of 20", "wait", 1000),
            ("percent of a core that all hosts take without tasks", "idle_cpu", 100),
        )
    ]
    return table(["tasks that do nothing", *TASKS.values()], rows)


def draw_growth(rounds: list[Found], path: pathlib.Path) -> None:
    """Seconds and CPU per host over the number of hosts."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "speed"  # the same figures give the same file
    counts = [int(count) for count in rounds[0]]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, label, host in (("scale_out", "scale_out", 0), ("second", "second site", 5), ("verify", "verify", 5)):
        seconds = [median([found[str(count)] for found in rounds], name) for count in counts]
        cpu = [median([found[str(count)] for found in rounds], f"{name}_cpu") / (count + host) for count in counts]
        left.plot(counts, seconds, marker="o", label=label)
        right.plot(counts, cpu, marker="o", label=label)
    left.set(xlabel="workers added", ylabel="seconds", ylim=0)
    right.set(xlabel="workers added", ylabel="control machine's CPU seconds per host", ylim=0)
    left.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def draw_cluster(rounds: list[Found], path: pathlib.Path) -> None:
    """Bare commands and ours, side by side."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "speed"
    bars = [
        (label, [median(rounds, name) for name in names])
        for label, names in (
            ("bare commands", ("floor", "floor_worker")),
            ("onprem.airflow", ("site", "worker")),
            ("onprem.airflow with Mitogen", ("site_mitogen", "worker_mitogen")),
        )
        if names[0] in rounds[0]
    ]
    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    for number, (label, values) in enumerate(bars):
        places = [place + (number - (len(bars) - 1) / 2) * 0.25 for place in range(2)]
        drawn = axes.barh(places, values, height=0.22, label=label)
        axes.bar_label(drawn, fmt="%.0f", padding=3)
    axes.set(yticks=range(2), yticklabels=["first DAG", "one more worker"], xlabel="seconds from bare hosts")
    axes.invert_yaxis()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


PARTS: dict[str, t.Callable[[list[Found]], str]] = {"cluster": cluster, "ten": ten, "growth": growth, "tasks": tasks}
PLOTS: dict[str, t.Callable[[list[Found], pathlib.Path], None]] = {"cluster": draw_cluster, "growth": draw_growth}


def main() -> None:
    page = PAGE.read_text()
    for part, write in PARTS.items():
        path = RESULTS / f"{part}.json"
        if not path.exists():
            continue
        results = json.loads(path.read_text())
        rounds, made = results["rounds"], results["machine"]
        begin, end = f"<!-- measured: {part} -->\n", f"<!-- end of {part} -->\n"
        before, rest = page.split(begin)
        after = rest.split(end)[1]
        count = "1 round" if len(rounds) == 1 else f"{len(rounds)} rounds"
        source = (
            f"Measured on {made['date']}, {count}: a machine with {made['cores']} cores and {made['memory_gb']} GB"
            f" played all hosts, Debian {made['release']}; ansible-core {made['ansible']} on Python {made['python']}."
        )
        page = before + begin + f"\n{write(rounds)}\n\n{source}\n\n" + end + after
        if part in PLOTS:
            PLOTS[part](rounds, ROOT / "docs" / f"speed-{part}.svg")
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
