# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Airflow's settings as executor_check reads them: on invented files, and against the parser of a real release."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _settings as settings
from ansible_collections.onprem.airflow.plugins.module_utils._problems import CODES, Problem
from test_locks import PYTHONS, installed, interpreter

HOME = "/var/lib/airflow"
SENSITIVE = settings.Option(sensitive=True)
KNOWN = settings.Known(
    {
        "core.executor": settings.Option("LocalExecutor"),
        "core.dags_folder": settings.Option("{AIRFLOW_HOME}/dags"),
        "core.parallelism": settings.Option("32", "integer"),
        "core.load_examples": settings.Option("True", "boolean"),
        "core.default_timezone": settings.Option("utc"),
        "core.execution_api_server_url": settings.Option(),
        "core.fernet_key": settings.Option("{FERNET_KEY}", sensitive=True),
        "database.sql_alchemy_conn": settings.Option("sqlite:///{AIRFLOW_HOME}/airflow.db", sensitive=True),
        "api.base_url": settings.Option(),
        "api.secret_key": settings.Option("{SECRET_KEY}", sensitive=True),
        "api_auth.jwt_secret": settings.Option("{JWT_SECRET_KEY}", sensitive=True),
        "celery.broker_url": settings.Option("redis://redis:6379/0", sensitive=True),
        "celery.result_backend": SENSITIVE,
        "celery.extra_celery_config": settings.Option("{{}}"),
        "celery.operation_timeout": settings.Option("1.0", "float"),
        "celery.worker_autoscale": settings.Option(None, "integer"),
        "celery.ssl_active": settings.Option("False", "boolean"),
        "common.io.xcom_objectstorage_path": settings.Option(""),
        "dag_processor.dag_bundle_config_list": settings.Option(
            '[{{"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",'
            ' "kwargs": {{}}}}]'
        ),
        "logging.log_filename_template": settings.Option("{%% if x %%}{{ ti }}", is_template=True),
        "secrets.backend_kwargs": settings.Option("", sensitive=True),
    },
    {"database.sql_alchemy_conn": "core.sql_alchemy_conn", "api.base_url": "webserver.base_url"},
)
# What a worker and a master need.
GOOD = {
    "AIRFLOW_HOME": HOME,
    "AIRFLOW_CONFIG": "/etc/airflow/airflow.cfg",
    "AIRFLOW__CELERY__BROKER_URL": "amqp://airflow:s%2Fcret@mq1:5672/airflow",
    "AIRFLOW__CELERY__RESULT_BACKEND": "db+postgresql+psycopg://results:pw@db1:5432/results",
    "AIRFLOW__API__SECRET_KEY": "k" * 40,
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg://airflow:pw@db1:5432/airflow",
    "AIRFLOW__CORE__FERNET_KEY": "A" * 43 + "=",
    "AIRFLOW__API_AUTH__JWT_SECRET": "j" * 64,
}
CFG = """[core]
executor = CeleryExecutor
execution_api_server_url = http://master1:8080/execution/
"""


def sources(text: str | None = CFG, environment: dict[str, str] | None = None) -> settings.Sources:
    environment = GOOD if environment is None else environment
    config = settings.parse_config("/etc/airflow/airflow.cfg", text)
    return settings.Sources(config, environment, dict.fromkeys(environment, "/etc/airflow/airflow.env"), HOME)


def no_command(argv: list[str]) -> str:
    raise AssertionError(f"{argv} was run")


def effective(
    text: str = "", environment: dict[str, str] | None = None, run: Callable[[list[str]], str] = no_command
) -> settings.Effective:
    return settings.effective(KNOWN, sources(text, environment or {}), run)


def problems(
    text: str | None = CFG,
    environment: dict[str, str] | None = None,
    kinds: tuple[str, ...] = settings.BOTH,
    run: Callable[[list[str]], str] = no_command,
    **more: Any,
) -> list[Problem]:
    given = sources(text, environment)
    found = settings.problems("h1", KNOWN, given, settings.effective(KNOWN, given, run), kinds, **more)
    for problem in found:
        assert problem.code in CODES and problem.host == "h1" and problem.subject, problem
        assert problem.what and problem.fix.endswith("."), problem
    return found


