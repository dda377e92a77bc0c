# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight, the inventory's half: every wrong input is named, a right one is not, and no secret is ever shown."""

from __future__ import annotations

import base64
import secrets
import string
from typing import Any

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _preflight_inventory as checks
from ansible_collections.onprem.airflow.plugins.module_utils import _sizing

COMMAND = "ansible-playbook -i hosts.yml onprem.airflow.secrets"
KNOWN = {"airflow_database_host", "airflow_config", "airflow_address", "rabbitmq_settings", "postgresql_settings"}
KNOWN |= {*checks.VALUES} - {"ansible_host", "ansible_port"}


def random_text(length: int) -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _count in range(length))


SECRETS = {
    "airflow_database_password": "p@ss/w%rd:#'$\\ Tz8qLm3",
    "airflow_results_database_password": "Kq7@ / % : # ' $ \\ vN2x",
    "airflow_broker_password": random_text(32),
    "airflow_admin_password": random_text(32),
    "airflow_fernet_key": base64.urlsafe_b64encode(bytes(range(100, 132))).decode(),
    "airflow_jwt_secret": random_text(86),
    "airflow_api_secret_key": random_text(43),
    "rabbitmq_erlang_cookie": random_text(48),
}
GROUPS = {
    "airflow_cluster": ["db1", "mq1", "master1", "worker1", "worker2"],
    "postgresql": ["db1"],
    "rabbitmq": ["mq1"],
    "airflow_master": ["master1"],
    "airflow_worker": ["worker1", "worker2"],
}


def inventory(
    everywhere: dict[str, Any] | None = None,
    without: tuple[str, ...] = (),
    groups: dict[str, list[str]] | None = None,
    hosts: dict[str, dict[str, Any]] | None = None,
    errors: dict[str, str] | None = None,
) -> checks.Inventory:
    """The good inventory of five hosts, with changes."""
    placed = {**GROUPS, **(groups or {})}
    names = dict.fromkeys(name for members in placed.values() for name in members)
    made = {}
    for number, name in enumerate(names, 11):
        values = {"ansible_host": f"192.0.2.{number}", **SECRETS, **(everywhere or {}), **(hosts or {}).get(name, {})}
        values = {key: value for key, value in values.items() if key not in without}
        made[name] = checks.Host(name, frozenset(values), values, (errors or {}) if name == "db1" else {})
    return checks.Inventory(placed, made)


def judge(given: checks.Inventory, **options: Any) -> list[checks.Problem]:
    return checks.check_inventory(given, options.pop("known", KNOWN), COMMAND, **options)


@pytest.mark.parametrize(
    "given",
    [
        inventory(),
        inventory(groups={"airflow_worker": []}),
        inventory({"airflow_database_host": "pg.example.com"}, groups={"postgresql": []}),
        inventory({"airflow_broker_host": "192.0.2.99"}, groups={"rabbitmq": []}, without=("rabbitmq_erlang_cookie",)),
        inventory(groups={"airflow_master": ["master1", "db1"]}),
        inventory({"airflow_version": "3.3.2", "airflow_worker_queues": ["default", "big-1"]}),
        inventory({"airflow_version": "3.2.0", "airflow_lock": "locks/own.txt"}),
        inventory({"airflow_config": {"core": {"parallelism": 64}}, "__airflow_whatever": 1, "other_variable": 2}),
        inventory({"postgresql_backup_dir": "/x", "airflow_preflight_known_variables": ["postgresql_backup_dir"]}),
        inventory({"airflow_fernet_key": ",".join([SECRETS["airflow_fernet_key"]] * 2)}),
        inventory({"airflow_api_url": "https://airflow.example.com/airflow"}),
        # One machine behind one address with forwarded ports is many machines.
        inventory(
            {"ansible_host": "127.0.0.1"},
            hosts={n: {"ansible_port": p} for p, n in enumerate(GROUPS["airflow_cluster"], 2201)},
        ),
        inventory({"postgresql_settings": {"max_connections": 200}}),
        inventory({"airflow_preflight_ignore": ["port_taken"]}),
        checks.Inventory(
            {group: ["one"] for group in GROUPS},
            {"one": checks.Host("one", frozenset(SECRETS), {**SECRETS, "airflow_address": "localhost"})},
        ),
    ],
)
def test_a_right_inventory_has_no_problem(given: checks.Inventory) -> None:
    assert judge(given) == []


