# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""--check --diff on the running cluster: tells what would change, and changes nothing."""

from __future__ import annotations

import json
import re
import subprocess
import typing as t

from conftest import PLAIN, ROOT  # type: ignore[import-not-found]


def test_a_dry_run_tells_one_change_and_makes_none(lab: t.Any) -> None:
    before = lab.sql("SHOW work_mem")
    change = json.dumps({"postgresql_settings": {"work_mem": "9MB"}})
    command = ["ansible-playbook", *lab.arguments, "onprem.airflow.site", "--check", "--diff", "-e", change]
    done = subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "-work_mem = '8MB'\n+work_mem = '9MB'" in done.stdout
    recap = dict(re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", done.stdout, re.MULTILINE))
    # The file, and that the server would read it.
    assert {host: count for host, count in recap.items() if count != "0"}.keys() == {lab.database}, done.stdout
    assert set(recap) == set(lab.hosts)
    assert lab.sql("SHOW work_mem") == before == [["8MB"]]
