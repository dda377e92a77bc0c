# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles would write, read by the parsers that will read it on a host.

The real tasks of the roles run, with the inventory's groups, the playbooks' variables and argument validation; only
our modules that would touch the machine are replaced by one that notes what it was asked to do, and Ansible's own run
in check mode.
"""

from __future__ import annotations

import ast
import base64
import configparser
import getpass
import grp
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from ansible_collections.onprem.airflow.plugins.module_utils._environment import parse as parse_environment
from ansible_collections.onprem.airflow.plugins.module_utils._environment import quote as quote_environment
from kombu.utils.url import parse_url
from psycopg2.extensions import parse_dsn

CHECKOUT = Path(__file__).resolve().parents[2]
NASTY = "a@/%:#'$HOME\\ \"`{}é;&|b"
# No $ in the two that Airflow itself expands; the preflight refuses it there.
SECRETS = {
    "airflow_database_password": f"metadata {NASTY}",
    "airflow_results_database_password": f"results {NASTY}",
    "airflow_broker_password": f"broker {NASTY}",
    "airflow_admin_password": f"admin {NASTY}",
    "airflow_fernet_key": base64.urlsafe_b64encode(bytes(range(32))).decode(),
    "airflow_jwt_secret": "jwt " + NASTY.replace("$", "") * 4,
    "airflow_api_secret_key": "api " + NASTY.replace("$", "") * 2,
    "rabbitmq_erlang_cookie": "Cookie" + "0123456789abcdef" * 3,
}
MASTER_ONLY = ("airflow_database_password", "airflow_fernet_key", "airflow_jwt_secret", "airflow_admin_password")
ADDRESSES = {
    "db1": "192.0.2.11",
    "mq1": "192.0.2.12",
    "master1": "192.0.2.13",
    "worker1": "192.0.2.14",
    "worker2": "2001:db8::15",
}
GROUPS = {
    "postgresql": ["db1"],
    "rabbitmq": ["mq1"],
    "airflow_master": ["master1"],
    "airflow_worker": ["worker1", "worker2"],
}
PYTHONS = {"12": (3, 11), "13": (3, 13)}
BUNDLE = {
    "name": "dags",
    "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
    "kwargs": {"repo_url": "https://git.example.com/100%25/dags.git", "tracking_ref": "main"},
}
# Ours that change a machine.
REPLACED = ("files", "service", "release", "db_migrate", "airflow_user", "rabbitmq_definitions")

# Takes any arguments and notes them, with the name that it was called by.
NOTING_MODULE = """#!/usr/bin/python
import json, os, sys, time
DOCUMENTATION = "module: {module}\\nshort_description: x\\noptions: {{}}\\n"
WANT_JSON = True
with open(sys.argv[1], encoding="utf-8") as file:
    arguments = json.load(file)
noted = {{key: value for key, value in arguments.items() if not key.startswith("_ansible")}}
host = arguments["_ansible_remote_tmp"].rsplit("/", 1)[-1]
name = f"{folder}/{{time.monotonic_ns():020d}}-{{os.getpid()}}.json"
with open(name, "w", encoding="utf-8") as file:
    json.dump({{"module": "{module}", "host": host, "arguments": noted}}, file)
print(json.dumps({{"changed": False}}))
"""
FACTS_MODULE = """#!/usr/bin/python
import json, sys
WANT_JSON = True
DOCUMENTATION = "module: pretend\\nshort_description: x\\noptions: {}\\n"
with open(sys.argv[1], encoding="utf-8") as file:
    print(json.dumps({"changed": False, "ansible_facts": json.load(file)["facts"]}))