def only(found: list[Problem], code: str) -> Problem:
    assert [problem.code for problem in found] == [code], found
    return found[0]


# --- effective


def test_a_setting_is_looked_for_where_airflow_looks_and_in_its_order() -> None:
    name = "celery.broker_url"
    environment = {
        "AIRFLOW__CELERY__BROKER_URL": "of the environment",
        "AIRFLOW__CELERY__BROKER_URL_CMD": "say 'the command'",
        "AIRFLOW__CELERY__BROKER_URL_SECRET": "path",
    }
    lines = ["broker_url = of the file", "broker_url_cmd = say file", "broker_url_secret = path"]
    said = []

    def run(argv: list[str]) -> str:
        said.append(argv)
        return f"said {argv[-1]}"

    seen = []
    for variables, count in [(3, 3), (2, 3), (1, 3), (0, 3), (0, 2), (0, 1), (0, 0)]:
        left = dict(list(environment.items())[3 - variables :])
        text = "\n".join(["[celery]", *lines[3 - count :]])
        found = effective(text, left, run)[name]
        seen.append((found.source, found.value))
    assert seen == [
        ("environment", "of the environment"),
        ("command", "said the command"),
        ("secret", None),
        ("file", "of the file"),
        ("command", "said file"),
        ("secret", None),
        ("default", "redis://redis:6379/0"),
    ]
    assert said == [["say", "the command"], ["say", "file"]]


def test_only_a_sensitive_setting_has_a_command() -> None:
    found = effective("[core]\nparallelism_cmd = x", {"AIRFLOW__CORE__EXECUTOR_CMD": "x"})
    assert found["core.executor"].source == found["core.parallelism"].source == "default"


def test_a_command_that_says_nothing_counts_in_the_environment_but_not_in_the_file() -> None:
    def run(argv: list[str]) -> str:
        return ""

    assert effective("", {"AIRFLOW__API__SECRET_KEY_CMD": "true"}, run)["api.secret_key"].source == "command"
    assert effective("[api]\nsecret_key_cmd = true", {}, run)["api.secret_key"].source == "default"


def test_defaults_are_filled_in() -> None:
    found = effective("", {"AIRFLOW_HOME": "/srv/airflow"})
    assert found["core.dags_folder"].value == "/srv/airflow/dags"
    assert found["celery.extra_celery_config"].value == "{}"
    assert found["logging.log_filename_template"].value == "{% if x %}{{ ti }}"
    assert found["core.fernet_key"].value == found["api.secret_key"].value == ""
    assert "celery.result_backend" not in found
    assert effective()["core.dags_folder"].value == f"{HOME}/airflow/dags"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("$HOME/dags", f"{HOME}/dags"),
        ("~/dags", f"{HOME}/dags"),
        ("~", HOME),
        ("x~", "x~"),
        ("${A}b", "1b"),
        ("$Ab", "$Ab"),
        ("$B", "1"),
        ("$C", "$C"),
        ("~nobody-of-that-name/x", "~nobody-of-that-name/x"),
        ("a$", "a$"),
    ],
)
def test_expansion(written: str, read: str) -> None:
    assert settings.expand(written, {"A": "1", "B": "${A}", "C": "$C"}, HOME) == read


def test_a_percent_is_doubled_in_the_file_alone() -> None:
    found = effective("[core]\nexecutor = a%%b\ndefault_timezone = a%b", {"AIRFLOW__CORE__DAGS_FOLDER": "a%%b"})
    assert found["core.executor"].value == "a%b"
    assert found["core.default_timezone"].value is None and found["core.default_timezone"].error
    assert found["core.dags_folder"].value == "a%%b"


def test_an_older_name_is_read_too_and_the_place_is_told() -> None:
    found = effective("# comment\n[webserver]\nBase_URL: http://a\n", {"AIRFLOW__CORE__SQL_ALCHEMY_CONN_CMD": "x"}, str)
    assert found["api.base_url"].value == "http://a"
    assert found["api.base_url"].where == "[webserver] base_url in /etc/airflow/airflow.cfg, line 3"
    where = "AIRFLOW__CORE__SQL_ALCHEMY_CONN_CMD in /etc/airflow/airflow.env"
    assert found["database.sql_alchemy_conn"] == settings.Found("['x']", "command", where)


