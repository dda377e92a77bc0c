# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong inputs, given to site.yml with the lab's real hosts: each is refused by its name, and nothing changes anywhere.

Because the preflight lists everything at once, a few runs have many wrong things each; every wrong thing is a test of
its own. Inventories are copies of the lab's, made wrong.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib
import re
import subprocess
import typing as t

import pytest
from conftest import PLAIN, ROOT, SSH_CONFIG  # type: ignore[import-not-found]

GROUPS = ("postgresql", "rabbitmq", "airflow_master", "airflow_worker")
NOBODY = "10.213.77.250"  # in the lab's network, but no host has it
SQUATTED = 18793


# --- Ways to run
class Cluster:
    """A copy of the lab's inventory, to be made wrong."""

    def __init__(self, lab: t.Any) -> None:
        self.groups = {name: list(lab.groups[name]) for name in GROUPS}
        self.hosts: dict[str, dict[str, t.Any]] = copy.deepcopy(lab.variables)
        for variables in self.hosts.values():
            variables["__lab_folder"] = str(ROOT / ".lab")
            variables["airflow_dags_source"] = str(ROOT / "lab" / "dags")
            variables["airflow_verify_dest"] = str(ROOT / "build")
        # Anything else that depends on the place of the inventory would mean another thing in a copy.
        relative = {name for host in self.hosts.values() for name in host if "inventory_dir" in json.dumps(host[name])}
        assert relative == set()

    def set(self, **variables: t.Any) -> None:
        """The same value on every host."""
        for host in self.hosts.values():
            host.update(variables)

    def add(self, name: str, like: str, groups: list[str], **variables: t.Any) -> None:
        self.hosts[name] = copy.deepcopy(self.hosts[like]) | variables
        for group in groups:
            self.groups[group].append(name)

    def write(self, path: pathlib.Path) -> pathlib.Path:
        path.touch(mode=0o600)  # the lab's secrets are in it
        children = {name: {"hosts": {host: {} for host in hosts}} for name, hosts in self.groups.items()}
        path.write_text(json.dumps({"all": {"hosts": self.hosts}, "airflow_cluster": {"children": children}}))
        return path


@dataclasses.dataclass
class Run:
    rc: int
    text: str
    lines: list[str]  # of the list of problems


def play(inventory: pathlib.Path, playbook: str = "onprem.airflow.site") -> Run:
    command = ["ansible-playbook", "-i", str(inventory), playbook]
    done = subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    return Run(done.returncode, text, re.findall(r"^  (\S.*: .* \[[a-z_]+\])$", text, re.MULTILINE))


def on(host: str, script: str) -> str:
    """Runs a script on a host as root."""
    command = ["ssh", "-F", str(SSH_CONFIG), host, "sudo", "bash", "-eu", "-s"]
    return subprocess.run(command, input=script, capture_output=True, text=True, check=True).stdout


# What a host is: its files with owner, mode, size and time of change, its packages, its units and since when they run.
# Left out is what running services, and logging in, write by themselves.
FINGERPRINT = r"""
find /etc /opt /usr/local /usr/lib/systemd /home /root /var/lib \
  \( -path '/var/lib/postgresql/*/*' -o -path '/var/lib/rabbitmq' -o -path '/var/lib/systemd' -o -path /var/lib/sudo \
     -o -path '/var/lib/airflow/logs' -o -name 'airflow.db*' -o -path '*/.ansible' -o -path /var/lib/wtmpdb \) -prune \
  -o ! -type d -printf '%p %u:%g %m %s %T@ %l\n' -o -printf '%p %u:%g %m\n' | sort
dpkg-query -W -f '${Package} ${Version} ${Status}\n'
systemctl list-unit-files --no-legend --no-pager | grep -v transient | sort
systemctl show --property=Id,ActiveState,InvocationID,MainPID \
  'postgresql@*' rabbitmq-server.service 'airflow-*' ssh.service systemd-journald.service
"""


