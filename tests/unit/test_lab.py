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