"""


@dataclass
class Rendered:
    """What the roles asked for, by host."""

    folder: Path  # stands for / on the hosts, as far as Airflow's own folders go
    asked: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)

    def files(self, host: str) -> dict[str, dict[str, Any]]:
        """Entries given to the module C(files), by path."""
        lists = [arguments["files"] for module, arguments in self.asked[host] if module == "files"]
        return {entry["path"].removeprefix(str(self.folder)): entry for entries in lists for entry in entries}

    def text(self, host: str, path: str) -> str:
        return str(self.files(host)[path]["content"])

    def call(self, host: str, module: str) -> dict[str, Any]:
        """The arguments of the one call of a module."""
        (arguments,) = [arguments for name, arguments in self.asked[host] if name == module]
        return arguments


def collection(tmp_path: Path, noted: Path) -> Path:
    """The checkout as a collection in which REPLACED only note their arguments."""
    root = tmp_path / "collections"
    target = root / "ansible_collections" / "onprem" / "airflow"
    for name in ("roles", "meta", "galaxy.yml"):
        target.mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to(CHECKOUT / name)
    for path in (CHECKOUT / "plugins").iterdir():
        (target / "plugins").mkdir(exist_ok=True)
        if path.is_dir() and path.name != "modules":
            (target / "plugins" / path.name).symlink_to(path)
    (target / "plugins" / "modules").mkdir()
    for name in REPLACED:
        (target / "plugins" / "modules" / f"{name}.py").write_text(NOTING_MODULE.format(module=name, folder=noted))
    (target / "plugins" / "modules" / "pretend.py").write_text(FACTS_MODULE)
    return root


def site() -> list[dict[str, Any]]:
    """The plays of site.yml, without what installs packages or talks to a server."""

    def play(hosts: str, *tasks: dict[str, Any], **variables: Any) -> dict[str, Any]:
        files = [str(CHECKOUT / "playbooks" / "vars" / "cluster.yml")]
        return {"hosts": hosts, "gather_facts": False, "vars_files": files, "vars": variables, "tasks": list(tasks)}

    def role(name: str, **arguments: Any) -> dict[str, Any]:
        return {"ansible.builtin.include_role": {"name": f"onprem.airflow.{name}", **arguments}}

    return [
        play("all", {"onprem.airflow.pretend": {"facts": "{{ pretended_facts }}"}}),
        # As on a host that has the package already: a fresh one leaves out pg_hba.conf in a dry run.
        play("postgresql", role("postgresql", tasks_from="configure"), __postgresql_package={"changed": False}),
        play("rabbitmq", role("rabbitmq", tasks_from="configure"), role("rabbitmq", tasks_from="service")),
        play("airflow_master:airflow_worker", role("airflow", tasks_from="configure")),
        play("airflow_master", role("airflow_master")),
        play("airflow_worker", role("airflow_worker")),
    ]


def render(
    tmp_path: Path, debian: str, *without: str, user: tuple[str, str] | None = None, **variables: Any
) -> Rendered:
    """Run the roles for the cluster (these groups empty) on this release of Debian."""
    noted, folder = tmp_path / "noted", tmp_path / "host"
    noted.mkdir()
    folder.mkdir()
    (tmp_path / "play").mkdir()
    (tmp_path / "play" / "site.yml").write_text(yaml.safe_dump(site()))
    python = PYTHONS[debian]
    hosts: dict[str, dict[str, Any]] = {}
    for name, address in ADDRESSES.items():
        ipv6 = ":" in address
        facts = {
            "distribution": "Debian",
            "distribution_major_version": debian,
            "memtotal_mb": 4096,
            "processor_vcpus": 2,
            "python": {"version": {"major": python[0], "minor": python[1]}},
            "all_ipv4_addresses": [] if ipv6 else [address],
            "all_ipv6_addresses": [address, "fe80::1"] if ipv6 else [],
        }
        hosts[name] = {"pretended_facts": facts, "ansible_remote_tmp": str(tmp_path / "remote" / name)}
    shared = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        **SECRETS,
        **variables,
    }
    children = {group: {"hosts": dict.fromkeys(() if group in without else names)} for group, names in GROUPS.items()}
    everything = {"hosts": hosts, "vars": shared, "children": {"airflow_cluster": {"children": children}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": everything}, allow_unicode=True))
    (tmp_path / "ansible.cfg").touch()
    # Where things are on a host; the wrapper is run below, so it may not mean this machine's folders.
    extra = {
        "__airflow_root_dir": f"{folder}/opt/airflow",
        "__airflow_config_dir": f"{folder}/etc/airflow",
        "__airflow_home": f"{folder}/var/lib/airflow",
    }
    if user:
        extra |= {"__airflow_user": user[0], "__airflow_group": user[1]}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")} | {
        "ANSIBLE_COLLECTIONS_PATH": str(collection(tmp_path, noted)),
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_HOME": str(tmp_path / ".ansible"),
        "ANSIBLE_INJECT_INVOCATION": "true",  # ansible-core 2.21 leaves the arguments of a task out of its result
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "LC_ALL": "C.UTF-8",
    }
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(tmp_path / "hosts.yml"), "-e", json.dumps(extra)]
    command += ["--check", "--diff", str(tmp_path / "play" / "site.yml")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    output = ran.stdout + ran.stderr
    assert ran.returncode == 0 and "[WARNING]" not in output and "[DEPRECATION" not in output, output
    assert [name for name, value in SECRETS.items() if value in output] == []
    rendered = Rendered(folder, {name: [] for name in ADDRESSES})
    for path in sorted(noted.iterdir()):
        call = json.loads(path.read_text())
        rendered.asked[call["host"]].append((call["module"], call["arguments"]))
    for play in json.loads(ran.stdout[ran.stdout.index("{") :])["plays"]:
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                if "pg_hba" in result:
                    rendered.asked[host].append(("pg_hba", result))
    return rendered


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Debian 13, everything at its default."""
    return render(tmp_path_factory.mktemp("plain"), "13")


# As whom the command `airflow` runs: root changes to a user that is on every Debian host, anybody else cannot.
USER = ("nobody", "nogroup") if os.geteuid() == 0 else (getpass.getuser(), grp.getgrgid(os.getgid()).gr_name)