def fingerprints(lab: t.Any) -> dict[str, list[str]]:
    return {host: on(host, FINGERPRINT).splitlines() for host in lab.hosts}


@pytest.fixture(autouse=True, scope="module")
def single(lab: t.Any) -> None:
    if len(lab.hosts) > 1:
        pytest.skip("what runs is on the control machine, and the same for the inventory with one host, which runs it")


@pytest.fixture(scope="module")
def before(lab: t.Any) -> dict[str, list[str]]:
    """What the hosts were before the first wrong input."""
    return fingerprints(lab)


# --- The runs
def wrong_values(lab: t.Any) -> Cluster:
    """The hosts are right, and all the variables wrong."""
    cluster = Cluster(lab)
    cluster.groups["rabbitmq"] = []
    first_master = cluster.hosts[lab.masters[0]]
    cluster.set(
        airflow_admin_password="airflow-admin-2026",
        airflow_api_url="http://user@airflow.example.com:8080",
        airflow_broker_host=lab.broker,
        airflow_broker_port=5999,
        airflow_dags_source="/nowhere/dags",
        airflow_database_host="nowhere.invalid",
        airflow_databse_name="airflow",
        airflow_jwt_secret=first_master["airflow_jwt_secret"] + "$HOME",
        airflow_preflight_requirements={
            "airflow_master": {"memory_mb": 90_000_000},
            "airflow_worker": {"disk_mb": 900_000_000},
        },
        airflow_python="/usr/bin/python3.9",
        airflow_results_database_host=NOBODY,
        airflow_results_database_password=first_master["airflow_broker_password"],
        airflow_version="3.3",
        airflow_worker_queues="default,other",
        postgresql_max_connections=20,
        airflow_config={"logging": {"worker_log_server_port": SQUATTED}},
    )
    for host in cluster.hosts.values():
        del host["airflow_fernet_key"]
    return cluster


def wrong_hosts(lab: t.Any) -> Cluster:
    """The variables are right, and all the hosts wrong."""
    cluster = Cluster(lab)
    cluster.add("twin", lab.database, ["postgresql", "rabbitmq"], airflow_address="127.0.0.1")
    cluster.hosts["twin"]["airflow_broker_password"] += "-other"
    cluster.add("gone", lab.workers[0], ["airflow_worker"], ansible_host=NOBODY)
    cluster.add("mute", lab.broker, ["airflow_worker"], ansible_python_interpreter="/usr/bin/python9")
    cluster.hosts[lab.workers[-1]]["ansible_python_interpreter"] = "/usr/local/bin/python-behind"
    return cluster


def no_servers(lab: t.Any) -> Cluster:
    """Workers alone."""
    cluster = Cluster(lab)
    for group in ("postgresql", "rabbitmq", "airflow_master"):
        cluster.groups[group] = []
    return cluster


def no_hosts(lab: t.Any) -> Cluster:
    cluster = Cluster(lab)
    cluster.groups = {}
    return cluster


# A Python whose clock goes wrong: the modules that run with it see what they would see on a host that is 20 s behind.
BEHIND = r"""
mkdir -p /run/python-behind
cat > /run/python-behind/sitecustomize.py <<'END'
import time
right = time.time
time.time = lambda: right() - 20
END
cat > /usr/local/bin/python-behind <<'END'
#!/bin/sh
PYTHONPATH=/run/python-behind exec /usr/bin/python3 "$@"
END
chmod 755 /usr/local/bin/python-behind
"""
NOT_BEHIND = "rm -rf /run/python-behind /usr/local/bin/python-behind"

# Another system, laid over the file that tells which it is; the file itself stays as it is.
OTHER_SYSTEM = r"""
printf '%s\n' ID=ubuntu 'VERSION_ID="24.04"' 'PRETTY_NAME="Ubuntu 24.04"' > /run/other-system
mount --bind /run/other-system /etc/os-release
"""
OWN_SYSTEM = "umount /etc/os-release || true; rm -f /run/other-system"