def test_free_sections_and_sections_with_a_dot() -> None:
    environment = {
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__CONFIRM_PUBLISH": "True",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": "/x",
    }
    found = effective("[celery_broker_transport_options]\nheartbeat = 3", environment)
    assert found["celery_broker_transport_options.confirm_publish"].value == "True"
    assert found["celery_broker_transport_options.heartbeat"].value == "3"
    assert found["common.io.xcom_objectstorage_path"].value == "/x"


# --- problems


def test_a_good_host_has_no_problem() -> None:
    harmless = {
        **GOOD,
        "AIRFLOW_CONN_MY_DB": "postgres://x",
        "AIRFLOW_VAR_CORE_EXECUTOR": "x",
        "AIRFLOW__SECRETS__BACKEND_KWARG__ROLE_ID": "x",
        "AIRFLOW__TEAM_A___CELERY__BROKER_URL": "amqp://x",
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__ANYTHING": "1",
        "AIRFLOW__WEBSERVER__BASE_URL": "http://a",
        "PATH": "/bin",
    }
    text = CFG + "dags_folder = $AIRFLOW_HOME/dags\n[team_a=celery]\noperation_timeout = 3\n[sentry]\nanything = 1\n"
    assert problems(text, harmless) == []
    assert problems(CFG, GOOD, (settings.WORKER,)) == []