@pytest.fixture(scope="module")
def changed() -> Iterator[Rendered]:
    """Debian 12, many variables changed."""
    with tempfile.TemporaryDirectory(prefix="onprem-airflow-changed-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # another user runs the command `airflow` in it
        yield render(
            folder,
            "12",
            user=USER,
            airflow_queue_type="classic",
            airflow_longest_task=7200,
            airflow_worker_queues=["default", "gpu"],
            airflow_worker_concurrency=3,
            airflow_api_port=8888,
            airflow_task_retries=0,
            airflow_dag_bundles=[BUNDLE],
            airflow_config={
                "logging": {"log_format": "%(asctime)s é 100% # ; = : '\"", "worker_log_server_port": 9793},
                "core": {"parallelism": 7, "load_examples": None},
                "metrics": {"statsd_on": True, "statsd_host": "a\nb\n"},
                # One key more in a dictionary of the role's
                "celery": {"extra_celery_config": {"worker_max_tasks_per_child": 5}},
            },
            airflow_environment={"AWS_SECRET_ACCESS_KEY": NASTY, "AIRFLOW__API__SECRET_KEY": "mine, not the role's"},
            airflow_service_settings={"airflow-worker": {"MemoryMax": "8G", "RestartSec": None}},
            postgresql_settings={"log_line_prefix": "%m [%p] 'it''s' \\n ", "work_mem": "64MB", "fsync": True},
            postgresql_hba_rules=[
                {
                    "contype": "host",
                    "databases": "airflow",
                    "users": "backup",
                    "address": "192.0.2.99/32",
                    "method": "cert",
                }
            ],
            rabbitmq_node_host="mq1.example.com",
            rabbitmq_extra_users=[{"name": "watcher", "password": NASTY, "tags": ["monitoring"]}],
            rabbitmq_settings={"log.file.level": "warning", "log.console": True, "cluster_name": "tasks"},
        )


@pytest.fixture(scope="module")
def external(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """PostgreSQL and RabbitMQ are somewhere else."""
    return render(
        tmp_path_factory.mktemp("external"),
        "13",
        "postgresql",
        "rabbitmq",
        airflow_database_host="postgres.example.com",
        airflow_database_port=6432,
        airflow_database_user="o'neill@site",
        airflow_results_database_port=6433,
        airflow_broker_host="2001:db8::5",
        airflow_broker_vhost="/site",
        airflow_api_url="https://airflow.example.com",
        airflow_watchdog=False,
    )


def settings_of(rendered: Rendered, host: str = "master1") -> dict[str, dict[str, str]]:
    """airflow.cfg as Airflow reads it: a ConfigParser with its usual interpolation."""
    parser = configparser.ConfigParser()
    parser.read_string(rendered.text(host, "/etc/airflow/airflow.cfg"))
    return {section: dict(parser[section]) for section in parser.sections()}


def environment(rendered: Rendered, host: str, name: str = "airflow") -> dict[str, str]:
    return parse_environment(rendered.text(host, f"/etc/airflow/{name}.env"))


def unit(rendered: Rendered, host: str, name: str) -> dict[str, dict[str, list[str]]]:
    """A unit file as systemd reads it: {section: {key: [value of each line]}}."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in rendered.text(host, f"/etc/systemd/system/{name}.service").splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(match[1], {})
        elif line and line[0] not in "#;":
            key, value = line.split("=", 1)
            section.setdefault(key, []).append(value)
    return sections


UNITS = {
    "master1": ["airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"],
    "worker1": ["airflow-worker"],
}
EVERY_UNIT = [(host, name) for host, names in UNITS.items() for name in names]


# --- airflow.cfg -------------------------------------------------------------------------------------------------


def test_the_settings_that_keep_tasks_alive(plain: Rendered) -> None:
    found = settings_of(plain)
    assert found["core"] == {
        "executor": "CeleryExecutor",
        "auth_manager": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "dags_folder": f"{plain.folder}/var/lib/airflow/dags",
        "execution_api_server_url": "http://master1:8080/execution/",
        "load_examples": "False",
        "parallelism": "128",
        "default_task_retries": "2",
        "default_task_retry_delay": "15",
    }
    assert found["scheduler"] == {
        "enable_health_check": "True",
        "task_instance_heartbeat_timeout": "180",
        "orphaned_tasks_check_interval": "30",
        "scheduler_idle_sleep_time": "0.25",
    }
    workers = {key: int(value) for key, value in found["workers"].items()}
    # Calls outlast an API server that is away as long as the scheduler takes living tasks for alive, and no call
    # resumes so late that it would be declared dead meanwhile.
    outlasts = workers["execution_api_retries"] * workers["execution_api_retry_wait_max"]
    assert outlasts >= int(found["scheduler"]["task_instance_heartbeat_timeout"])
    assert workers["execution_api_retry_wait_max"] <= 10
    assert found["celery_broker_transport_options"]["confirm_publish"] == "True"
    bundles = {
        bundle["name"]: bundle["kwargs"] for bundle in json.loads(found["dag_processor"]["dag_bundle_config_list"])
    }
    assert bundles == {"dags-folder": {}, "onprem-airflow-canary": {"path": f"{plain.folder}/opt/airflow/canary"}}


def test_celery_is_told_of_quorum_queues_or_of_none(plain: Rendered, changed: Rendered) -> None:
    always = {
        "event_queue_exclusive": True,
        "worker_enable_prefetch_count_reduction": False,
        "broker_connection_timeout": 1,
        "task_publish_retry_policy": {
            "max_retries": 100,
            "interval_start": 0.5,
            "interval_step": 0.5,
            "interval_max": 2,
        },
        "result_backend_always_retry": True,
        "result_backend_max_retries": 30,
    }
    quorum = {
        "task_default_queue_type": "quorum",
        "task_create_missing_queue_type": "quorum",
        "broker_native_delayed_delivery_queue_type": "classic",
    }
    assert json.loads(settings_of(plain)["celery"]["extra_celery_config"]) == always | quorum
    assert json.loads(settings_of(changed)["celery"]["extra_celery_config"]) == always | {
        "worker_max_tasks_per_child": 5
    }
    assert "quorum" not in changed.text("worker1", "/etc/airflow/airflow.cfg")


def test_result_connections_are_checked_before_use(plain: Rendered) -> None:
    options = json.loads(settings_of(plain)["celery"]["result_backend_sqlalchemy_engine_options"])
    assert options["pool_pre_ping"] is True


def test_every_host_has_the_same_settings(plain: Rendered, changed: Rendered) -> None:
    for rendered in (plain, changed):
        texts = {rendered.text(host, "/etc/airflow/airflow.cfg") for host in ("master1", "worker1", "worker2")}
        assert len(texts) == 1


def test_own_settings_win_and_survive_every_character(plain: Rendered, changed: Rendered) -> None:
    found = settings_of(changed)
    assert found["logging"]["log_format"] == "%(asctime)s é 100% # ; = : '\""
    assert found["logging"]["base_log_folder"] == "/var/log/airflow"
    assert found["metrics"] == {"statsd_on": "True", "statsd_host": "a\nb"}
    assert found["core"]["parallelism"] == "7"
    assert "load_examples" not in found["core"] and "load_examples" in settings_of(plain)["core"]
    assert found["core"]["default_task_retries"] == "0"
    assert found["api"] == {"base_url": "http://master1:8888", "port": "8888"}
    bundles = json.loads(found["dag_processor"]["dag_bundle_config_list"])
    assert [bundles[0], bundles[1]["name"], len(bundles)] == [BUNDLE, "onprem-airflow-canary", 2]


# --- The canary --------------------------------------------------------------------------------------------------

CANARY = "/opt/airflow/canary/onprem_airflow_canary.py"


def test_the_canary_knows_every_queue_and_is_the_same_everywhere(plain: Rendered) -> None:
    assert len({plain.text(host, CANARY) for host in ("master1", "worker1", "worker2")}) == 1
    tree = ast.parse(plain.text("worker1", CANARY))
    values = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}  # type: ignore[attr-defined]
    assert ast.literal_eval(values["CANARIES"]) == {"onprem_airflow_canary_default": "default"}
    path = ast.literal_eval(values["NAME"].args[0])  # type: ignore[attr-defined]
    assert plain.text("worker2", path.removeprefix(str(plain.folder))) == "worker2\n"
    for name in (CANARY, "/opt/airflow/canary"):  # a task cannot rewrite it, nor leave bytecode beside it
        entry = plain.files("worker1")[name]
        assert (entry["owner"], entry["group"], int(entry["mode"], 8) & 0o022) == ("root", "airflow", 0)


def test_without_the_canary_nothing_of_it_is_left(tmp_path: Path) -> None:
    found = render(tmp_path, "13", airflow_canary=False)
    for path in (CANARY, "/opt/airflow/canary", "/etc/airflow/inventory_hostname"):
        assert found.files("worker1")[path]["state"] == "absent"
    assert "dag_bundle_config_list" not in settings_of(found)["dag_processor"]


# --- Secrets -----------------------------------------------------------------------------------------------------


def secrets_in(text: str) -> set[str]:
    """Names of the secrets that stand in a text: as they are, in a URL, in an environment file, or in JSON."""
    forms = (str, lambda value: quote(value, safe=""), lambda value: quote_environment(value)[1:-1], json_text)
    return {name for name, value in SECRETS.items() if any(form(value) in text for form in forms)}


def json_text(value: str) -> str:
    return json.dumps(value)[1:-1]


def test_secrets_stand_in_these_files_and_no_others(plain: Rendered) -> None:
    entries = [(host, path, entry) for host in ADDRESSES for path, entry in plain.files(host).items()]
    found = {(host, path): secrets_in(str(entry.get("content", ""))) for host, path, entry in entries}
    everybody = {"airflow_broker_password", "airflow_results_database_password", "airflow_api_secret_key"}
    assert {place: names for place, names in found.items() if names} == {
        ("mq1", "/var/lib/rabbitmq/.erlang.cookie"): {"rabbitmq_erlang_cookie"},
        ("master1", "/etc/airflow/airflow.env"): everybody,
        ("master1", "/etc/airflow/master.env"): {
            "airflow_database_password",
            "airflow_fernet_key",
            "airflow_jwt_secret",
        },
        ("worker1", "/etc/airflow/airflow.env"): everybody,
        ("worker2", "/etc/airflow/airflow.env"): everybody,
    }
    # Nobody but the owner and the group reads them, nor the hashes of the broker's passwords.
    hidden = [
        *((host, path) for (host, path), names in found.items() if names),
        ("mq1", "/etc/rabbitmq/definitions.json"),
    ]
    for host, path, entry in entries:
        if (host, path) in hidden:
            assert int(entry["mode"], 8) & 0o007 == 0, path
            assert int(entry["mode"], 8) & 0o020 == 0, path
    assert plain.files("worker1")["/etc/airflow"]["mode"] == "0750"


def test_a_worker_gets_nothing_that_only_masters_need(plain: Rendered) -> None:
    for worker in ("worker1", "worker2"):
        assert not secrets_in(json.dumps(plain.asked[worker], ensure_ascii=False)) & set(MASTER_ONLY)
        assert "/etc/airflow/master.env" not in plain.files(worker)
        assert set(environment(plain, worker)) == {
            "AIRFLOW_HOME",
            "AIRFLOW_CONFIG",
            "AIRFLOW__API__SECRET_KEY",
            "AIRFLOW__CELERY__BROKER_URL",
            "AIRFLOW__CELERY__RESULT_BACKEND",
        }
        assert [module for module, _arguments in plain.asked[worker] if module not in ("files", "service")] == []


def test_what_masters_have_beside(plain: Rendered) -> None:
    found = environment(plain, "master1", "master")
    assert found["AIRFLOW__CORE__FERNET_KEY"] == SECRETS["airflow_fernet_key"]
    assert found["AIRFLOW__API_AUTH__JWT_SECRET"] == SECRETS["airflow_jwt_secret"]
    # Airflow would make an asyncpg URL by itself, and that refuses libpq's parameters.
    assert found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"] == found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert set(found) == {
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__API_AUTH__JWT_SECRET",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC",
    }
    assert plain.call("master1", "airflow_user")["password"] == SECRETS["airflow_admin_password"]


def login(url: str) -> dict[str, str]:
    """A URL of PostgreSQL as its own library reads it."""
    scheme, rest = url.split("://", 1)
    assert scheme.removeprefix("db+") == "postgresql+psycopg"
    # Airflow puts every value through os.path.expandvars.
    assert os.path.expandvars(url) == url
    return dict(parse_dsn("postgresql://" + rest))


def test_passwords_survive_their_urls(plain: Rendered) -> None:
    assert login(environment(plain, "master1", "master")["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]) == {
        "host": "db1",
        "port": "5432",
        "user": "airflow",
        "password": SECRETS["airflow_database_password"],
        "dbname": "airflow",
    }
    for host in ("master1", "worker1"):
        found = environment(plain, host)
        assert login(found["AIRFLOW__CELERY__RESULT_BACKEND"]) == {
            "host": "db1",
            "port": "5432",
            "user": "airflow_results",
            "password": SECRETS["airflow_results_database_password"],
            "dbname": "airflow_results",
        }
        broker = parse_url(found["AIRFLOW__CELERY__BROKER_URL"])
        assert (broker["hostname"], broker["port"], broker["virtual_host"]) == ("mq1", 5672, "airflow")
        assert (broker["userid"], broker["password"]) == ("airflow", SECRETS["airflow_broker_password"])


def test_servers_elsewhere_are_used_by_their_addresses(external: Rendered) -> None:
    database = login(environment(external, "master1", "master")["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    assert (database["host"], database["port"], database["user"]) == ("postgres.example.com", "6432", "o'neill@site")
    results = login(environment(external, "worker1")["AIRFLOW__CELERY__RESULT_BACKEND"])
    assert (results["host"], results["port"]) == ("postgres.example.com", "6433")
    broker = parse_url(environment(external, "worker1")["AIRFLOW__CELERY__BROKER_URL"])
    assert (broker["hostname"], broker["virtual_host"]) == ("2001:db8::5", "/site")
    assert settings_of(external)["core"]["execution_api_server_url"] == "https://airflow.example.com/execution/"
    assert external.asked["db1"] == external.asked["mq1"] == []


def test_own_environment_wins_and_survives_every_character(changed: Rendered) -> None:
    for host in ("master1", "worker1"):
        found = environment(changed, host)
        assert found["AWS_SECRET_ACCESS_KEY"] == NASTY
        assert found["AIRFLOW__API__SECRET_KEY"] == "mine, not the role's"


# --- Units -------------------------------------------------------------------------------------------------------


def test_every_service_has_one_unit_and_no_other_host_has_it(plain: Rendered) -> None:
    for host in ADDRESSES:
        units = [Path(path).stem for path in plain.files(host) if path.endswith(".service")]
        units = [name for name in units if name != "airflow-watchdog"]
        assert units == UNITS["worker1" if host.startswith("worker") else host] if "er" in host else units == []
    for host, names in UNITS.items():
        call = plain.call(host, "service")
        services = [one for one in call["units"] if one["name"] != "airflow-watchdog.service"]
        assert [one["name"] for one in services] == [f"{name}.service" for name in names]
        assert all(one["ready"] for one in services)
        assert call["restart_after"] == [
            f"{plain.folder}/etc/airflow/airflow.cfg",
            f"{plain.folder}/opt/airflow/current",
        ]


@pytest.mark.parametrize(("host", "name"), EVERY_UNIT)
def test_a_service_always_comes_back(plain: Rendered, host: str, name: str) -> None:
    found = unit(plain, host, name)
    assert found["Service"]["Restart"] == ["always"]
    # Without a limit of tries within an interval.
    assert found["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert found["Install"]["WantedBy"] == ["multi-user.target"]


@pytest.mark.parametrize(("host", "name"), EVERY_UNIT)
def test_a_stop_reaches_the_program_and_leaves_its_children_to_it(plain: Rendered, host: str, name: str) -> None:
    found = unit(plain, host, name)["Service"]
    assert found["KillMode"] == ["mixed"]
    (command,) = found["ExecStart"]
    # The program itself: a shell before it would keep the signal.
    assert command.startswith(f"{plain.folder}/opt/airflow/current/bin/airflow ")
    assert found["Type"] == ["exec"]
    assert (found["User"], found["Group"]) == (["airflow"], ["airflow"])


@pytest.mark.parametrize(("host", "name"), EVERY_UNIT)
def test_a_service_reads_the_secrets_of_its_kind(plain: Rendered, host: str, name: str) -> None:
    files = [f"{plain.folder}/etc/airflow/airflow.env"]
    files += [f"{plain.folder}/etc/airflow/master.env"] if host == "master1" else []
    assert unit(plain, host, name)["Service"]["EnvironmentFile"] == files


def test_a_stopping_worker_waits_for_its_longest_task(plain: Rendered, changed: Rendered) -> None:
    for rendered, seconds in ((plain, 86400), (changed, 7200)):
        assert unit(rendered, "worker1", "airflow-worker")["Service"]["TimeoutStopSec"] == [str(seconds)]


def test_only_a_worker_has_the_policy_that_frees_its_slots(plain: Rendered) -> None:
    assert unit(plain, "worker1", "airflow-worker")["Service"]["CPUSchedulingPolicy"] == ["batch"]
    assert "CPUSchedulingPolicy" not in unit(plain, "master1", "airflow-scheduler")["Service"]


def test_what_a_worker_works_on(plain: Rendered, changed: Rendered) -> None:
    command = "/opt/airflow/current/bin/airflow celery worker --queues"
    # Two CPUs: four slots.
    assert unit(plain, "worker1", "airflow-worker")["Service"]["ExecStart"] == [
        f"{plain.folder}{command} default --concurrency 4"
    ]
    assert unit(changed, "worker1", "airflow-worker")["Service"]["ExecStart"] == [
        f"{changed.folder}{command} default,gpu --concurrency 3"
    ]


def test_ports_follow_the_settings(plain: Rendered, changed: Rendered) -> None:
    assert plain.call("worker1", "service")["units"][0]["ready"] == {"port": 8793}
    assert changed.call("worker1", "service")["units"][0]["ready"] == {"port": 9793}
    urls = [one["ready"].get("url", "") for one in changed.call("master1", "service")["units"]]
    assert urls[0] == "http://127.0.0.1:8888/execution/health"


def test_own_settings_of_a_unit_win(changed: Rendered) -> None:
    found = unit(changed, "worker1", "airflow-worker")["Service"]
    assert found["MemoryMax"] == ["8G"] and "RestartSec" not in found
    assert "MemoryMax" not in unit(changed, "master1", "airflow-scheduler")["Service"]


def test_every_worker_host_has_a_watchdog_and_no_other_host(plain: Rendered) -> None:
    source = (CHECKOUT / "roles" / "airflow_worker" / "files" / "airflow_watchdog.py").read_text()
    for host in ADDRESSES:
        files = plain.files(host)
        assert ("/etc/airflow/watchdog.json" in files) is host.startswith("worker")
    for host in ("worker1", "worker2"):
        assert plain.text(host, "/opt/airflow/watchdog.py") == source
        found = unit(plain, host, "airflow-watchdog")
        assert found["Service"]["Restart"] == ["always"] and found["Unit"]["StartLimitIntervalSec"] == ["0"]
        assert found["Service"]["ExecStart"] == [
            f"/usr/bin/python3 -I -S {plain.folder}/opt/airflow/watchdog.py {plain.folder}/etc/airflow/watchdog.json"
        ]
        (call,) = [one for one in plain.call(host, "service")["units"] if one["name"] == "airflow-watchdog.service"]
        # Restarted in the same task, while an outdated worker waits for its turn.
        assert (call["state"], call["outdated"]) == ("started", "restart")


def test_the_watchdog_knows_units_and_queues_and_no_secret(plain: Rendered, changed: Rendered) -> None:
    told = json.loads(plain.text("worker1", "/etc/airflow/watchdog.json"))
    assert told == {
        "units": {"airflow-worker.service": ["default"]},
        "management_url": "http://mq1:15672",
        "patience": 60,
        "disk_free": 512,
        "folders": ["/var/log/airflow", f"{plain.folder}/var/lib/airflow"],
        "drain_timeout": 3600,
    }
    told = json.loads(changed.text("worker1", "/etc/airflow/watchdog.json"))
    assert told["units"] == {"airflow-worker.service": ["default", "gpu"]}


def test_without_a_watchdog_nothing_of_it_is_left(external: Rendered) -> None:
    absent = [path for path, entry in external.files("worker1").items() if entry.get("state") == "absent"]
    assert absent == [
        "/etc/systemd/system/airflow-watchdog.service",
        "/etc/systemd/system/multi-user.target.wants/airflow-watchdog.service",
        "/opt/airflow/watchdog.py",
        "/etc/airflow/watchdog.json",
    ]
    (call,) = [one for one in external.call("worker1", "service")["units"] if "watchdog" in one["name"]]
    assert call["state"] == "stopped"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(plain: Rendered, tmp_path: Path) -> None:
    program = plain.folder / "opt/airflow/current/bin/airflow"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for host, name in [*EVERY_UNIT, ("worker1", "airflow-watchdog")]:
        (tmp_path / f"{name}.service").write_text(plain.text(host, f"/etc/systemd/system/{name}.service"))
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    verified = subprocess.run(command, capture_output=True, text=True, timeout=60)
    # It speaks of other units of this machine too.
    assert [line for line in verified.stderr.splitlines() if "airflow" in line] == []


# --- The command airflow -----------------------------------------------------------------------------------------


def test_the_command_has_the_environment_of_the_services(changed: Rendered, tmp_path: Path) -> None:
    """Run for real, with the files that the roles would write."""
    for path in ("/etc/airflow/airflow.env", "/etc/airflow/master.env", "/etc/airflow/airflow.cfg"):
        target = Path(f"{changed.folder}{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(changed.text("master1", path))
        target.chmod(0o600)
    (changed.folder / "var/lib/airflow").mkdir(parents=True)
    program = changed.folder / "opt/airflow/current/bin/airflow"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf \'%s\\0\' "$(id -un)" "$(id -gn)" "$PWD" "$@" ENVIRONMENT\nenv -0\n')
    program.chmod(0o755)
    wrapper = tmp_path / "airflow"
    wrapper.write_text(changed.text("master1", "/usr/local/bin/airflow"))
    arguments = ["dags", "trigger", "--conf", '{"a": "$HOME `id` é"}', "x y"]
    ran = subprocess.run(["sh", str(wrapper), *arguments], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    told, _mark, rest = ran.stdout.partition("ENVIRONMENT\0")
    assert told.split("\0")[:-1] == [*USER, f"{changed.folder}/var/lib/airflow", *arguments]
    found = dict(line.split("=", 1) for line in rest.split("\0") if line)
    wanted = environment(changed, "master1") | environment(changed, "master1", "master")
    assert {name: found.get(name) for name in wanted} == wanted
    assert found["HOME"] == f"{changed.folder}/var/lib/airflow"


def test_the_command_is_for_root_and_airflow_alone(plain: Rendered) -> None:
    text = plain.text("master1", "/usr/local/bin/airflow")
    other = "id() { echo somebody; }\nset -- dags list\n"
    ran = subprocess.run(["sh"], input=other + text, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (77, "")
    assert ran.stderr == "airflow: run it as root or airflow: sudo airflow dags list\n"
    assert plain.files("master1")["/usr/local/bin/airflow"]["mode"] == "0755"


# --- RabbitMQ ----------------------------------------------------------------------------------------------------


def broker_settings(rendered: Rendered) -> dict[str, str]:
    """rabbitmq.conf as RabbitMQ reads it: `key = value`, comments begin with #; anything else keeps it from booting."""
    found: dict[str, str] = {}
    for line in rendered.text("mq1", "/etc/rabbitmq/rabbitmq.conf").splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9_$][A-Za-z0-9_.$-]*) = (\S(?:[^#]*\S)?)", line)
            assert match and match[1] not in found, line
            found[match[1]] = match[2]
    return found


def test_the_brokers_timeout_is_longer_than_the_longest_task(plain: Rendered, changed: Rendered) -> None:
    for rendered, longest in ((plain, 86400), (changed, 7200)):
        assert int(broker_settings(rendered)["consumer_timeout"]) > longest * 1000


def test_settings_of_the_broker(plain: Rendered, changed: Rendered) -> None:
    assert broker_settings(plain)["definitions.local.path"] == "/etc/rabbitmq/definitions.json"
    assert "/etc/rabbitmq/definitions.json" in plain.files("mq1")
    own = broker_settings(changed)
    assert (own["log.file.level"], own["cluster_name"]) == ("warning", "tasks")
    assert own["log.console"] == "true"  # RabbitMQ does not boot with another spelling
    assert set(own) == {*broker_settings(plain), "log.file.level", "log.console"}
    assert plain.text("mq1", "/etc/rabbitmq/enabled_plugins") == "[rabbitmq_management,rabbitmq_prometheus].\n"


def test_the_name_of_the_node_is_pinned(plain: Rendered, changed: Rendered) -> None:
    def values(rendered: Rendered) -> dict[str, str]:
        return parse_environment(rendered.text("mq1", "/etc/rabbitmq/rabbitmq-env.conf"))

    assert values(plain) == {"NODENAME": "rabbit@mq1"}
    # Erlang refuses a name with dots unless told that names are long.
    assert values(changed) == {"NODENAME": "rabbit@mq1.example.com", "USE_LONGNAME": "true"}


def test_accounts_of_the_broker(plain: Rendered, changed: Rendered) -> None:
    for rendered, kind, users in ((plain, "quorum", ["airflow"]), (changed, "classic", ["airflow", "watcher"])):
        found = json.loads(rendered.text("mq1", "/etc/rabbitmq/definitions.json"))
        assert [user["name"] for user in found["users"]] == users
        raw = base64.b64decode(found["users"][0]["password_hash"])
        assert raw[4:] == hashlib.sha256(raw[:4] + SECRETS["airflow_broker_password"].encode()).digest()
        assert found["users"][0]["tags"] == ["management"]
        (vhost,) = found["vhosts"]
        assert (vhost["name"], vhost["metadata"]["default_queue_type"]) == ("airflow", kind)
        (permission,) = found["permissions"]
        assert permission == {"user": "airflow", "vhost": "airflow", "configure": ".*", "write": ".*", "read": ".*"}
    assert json.loads(changed.text("mq1", "/etc/rabbitmq/definitions.json"))["users"][1]["tags"] == ["monitoring"]


def test_the_broker_restarts_for_its_files_but_not_for_accounts(plain: Rendered) -> None:
    (one,) = plain.call("mq1", "service")["units"]
    written = set(plain.files("mq1"))
    assert set(one["restart_after"]) < written
    assert "/etc/rabbitmq/definitions.json" not in one["restart_after"]


# --- PostgreSQL --------------------------------------------------------------------------------------------------


def database_settings(rendered: Rendered, version: int) -> dict[str, str]:
    """The drop-in as PostgreSQL reads it: `key = 'value'`, a quote doubled, a backslash beginning an escape."""
    found = {}
    for line in rendered.text("db1", f"/etc/postgresql/{version}/main/conf.d/50-airflow.conf").splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-z_]+(?:\.[a-z_]+)?) = '((?:[^'\\]|''|\\.)*)'", line)
            assert match, line
            found[match[1]] = re.sub(r"''|\\(.)", lambda part: part[1] or "'", match[2])
    return found