SQUAT = f"""
systemd-run --quiet --unit=squatter --property=RuntimeMaxSec=120 /usr/bin/python3 -m http.server {SQUATTED}
until ss -Hltn 'sport = :{SQUATTED}' | grep -q .; do sleep 0.1; done
"""
NO_SQUAT = "systemctl stop squatter || true"


@pytest.fixture(scope="module")
def runs(lab: t.Any, before: t.Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("refusals")

    def refused(make: t.Callable[[t.Any], Cluster]) -> Run:
        return play(make(lab).write(folder / f"{make.__name__}.json"))

    done = {}
    try:
        on(lab.workers[0], SQUAT)
        done["wrong_values"] = refused(wrong_values)
    finally:
        on(lab.workers[0], NO_SQUAT)
    try:
        on(lab.workers[-1], BEHIND)
        on(lab.workers[0], OTHER_SYSTEM)
        done["wrong_hosts"] = refused(wrong_hosts)
    finally:
        on(lab.workers[-1], NOT_BEHIND)
        on(lab.workers[0], OWN_SYSTEM)
    done["no_servers"] = refused(no_servers)
    done["no_hosts"] = refused(no_hosts)
    return done


# --- What must be said. {database} and the like stand for the hosts of the lab; each line is
# "host: what is wrong [code]", and here a regular expression.
WRONG: dict[str, tuple[str, str]] = {
    "secret missing": ("wrong_values", r"inventory: airflow_fernet_key is not set \[secret_missing\]"),
    "secret weak": ("wrong_values", r"airflow_admin_password is weak: .*well-known words \[secret_weak\]"),
    "secret with $": ("wrong_values", r"airflow_jwt_secret is weak: Airflow expands \$ .*\[secret_weak\]"),
    "secret used twice": (
        "wrong_values",
        r"airflow_results_database_password and airflow_broker_password have the same value \[secret_reused\]",
    ),
    "misspelt variable": ("wrong_values", r"the variable airflow_databse_name is unknown.*\[unknown_variable\]"),
    "queues not a list": ("wrong_values", r"airflow_worker_queues must be a list .*\[bad_worker_queues\]"),
    "version not full": ("wrong_values", r"airflow_version is '3.3'; .*\[bad_version\]"),
    "no such folder": ("wrong_values", r"airflow_dags_source is /nowhere/dags, .*\[missing_file\]"),
    "URL with a user": (
        "wrong_values",
        r"airflow_api_url is 'http://user@airflow.example.com:8080', .*\[bad_api_url\]",
    ),
    "pools over max_connections": (
        "wrong_values",
        r"{database}: postgresql_max_connections is 20; .* need \d+ \[too_few_connections\]",
    ),
    "too little memory": ("wrong_values", r"the host has \d+ MB of memory; .* needs? \d+ MB \[too_little_memory\]"),
    "too little disk": ("wrong_values", r"\d+ MB are free at /\S*; .* needs? \d+ MB \[too_little_disk\]"),
    "Python missing": ("wrong_values", r"/usr/bin/python3\.9 is missing or does not run; .*\[unsupported_python\]"),
    "port taken": (
        "wrong_values",
        r"{worker}: port 18793, which the Airflow worker needs, is taken by python3? "
        r"\(pid \d+, unit squatter\.service\) \[port_taken\]",
    ),
    "name not resolved": ("wrong_values", r"the name nowhere\.invalid .* does not resolve here \[peer_unresolved\]"),
    "address nobody has": (
        "wrong_values",
        r"10\.213\.77\.250 port \d+ \(.*\) cannot be reached .*\[peer_unreachable\]",
    ),
    "nothing listens": ("wrong_values", r"nothing listens on {broker} port 5999 .*\[peer_refused\]"),
    "two PostgreSQL hosts": (
        "wrong_hosts",
        r"inventory: the group postgresql has 2 hosts \({database}, twin\); .*\[several_databases\]",
    ),
    "two brokers": (
        "wrong_hosts",
        r"inventory: the group rabbitmq has 2 hosts \({broker}, twin\); .*\[several_brokers\]",
    ),
    "two hosts with one address": ("wrong_hosts", r"twin.* have the same ansible_host .*\[duplicate_address\]"),
    "one machine, two names": ("wrong_hosts", r"twin.*: have the same addresses .*\[duplicate_machine\]"),
    "address of the host itself": ("wrong_hosts", r"twin: airflow_address is 127\.0\.0\.1, .*\[loopback_address\]"),
    "secret not the same everywhere": (
        "wrong_hosts",
        r"inventory: airflow_broker_password has 2 different values: .*\[secret_differs\]",
    ),
    "host not reached": ("wrong_hosts", r"gone: cannot be reached: .*\[unreachable\]"),
    "host without Python": ("wrong_hosts", r"mute: the checks could not run there: .*\[cannot_run\]"),
    "clocks apart": ("wrong_hosts", r"{slow}: the clock is (19|20|21) s behind the others; .*\[clock_differs\]"),
    "other system": ("wrong_hosts", r"{worker}.*: the operating system is Ubuntu 24\.04; .*\[unsupported_os\]"),
    "no PostgreSQL": ("no_servers", r"inventory: there is no PostgreSQL: .*\[no_database\]"),
    "no broker": ("no_servers", r"inventory: there is no RabbitMQ: .*\[no_broker\]"),
    "no master": ("no_servers", r"inventory: the group airflow_master has no hosts: .*\[no_master\]"),
    "no hosts at all": ("no_hosts", r"inventory: the group airflow_cluster is missing or has no hosts.*\[no_cluster\]"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_is_refused_by_name(lab: t.Any, runs: dict[str, Run], wrong: str) -> None:
    name, pattern = WRONG[wrong]
    hosts = {
        "database": lab.database,
        "broker": lab.broker,
        "worker": lab.workers[0],
        "slow": lab.workers[-1],
    }
    pattern = re.sub(r"\{(\w+)\}", lambda match: re.escape(hosts[match[1]]), pattern)
    run = runs[name]
    assert any(re.search(pattern, line) for line in run.lines), "\n".join(run.lines) or run.text


@pytest.mark.parametrize("name", ["wrong_values", "wrong_hosts", "no_servers", "no_hosts"])
def test_ends_before_the_first_change(runs: dict[str, Run], name: str) -> None:
    run = runs[name]
    assert run.rc == 2, run.text
    assert "Nothing was changed on any host." in run.text
    assert "PLAY [Install" not in run.text
    assert not re.search(r"changed=[1-9]", run.text), run.text


def test_the_command_for_a_missing_secret_is_named(runs: dict[str, Run]) -> None:
    assert re.search(
        r"fix: run `ansible-playbook -i \S+wrong_values\.json onprem\.airflow\.secrets`", runs["wrong_values"].text
    )


def test_the_nearest_name_is_suggested(runs: dict[str, Run]) -> None:
    assert "did you mean airflow_database_name?" in runs["wrong_values"].text


def test_no_secret_is_told(lab: t.Any, runs: dict[str, Run]) -> None:
    for run in runs.values():
        for secret in lab.secrets.values():
            assert secret not in run.text
        assert "airflow-admin-2026" not in run.text


def test_nothing_changed_on_any_host(lab: t.Any, before: dict[str, list[str]], runs: dict[str, Run]) -> None:
    after = fingerprints(lab)
    for host in lab.hosts:
        assert len(before[host]) > 500, "the fingerprint is empty"
        assert sorted(set(before[host]) ^ set(after[host])) == [], host


def test_the_same_inventory_without_mistakes_is_accepted(lab: t.Any, tmp_path: pathlib.Path) -> None:
    """The copy itself is not what was refused."""
    run = play(Cluster(lab).write(tmp_path / "right.json"), "onprem.airflow.preflight")
    assert run.rc == 0, run.text
    assert run.lines == []