WRONG: list[tuple[str, checks.Inventory, str, str, str]] = [
    # what is tried, the inventory, code, host, words of the message
    ("no cluster", inventory(groups={"airflow_cluster": []}), "no_cluster", "inventory", "airflow_cluster is missing"),
    (
        "no parent",
        inventory(groups={"airflow_cluster": ["db1", "mq1", "master1", "worker1"]}),
        "not_in_cluster",
        "worker2",
        "airflow_worker",
    ),
    (
        "no database",
        inventory(groups={"postgresql": []}),
        "no_database",
        "inventory",
        "airflow_database_host is not set",
    ),
    (
        "empty database host",
        inventory({"airflow_database_host": " "}, groups={"postgresql": []}),
        "no_database",
        "inventory",
        "PostgreSQL",
    ),
    ("two databases", inventory(groups={"postgresql": ["db1", "mq1"]}), "several_databases", "inventory", "db1, mq1"),
    ("no broker", inventory(groups={"rabbitmq": []}), "no_broker", "inventory", "airflow_broker_host is not set"),
    (
        "three brokers",
        inventory(groups={"rabbitmq": ["mq1", "db1", "master1"]}),
        "several_brokers",
        "inventory",
        "3 hosts",
    ),
    ("no master", inventory(groups={"airflow_master": []}), "no_master", "inventory", "airflow_master"),
    (
        "one ansible_host",
        inventory(hosts={"worker2": {"ansible_host": "192.0.2.11"}}),
        "duplicate_address",
        "db1, worker2",
        "ansible_host 192.0.2.11",
    ),
    (
        "one airflow_address",
        inventory(hosts={"worker1": {"airflow_address": "worker2"}}),
        "duplicate_address",
        "worker1, worker2",
        "airflow_address worker2",
    ),
    (
        "loopback address",
        inventory(hosts={"db1": {"airflow_address": "127.0.1.1"}}),
        "loopback_address",
        "db1",
        "127.0.1.1",
    ),
    (
        "loopback database",
        inventory({"airflow_database_host": "localhost"}),
        "loopback_address",
        "worker1",
        "airflow_database_host",
    ),
    ("URL as address", inventory(hosts={"mq1": {"airflow_address": "http://mq1"}}), "bad_address", "mq1", "http://mq1"),
    (
        "port in the address",
        inventory(hosts={"mq1": {"airflow_address": "mq1:5672"}}),
        "bad_address",
        "mq1",
        "mq1:5672",
    ),
    (
        "API URL without scheme",
        inventory({"airflow_api_url": "master1:8080"}),
        "bad_api_url",
        "worker1",
        "master1:8080",
    ),
    (
        "API URL with a bad port",
        inventory({"airflow_api_url": "http://master1:80800"}),
        "bad_api_url",
        "worker1",
        "80800",
    ),
    (
        "no Fernet key",
        inventory(without=("airflow_fernet_key",)),
        "secret_missing",
        "inventory",
        "airflow_fernet_key is not set",
    ),
    (
        "empty password",
        inventory({"airflow_broker_password": ""}),
        "secret_missing",
        "inventory",
        "airflow_broker_password",
    ),
    (
        "no secrets",
        inventory(without=tuple(SECRETS)),
        "secret_missing",
        "inventory",
        "airflow_api_secret_key and rabbitmq_erlang_cookie are not set",
    ),
    (
        "secret missing on a worker",
        inventory(hosts={"worker2": {"airflow_api_secret_key": None}}),
        "secret_missing",
        "worker2",
        "but on other hosts",
    ),
    ("short password", inventory({"airflow_broker_password": "aB3dE6gH9"}), "secret_weak", "mq1", "shorter than 16"),
    (
        "number as password",
        inventory({"airflow_admin_password": 12345678901234567}),
        "secret_weak",
        "master1",
        "int and not a text",
    ),
    (
        "well-known words",
        inventory({"airflow_admin_password": "airflow-password-2026"}),
        "secret_weak",
        "master1",
        "well-known words",
    ),
    (
        "two words",
        inventory({"airflow_admin_password": "ChangemePassword"}),
        "secret_weak",
        "master1",
        "well-known words",
    ),
    (
        "the user name",
        inventory({"airflow_database_user": "airflow_production", "airflow_database_password": "airflow_production"}),
        "secret_weak",
        "db1",
        "user name",
    ),
    (
        "few characters",
        inventory({"airflow_broker_password": "abcabcabcabcabcabc"}),
        "secret_weak",
        "mq1",
        "fewer than 8 different",
    ),
    ("a sequence", inventory({"airflow_broker_password": "abcdefghijklmnop"}), "secret_weak", "mq1", "neighbouring"),
    (
        "a line break",
        inventory({"airflow_broker_password": random_text(32) + "\n"}),
        "secret_weak",
        "mq1",
        "line break",
    ),
    (
        "Fernet key of 16 bytes",
        inventory({"airflow_fernet_key": base64.urlsafe_b64encode(bytes(range(16))).decode()}),
        "secret_weak",
        "master1",
        "32 bytes",
    ),
    (
        "Fernet key that is text",
        inventory({"airflow_fernet_key": random_text(44)}),
        "secret_weak",
        "master1",
        "32 bytes",
    ),
    (
        "Fernet key and a blank one",
        inventory({"airflow_fernet_key": SECRETS["airflow_fernet_key"] + ","}),
        "secret_weak",
        "master1",
        "32 bytes",
    ),
    (
        "Fernet key of zeros",
        inventory({"airflow_fernet_key": base64.urlsafe_b64encode(bytes(32)).decode()}),
        "secret_weak",
        "master1",
        "different bytes",
    ),
    (
        "short JWT secret",
        inventory({"airflow_jwt_secret": random_text(63)}),
        "secret_weak",
        "master1",
        "shorter than 64",
    ),
    (
        "short API key",
        inventory({"airflow_api_secret_key": random_text(31)}),
        "secret_weak",
        "worker1",
        "shorter than 32",
    ),
    (
        "dollar in the JWT secret",
        inventory({"airflow_jwt_secret": random_text(64) + "$HOME"}),
        "secret_weak",
        "master1",
        "expands $",
    ),
    (
        "tilde in the API key",
        inventory({"airflow_api_secret_key": "~" + random_text(40)}),
        "secret_weak",
        "worker2",
        "leading ~",
    ),
    ("short cookie", inventory({"rabbitmq_erlang_cookie": random_text(39)}), "secret_weak", "mq1", "shorter than 40"),
    (
        "cookie with a dash",
        inventory({"rabbitmq_erlang_cookie": random_text(40) + "-"}),
        "secret_weak",
        "mq1",
        "letters and digits",
    ),
    (
        "cookie of 20 capitals",
        inventory({"rabbitmq_erlang_cookie": "QWXRTZPLKJHGFDSAYXCV"}),
        "secret_weak",
        "mq1",
        "20 capital letters",
    ),
    (
        "two API keys",
        inventory(hosts={"worker2": {"airflow_api_secret_key": random_text(43)}}),
        "secret_differs",
        "inventory",
        "airflow_api_secret_key has 2 different values: one on master1, worker1, one on worker2",
    ),
    (
        "one password for two",
        inventory({"airflow_admin_password": SECRETS["airflow_broker_password"]}),
        "secret_reused",
        "inventory",
        "airflow_broker_password and airflow_admin_password",
    ),
    ("misspelt variable", inventory({"airflow_databse_host": "x"}), "unknown_variable", "db1", "airflow_databse_host"),
    (
        "misspelt on one host",
        inventory(hosts={"mq1": {"rabbitmq_setings": {}}}),
        "unknown_variable",
        "mq1",
        "rabbitmq_setings",
    ),
    ("empty queues", inventory({"airflow_worker_queues": []}), "bad_worker_queues", "worker1", "at least one"),
    ("queues as a text", inventory({"airflow_worker_queues": "default"}), "bad_worker_queues", "worker1", "list"),
    ("queue with a comma", inventory({"airflow_worker_queues": ["a,b"]}), "bad_worker_queues", "worker2", "commas"),
    ("version as a number", inventory({"airflow_version": 3.3}), "bad_version", "master1", "3.3"),
    ("version too old", inventory({"airflow_version": "2.10.4"}), "bad_version", "master1", "'2.10.4'"),
    ("version of next year", inventory({"airflow_version": "4.0.0"}), "bad_version", "master1", "below 4"),
    (
        "file that is not there",
        inventory({"airflow_dags_source": "/nowhere/dags"}),
        "missing_file",
        "master1",
        "/nowhere/dags",
    ),
    (
        "ignoring nothing known",
        inventory({"airflow_preflight_ignore": ["port_takne"]}),
        "bad_ignore",
        "db1",
        "port_takne",
    ),
    (
        "too few connections",
        inventory({"postgresql_settings": {"max_connections": 100}}),
        "too_few_connections",
        "db1",
        "need 187",
    ),
    (
        "Airflow asks at another port",
        inventory({"postgresql_port": 5433}),
        "port_differs",
        "worker1",
        "airflow_database_port is 5432, but postgresql_port on db1 is 5433",
    ),
    (
        "too few connections by the other variable",
        inventory({"postgresql_max_connections": 150}),
        "too_few_connections",
        "db1",
        "postgresql_max_connections is 150",
    ),
    (
        "template without value",
        inventory(errors={"airflow_address": "'nowhere' is undefined"}),
        "bad_template",
        "db1",
        "airflow_address cannot be evaluated",
    ),
]


