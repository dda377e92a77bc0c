# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One at a time on a host, also when the one before was left behind by a killed run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from ansible_collections.onprem.airflow.plugins.module_utils import _lock

HOLD = """
import runpy, sys, time
runpy.run_path(sys.argv[1])["wait_for_turn"](sys.argv[2])
print("held", flush=True)
time.sleep(float(sys.argv[3]))
"""


def test_the_second_waits_for_the_first_and_goes_on_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, _lock.__file__, str(path), "1.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        begun = time.monotonic()
        _lock.wait_for_turn(str(path))
        assert time.monotonic() - begun > 1
        assert first.wait() == 0
