# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets in, who does not, and that no secret lies about."""

from __future__ import annotations

import shlex
import subprocess
import typing as t
import urllib.error
from urllib.parse import quote

import kombu
import psycopg2
import pytest
from conftest import ROOT, SSH_CONFIG, Api  # type: ignore[import-not-found]


# --- The broker
def broker_login(lab: t.Any, user: str, password: str, vhost: str) -> None:
    url = f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{lab.address(lab.broker)}:5672/{quote(vhost, safe='')}"
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
    out = lab.host(lab.broker).check_output("cd / && rabbitmqctl list_queues -p airflow name type durable --formatter csv")
    queues = {line.split(",")[0].strip('"'): line.split(",")[1:] for line in out.splitlines()[1:]}
    assert queues["default"] == ['"quorum"', '"true"'] or queues["default"] == ["quorum", "true"], queues


def test_the_broker_waits_longer_than_the_longest_task(lab: t.Any) -> None:
    out = lab.host(lab.broker).check_output("cd / && rabbitmqctl environment | grep consumer_timeout")
    assert int("".join(filter(str.isdigit, out.split(",")[-1]))) == (86400 + 3600) * 1000


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
    with pytest.raises(psycopg2.OperationalError, match="no pg_hba.conf entry"):
        database_login(lab, database, user, lab.secrets[secret])


LOGIN = "import os, sys, psycopg; psycopg.connect(sys.argv[1], password=os.environ['P'], connect_timeout=5).close()"


def login_from(lab: t.Any, host: str, database: str, user: str, password: str) -> t.Any:
    target = f"host={lab.database} dbname={database} user={user}"
    return lab.host(host).run(f"P={shlex.quote(password)} /opt/airflow/current/bin/python -c {shlex.quote(LOGIN)} '{target}'")


def test_a_worker_reads_results_and_not_the_metadata(lab: t.Any) -> None:
    password = lab.secrets["airflow_results_database_password"]
    for worker in lab.workers:
        assert login_from(lab, worker, "airflow_results", "airflow_results", password).rc == 0
        refused = login_from(lab, worker, "airflow", "airflow_results", password)
        assert refused.rc != 0
        assert "pg_hba.conf" in refused.stderr or "permission denied for database" in refused.stderr
        if worker not in lab.masters:
            owner = login_from(lab, worker, "airflow", "airflow", lab.secrets["airflow_database_password"])
            assert "no pg_hba.conf entry" in owner.stderr


def test_even_on_a_master_the_results_login_cannot_connect_to_the_metadata(lab: t.Any) -> None:
    refused = login_from(lab, lab.masters[0], "airflow", "airflow_results", lab.secrets["airflow_results_database_password"])
    assert refused.rc != 0


# --- The web UI and API
def test_a_wrong_password_does_not_open_the_api(lab: t.Any) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        Api(f"http://{lab.address(lab.masters[0])}:8080", "admin", "wrong")


# --- Secrets
def forms(secret: str) -> list[str]:
    """A secret as it may stand in a text: as it is, in a URL, quoted for a shell or for YAML or Python."""
    return sorted({secret, quote(secret, safe=""), secret.replace("'", "''"), repr(secret)[1:-1], shlex.quote(secret)})


# Reads the patterns from stdin, so that looking for a secret does not put it into a process list.
SEARCH = r"""
set -u
patterns=$(mktemp); chmod 600 "$patterns"; cat > "$patterns"
echo "== world-readable files"
find / -xdev -path /proc -prune -o -path /sys -prune -o -type f -perm -004 -print0 2>/dev/null \
  | xargs -0 -r grep -lFf "$patterns" 2>/dev/null
echo "== process lists"
for file in /proc/[0-9]*/cmdline; do tr '\0' '\n' < "$file" 2>/dev/null | grep -qFf "$patterns" && echo "$file"; done
echo "== journal"
journalctl --no-pager --output cat | grep -cFf "$patterns" | grep -v '^0$'
echo "== logs"
grep -rlFf "$patterns" /var/log 2>/dev/null
echo "== units"
grep -rlFf "$patterns" /etc/systemd /run/systemd /usr/lib/systemd 2>/dev/null
systemctl show --all '*' 2>/dev/null | grep -cFf "$patterns" | grep -v '^0$'
rm -f "$patterns"
"""


def test_no_secret_lies_about_on_any_host(lab: t.Any, finished_run: str) -> None:
    patterns = "\n".join(form for secret in lab.secrets.values() for form in forms(secret)) + "\n"
    for host in lab.hosts:
        command = ["ssh", "-F", str(SSH_CONFIG), host, f"sudo bash -c {shlex.quote(SEARCH)}"]
        found = subprocess.run(command, input=patterns, capture_output=True, text=True, check=True).stdout
        hits = [line for line in found.splitlines() if not line.startswith("== ")]
        assert not hits, f"{host}:\n{found}"


def test_the_search_finds_what_does_lie_about(lab: t.Any) -> None:
    """The test above can fail: plant a secret and see it found."""
    host = lab.host(lab.workers[0])
    host.check_output("echo planted-secret > /srv/planted && chmod 644 /srv/planted")
    try:
        command = ["ssh", "-F", str(SSH_CONFIG), lab.workers[0], f"sudo bash -c {shlex.quote(SEARCH)}"]
        found = subprocess.run(command, input="planted-secret\n", capture_output=True, text=True, check=True).stdout
        assert "/srv/planted" in found
    finally:
        host.check_output("rm /srv/planted")


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
    """The scenario runs Ansible with -vvv and keeps all it said."""
    log = ROOT / ".lab" / "ansible.log"
    if not log.exists():
        pytest.skip("only a scenario that runs with -vvv keeps a log")
    text = log.read_text(errors="replace")
    assert "TASK [" in text and "ESTABLISH SSH CONNECTION" in text, "the log is not one of -vvv"
    for name, secret in lab.secrets.items():
        for form in forms(secret):
            assert form not in text, f"{name} is in the log, at character {text.index(form)}"
