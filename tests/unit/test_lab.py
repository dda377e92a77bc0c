# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools of lab/ and bench/, where their mistakes would not show by themselves."""

from __future__ import annotations

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "bench")]
import hosts  # noqa: E402
import report  # noqa: E402

LOG = """
PLAY [Preflight] ***************************************************************

TASK [Preflight | Look at the host and gather its facts] ***********************
Monday 23 November 2026  17:12:23 +0000 (0:00:00.400)       0:00:00.400 *******
ok: [db1]

PLAY [Nobody is in this one] ***************************************************
skipping: no hosts matched

PLAY [Install] *****************************************************************
Monday 23 November 2026  17:12:26 +0000 (0:00:03.000)       0:00:03.400 *******
Monday 23 November 2026  17:12:26 +0000 (0:00:00.010)       0:00:03.410 *******

TASK [Install] *****************************************************************
changed: [db1]

PLAY [Preflight] ***************************************************************

TASK [Preflight | Report everything that is wrong] *****************************
Monday 23 November 2026  17:13:27 +0000 (0:01:00.590)       0:01:04.000 *******

PLAY RECAP *********************************************************************
db1                        : ok=3    changed=1

Monday 23 November 2026  17:13:28 +0000 (0:00:00.500)       0:01:04.500 *******
"""

# What ANSIBLE_LOG_PATH names, and what bench/floor.sh writes.
STAMPED = """
2026-11-23 17:12:22,100 p=1 u=root n=ansible INFO| PLAY [Preflight] ***
2026-11-23 17:12:24,100 p=1 u=root n=ansible INFO| PLAY [Find the new workers] ***
2026-11-23 17:12:25,100 p=1 u=root n=ansible INFO| PLAY [Refuse what would restart the database] ***
2026-11-23 17:12:25,600 p=1 u=root n=ansible INFO| PLAY [Preflight] ***
2026-11-23 17:12:25,600 p=1 u=root n=ansible INFO| skipping: no hosts matched
2026-11-23 17:12:25,700 p=1 u=root n=ansible INFO| PLAY [Install databases, brokers and Airflow] ***
2026-11-23 17:12:26,000 p=1 u=root n=ansible INFO| TASK [onprem.airflow.airflow : Canary | Write its DAGs] ***
2026-11-23 17:12:26,500 p=1 u=root n=ansible INFO| ok: [worker1]
2026-11-23 17:12:28,000 p=1 u=root n=ansible INFO| TASK [onprem.airflow.airflow : Install | Install the packages] ***
2026-11-23 17:12:28,900 p=1 u=root n=ansible INFO| ok: [worker1]
2026-11-23 17:12:29,700 p=1 u=root n=ansible INFO| changed: [worker11]
2026-11-23 17:12:40,000 p=1 u=root n=ansible INFO| TASK [onprem.airflow.airflow : Install | Install the release] ***
2026-11-23 17:12:40,700 p=1 u=root n=ansible INFO| changed: [worker11]
2026-11-23 17:12:43,700 p=1 u=root n=ansible INFO| TASK [onprem.airflow.airflow : Units | Write them] ***
2026-11-23 17:12:43,700 p=1 u=root n=ansible INFO| changed: [worker11]
"""
MARKED = """
mark packages 1000004.500000
mark release 1000014.750000
mark settings 1000014.800000
"""


def test_a_command_has_a_stdin_of_its_own() -> None:
    """ssh makes its stdin non-blocking; a terminal's is that of Ansible too, which then refuses to run."""
    ends, kept = os.pipe(), os.dup(0)
    os.dup2(ends[0], 0)
    try:
        assert hosts.run(["readlink", "/proc/self/fd/0"]).stdout.strip() == "/dev/null"
        assert hosts.run(["cat"], stdin="given").stdout == "given"
    finally:
        os.dup2(kept, 0)
        for descriptor in (*ends, kept):
            os.close(descriptor)


def test_more_hosts_than_the_kernel_has_room_for_are_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 128 inotify instances the 25th container's systemd ended as it booted, and nothing said why."""
    monkeypatch.setattr(hosts, "INOTIFY", tmp_path / "instances")
    hosts.INOTIFY.write_text("128\n")
    hosts.room(15)
    with pytest.raises(hosts.LabError, match=r"35 hosts need 280 .* allows 128.*: sysctl .*_instances=280$"):
        hosts.room(35)


def test_the_seconds_of_plays_add_up_to_the_run(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "site.log"
    log.write_text(LOG)
    assert report.plays(log) == pytest.approx({"Preflight": 3.5, "Install": 60.6})


def test_the_steps_of_a_new_worker_are_its_own_and_add_up_to_its_first_task() -> None:
    """The tasks of the strategy C(free) are told as they end, in between those of other hosts."""
    ended = report.logged(STAMPED, "worker11")
    found = report.steps(ended, ended["start"] - 1, 25.0)
    assert list(found) == list(report.STEPS)
    assert found == pytest.approx(
        {
            "start": 1.0,
            "preflight": 2.0,
            "find": 1.0,
            "room": 0.6,
            "packages": 4.0,
            "release": 11.0,
            "settings": 3.0,
            "service": 2.4,
        }
    )
    found = report.steps(report.marked(MARKED), 1000000.0, 18.0)
    assert found == pytest.approx({"packages": 4.5, "release": 10.25, "settings": 0.05, "service": 3.2})