def test_settings_of_the_database(plain: Rendered, changed: Rendered) -> None:
    found = database_settings(plain, 17)
    assert found["password_encryption"] == "scram-sha-256"
    assert (found["listen_addresses"], found["port"]) == ("*", "5432")
    # A quarter of 4 GB, and room for the pools of one master and two workers.
    assert (found["shared_buffers"], found["max_connections"]) == ("1024MB", "500")
    own = database_settings(changed, 15)
    assert own["log_line_prefix"] == "%m [%p] 'it''s' \\n "
    assert (own["work_mem"], found["work_mem"]) == ("64MB", "8MB")
    assert own["fsync"].lower() in ("on", "true")


def rules(rendered: Rendered) -> list[tuple[str, ...]]:
    """Lines of pg_hba.conf, as tuples of their words."""
    lines = rendered.call("db1", "pg_hba")["pg_hba_string"].splitlines()
    return sorted(tuple(line.split()) for line in lines if line)


def test_only_hosts_of_the_cluster_may_log_in_and_only_where_they_need(plain: Rendered, changed: Rendered) -> None:
    cluster = [
        ("host", "airflow", "airflow", "192.0.2.13/32", "scram-sha-256"),
        ("host", "airflow_results", "airflow_results", "192.0.2.13/32", "scram-sha-256"),
        ("host", "airflow_results", "airflow_results", "192.0.2.14/32", "scram-sha-256"),
        ("host", "airflow_results", "airflow_results", "2001:db8::15/128", "scram-sha-256"),
        ("local", "all", "all", "peer"),
    ]
    assert rules(plain) == cluster
    # All clients are known, though one has no IPv4 address, so what is not listed is shut out.
    assert plain.call("db1", "pg_hba")["invocation"]["module_args"]["overwrite"] is True
    assert rules(changed) == sorted([*cluster, ("host", "airflow", "backup", "192.0.2.99/32", "cert")])


def test_each_release_of_debian_has_its_own_version(plain: Rendered, changed: Rendered) -> None:
    assert plain.call("db1", "service")["units"][0]["name"] == "postgresql@17-main.service"
    assert changed.call("db1", "service")["units"][0]["name"] == "postgresql@15-main.service"
    # The lock of each Python is another, and so is the release.
    (new,), (old,) = (
        {entry["link"] for entry in rendered.files("master1").values() if entry.get("state") == "link"}
        for rendered in (plain, changed)
    )
    assert re.fullmatch(r".*/releases/3\.3\.2-[0-9a-f]{8}", new) and new.rsplit("-")[-1] != old.rsplit("-")[-1]