@pytest.mark.parametrize(
    ("text", "code", "what"),
    [
        ("[api]\njwt_secret = hidden", "key_unknown", "did you mean [api_auth] jwt_secret?"),
        ("[api]\nbase_ulr = hidden", "key_unknown", "did you mean [api] base_url?"),
        ("[core]\nexecutor_cmd = hidden", "key_unknown", "[core] executor has no _cmd form"),
        ("[api]\nwholly_else = hidden", "key_unknown", "[api] wholly_else in /etc/airflow/airflow.cfg, line 2"),
        ("[celrey]\nx = hidden", "section_unknown", "did you mean [celery]?"),
        ("[Celery]\nx = hidden", "section_unknown", "did you mean [celery]?"),
        ("[authentication]\njwt_secret = hidden", "section_unknown", "did you mean [api_auth] jwt_secret?"),
        ("[empty]", "section_unknown", "[empty] in /etc/airflow/airflow.cfg, line 1"),
        ("[core]\nparallelism = many", "value_misread", "'many' is not a whole number"),
        ("[core]\nparallelism = 3.5", "value_misread", "'3.5' is not a whole number"),
        ("[core]\nparallelism = 3  # of them", "value_misread", "is not a whole number"),
        ("[core]\nparallelism =", "value_misread", "'' is not a whole number"),
        ("[core]\nload_examples = yes", "value_misread", "'yes' is not one of True, False"),
        ("[celery]\noperation_timeout = 1,5", "value_misread", "'1,5' is not a number"),
        ("[celery]\nextra_celery_config = {'a': 'hidden'}", "value_misread", "it is not JSON"),
        ("[core]\ndefault_timezone = 'utc'", "value_misread", "its quotes are a part of the value"),
        ("[core]\ndefault_timezone = 50%", "value_misread", "a % in it is not doubled"),
    ],
)
def test_a_wrong_line_of_the_file(text: str, code: str, what: str) -> None:
    environment = {**GOOD, "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "AIRFLOW__API__BASE_URL": "http://m"}
    problem = only(problems(text, environment), code)
    assert what in problem.what and "line" in problem.what
    assert "hidden" not in problem.what + problem.fix
    assert "airflow_config" in problem.fix and "onprem.airflow.site" in problem.fix


@pytest.mark.parametrize("value", ["3", "3.0", " 3 ", "-1"])
def test_a_whole_number(value: str) -> None:
    assert problems(CFG, {**GOOD, "AIRFLOW__CORE__PARALLELISM": value}) == []


@pytest.mark.parametrize("line", ["load_examples = F # none", "load_examples = TRUE", "load_examples = 0"])
def test_a_boolean(line: str) -> None:
    assert problems(CFG + line) == []


def test_an_option_without_a_default_may_be_empty() -> None:
    assert problems(CFG + "[celery]\nworker_autoscale =\n") == []


@pytest.mark.parametrize(
    ("variable", "code", "what"),
    [
        ("AIRFLOW__API__JWT_SECRET", "key_unknown", "did you mean AIRFLOW__API_AUTH__JWT_SECRET?"),
        ("AIRFLOW__CORE__EXECUTOR_SECRET", "key_unknown", "has no _secret form"),
        ("AIRFLOW__CELREY__BROKER_URL", "section_unknown", "did you mean AIRFLOW__CELERY__BROKER_URL?"),
        ("AIRFLOW_CORE__EXECUTOR", "key_unknown", "did you mean AIRFLOW__CORE__EXECUTOR?"),
        ("AIRFLOW__CORE_EXECUTOR", "key_unknown", "did you mean AIRFLOW__CORE__EXECUTOR?"),
        ("AIRFLOW__core__executor", "key_unknown", "in capitals"),
        ("AIRFLOW__TEAM___CELERY__BROKER", "key_unknown", "did you mean AIRFLOW__CELERY__BROKER_URL?"),
    ],
)
def test_a_wrong_variable(variable: str, code: str, what: str) -> None:
    problem = only(problems(CFG, {**GOOD, variable: "hidden"}), code)
    assert what in problem.what and f"{variable} in /etc/airflow/airflow.env" in problem.what
    assert "airflow_environment" in problem.fix and "hidden" not in problem.what + problem.fix


def test_a_section_that_a_plugin_reads() -> None:
    text = CFG + "[ours]\nkey = 1\n"
    only(problems(text), "section_unknown")
    assert problems(text, {**GOOD, "AIRFLOW__OURS__KEY": "1"}, own_sections=["ours"]) == []


@pytest.mark.parametrize("key", ["${HOME}" + "x" * 40, "~/abc", "a$AIRFLOW_HOME"])
def test_an_expanded_secret(key: str) -> None:
    problem = only(problems(CFG, {**GOOD, "AIRFLOW__API__SECRET_KEY": key}), "value_expanded")
    assert problem.subject == "setting:api.secret_key"
    assert key not in problem.what + problem.fix and HOME not in problem.what + problem.fix


def test_a_secret_with_a_dollar_that_stays_one() -> None:
    assert problems(CFG, {**GOOD, "AIRFLOW__API__SECRET_KEY": "a$nothing~"}) == []


def test_a_doubled_percent_in_the_environment() -> None:
    problem = only(problems(CFG, {**GOOD, "AIRFLOW__CELERY__BROKER_URL": "amqp://u:hid%%40den@h/v"}), "value_misread")
    assert "%%" in problem.what and "hid" not in problem.what + problem.fix
    text = CFG + "[database]\nsql_alchemy_conn = postgresql://u:p%%40w@h/db\n"
    assert problems(text, {name: GOOD[name] for name in GOOD if "SQL" not in name}) == []


def test_a_command_with_a_line_break_or_none() -> None:
    environment = {**GOOD, "AIRFLOW__API__SECRET_KEY_CMD": "cat /hidden"}
    del environment["AIRFLOW__API__SECRET_KEY"]
    said = only(problems(CFG, environment, run=lambda argv: "hidden\n"), "value_misread")
    assert "line break" in said.what and "hidden" not in said.what + said.fix
    assert problems(CFG, environment, run=lambda argv: "hidden") == []

    def fails(argv: list[str]) -> str:
        raise subprocess.CalledProcessError(3, argv, "hidden")

    failed = only(problems(CFG, environment, run=fails), "value_misread")
    assert "it ended with 3" in failed.what and "hidden" not in failed.what


def test_the_fix_names_the_variable_that_the_value_comes_from() -> None:
    environment = only(problems(CFG, {**GOOD, "AIRFLOW__CORE__PARALLELISM": "x"}), "value_misread")
    assert "airflow_environment: {AIRFLOW__CORE__PARALLELISM: ...}" in environment.fix
    assert "airflow_config: {core: {parallelism: ...}}" in only(problems(CFG + "parallelism = x"), "value_misread").fix
    fernet = only(problems(CFG, {**GOOD, "AIRFLOW__CORE__FERNET_KEY": "x"}), "value_misread")
    assert "set airflow_fernet_key" in fernet.fix


def test_a_fernet_key_that_is_none() -> None:
    assert "Fernet" in only(problems(CFG, {**GOOD, "AIRFLOW__CORE__FERNET_KEY": "secret"}), "value_misread").what
    two = ",".join([GOOD["AIRFLOW__CORE__FERNET_KEY"]] * 2)
    assert problems(CFG, {**GOOD, "AIRFLOW__CORE__FERNET_KEY": two}) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("executor = x\n", "line 1 stands before any [section]"),
        ("[core]\nexecutor = a\nexecutor = b\n", "line 3 sets [core] executor a second time"),
        ("[core]\n[core]\n", "line 2 begins the section [core] a second time"),
        ("[core]\nhidden\n", "line 2 is neither"),
    ],
)
def test_a_file_that_airflow_cannot_read(text: str, why: str) -> None:
    problem = only(problems(text), "config_unreadable")
    assert why in problem.what and "hidden" not in problem.what


