#!/usr/bin/env python3
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills site.yml at different moments, runs it again, and compares the hosts with those of an undisturbed run.

    lab/interrupt.py [--moments N]     N moments (default 10), spread over the time that an undisturbed run takes

Every moment has fresh hosts: all groups on one host (inventories/single). Each run's output is in build/interrupt/.
The last line counts the moments.
"""

from __future__ import annotations

import argparse
import difflib
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(sys.executable).parent
SOURCES = ("inventories/single", "molecule/single/inventory")
HOST = "airflow1"
LOGS = ROOT / "build" / "interrupt"
ENVIRONMENT = os.environ | {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "LAB_INVENTORY": ",".join(SOURCES),
    "PATH": f"{BIN}:{os.environ['PATH']}",
}
SITE = ["ansible-playbook", *(word for source in SOURCES for word in ("-i", source)), "onprem.airflow.site"]

# What a person could find different on two hosts: packages, files, units, accounts. Not what is different by nature
# (times, process ids, salts of passwords, caches).
STATE = r"""
set -eu
cd /
echo "== packages"; dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n'
echo "== files"
find /etc/airflow /etc/rabbitmq /etc/postgresql /etc/postgresql-common/createcluster.d /etc/systemd/system \
  /usr/local/bin /opt/airflow /var/lib/airflow/dags /var/lib/rabbitmq/.erlang.cookie \
  -printf '%p %y %m %u:%g %l\n' | sort
echo "== contents"
find /etc/airflow /etc/rabbitmq /etc/postgresql /etc/systemd/system /usr/local/bin /var/lib/airflow/dags \
  /var/lib/rabbitmq/.erlang.cookie -type f -exec sha256sum {} + | sort -k 2
echo "== units"
systemctl show --property=Id,ActiveState,SubState,UnitFileState,NeedDaemonReload \
  airflow-api-server airflow-scheduler airflow-dag-processor airflow-triggerer airflow-worker airflow-watchdog \
  rabbitmq-server 'postgresql@*'
echo "== databases"
sql() { runuser -u postgres -- psql -XAt "$@"; }
sql -c 'SELECT datname, datacl, rolname FROM pg_database JOIN pg_roles r ON r.oid = datdba ORDER BY 1'
sql -c "SELECT name, setting FROM pg_settings WHERE source = 'configuration file' ORDER BY 1"
sql -c 'SELECT count(*) FROM pg_settings WHERE pending_restart'
sql -c 'SELECT type, database, user_name, address, auth_method, error FROM pg_hba_file_rules ORDER BY 1, 2, 3, 4'
sql -d airflow -c 'SELECT version_num FROM alembic_version UNION SELECT version_num FROM alembic_version_fab ORDER BY 1'
sql -d airflow -c 'SELECT username, email, active FROM ab_user ORDER BY 1'
sql -d airflow -c "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
echo "== broker"
rabbitmqctl list_users; rabbitmqctl list_permissions -p airflow; rabbitmqctl list_vhosts name default_queue_type
rabbitmqctl list_queues -p airflow name type durable | grep -v '^celery@\|pidbox\|^celeryev' | sort
rabbitmqctl environment | grep -A 1 consumer_timeout | head -1
"""


def hosts(verb: str) -> None:
    subprocess.run([sys.executable, "lab/hosts.py", verb], cwd=ROOT, env=ENVIRONMENT, check=True)


def state() -> list[str]:
    """The host's state; waits for the worker's queues, which Celery declares a moment after it started."""
    ssh = ["ssh", "-F", str(ROOT / ".lab" / "ssh_config"), HOST, "sudo bash -s"]
    end = time.monotonic() + 60
    while True:
        done = subprocess.run(ssh, input=STATE, capture_output=True, text=True, check=False)
        if done.returncode == 0 and "celery_delayed_0" in done.stdout and "\ndefault" in done.stdout:
            return done.stdout.splitlines()
        if time.monotonic() > end:
            raise SystemExit(f"interrupt: the host's state cannot be read:\n{done.stdout[-2000:]}{done.stderr}")
        time.sleep(2)


def site(log: str, kill_after: float | None = None) -> tuple[float, str]:
    """Run site.yml, to its end or killed without warning; returns the seconds it took and the last task it named."""
    begun = time.monotonic()
    path = LOGS / f"{log}.log"
    with path.open("w") as stream:
        process = subprocess.Popen(
            SITE,
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        try:
            process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # ours: a session of its own, with its workers and SSH clients
            process.wait()
    tasks = [line for line in path.read_text().splitlines() if line.startswith("TASK [")]
    if kill_after is None and process.returncode != 0:
        raise RuntimeError(f"site.yml ended with {process.returncode}, see {path}")
    return time.monotonic() - begun, tasks[-1].strip("* ") if tasks else "(before the first task)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=10)
    moments = parser.parse_args().moments
    LOGS.mkdir(parents=True, exist_ok=True)
    hosts("destroy")
    hosts("create")
    hosts("secrets")
    secrets = {path: path.read_bytes() for path in ROOT.glob(f"{SOURCES[-1]}/group_vars/all/airflow_secrets.yml")}
    whole, _last = site("undisturbed")
    wanted = state()
    print(f"undisturbed: {whole:.0f} s", flush=True)
    failed = 0
    for number in range(1, moments + 1):
        hosts("destroy")
        hosts("create")
        for path, content in secrets.items():  # the hosts are new, the cluster is the same
            path.write_bytes(content)
        after = whole * number / (moments + 1)
        try:
            _seconds, task = site(f"{number}-killed", kill_after=after)
            seconds, _last = site(f"{number}-again")
            found = state()
        except RuntimeError as exc:
            print(f"moment {number}: FAILED: {exc}", flush=True)
            failed += 1
            continue
        same = found == wanted
        verdict = "same state" if same else "the state DIFFERS:"
        print(f"moment {number}: killed after {after:.0f} s at {task}; again {seconds:.0f} s; {verdict}", flush=True)
        if not same:
            failed += 1
            print("\n".join(difflib.unified_diff(wanted, found, "undisturbed", "run again", lineterm="", n=0)))
    hosts("destroy")
    print(f"{moments - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
