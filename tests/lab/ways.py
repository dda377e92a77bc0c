# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to the lab's hosts for tests that do something to them."""

from __future__ import annotations

import concurrent.futures
import pathlib
import subprocess
import sys
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lab")]
import hosts  # noqa: E402

SSH_CONFIG = ROOT / ".lab" / "ssh_config"
UNITS = "'airflow-*.service' 'postgresql@*.service' rabbitmq-server.service"


def on(host: str, script: str) -> str:
    """Runs a script on a host as root. It goes through stdin, since sudo writes command lines into the journal."""
    shell = """sudo bash -c 'script=$(cat); exec < /dev/null; set -eu; eval "$script"'"""
    command = ["ssh", "-F", str(SSH_CONFIG), host, shell]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"on {host}: {script}\n{done.stdout}{done.stderr}"
    return done.stdout


def on_all(scripts: t.Mapping[str, str]) -> dict[str, str]:
    """Runs each host's script, all at once; all of them, even when one fails. Returns what they said."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        running = {host: pool.submit(on, host, script) for host, script in scripts.items()}
    return {host: outcome.result() for host, outcome in running.items()}


def services(which: str, hosts: t.Iterable[str]) -> dict[str, dict[str, str]]:
    """One property of every service of the cluster, by host and unit, as systemd has it."""
    script = f"systemctl show --property=Id,{which} {UNITS}"
    found = {}
    for host, text in on_all(dict.fromkeys(hosts, script)).items():
        blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
        found[host] = {block["Id"]: block[which] for block in blocks if which in block}
    return found


def firewall(action: str, host: str, rule: str) -> None:
    """A rule, with its chain, in front of a host; made from outside, as its container has no tools for that."""
    pid = hosts.podman("inspect", "--format", "{{.State.Pid}}", hosts.container(host)).stdout.strip()
    hosts.run(hosts.as_root("nsenter", "--target", pid, "--net", "iptables", action, *rule.split()))