def test_no_file_is_one_problem() -> None:
    only(problems(None), "config_missing")


def test_a_file_that_airflow_wrote() -> None:
    options = "".join(f"# Variable: AIRFLOW__CORE__X{number}\n#\n" for number in range(60))
    text = CFG + f"fernet_key = {GOOD['AIRFLOW__CORE__FERNET_KEY']}\n" + options
    problem = only(problems(text), "config_generated")
    assert "core.fernet_key" in problem.what and GOOD["AIRFLOW__CORE__FERNET_KEY"] not in problem.what
    assert "api_auth.jwt_secret" not in problem.what
    only(problems(CFG + "# of ours\n" * 5001), "config_generated")


@pytest.mark.parametrize(
    ("executor", "good"),
    [
        ("CeleryExecutor", True),
        ("airflow.providers.celery.executors.celery_executor.CeleryExecutor", True),
        ("CeleryExecutor,LocalExecutor", True),
        ("LocalExecutor", False),
        ("CeleryExecutor ; since 3", False),
        ("CeleryKubernetesExecutor", False),
    ],
)
def test_executor(executor: str, good: bool) -> None:
    text = CFG.replace("CeleryExecutor", executor)
    if executor == "CeleryExecutor ; since 3":
        text = text.replace(" ;", "")
    assert [problem.code for problem in problems(text)] == ([] if good else ["executor_wrong"])


def test_the_default_executor_is_wrong() -> None:
    assert "LocalExecutor" in only(problems(CFG.replace("executor = CeleryExecutor", "")), "executor_wrong").what


@pytest.mark.parametrize(
    ("variable", "kinds"),
    [
        ("AIRFLOW__CELERY__BROKER_URL", {"master", "worker"}),
        ("AIRFLOW__CELERY__RESULT_BACKEND", {"worker"}),
        ("AIRFLOW__API__SECRET_KEY", {"master", "worker"}),
        ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", {"master"}),
        ("AIRFLOW__CORE__FERNET_KEY", {"master"}),
        ("AIRFLOW__API_AUTH__JWT_SECRET", {"master"}),
    ],
)
def test_what_a_kind_of_host_needs(variable: str, kinds: set[str]) -> None:
    without = {name: value for name, value in GOOD.items() if name != variable}
    for value in (None, "", "redis://redis:6379/0", "sqlite:////tmp/x.db"):
        if value and "URL" not in variable and "CONN" not in variable:
            continue
        environment = without if value is None else {**without, variable: value}
        missing = {kind for kind in settings.BOTH if problems(CFG, environment, (kind,))}
        assert missing == kinds, value
    both = only(problems(CFG, without), "setting_missing")
    assert settings.variable_name(both.subject.removeprefix("setting:")) == variable


def test_a_secret_of_a_backend_is_not_missing() -> None:
    environment = {name: value for name, value in GOOD.items() if "FERNET" not in name}
    assert problems(CFG, {**environment, "AIRFLOW__CORE__FERNET_KEY_SECRET": "path"}) == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]", "0.0.0.0"])
def test_a_worker_that_asks_itself(host: str) -> None:
    text = CFG.replace("master1", host)
    assert host in only(problems(text, kinds=(settings.WORKER,)), "api_url_localhost").what
    assert problems(text, kinds=settings.BOTH) == []
    assert problems(text, kinds=(settings.MASTER,)) == []