@pytest.mark.parametrize(("given", "code", "host", "words"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_input_is_refused_by_name(given: checks.Inventory, code: str, host: str, words: str) -> None:
    problems = judge(given, exists=lambda path: False)
    found = [problem for problem in problems if problem.code == code and problem.host == host]
    assert found, problems
    assert any(words in problem.what for problem in found), found
    assert {problem.code for problem in problems} == {code}, "one mistake must not be told as several"
    assert all(problem.fix for problem in problems)
    told = "".join(problem.what + problem.fix for problem in problems)
    values = [given.hosts[name].values.get(secret) for name in given.hosts for secret in SECRETS]
    assert not [value for value in values if value and str(value) in told and value != "airflow_production"]


def test_the_fix_names_the_command_and_the_nearest_name() -> None:
    (missing,) = judge(inventory(without=("airflow_jwt_secret",)))
    assert missing.fix == f"run `{COMMAND}`"
    (unknown,) = judge(inventory(hosts={"mq1": {"rabbitmq_setings": {}}}))
    assert "did you mean rabbitmq_settings?" in unknown.fix
    (foreign,) = judge(inventory(hosts={"db1": {"postgresql_whatever_else": {}}}))
    assert "did you mean" not in foreign.fix
    assert judge(inventory({"airflow_databse_host": "x"}), known=None) == []


def test_a_version_without_a_lock_file() -> None:
    given = inventory({"airflow_version": "3.3.1"})
    assert judge(given) == judge(given, locked_version="3.3.1") == []
    problems = judge(given, locked_version=checks.version_in_lock("a==1\napache-airflow==3.3.2 \\\n    --hash=x\n"))
    assert {problem.code for problem in problems} == {"bad_version"}
    assert "lock files hold 3.3.2" in problems[0].what
    own_lock = inventory({"airflow_version": "3.3.1", "airflow_lock": "own.txt"})
    assert judge(own_lock, locked_version="3.3.2") == []


def test_another_version_of_airflow_is_left_to_upgrade() -> None:
    given = inventory({"airflow_version": "3.3.10"})
    hosts = list(given.hosts)
    running = dict.fromkeys(hosts, "3.3.10")
    assert checks.check_releases(given, running, "3.3.10") == []
    assert checks.check_releases(given, dict.fromkeys(hosts, ""), "3.3.10") == []  # nothing there yet
    (newer,) = checks.check_releases(given, {**running, hosts[-1]: "3.3.9"})
    assert (newer.code, newer.host) == ("release_differs", hosts[-1])
    assert "3.3.9" in newer.what and "onprem.airflow.upgrade" in newer.fix
    (older,) = checks.check_releases(given, {hosts[0]: "3.4.0"})
    assert "onprem.airflow.rollback" in older.fix
    # Without the variable the collection's own lock says what is wanted.
    own_lock = inventory()
    assert [each.host for each in checks.check_releases(own_lock, {hosts[0]: "3.3.1"}, "3.3.2")] == [hosts[0]]
    given = inventory({"airflow_lock": "/own.txt"})
    (wrong,) = checks.check_releases(given, {hosts[0]: "3.3.1"}, "3.3.2", {"/own.txt": "3.3.1"})
    assert (wrong.code, 'airflow_version: "3.3.1"' in wrong.fix) == ("bad_version", True)


def test_every_code_that_is_used_is_listed() -> None:
    assert {row[2] for row in WRONG} <= set(checks.CODES)
    assert len(set(checks.CODES)) == len(checks.CODES)


def test_option_names_are_those_of_all_entry_points() -> None:
    specification = {
        "argument_specs": {
            "main": {"options": {"a": {}, "b": {"options": {"c": {}}}}},
            "other": {"options": {"d": {}}},
            "none": None,
        }
    }
    assert checks.option_names(specification) == {"a", "b", "d"}
    assert checks.option_names(None) == set()
    assert checks.option_names({"argument_specs": []}) == set()


# --- sizes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory_mb", "cpus", "slots"),
    [(700, 4, 1), (1024, 2, 2), (2048, 1, 2), (4096, 4, 8), (65536, 2, 4), (65536, 64, 16), (0, 0, 1)],
)
def test_default_worker_concurrency(memory_mb: int, cpus: int, slots: int) -> None:
    assert _sizing.default_worker_concurrency(memory_mb, cpus) == slots


def test_required_connections() -> None:
    assert _sizing.required_connections(1, 1, 1, 1, []) == 145
    assert _sizing.required_connections(1, 1, 1, 1, [16, 16]) == 187
    assert _sizing.required_connections(4, 2, 2, 2, [8]) == 362  # 1.25 * (120 + 120 + 30 + 9) + 13, rounded up


@pytest.mark.parametrize(("facts", "required"), [({}, 187), ({"worker1": (2048, 1), "worker2": (2048, 1)}, 152)])
def test_connections_follow_the_workers(facts: dict[str, tuple[int, int]], required: int) -> None:
    (problem,) = judge(inventory({"postgresql_settings": {"max_connections": "20"}}), facts=facts)
    assert f"need {required}" in problem.what
    given = {"postgresql_settings": {"max_connections": required}}
    assert judge(inventory(given), facts=facts) == []


def test_connections_follow_what_the_user_set() -> None:
    given = {
        "postgresql_settings": {"max_connections": 20},
        "airflow_worker_concurrency": 4,
        "airflow_master_api_workers": 3,
    }
    (problem,) = judge(inventory(given))
    assert "need 232" in problem.what  # 1.25 * (90 + 60 + 15 + 5 + 5) + 13, rounded up


# --- what a host is asked --------------------------------------------------------------------------------------


def peers(given: checks.Inventory, name: str) -> dict[tuple[str, int], dict[str, Any]]:
    return {(peer["host"], peer["port"]): peer for peer in checks.wanted_peers(given, name)}


def test_peers_of_each_kind_of_host() -> None:
    given = inventory(hosts={"db1": {"airflow_address": "10.0.0.5"}})
    assert set(peers(given, "db1")) == set()
    assert set(peers(given, "mq1")) == {("mq1", 0)}
    assert set(peers(given, "master1")) == {("10.0.0.5", 5432), ("mq1", 5672), ("worker1", 8793), ("worker2", 8793)}
    assert set(peers(given, "worker1")) == {("10.0.0.5", 5432), ("mq1", 5672), ("master1", 8080)}
    assert not any(peer["must_listen"] for peer in peers(given, "worker1").values())


def test_peers_that_exist_already_must_listen() -> None:
    given = inventory(
        {
            "airflow_database_host": "pg.example.com",
            "airflow_results_database_host": "results.example.com",
            "airflow_results_database_port": 6432,
            "airflow_api_url": "https://airflow.example.com",
        },
        groups={"postgresql": []},
    )
    found = peers(given, "worker1")
    assert set(found) == {("results.example.com", 6432), ("mq1", 5672), ("airflow.example.com", 443)}
    assert found["results.example.com", 6432]["must_listen"] and not found["mq1", 5672]["must_listen"]
    assert peers(given, "master1")["pg.example.com", 5432]["must_listen"]


def test_ports_follow_the_placed_services_and_the_variables() -> None:
    given = inventory({"postgresql_port": "5433", "airflow_api_port": 9090}, groups={"rabbitmq": ["db1"]})
    assert {entry["port"] for entry in checks.wanted_ports(given, "db1")} == {5433, 5672, 15672, 15692, 4369, 25672}
    assert {entry["port"] for entry in checks.wanted_ports(given, "master1")} == {9090, 8974, 8794}
    assert checks.wanted_ports(given, "worker1") == [{"port": 8793, "service": "airflow_worker"}]
    assert checks.wanted_ports(given, "mq1") == []


def test_requirements_are_merged_into_the_defaults() -> None:
    merged = checks.merged_requirements({"postgresql": {"memory_mb": 64}, "unknown": {"memory_mb": 1}, "rabbitmq": 3})
    assert merged["postgresql"] == {"memory_mb": 64, "disk_mb": 2048}
    assert set(merged) == set(checks.SERVICES)
    assert checks.PREFLIGHT_DEFAULTS["airflow_preflight_requirements"]["postgresql"]["memory_mb"] == 512
    assert checks.merged_requirements(None)["rabbitmq"]["memory_mb"] == 512


# --- comparing the hosts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clocks", "wrong"),
    [
        ({"a": (-0.5, 0.5), "b": (-0.1, 0.9)}, []),
        ({"a": (-0.5, 0.5), "b": (7.0, 8.0), "c": (-0.5, 0.5)}, ["b"]),
        ({"a": (-9.0, -8.0)}, ["a"]),
        ({"a": (5.5, 6.0)}, ["a"]),
        ({"a": (4.5, 30.0)}, []),  # the question took long: nothing is sure
        (dict.fromkeys("abcd", (99.0, 100.0)), []),  # only the control machine's clock is wrong
        ({"a": (99.0, 100.0), "b": (99.0, 100.0), "c": (-0.5, 0.5), "d": (99.0, 100.0)}, ["c"]),
    ],
)
def test_clocks(clocks: dict[str, tuple[float, float]], wrong: list[str]) -> None:
    problems = checks.compare_clocks(clocks, 5)
    assert [problem.host for problem in problems] == wrong
    assert all(problem.code == "clock_differs" for problem in problems)


