# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Definitions of RabbitMQ, environment files, URLs, unit files, rules of pg_hba.conf, revisions of the schema."""

from __future__ import annotations

import base64
import configparser
import hashlib
import subprocess
from urllib.parse import unquote, urlsplit

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.airflow.plugins.filter.hba_rule import hba_rule
from ansible_collections.onprem.airflow.plugins.filter.service_url import service_url
from ansible_collections.onprem.airflow.plugins.filter.systemd_units import systemd_units
from ansible_collections.onprem.airflow.plugins.module_utils import _rabbitmq, _release, _schema
from ansible_collections.onprem.airflow.plugins.module_utils._environment import parse, quote, render
from kombu.utils.url import parse_url

NASTY = "a@/%:#'$HOME\\ \"`{}é;&|b"


# --- RabbitMQ
def test_password_hash_is_rabbitmqs_own_form() -> None:
    raw = base64.b64decode(_rabbitmq.password_hash(NASTY, "seed"))
    assert raw[4:] == hashlib.sha256(raw[:4] + NASTY.encode()).digest()
    assert _rabbitmq.password_hash(NASTY, "seed") == _rabbitmq.password_hash(NASTY, "seed")
    assert _rabbitmq.password_hash(NASTY, "other") != _rabbitmq.password_hash(NASTY, "seed")


def definitions(password: str = "one", **vhost: str) -> dict:
    users = [{"name": "airflow", "password": password, "vhost": "airflow"}]
    return _rabbitmq.definitions(users, [{"name": "airflow", **vhost}], [], "seed")


def test_no_difference_to_what_3_10_and_4_0_export() -> None:
    wanted = definitions()
    v3 = {**wanted, "vhosts": [{"name": "airflow", "metadata": {"default_queue_type": "quorum"}}]}
    v3["rabbit_version"] = "3.10.8"
    v4 = {**wanted, "vhosts": [{"name": "airflow", "default_queue_type": "quorum", "metadata": {"description": ""}}]}
    v4["permissions"] = [{**wanted["permissions"][0]}]
    assert _rabbitmq.differences(wanted, v3) == []
    assert _rabbitmq.differences(wanted, v4) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"users": []}, "users: airflow is missing"),
        ({"vhosts": []}, "vhosts: airflow is missing"),
        ({"permissions": []}, "permissions: airflow@airflow is missing"),
        (definitions(password="two"), "users: airflow differs in password_hash"),
        (definitions(default_queue_type="classic"), "vhosts: airflow differs in default_queue_type"),
    ],
)
def test_differences_are_named_without_values(change: dict, told: str) -> None:
    assert _rabbitmq.differences(definitions(), {**definitions(), **change}) == [told]


def test_strays_are_the_users_nobody_listed() -> None:
    assert _rabbitmq.strays(definitions(), {"users": [{"name": "guest"}, {"name": "airflow"}]}) == ["guest"]


# --- Environment files
@pytest.mark.parametrize("value", [NASTY, "", " leading and trailing ", "'", '"', "\\", "$(id)", "%n %%"])
def test_environment_values_survive_our_parser_and_sh(value: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    text = render({"VALUE": value})
    assert parse(text) == {"VALUE": value}
    path = tmp_path / "file.env"
    path.write_text(text)
    shell = subprocess.run(["sh", "-c", f'. {path}; printf %s "$VALUE"'], capture_output=True, text=True, check=True)
    assert shell.stdout == value


def test_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        quote("a\nb")


def test_hand_written_lines_are_read() -> None:
    assert parse("# comment\nA=1\n B='x y'\n\nC=\n") == {"A": "1", "B": "x y", "C": ""}


# --- URLs
def test_every_part_of_a_url_survives_kombu() -> None:
    parts = {"host": "mq1", "port": 5672, "user": NASTY, "password": NASTY, "path": "a/b"}
    parsed = parse_url(service_url(parts, "amqp"))
    assert (parsed["userid"], parsed["password"], parsed["virtual_host"]) == (NASTY, NASTY, "a/b")
    assert (parsed["hostname"], parsed["port"]) == ("mq1", 5672)


def test_a_url_holds_nothing_that_airflow_or_a_shell_expands() -> None:
    url = service_url({"host": "db1", "user": "u", "password": NASTY, "path": "d"}, "postgresql+psycopg")
    assert not set("$`'\"\\ ") & set(url)
    assert unquote(urlsplit(url).password or "") == NASTY


def test_ipv6_and_query() -> None:
    parts = {"host": "2001:db8::1", "port": 5432, "path": "d", "query": {"sslmode": "verify-full"}}
    url = service_url(parts, "postgresql")
    assert url == "postgresql://[2001:db8::1]:5432/d?sslmode=verify-full"


def test_a_missing_part_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match="lacks its host"):
        service_url({"host": "", "path": "d"}, "amqp")