def test_a_worker_without_an_address_of_the_api() -> None:
    text = "[core]\nexecutor = CeleryExecutor\n"
    problem = only(problems(text, kinds=(settings.WORKER,)), "setting_missing")
    assert problem.subject == "setting:core.execution_api_server_url" and "airflow_api_url" in problem.fix
    only(problems(text + "[api]\nbase_url = http://localhost:8080", kinds=(settings.WORKER,)), "api_url_localhost")


def test_files_that_everyone_can_read() -> None:
    modes = [("/etc/airflow/a.env", 0o100644), ("/etc/airflow/b.env", 0o100640), ("/etc/airflow/c.env", 0o100600)]
    problem = only(problems(modes=modes), "file_world_readable")
    assert problem.subject == "file:/etc/airflow/a.env" and "0644" in problem.what


def test_no_problem_tells_a_secret() -> None:
    secret = "$HOME%%hidden'"
    environment = {
        name: value if "AIRFLOW__" not in name else f"x://u:{secret}@localhost" for name, value in GOOD.items()
    }
    environment["AIRFLOW__API__JWT_SECRET"] = "hidden"
    environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = "http://u:hidden@localhost/execution/"
    found = problems(CFG, environment, (settings.WORKER,))
    assert {"key_unknown", "value_expanded", "value_misread", "api_url_localhost"} <= {each.code for each in found}
    assert "hidden" not in json.dumps([problem.as_dict() for problem in found])


# --- what other hosts are compared with


def test_fingerprints_say_whether_secrets_are_the_same() -> None:
    mine = settings.fingerprints(effective(CFG, GOOD), "nonce")
    assert set(mine) == {*settings.SECRETS, *settings.SECRET_URLS}
    assert all(len(value) == 16 for value in mine.values())
    assert mine["celery.broker_url"] == settings.fingerprint("nonce", "s/cret")
    assert mine["database.sql_alchemy_conn"] == mine["celery.result_backend"] == settings.fingerprint("nonce", "pw")
    other = {**GOOD, "AIRFLOW__CELERY__BROKER_URL": "amqp://other:s%2fcret@mq9/", "AIRFLOW__API__SECRET_KEY": "k"}
    theirs = settings.fingerprints(effective(CFG, other), "nonce")
    assert {name for name in mine if mine[name] != theirs[name]} == {"api.secret_key"}
    assert settings.fingerprints(effective(CFG, GOOD), "another")["api.secret_key"] != mine["api.secret_key"]
    assert settings.fingerprints(effective(), "nonce") == {}


def test_what_is_shown_holds_no_secret_and_does_not_depend_on_writing() -> None:
    options = '{"b": {"password": "hidden"}, "a": [1, "redis://:hidden@r"]}'
    one = effective(CFG, {**GOOD, "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": options})
    values = settings.shown(one, settings.BOTH)
    assert set(values) <= set(settings.MUST_MATCH)
    assert values["celery.broker_url"] == "amqp://airflow:***@mq1:5672/airflow"
    assert values["celery.extra_celery_config"] == '{"a": [1, "redis://:***@r"], "b": {"password": "***"}}'
    assert values["core.execution_api_server_url"] == "http://master1:8080/execution/"
    assert "hidden" not in str(values) and "s%2Fcret" not in str(values)
    worker = settings.shown(one, (settings.WORKER,))
    assert "database.sql_alchemy_conn" in values and "database.sql_alchemy_conn" not in worker
    assert "core.executor" in worker


def test_without_a_result_backend_it_is_the_metadata_database() -> None:
    environment = {name: value for name, value in GOOD.items() if "RESULT" not in name}
    assert (
        settings.results_backend(effective(CFG, environment)) == "db+postgresql+psycopg://airflow:pw@db1:5432/airflow"
    )
    assert settings.results_backend(effective(CFG, {})) == ""


