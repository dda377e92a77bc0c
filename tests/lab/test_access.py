# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets in, who does not, and that no secret lies about."""

from __future__ import annotations

import concurrent.futures
import json
import re
import secrets
import shlex
import subprocess
import typing as t
import urllib.error
from urllib.parse import quote, quote_plus

import kombu
import psycopg2
import pytest
from conftest import PLAIN, ROOT, SSH_CONFIG, Api  # type: ignore[import-not-found]


def on(host: str, script: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a script on a host as root; what must not stand in a command line goes through stdin."""
    command = ["ssh", "-F", str(SSH_CONFIG), host, f"sudo bash -c {shlex.quote(script)}"]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


# --- The broker
def broker_login(lab: t.Any, user: str, password: str, vhost: str) -> None:
    user, password, vhost = (quote(part, safe="") for part in (user, password, vhost))
    url = f"amqp://{user}:{password}@{lab.address(lab.broker)}:5672/{vhost}"
    with kombu.Connection(url, connect_timeout=5) as connection:
        connection.connect()


def test_airflows_user_can_log_in_to_the_broker(lab: t.Any) -> None:
    broker_login(lab, "airflow", lab.secrets["airflow_broker_password"], "airflow")


@pytest.mark.parametrize("vhost", ["/", "airflow"])
def test_guest_cannot_log_in_to_the_broker(lab: t.Any, vhost: str) -> None:
    with pytest.raises(Exception, match=r"403|ACCESS_REFUSED"):
        broker_login(lab, "guest", "guest", vhost)


def test_guest_cannot_log_in_on_the_broker_itself(lab: t.Any) -> None:
    done = lab.host(lab.broker).run("cd / && rabbitmqctl authenticate_user guest guest")
    assert done.rc != 0
    users = lab.host(lab.broker).check_output("cd / && rabbitmqctl list_users --formatter csv").split("\n")
    assert [line.split(",")[0].strip('"') for line in users[1:]] == ["airflow"]


def test_queues_survive_the_broker(lab: t.Any) -> None:
    out = lab.host(lab.broker).check_output(
        "cd / && rabbitmqctl list_queues -p airflow name type durable --formatter csv"
    )
    queues = {line.split(",")[0].strip('"'): line.split(",")[1:] for line in out.splitlines()[1:]}
    assert queues["default"] == ['"quorum"', '"true"'] or queues["default"] == ["quorum", "true"], queues


def test_the_broker_waits_longer_than_the_longest_task(lab: t.Any) -> None:
    out = lab.host(lab.broker).check_output("cd / && rabbitmqctl environment | grep consumer_timeout")
    assert re.findall(r"\{consumer_timeout,(\d+)\}", out) == [str((86400 + 3600) * 1000)]


# --- The databases
def database_login(lab: t.Any, database: str, user: str, password: str) -> None:
    psycopg2.connect(
        host=lab.address(lab.database), dbname=database, user=user, password=password, connect_timeout=5
    ).close()


@pytest.mark.parametrize(
    ("database", "user", "secret"),
    [
        ("airflow", "airflow", "airflow_database_password"),
        ("airflow_results", "airflow_results", "airflow_results_database_password"),
        ("postgres", "postgres", "airflow_database_password"),
    ],
)
def test_a_host_outside_the_inventory_cannot_log_in(lab: t.Any, database: str, user: str, secret: str) -> None:
    """The control machine is such a host, and the password is right."""
    with pytest.raises(psycopg2.OperationalError, match=r"no pg_hba\.conf entry"):
        database_login(lab, database, user, lab.secrets[secret])


LOGIN = "import sys, psycopg; psycopg.connect(sys.argv[1], password=sys.stdin.read(), connect_timeout=5).close()"


def login_from(lab: t.Any, host: str, database: str, user: str, password: str) -> subprocess.CompletedProcess[str]:
    """Logs in to the database from a host. The password goes by stdin: sudo writes command lines into the journal."""
    target = f"host={lab.database} dbname={database} user={user}"
    return on(host, shlex.join(["/opt/airflow/current/bin/python", "-c", LOGIN, target]), password)


def test_a_worker_reads_results_and_not_the_metadata(lab: t.Any) -> None:
    password = lab.secrets["airflow_results_database_password"]
    for worker in lab.workers:
        assert login_from(lab, worker, "airflow_results", "airflow_results", password).returncode == 0
        refused = login_from(lab, worker, "airflow", "airflow_results", password)
        assert refused.returncode != 0
        assert "pg_hba.conf" in refused.stderr or "permission denied for database" in refused.stderr
        if worker not in lab.masters:
            owner = login_from(lab, worker, "airflow", "airflow", lab.secrets["airflow_database_password"])
            assert "no pg_hba.conf entry" in owner.stderr


def test_even_on_a_master_the_results_login_cannot_connect_to_the_metadata(lab: t.Any) -> None:
    refused = login_from(
        lab, lab.masters[0], "airflow", "airflow_results", lab.secrets["airflow_results_database_password"]
    )
    assert refused.returncode != 0
    assert "pg_hba.conf" in refused.stderr or "permission denied for database" in refused.stderr


# --- The web UI and API
def test_a_wrong_password_does_not_open_the_api(lab: t.Any) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        Api(f"http://{lab.address(lab.masters[0])}:8080", "admin", "wrong")


# --- Secrets
def bare(text: str) -> str:
    """Without what quoting adds, however many times a text was quoted."""
    return re.sub(r"""[\\'"]""", "", text)


def forms(secret: str) -> list[str]:
    """A secret as it may stand in a text: as it is, in a URL, quoted for a shell, for YAML, JSON or an INI file."""
    return sorted(
        {
            secret,
            quote(secret, safe=""),
            quote_plus(secret),
            secret.replace("'", "''"),
            json.dumps(secret)[1:-1],
            repr(secret)[1:-1],
            shlex.quote(secret),
            secret.replace("%", "%%"),
            bare(secret),
        }
    )


# Reads the patterns from stdin, so that looking for a secret does not put it into a process list. Says one line for
# each place where one stands.
SEARCH = r"""
set -u
export LC_ALL=C
patterns=$(mktemp); chmod 600 "$patterns"; cat > "$patterns"
# stdin has a pattern, perhaps after being quoted again and again
has() { tee >(tr -d "\\\\'\"" | grep -cFf "$patterns") >(grep -cFf "$patterns") > /dev/null | grep -qvx 0; }
find / \( -path /proc -o -path /sys \) -prune -o -type f -perm -004 -print0 2>/dev/null \
  | xargs -0 -r grep -lFf "$patterns" 2>/dev/null | sed 's/^/world-readable file /'
for file in /proc/[0-9]*/cmdline; do
  [ "${file%/cmdline}" = "/proc/$$" ] || { tr '\0' ' ' < "$file"; echo; } 2>/dev/null
done | has && echo 'process list'
journalctl --no-pager --all | has && echo 'journal'
grep -rlFf "$patterns" /var/log --exclude-dir=journal 2>/dev/null | sed 's/^/log /'
grep -rlFf "$patterns" /etc/systemd /run/systemd /usr/lib/systemd 2>/dev/null | sed 's/^/unit file /'
systemctl show --all '*' 2>/dev/null | has && echo 'properties of units'
rm -f "$patterns"
true
"""


def found_on(host: str, patterns: list[str]) -> list[str]:
    done = on(host, SEARCH, "".join(f"{pattern}\n" for pattern in patterns))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_no_secret_lies_about_on_any_host(lab: t.Any, finished_run: str) -> None:
    patterns = [form for secret in lab.secrets.values() for form in forms(secret)]
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(lab.hosts)) as pool:
        found = dict(zip(lab.hosts, pool.map(lambda host: found_on(host, patterns), lab.hosts)))
    assert found == {host: [] for host in lab.hosts}


PLANT = r"""
pattern=$(cat)
umask 022
echo "$pattern" > /srv/planted; echo "$pattern" > /run/planted
printf '%q\n' "$(printf '%q' "$pattern")" | systemd-cat  # as sudo and a shell quote it
printf '%s\n' '[Service]' "ExecStart=/bin/sleep 1 # $pattern" > /run/systemd/system/planted.service
nohup bash -c 'exec -a "$0" sleep 30' "--password=$pattern" > /dev/null 2>&1 < /dev/null &
"""


def test_the_search_finds_what_does_lie_about(lab: t.Any) -> None:
    """The test above can fail: plant something everywhere and see it found."""
    host = lab.workers[0]
    planted = f"{secrets.token_hex(8)}@'$\\ {secrets.token_hex(8)}"  # another each time: the journal keeps it
    try:
        assert on(host, PLANT, planted).returncode == 0
        found = found_on(host, forms(planted))
        missed = {
            "world-readable file /srv/planted",
            "world-readable file /run/planted",
            "unit file /run/systemd/system/planted.service",
            "process list",
            "journal",
        } - set(found)
        assert not missed, found
    finally:
        on(host, "rm -f /srv/planted /run/planted /run/systemd/system/planted.service")


def test_files_with_secrets_are_not_world_readable(lab: t.Any) -> None:
    for name in {*lab.masters, *lab.workers}:
        host = lab.host(name)
        for path in host.check_output("find /etc/airflow -type f").split():
            assert host.file(path).mode & 0o007 == 0, path


def test_a_worker_holds_only_what_it_needs(lab: t.Any) -> None:
    for name in set(lab.workers) - set(lab.masters):
        names = lab.host(name).check_output("cat /etc/airflow/*.env | cut -d= -f1").split()
        assert set(names) == {
            "AIRFLOW_CONFIG",
            "AIRFLOW_HOME",
            "AIRFLOW__API__SECRET_KEY",
            "AIRFLOW__CELERY__BROKER_URL",
            "AIRFLOW__CELERY__RESULT_BACKEND",
        }


def test_no_secret_is_in_ansibles_output(lab: t.Any) -> None:
    """Of all that a scenario ran at -vvv, from the bare hosts on; without a scenario, of a run made here."""
    log = ROOT / ".lab" / "ansible.log"
    if log.exists() and log.stat().st_size:
        place, text = str(log), log.read_text(errors="replace")
    else:
        command = ["ansible-playbook", *lab.arguments, "onprem.airflow.site", "-vvv", "--diff"]
        done = subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:]
        place, text = "this run", done.stdout + done.stderr
    assert "TASK [" in text and "task path: " in text, f"{place} is not one with -vvv"
    for name, secret in lab.secrets.items():
        for form in forms(secret):
            for said in (text, bare(text)):
                assert form not in said, f"{name} is in {place}, at character {said.index(form)}"