def test_the_direction_of_a_clock_is_told() -> None:
    ahead, behind = checks.compare_clocks({"a": (60.0, 61.0), "b": (-0.1, 0.1), "c": (-61.0, -60.0)}, 5)
    assert "60 s ahead of the others" in ahead.what
    assert "60 s behind the others" in behind.what


def test_the_same_machine_twice() -> None:
    addresses = {"a": ["10.0.0.1", "172.17.0.1"], "b": ["172.17.0.1", "10.0.0.1"], "c": ["10.0.0.3", "172.17.0.1"]}
    (problem,) = checks.compare_machines({"a": "db", "b": "db", "c": "mq"}, addresses)
    assert (problem.code, problem.host) == ("duplicate_machine", "a, b")


def test_two_machines_with_one_name() -> None:
    (problem,) = checks.compare_machines({"a": "debian", "b": "debian"}, {"a": ["10.0.0.1"], "b": ["10.0.0.2"]})
    assert (problem.code, problem.host) == ("duplicate_hostname", "a, b")
    assert checks.compare_machines({"a": "x", "b": "y"}, {"a": [], "b": []}) == []


# --- the list --------------------------------------------------------------------------------------------------


def test_the_list_merges_what_is_wrong_alike() -> None:
    names = [f"w{number}" for number in range(7)]
    problems = [checks.Problem("no_systemd", name, "no systemd", "boot it") for name in names]
    problems.append(checks.Problem("port_taken", "w1", "port 8793 is taken", "stop it"))
    merged = checks.merge(problems, names)
    assert [problem.host for problem in merged] == ["all 7 hosts", "w1"]
    assert checks.merge(problems, [*names, "db1"])[0].host == "w0, w1, w2, w3, w4 and 2 more"
    text = checks.render(merged)
    assert text.startswith("Preflight found 2 problems:")
    assert "  w1: port 8793 is taken [port_taken]\n      fix: stop it" in text
    assert text.endswith("2 problems. Nothing was changed on any host.")
    assert checks.render([]) == ""


def test_ignored_codes() -> None:
    problems = [
        checks.Problem("no_systemd", "a", "what", "fix"),
        checks.Problem("no_systemd", "b", "what", "fix"),
        checks.Problem("no_master", "inventory", "what", "fix"),
        checks.Problem("bad_ignore", "a", "what", "fix"),
    ]
    counted, ignored = checks.split_ignored(problems, {"a": ["no_systemd", "no_master", "bad_ignore"], "b": []})
    assert [(problem.code, problem.host) for problem in counted] == [("no_systemd", "b"), ("bad_ignore", "a")]
    assert len(ignored) == 2
    assert "Ignored" in checks.render([], ignored) and "Nothing was changed" not in checks.render([], ignored)