# --- addresses


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("amqp://u:p@h:5672/v", "amqp://u:***@h:5672/v"),
        ("amqp://u:p@h1//;amqp://u:q@h2//", "amqp://u:***@h1//;amqp://u:***@h2//"),
        ("amqp://u:p;q@h/v", "amqp://u:***@h/v"),
        ("amqp://u:p@/q@h/v", "amqp://u:***@h/v"),
        ("redis://:p@h", "redis://:***@h"),
        (
            "postgresql://h/db?user=a&password=b&sslmode=require",
            "postgresql://h/db?user=a&password=***&sslmode=require",
        ),
        ("http://master1:8080/execution/", "http://master1:8080/execution/"),
        ("amqp://h1:5672;amqp://h2:5672", "amqp://h1:5672;amqp://h2:5672"),
        ("", ""),
    ],
)
def test_masked(url: str, hidden: str) -> None:
    assert settings.masked(url) == hidden


def test_broker_tls() -> None:
    names = "ssl_active ssl_cacert ssl_cert ssl_key ssl_mutual_tls".split()
    known = settings.Known({f"celery.{name}": settings.Option() for name in names})

    def tls(text: str) -> settings.BrokerTls:
        given = sources("[celery]\nssl_cacert = /ca\nssl_cert = /c\nssl_key = /k\n" + text, {})
        return settings.broker_tls(settings.effective(known, given, no_command))

    assert tls("") == settings.BrokerTls(False, "", "", "")
    assert tls("ssl_active = True") == settings.BrokerTls(True, "/ca", "/c", "/k")
    assert tls("ssl_active = True\nssl_mutual_tls = False") == settings.BrokerTls(True, "/ca", "", "")


@pytest.mark.parametrize(
    ("backend", "libpq"),
    [
        ("db+postgresql+psycopg://u:p@h:5432/d", "postgresql://u:p@h:5432/d"),
        ("db+postgresql://h/d?sslmode=require", "postgresql://h/d?sslmode=require"),
        ("postgres+psycopg2://h/d", "postgresql://h/d"),
        ("redis://h/0", ""),
        ("", ""),
    ],
)
def test_results_url(backend: str, libpq: str) -> None:
    assert settings.results_url(backend) == libpq


@pytest.mark.parametrize(
    ("text", "url", "version"),
    [
        ("", "http://localhost:8080/execution/", "http://localhost:8080/api/v2/version"),
        (
            "[api]\nbase_url = /team",
            "http://localhost:8080/team/execution/",
            "http://localhost:8080/team/api/v2/version",
        ),
        ("[api]\nbase_url = https://a/b/", "https://a/b/execution/", "https://a/b/api/v2/version"),
        (
            "[api]\nbase_url = https://a\n[core]\nexecution_api_server_url = http://m/execution",
            "http://m/execution",
            "http://m/api/v2/version",
        ),
    ],
)
def test_addresses_of_the_api(text: str, url: str, version: str) -> None:
    assert settings.execution_api_url(effective(text)) == url
    assert settings.api_version_url(url) == version