# --- Unit files
def test_units_are_read_back_by_a_parser_and_settings_win() -> None:
    service = {"ExecStart": "/bin/a", "KillMode": "mixed", "Nice": None}
    units = {"a.service": {"Unit": {"Description": "A"}, "Service": service}}
    entry = systemd_units(units, {"a": {"KillMode": "process", "PrivateTmp": True}})[0]
    assert entry["path"] == "/etc/systemd/system/a.service"
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(entry["content"])
    assert dict(parser["Service"]) == {"ExecStart": "/bin/a", "KillMode": "process", "PrivateTmp": "yes"}


def test_a_list_gives_a_line_each() -> None:
    text = systemd_units({"a.service": {"Service": {"EnvironmentFile": ["/x", "/y"]}}})[0]["content"]
    assert "EnvironmentFile=/x\nEnvironmentFile=/y\n" in text


# --- pg_hba.conf
@pytest.mark.parametrize(("client", "address"), [("192.0.2.7", "192.0.2.7/32"), ("2001:db8::1", "2001:db8::1/128")])
def test_one_host_is_one_address(client: str, address: str) -> None:
    rule = hba_rule([{"name": "d", "user": "u"}, client])
    assert (rule["address"], rule["method"], rule["contype"]) == (address, "scram-sha-256", "host")


def test_a_name_is_no_address() -> None:
    with pytest.raises(AnsibleFilterError, match="database d"):
        hba_rule([{"name": "d", "user": "u"}, "worker1"])


# --- Schema
FIRST = 'revision = "aaa"\ndown_revision = None\n'
SECOND = "revision: str = 'bbb'\ndown_revision: str | None = 'aaa'\n"


def test_the_head_is_what_nothing_comes_after() -> None:
    assert _schema.head(_schema.links([SECOND, FIRST, "no migration"])) == "bbb"
    with pytest.raises(ValueError, match="several ends"):
        _schema.head({"b": "a", "c": "a", "a": None})


@pytest.mark.parametrize(
    ("current", "behind", "unknown"),
    [
        ({"t": "bbb"}, [], []),
        ({}, ["t: empty -> bbb"], []),
        ({"t": "aaa"}, ["t: aaa -> bbb"], []),
        ({"t": "zzz"}, [], ["t is at zzz"]),
    ],
)
def test_compare_revisions(current: dict, behind: list[str], unknown: list[str]) -> None:
    assert _schema.compare({"t": {"aaa": None, "bbb": "aaa"}}, current) == (behind, unknown)


# --- Release
def test_addresses_of_packages_are_never_in_argv() -> None:
    secret = "https://user:secret@index.example/simple"
    environment = _release.installer_environment(_release.Source(index_url=secret, ca_file="/ca.pem", offline=True))
    assert environment["UV_DEFAULT_INDEX"] == environment["PIP_INDEX_URL"] == secret
    assert environment["SSL_CERT_FILE"] == "/ca.pem"
    assert environment["UV_NO_INDEX"] == "1"
    for lock in ("a==1 --hash=sha256:0", "a==1"):
        assert secret not in " ".join(_release.install_command("uv", "python", lock, "lock.txt", ""))


def test_a_hashed_lock_is_synced_and_a_plain_one_resolved_within_constraints() -> None:
    assert "--require-hashes" in _release.install_command("uv", "py", "a==1 --hash=sha256:0", "f", "")
    assert _release.install_command("uv", "py", "a", "f", "c.txt")[-2:] == ["--constraints", "c.txt"]