def test_bundles() -> None:
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    assert settings.bundles(effective("[core]\ndags_folder = /dags")) == [
        {"name": "dags-folder", "classpath": local, "path": "/dags"}
    ]
    given = [
        {"name": "own", "classpath": local, "kwargs": {"path": "/own"}},
        {"name": "git", "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": {"path": "/x"}},
    ]
    found = effective("", {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(given)})
    assert [(bundle["name"], bundle["path"]) for bundle in settings.bundles(found)] == [("own", "/own"), ("git", None)]
    assert settings.bundles(effective("", {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": "{"})) == []


def test_celery_options() -> None:
    assert settings.celery_options(effective('[celery]\nextra_celery_config = {"a": 1}')) == {"a": 1}
    assert settings.celery_options(effective("[celery]\nextra_celery_config = [1]")) == {}
    assert settings.celery_options(effective("[celery]\nextra_celery_config = {")) == {}


# --- files


def test_sources_of_a_host(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text('A="1"\nB="1"\n')
    (tmp_path / "b.env").write_text("B=2\n")
    files = [str(tmp_path / name) for name in ("a.env", "b.env", "none.env")]
    given = settings.read_sources(str(tmp_path / "airflow.cfg"), files, "airflow", HOME)
    assert given.config.text is None
    assert (given.environment["A"], given.environment["B"], given.environment["HOME"]) == ("1", "2", HOME)
    assert given.variable("B") == f"B in {files[1]}"
    (tmp_path / "a.env").chmod(0o604)
    assert [mode & 0o777 for _path, mode in settings.file_modes([files[0], files[2]])] == [0o604]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_command_runs_as_the_user_with_the_services_environment() -> None:
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    run = settings.commands_as("nobody", group, {"PATH": os.environ["PATH"], "A": "value"})
    assert run(["sh", "-c", "id -un; echo $A"]) == "nobody\nvalue\n"
    with pytest.raises(subprocess.CalledProcessError):
        run(["false"])


# --- a real release


@pytest.fixture(scope="module")
def release() -> tuple[Path, settings.Known]:
    """The interpreter of a release, and the options that its files describe."""
    python = installed(next(filter(interpreter, PYTHONS)))
    package = next(python.parents[1].glob("lib/python*/site-packages/airflow"))
    return python, settings.release_options(str(package))


REAL_CFG = """
[core]
executor = CeleryExecutor
hostname_callable = 50% of it
default_timezone = $ZONE
sql_alchemy_conn = postgresql://u:p%%40$PART@h/db
[logging]
simple_log_format = %%(message)s ~
[api]
secret_key_cmd = printf 'a key\\n'
[celery]
result_backend_cmd = true
[webserver]
workers = 7
"""
REAL_ENVIRONMENT = {
    "ZONE": "${OTHER}",
    "OTHER": "utc",
    "PART": "x",
    "AIRFLOW__CELERY__BROKER_URL_CMD": "printf 'amqp://u:p@h/v'",
    "AIRFLOW__API_AUTH__JWT_SECRET": "~/a$PART",
    "AIRFLOW__CORE__FERNET_KEY": "",
    "AIRFLOW__CORE__PARALLELISM_CMD": "echo 3",
    "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": "a%%b",
    "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "192.0.2.1",
}


@pytest.mark.network
def test_every_option_is_what_airflow_itself_finds(release: tuple[Path, settings.Known], tmp_path: Path) -> None:
    python, known = release
    (tmp_path / "airflow.cfg").write_text(REAL_CFG)
    home = {"HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path)}
    environment = {**REAL_ENVIRONMENT, **home, "PATH": os.environ["PATH"]}
    code = """
import json, sys
from airflow.configuration import conf
found = {}
for name in json.load(sys.stdin):
    try:
        found[name] = conf.get(*name.rsplit(".", 1))
    except Exception:
        found[name] = None
json.dump(found, open(sys.argv[1], "w"))
"""
    answer = tmp_path / "answer.json"
    ran = subprocess.run(
        [str(python), "-W", "ignore", "-c", code, str(answer)],
        input=json.dumps(list(known.options)),
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    given = settings.Sources(
        settings.parse_config(str(tmp_path / "airflow.cfg"), REAL_CFG), environment, {}, str(tmp_path)
    )

    def run(argv: list[str]) -> str:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    found = settings.effective(known, given, run)
    theirs = json.loads(answer.read_text())
    assert len(theirs) > 400
    mine = {name: found[name].value if name in found else None for name in known.options}
    assert {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]} == {}


@pytest.mark.network
def test_a_release_is_read_in_little_time_and_knows_what_it_writes(
    release: tuple[Path, settings.Known], tmp_path: Path
) -> None:
    python, known = release
    package = str(next(python.parents[1].glob("lib/python*/site-packages/airflow")))
    start = time.process_time()
    assert settings.release_options(package) == known
    assert time.process_time() - start < 0.4
    assert {"core.executor", "celery.broker_url", "fab.session_backend", "elasticsearch.host"} <= set(known.options)
    assert known.sensitive("celery.broker_url") and not known.sensitive("core.executor")
    assert known.deprecated["api.secret_key"] == "webserver.secret_key"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path)}
    code = "import airflow.configuration as c; c.write_default_airflow_configuration_if_needed()"
    subprocess.run([str(python), "-W", "ignore", "-c", code], env=environment, check=True, timeout=120, cwd=tmp_path)
    given = settings.read_sources(str(tmp_path / "airflow.cfg"), [], "airflow", str(tmp_path))
    found = settings.problems("h1", known, given, settings.effective(known, given, no_command), (settings.WORKER,))
    # Airflow finds nothing to blame in the names and values that it wrote.
    assert {problem.code for problem in found} == {"config_generated", "executor_wrong", "setting_missing"}
