# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: Airflow's configuration as Airflow itself finds it, and what is wrong with it.

An option is named C(section.key) everywhere. Nothing here imports Airflow. Pure, but for the functions at the end.
"""

from __future__ import annotations

import ast
import base64
import configparser
import contextlib
import difflib
import glob
import hashlib
import hmac
import json
import os
import re
import shlex
import stat
import subprocess
import typing as t
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ansible_collections.onprem.airflow.plugins.module_utils._environment import parse
from ansible_collections.onprem.airflow.plugins.module_utils._metadata import libpq_url
from ansible_collections.onprem.airflow.plugins.module_utils._problems import Problem

MASTER = "master"
WORKER = "worker"
BOTH = (MASTER, WORKER)

# The settings that must be the same on all hosts of these kinds.
MUST_MATCH: dict[str, tuple[str, ...]] = {
    "core.executor": BOTH,
    "core.default_timezone": BOTH,
    "core.dags_folder": BOTH,
    "core.hostname_callable": BOTH,
    "core.parallelism": (MASTER,),
    "core.auth_manager": (MASTER,),
    "core.execution_api_server_url": (WORKER,),
    "database.sql_alchemy_conn": (MASTER,),
    "api.base_url": (MASTER,),
    "api_auth.jwt_algorithm": (MASTER,),
    "api_auth.jwt_issuer": (MASTER,),
    "execution_api.jwt_audience": (MASTER,),
    "operators.default_queue": BOTH,
    "celery.broker_url": BOTH,
    "celery.result_backend": BOTH,
    "celery.celery_app_name": BOTH,
    "celery.celery_config_options": BOTH,
    "celery.extra_celery_config": BOTH,
    "celery.ssl_active": BOTH,
    "celery.ssl_mutual_tls": BOTH,
    "dag_processor.dag_bundle_config_list": BOTH,
    "logging.base_log_folder": BOTH,
    "logging.log_filename_template": BOTH,
    "logging.worker_log_server_port": BOTH,
    "logging.trigger_log_server_port": (MASTER,),
}

# Secret as a whole, and addresses that hold a password.
SECRETS = ("api.secret_key", "core.fernet_key", "api_auth.jwt_secret")
SECRET_URLS = ("celery.broker_url", "celery.result_backend", "database.sql_alchemy_conn")

# Without these a host of the kind cannot do its work. Each is satisfied by any of the options.
_REQUIRED: dict[str, tuple[tuple[str, ...], ...]] = {
    MASTER: (
        ("celery.broker_url",),
        ("api.secret_key",),
        ("database.sql_alchemy_conn",),
        ("core.fernet_key",),
        ("api_auth.jwt_secret", "api_auth.jwt_private_key_path"),
    ),
    WORKER: (
        ("celery.broker_url",),
        ("celery.result_backend",),
        ("api.secret_key",),
        ("core.execution_api_server_url", "api.base_url"),
    ),
}
_WITHOUT = {
    "celery.broker_url": "no task reaches a worker",
    "celery.result_backend": "the scheduler never learns how a task ended",
    "api.secret_key": "every process makes up its own, and logs and sessions are refused",
    "database.sql_alchemy_conn": "Airflow makes an SQLite file of its own",
    "core.fernet_key": "passwords of connections are stored readably, and those of other masters cannot be read",
    "api_auth.jwt_secret": "every process makes up its own, and tasks fail with 'Invalid auth token'",
    "core.execution_api_server_url": "tasks ask for their work at http://localhost:8080/execution/",
}
# The variable of the collection that an option is made from.
_VARIABLES = {
    "celery.broker_url": "airflow_broker_host and airflow_broker_password",
    "celery.result_backend": "airflow_results_database_host and airflow_results_database_password",
    "api.secret_key": "airflow_api_secret_key",
    "database.sql_alchemy_conn": "airflow_database_host and airflow_database_password",
    "core.fernet_key": "airflow_fernet_key",
    "api_auth.jwt_secret": "airflow_jwt_secret",
    "core.execution_api_server_url": "airflow_api_url",
    "api.base_url": "airflow_base_url",
}

# Airflow gives their keys on as they are, so that every key is right.
_FREE_SECTIONS = frozenset(
    "celery_broker_transport_options celery_result_backend_transport_options elasticsearch_configs opensearch_configs "
    "kubernetes_environment_variables kubernetes_secrets sentry".split()
)
# Read by Airflow's code, but described nowhere in a release.
_UNDESCRIBED = frozenset(
    "api.jwt_audience azure_remote_logging.remote_wasb_log_container celery.broker_connection_retry_on_startup "
    "celery.task_logs_to_stdout core.airflow_home core.dbapihook_resolve_target_fields debug.sqlalchemy_stats "
    "logging.task_logs_to_stdout opensearch.write_to_os scheduler.num_stuck_in_queued_retries "
    "webserver.log_request_clock_grace".split()
)
# Described as strings, read as JSON.
_JSON = frozenset(
    "celery.extra_celery_config celery.result_backend_sqlalchemy_engine_options dag_processor.dag_bundle_config_list "
    "database.sql_alchemy_engine_args fab.custom_roles logging.remote_task_handler_kwargs sdk.coordinators "
    "sdk.queue_to_coordinator secrets.backend_kwargs workers.secrets_backend_kwargs".split()
)
# One variable per argument of a secrets backend.
_BACKEND_ARGUMENTS = ("AIRFLOW__SECRETS__BACKEND_KWARG__", "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARG__")
_LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"
_PLACEHOLDER = re.compile(r"redis://redis:6379/0$|sqlite:")
# A file that Airflow wrote names the variable of each of its more than 400 options; it has 145 kB.
_GENERATED_LINE = re.compile(r"^# Variable: AIRFLOW__", re.MULTILINE)
_GENERATED_LINES = 50
_GENERATED_SIZE = 50_000
_TEMPLATE_NAMES = ("FERNET_KEY", "JWT_SECRET_KEY", "SECRET_KEY")


# --- What Airflow knows


@dataclass(frozen=True)
class Option:
    """An option as the release describes it."""

    default: str | None = None
    type: str = "string"
    sensitive: bool = False
    is_template: bool = False


@dataclass(frozen=True)
class Known:
    """The options of a release; C(deprecated) leads from an option to the older name that it is read from too."""

    options: Mapping[str, Option]
    deprecated: Mapping[str, str] = field(default_factory=dict)

    def sections(self) -> set[str]:
        """Every section that Airflow reads something from."""
        names = (*self.options, *self.deprecated.values(), *_UNDESCRIBED)
        return {split(name)[0] for name in names} | _FREE_SECTIONS

    def knows(self, section: str, key: str) -> bool:
        """Whether Airflow reads it, under this or as an older name."""
        name = f"{section}.{key}"
        return (
            section in _FREE_SECTIONS
            or name in self.options
            or name in self.deprecated.values()
            or name in _UNDESCRIBED
        )

    def sensitive(self, name: str) -> bool:
        """Whether Airflow also looks for a command or a secret that says the value."""
        option = self.options.get(name)
        return bool(option and option.sensitive) or any(
            self.sensitive(new) for new, old in self.deprecated.items() if old == name and new != name
        )

    def suggestion(self, section: str, key: str) -> str:
        """The option that was probably meant, as C([section] key), or nothing."""
        same_key = [name for name in self.options if split(name)[1] == key]
        close = difflib.get_close_matches(section, [split(name)[0] for name in same_key], 1, 0.0)
        if close:
            return f"[{close[0]}] {key}"
        here = [split(name)[1] for name in self.options if split(name)[0] == section]
        if close := difflib.get_close_matches(key, here, 1, 0.75):
            return f"[{section}] {close[0]}"
        if close := difflib.get_close_matches(f"{section}.{key}", list(self.options), 1, 0.85):
            return "[{}] {}".format(*split(close[0]))
        return ""


def split(name: str) -> tuple[str, str]:
    """C(section.key) as its two parts; a section may itself hold a dot."""
    section, _dot, key = name.rpartition(".")
    return section, key


def _described(sections: Mapping[str, t.Any]) -> Iterator[tuple[str, Option]]:
    """The options of config.yml, or of the same structure in a provider."""
    for section, description in sections.items():
        for key, option in (description.get("options") or {}).items():
            obsolete = option.get("version_deprecated") or option.get("deprecation_reason")
            default = None if obsolete else option.get("default")
            yield (
                f"{section}.{key}",
                Option(
                    None if default is None else str(default),
                    option.get("type") or "string",
                    option.get("sensitive") is True,
                    bool(option.get("is_template")) or not isinstance(default, str),
                ),
            )


# --- What the host has


@dataclass(frozen=True)
class Config:
    """An airflow.cfg. C(error) says why Airflow cannot read it; C(text) is None when there is no such file."""

    path: str
    text: str | None
    parser: configparser.ConfigParser
    error: str = ""
    lines: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def items(self) -> Iterator[tuple[str, str, str]]:
        """Section, key and value as written, of each section but DEFAULT."""
        for section in self.parser.sections():
            for key, value in self.parser.items(section, raw=True):
                if key not in self.parser.defaults():
                    yield section, key, value

    def where(self, section: str, key: str = "") -> str:
        """A place in the file, as a person looks for it."""
        line = self.lines.get((section, key))
        return f"[{section}] {key}".rstrip() + f" in {self.path}" + (f", line {line}" if line else "")


@dataclass(frozen=True)
class Sources:
    """Where a host's services get their settings from.

    C(environment) is all that they see, C(files) the file that each variable comes from, C(home) their user's home.
    """

    config: Config
    environment: Mapping[str, str]
    files: Mapping[str, str]
    home: str

    def variable(self, name: str) -> str:
        """A variable and its place, for a person."""
        return f"{name} in {self.files.get(name, 'the environment of the services')}"


@dataclass(frozen=True)
class Found:
    """An option's value and where it comes from.

    C(value) is None when it cannot be known here: C(error) says why, unless a secrets backend has it.
    """

    value: str | None
    source: str  # environment, command, secret, file, default
    where: str = ""
    raw: str = ""
    error: str = ""


Effective = dict[str, Found]


def parse_config(path: str, text: str | None) -> Config:
    """Read an airflow.cfg by the rules of Airflow's parser."""
    parser = configparser.ConfigParser()
    if text is None:
        return Config(path, None, parser)
    error = ""
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError as exc:
        error = f"line {exc.lineno} stands before any [section]"
    except configparser.DuplicateSectionError as exc:
        error = f"line {exc.lineno} begins the section [{exc.section}] a second time"
    except configparser.DuplicateOptionError as exc:
        error = f"line {exc.lineno} sets [{exc.section}] {exc.option} a second time"
    except configparser.ParsingError as exc:
        error = "line " + ", ".join(str(line) for line, _text in exc.errors) + " is neither a section nor 'key = value'"
    if error:
        return Config(path, text, configparser.ConfigParser(), error)
    lines: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\[(.+)\]", line):
            section = header[1]
            lines.setdefault((section, ""), number)
        elif setting := re.match(r"([^\s#;=:][^=:]*?)\s*[=:]", line):
            lines.setdefault((section, setting[1].lower()), number)
    return Config(path, text, parser, "", lines)


def expand(value: str, environment: Mapping[str, str], home: str) -> str:
    """Expand variables and a leading ~ again and again, as Airflow does with each value."""
    variables = {"HOME": home, **environment}

    def variable(match: re.Match[str]) -> str:
        return variables.get(match[1].strip("{}"), match[0])

    for _round in range(20):  # Airflow itself would go on for ever with x=y$x
        expanded = re.sub(r"\$(\w+|\{[^}]*\})", variable, value, flags=re.ASCII)
        if expanded == "~" or expanded.startswith("~/"):
            expanded = (home.rstrip("/") + expanded[1:]) or "/"
        elif expanded.startswith("~"):
            expanded = os.path.expanduser(expanded)  # another user's home, from the list of users
        if expanded == value:
            break
        value = expanded
    return value


def effective(known: Known, sources: Sources, run_command: Callable[[list[str]], str]) -> Effective:
    """Each option's value as Airflow's parser finds it; options without any value are absent.

    C(run_command) is called for options that a command says. It raises OSError, ValueError or SubprocessError.
    """
    config, environment = sources.config, sources.environment

    def commanded(command: str, where: str) -> Found:
        try:
            return Found(run_command(shlex.split(command)), "command", where)
        except (OSError, ValueError, subprocess.SubprocessError) as exc:
            # The message itself could hold what the command said.
            status = getattr(exc, "returncode", None)
            reason = f"it ended with {status}" if status is not None else type(exc).__name__
            return Found(None, "command", where, error=f"the command fails: {reason}")

    def from_environment(name: str) -> Found | None:
        variable = variable_name(name)
        if variable in environment:
            raw = environment[variable]
            return Found(expand(raw, environment, sources.home), "environment", sources.variable(variable), raw)
        if known.sensitive(name) and f"{variable}_CMD" in environment:
            return commanded(environment[f"{variable}_CMD"], sources.variable(f"{variable}_CMD"))
        if known.sensitive(name) and f"{variable}_SECRET" in environment:
            return Found(None, "secret", sources.variable(f"{variable}_SECRET"))
        return None

    def from_file(name: str, suffix: str = "") -> Found | None:
        section, key = split(name)
        key += suffix
        if (suffix and not known.sensitive(name)) or not config.parser.has_option(section, key):
            return None
        where, raw = config.where(section, key), config.parser.get(section, key, raw=True)
        if suffix == "_secret":
            return Found(None, "secret", where)
        try:
            value = config.parser.get(section, key)
        except configparser.InterpolationError:
            return Found(None, "file", where, raw, "a % in it is not doubled")
        if suffix == "_cmd":
            said = commanded(value, where)
            return said if said.value or said.error else None
        return Found(expand(value, environment, sources.home), "file", where, raw)

    def look_up(name: str) -> Found | None:
        names = [name, *([known.deprecated[name]] if name in known.deprecated else [])]
        for each in names:
            if found := from_environment(each):
                return found
        for suffix in ("", "_cmd", "_secret"):
            for each in names:
                if found := from_file(each, suffix):
                    return found
        default = known.options[name].default if name in known.options else None
        if default is None:
            return None
        return Found(_default(known.options[name], sources), "default", raw=default)

    result: Effective = {}
    for name in {**known.options, **dict.fromkeys(_free_names(sources))}:
        if name not in known.deprecated.values() and (found := look_up(name)):
            result[name] = found
    return result


def variable_name(name: str) -> str:
    """The environment variable of an option."""
    section, key = split(name)
    return f"AIRFLOW__{section.replace('.', '_').upper()}__{key.upper()}"


def _default(option: Option, sources: Sources) -> str:
    """A default with its placeholders filled in; secrets that Airflow makes up are empty here."""
    value = option.default or ""
    if not option.is_template:
        home = expand(sources.environment.get("AIRFLOW_HOME", "~/airflow"), sources.environment, sources.home)
        names = {"AIRFLOW_HOME": home, "AIRFLOW_CONFIG": sources.config.path, **dict.fromkeys(_TEMPLATE_NAMES, "")}
        with contextlib.suppress(KeyError, ValueError, IndexError):
            value = value.format(**names)
    return expand(value.replace("%%", "%"), sources.environment, sources.home)


def _free_names(sources: Sources) -> Iterator[str]:
    """The options of the sections that take any key."""
    for section, key, _value in sources.config.items():
        if section in _FREE_SECTIONS:
            yield f"{section}.{key}"
    for variable in sources.environment:
        for section in _FREE_SECTIONS:
            if variable.startswith(prefix := f"AIRFLOW__{section.upper()}__"):
                yield f"{section}.{variable[len(prefix) :].lower()}"


def value_of(found: Effective, name: str, default: str = "") -> str:
    """An option's value, or the default when it has none or it cannot be known."""
    value = found[name].value if name in found else None
    return default if value is None else value


# --- What is wrong


def problems(
    host: str,
    known: Known,
    sources: Sources,
    found: Effective,
    kinds: Collection[str],
    modes: Iterable[tuple[str, int]] = (),
    own_sections: Collection[str] = (),
) -> list[Problem]:
    """All that is wrong with the settings of one host.

    C(kinds) says what it is (master, worker), C(modes) are the files with settings and their modes, C(own_sections)
    are sections that plugins of the site read. No text holds a value that could be secret.
    """
    return [
        *_file_problems(host, sources.config, modes),
        *_name_problems(host, known, sources, own_sections),
        *_value_problems(host, known, found),
        # What follows from a file that Airflow does not read is no problem of its own.
        *([] if sources.config.text is None or sources.config.error else _role_problems(host, found, kinds)),
    ]


def _change(name: str, setting: Found | None = None) -> str:
    """How a setting is changed for good, in the inventory."""
    section, key = split(name)
    if name in _VARIABLES:
        return f"set {_VARIABLES[name]} and run onprem.airflow.site"
    if setting and setting.where.startswith("AIRFLOW__"):
        return f"set airflow_environment: {{{setting.where.split()[0]}: ...}} and run onprem.airflow.site"
    return f"set airflow_config: {{{section}: {{{key}: ...}}}} and run onprem.airflow.site"


def _file_problems(host: str, config: Config, modes: Iterable[tuple[str, int]]) -> Iterator[Problem]:
    subject = f"file:{config.path}"
    if config.text is None:
        yield Problem(
            "config_missing",
            host,
            f"{config.path} is not there; the next command of Airflow writes one with made-up keys",
            "Run onprem.airflow.site, which writes it.",
            subject,
        )
    elif config.error:
        yield Problem(
            "config_unreadable",
            host,
            f"Airflow cannot read {config.path}: {config.error}",
            f"Correct that line of {config.path}; or put your settings into airflow_config in the inventory and run "
            "onprem.airflow.site, which writes the file anew.",
            subject,
        )
    else:
        lines = len(_GENERATED_LINE.findall(config.text))
        if lines >= _GENERATED_LINES or len(config.text) > _GENERATED_SIZE:
            made_up = [name for name in SECRETS if config.parser.get(*split(name), raw=True, fallback="")]
            keys = f", among them a key of this host alone for {', '.join(made_up)}" if made_up else ""
            yield Problem(
                "config_generated",
                host,
                f"{config.path} was written by Airflow itself ({len(config.text) // 1000} kB): it fixes the defaults "
                f"of the release that wrote it{keys}",
                f"Move {config.path} away, put what you changed in it into airflow_config in the inventory, and run "
                "onprem.airflow.site, which writes a short one.",
                subject,
            )
    for path, mode in modes:
        if mode & stat.S_IROTH:
            yield Problem(
                "file_world_readable",
                host,
                f"{path} can be read by every user of the host (mode {stat.S_IMODE(mode):04o}), and it may hold "
                "passwords and keys",
                f"Run onprem.airflow.site, which sets its mode; at once: chmod o-rwx {path}. Then change the secrets, "
                "if others use this host.",
                f"file:{path}",
            )


def _name_problems(host: str, known: Known, sources: Sources, own_sections: Collection[str]) -> Iterator[Problem]:
    """Sections and keys that Airflow never looks for, in the file and in the environment."""
    sections = known.sections() | set(own_sections)
    unknown: dict[tuple[str, str], list[str]] = {}

    for section, key, _value in sources.config.items():
        base = section.rpartition("=")[2]  # team=section
        if base not in sections:
            unknown.setdefault((section, sources.config.where(section)), []).append(key)
        elif base not in own_sections and (why := _unknown_key(known, base, key)):
            meant = known.suggestion(base, key)
            yield Problem(
                "key_unknown",
                host,
                f"{sources.config.where(section, key)} means nothing to Airflow{why}" + _did_you_mean(meant),
                _rename(meant, f"[{section}] {key}", "airflow_config"),
                f"setting:{base}.{key}",
            )
    for section in sources.config.parser.sections():
        if not sources.config.parser.options(section) and section.rpartition("=")[2] not in sections:
            unknown.setdefault((section, sources.config.where(section)), [])

    by_variable = {section.replace(".", "_").upper(): section for section in sections}
    for variable in sorted(sources.environment):
        parts = _variable_parts(variable)
        where = sources.variable(variable)
        if parts is None:
            if meant := _misspelt_variable(known, variable):
                yield Problem(
                    "key_unknown",
                    host,
                    f"{where} means nothing to Airflow; did you mean {meant}?",
                    f"Name it {meant} in airflow_environment in the inventory and run onprem.airflow.site.",
                    f"setting:{variable}",
                )
            continue
        section, key = by_variable.get(parts[0], parts[0].lower()), parts[1].lower()
        if section in own_sections:
            continue
        meant = known.suggestion(section, key)
        name = variable_name(".".join(meant[1:].split("] "))) if meant else ""
        why = _unknown_key(known, section, key) if section in sections else f"; there is no section [{section}]"
        if variable != variable.upper() and not why:
            why, name = "; names of variables are in capitals", variable.upper()
        if why:
            yield Problem(
                "key_unknown" if section in sections else "section_unknown",
                host,
                f"{where} means nothing to Airflow{why}" + _did_you_mean(name),
                _rename(name, variable, "airflow_environment"),
                f"setting:{section}.{key}",
            )

    for (section, where), keys in unknown.items():
        close = difflib.get_close_matches(section.lower(), sorted(sections), 1, 0.75)
        meant = f"[{close[0]}]" if close else next(filter(None, (known.suggestion(section, key) for key in keys)), "")
        what = f" with {', '.join(keys)}" if keys else ""
        yield Problem(
            "section_unknown",
            host,
            f"{where}{what} means nothing to this release of Airflow" + _did_you_mean(meant),
            _rename(meant, f"[{section}]", "airflow_config"),
            f"setting:{section}",
        )


def _did_you_mean(name: str) -> str:
    return f"; did you mean {name}?" if name else ""


def _rename(meant: str, name: str, variable: str) -> str:
    """What to do about a name that is wrong."""
    if meant:
        return f"Write {meant} in place of {name} in {variable} in the inventory and run onprem.airflow.site."
    return f"Take {name} out of {variable} in the inventory and run onprem.airflow.site."


def _unknown_key(known: Known, section: str, key: str) -> str:
    """Why Airflow does not read a key of a section that it knows; empty when it does."""
    if known.knows(section, key):
        return ""
    for suffix in ("_cmd", "_secret"):
        base = key.removesuffix(suffix)
        if base != key and known.knows(section, base):
            return "" if known.sensitive(f"{section}.{base}") else f"; [{section}] {base} has no {suffix} form"
    return f"; [{section}] has no such key"


def _variable_parts(variable: str) -> tuple[str, str] | None:
    """Section and key of a variable that could be an option, in capitals; None for any other variable."""
    if not variable.startswith("AIRFLOW__") or variable.upper().startswith(_BACKEND_ARGUMENTS):
        return None
    rest = variable.removeprefix("AIRFLOW__").upper()
    if "___" in rest.strip("_"):
        rest = rest.rpartition("___")[2]  # TEAM___SECTION__KEY
    section, _underscores, key = rest.partition("__")
    return (section, key) if section and key else None


def _misspelt_variable(known: Known, variable: str) -> str:
    """The variable that was meant by one with too few underscores, or nothing."""
    upper = variable.upper()
    if not upper.startswith("AIRFLOW_") or upper.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_", *_BACKEND_ARGUMENTS)):
        return ""
    collapsed = re.sub("_+", "_", upper)
    return next((name for name in map(variable_name, known.options) if re.sub("_+", "_", name) == collapsed), "")


def _value_problems(host: str, known: Known, found: Effective) -> Iterator[Problem]:
    for name, setting in found.items():
        if setting.source in ("default", "secret"):
            continue
        section, key = split(name)
        subject = f"setting:{name}"
        secret = known.sensitive(name)
        if secret and setting.value is not None and setting.source in ("environment", "file"):
            plain = setting.raw if setting.source == "environment" else setting.raw.replace("%%", "%")
            if setting.value != plain and "%(" not in setting.raw:
                yield Problem(
                    "value_expanded",
                    host,
                    f"{setting.where} is not what it says: Airflow replaces the $ or ~ in it by an environment "
                    "variable or a home directory",
                    f"Write $ as %24 if it is in a URL, else choose a value without $ and without ~ in front: "
                    f"in the inventory, {_change(name, setting)}.",
                    subject,
                )
        if misread := _misread(name, known.options.get(name, Option()), setting):
            what, instead = misread
            yield Problem(
                "value_misread",
                host,
                f"{setting.where}: {what}",
                f"{instead}: [{section}] {key}. In the inventory, {_change(name, setting)}.",
                subject,
            )


def _misread(name: str, option: Option, setting: Found) -> tuple[str, str] | None:
    """What Airflow makes of a value that is not what its author meant, and what to write instead."""
    value = setting.value
    if value is None:
        if setting.source == "command":
            return setting.error, "Make the command work as the user of the services"
        return (
            f"{setting.error}, so that Airflow cannot read the value",
            "Write %% for each % in airflow.cfg, as airflow_config does by itself",
        )
    if setting.source == "command" and value != value.strip():
        return (
            "what the command says begins or ends with a blank or a line break, which Airflow takes as a part of it",
            "Write the secret's file without a line break at its end: printf %s",
        )
    if name in SECRET_URLS and "%%" in value:
        return (
            "Airflow reads %% in it as two characters; only airflow.cfg wants each % twice",
            "Write a single % in the environment, and no more than %% in airflow.cfg",
        )
    if setting.source == "file" and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return "its quotes are a part of the value, since airflow.cfg knows none", "Write it without quotes"
    wanted = "" if _readable(name, option, value) else _KINDS.get("json" if name in _JSON else option.type, "")
    if wanted:
        said = "it" if option.sensitive or name in _JSON else repr(_shortened(masked(value)))
        return f"{said} is not {wanted}", f"Write {wanted}"
    if name == "core.fernet_key" and value and not all(map(_is_fernet_key, value.split(","))):
        return (
            "it is not a Fernet key, and Airflow fails when it encrypts or decrypts",
            "Use 32 random bytes in URL-safe base64, as the playbook onprem.airflow.secrets makes them",
        )
    return None


_KINDS = {
    "integer": "a whole number",
    "float": "a number",
    "boolean": "one of True, False, 1, 0, t, f",
    "json": "JSON",
}


def _readable(name: str, option: Option, value: str) -> bool:
    """Whether Airflow can convert the value to the option's type, by the rules of its getters."""
    if not value and not option.default:
        return True
    try:
        if name in _JSON:
            json.loads(value or "null")
        elif option.type == "integer":
            return float(value).is_integer()
        elif option.type == "float":
            float(value)
        elif option.type == "boolean":
            return value.lower().split("#")[0].strip() in ("t", "true", "1", "f", "false", "0")
    except ValueError:
        return False
    return True


def _is_fernet_key(key: str) -> bool:
    try:
        return len(base64.urlsafe_b64decode(key.strip())) == 32
    except ValueError:
        return False


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _role_problems(host: str, found: Effective, kinds: Collection[str]) -> Iterator[Problem]:
    executors = re.split("[,;]", value_of(found, "core.executor"))
    if not any(re.split("[.:=]", executor.strip())[-1] == "CeleryExecutor" for executor in executors):
        where = found["core.executor"].where if "core.executor" in found else ""
        yield Problem(
            "executor_wrong",
            host,
            f"[core] executor is {_shortened(','.join(executors))!r} ({where or 'the default'}): tasks would not go "
            "to the workers",
            "Take executor out of airflow_config and airflow_environment in the inventory, so that it is "
            "CeleryExecutor, and run onprem.airflow.site.",
            "setting:core.executor",
        )
    asked: set[str] = set()
    for kind in kinds:
        for names in _REQUIRED[kind]:
            if names[0] in asked or any(_is_set(found, name) for name in names):
                continue
            asked.add(names[0])
            section, key = split(names[0])
            yield Problem(
                "setting_missing",
                host,
                f"[{section}] {key} is not set: {_WITHOUT[names[0]]}",
                f"In the inventory, {_change(names[0])}.",
                f"setting:{names[0]}",
            )
    url = execution_api_url(found)
    is_set = _is_set(found, "core.execution_api_server_url") or _is_set(found, "api.base_url")
    if WORKER in kinds and MASTER not in kinds and is_set and _is_local(url):
        yield Problem(
            "api_url_localhost",
            host,
            f"tasks ask for their work at {masked(url)}, which is this worker itself",
            "Set airflow_api_url in the inventory to an address by which workers reach an API server (leave it out: "
            "that is the first master), and run onprem.airflow.site.",
            "setting:core.execution_api_server_url",
        )


def _is_set(found: Effective, name: str) -> bool:
    """Whether somebody gave it a value; a default is none."""
    setting = found.get(name)
    if setting is None or setting.source == "default":
        return False
    return setting.value is None or bool(setting.value.strip() and not _PLACEHOLDER.match(setting.value))


def _is_local(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host in ("localhost", "::1", "::", "0.0.0.0") or host.endswith(".localhost") or host.startswith("127.")


# --- What is compared with other hosts


def fingerprint(nonce: str, value: str) -> str:
    """Says whether two hosts have the same secret, without saying which; good for one run, whose nonce it takes."""
    return hmac.new(nonce.encode(), value.encode(), hashlib.sha256).hexdigest()[:16]


def fingerprints(found: Effective, nonce: str) -> dict[str, str]:
    """Fingerprints of the secrets that the host has; of an address that of its password alone."""
    secrets = {name: value_of(found, name) for name in SECRETS}
    for name in SECRET_URLS:
        url = results_backend(found) if name == "celery.result_backend" else value_of(found, name)
        secrets[name] = "\n".join(dict.fromkeys(filter(None, map(_password, _urls(url)))))
    return {name: fingerprint(nonce, value) for name, value in secrets.items() if value}


def shown(found: Effective, kinds: Collection[str]) -> dict[str, str]:
    """The settings that must be the same on all hosts of these kinds, without secrets; absent when not known."""
    values: dict[str, str] = {}
    for name, where in MUST_MATCH.items():
        if not set(where) & set(kinds):
            continue
        if name == "core.execution_api_server_url":
            value = execution_api_url(found)
        elif name == "celery.result_backend":
            value = results_backend(found)
        elif name in found and found[name].value is not None:
            value = value_of(found, name)
        else:
            continue
        values[name] = _normalised_json(value) if name in _JSON else masked(value)
    return values


def _normalised_json(text: str) -> str:
    try:
        return json.dumps(_without_secrets(json.loads(text)), sort_keys=True)
    except ValueError:
        return masked(text)


def _without_secrets(data: t.Any) -> t.Any:
    if isinstance(data, dict):
        secret = re.compile("passw|secret|token|private|credential", re.IGNORECASE)
        return {key: "***" if value and secret.search(key) else _without_secrets(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_without_secrets(item) for item in data]
    return masked(data) if isinstance(data, str) else data


# --- Addresses


@dataclass(frozen=True)
class BrokerTls:
    """How the broker is proved and this host to it. A path is empty when it is not set."""

    active: bool
    cacert: str
    cert: str
    key: str


def _urls(url: str) -> list[str]:
    return [part.strip() for part in url.split(";") if part.strip()]


def _password(url: str) -> str:
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""


def masked(url: str) -> str:
    """The same text with *** for each password of an address in it. Rather hides too much than too little."""
    parts = re.split(r";(?=[a-z][\w+.-]*://)", url)
    parts = [re.sub(r"(://[^:/?#@\s]*:).*@", r"\1***@", part, flags=re.DOTALL) for part in parts]
    return re.sub(r"(?i)([?&]\w*(?:password|secret|token)=)[^&#;\s]*", r"\1***", ";".join(parts))


def broker_tls(found: Effective) -> BrokerTls:
    """The TLS settings of [celery]; without ssl_mutual_tls the worker shows no certificate."""
    active = _true(found, "celery.ssl_active", False)
    mutual = _true(found, "celery.ssl_mutual_tls", True)
    cert, key = (value_of(found, f"celery.{name}") if active and mutual else "" for name in ("ssl_cert", "ssl_key"))
    return BrokerTls(active, value_of(found, "celery.ssl_cacert") if active else "", cert, key)


def _true(found: Effective, name: str, default: bool) -> bool:
    return value_of(found, name, str(default)).lower().split("#")[0].strip() in ("t", "true", "1")


def results_backend(found: Effective) -> str:
    """Celery's result backend: without one of its own, the metadata database. Empty when neither is set."""
    if _is_set(found, "celery.result_backend"):
        return value_of(found, "celery.result_backend")
    return f"db+{value_of(found, 'database.sql_alchemy_conn')}" if _is_set(found, "database.sql_alchemy_conn") else ""


def results_url(value: str) -> str:
    """A result backend's address for libpq; empty when it is not PostgreSQL."""
    url = value.removeprefix("db+")
    return libpq_url(url) if re.match(r"postgres(ql)?(\+\w+)?://", url) else ""


def execution_api_url(found: Effective) -> str:
    """Where tasks ask for their work, as Airflow derives it."""
    base = value_of(found, "api.base_url") or "/"
    if base.startswith("/"):
        base = f"http://localhost:8080{base}"
    return value_of(found, "core.execution_api_server_url") or base.rstrip("/") + "/execution/"


def api_version_url(execution_url: str) -> str:
    """The address that says the version of the API server behind an execution API."""
    return execution_url.rstrip("/").removesuffix("/execution") + "/api/v2/version"


def bundles(found: Effective) -> list[dict[str, str | None]]:
    """The DAG bundles: name, classpath, and the path when it is a folder of the host."""
    try:
        configured = json.loads(value_of(found, "dag_processor.dag_bundle_config_list") or "[]")
    except ValueError:
        return []
    result: list[dict[str, str | None]] = []
    for bundle in configured if isinstance(configured, list) else []:
        if isinstance(bundle, dict) and "name" in bundle:
            classpath = str(bundle.get("classpath", ""))
            path = (bundle.get("kwargs") or {}).get("path") or value_of(found, "core.dags_folder")
            local = classpath == _LOCAL_BUNDLE
            result.append({"name": str(bundle["name"]), "classpath": classpath, "path": str(path) if local else None})
    return result


def celery_options(found: Effective) -> dict[str, t.Any]:
    """The keys that extra_celery_config gives to Celery."""
    try:
        options = json.loads(value_of(found, "celery.extra_celery_config") or "{}")
    except ValueError:
        return {}
    return options if isinstance(options, dict) else {}


# --- Here files are read and commands run


def release_options(package: str) -> Known:
    """The options of the release whose package C(airflow) is in this folder, with those of its providers.

    Their sources are read, none is run: importing Airflow takes seconds and writes files.
    """
    import yaml

    templates = os.path.join(package, "config_templates")
    with open(os.path.join(templates, "config.yml"), encoding="utf-8") as stream:
        options = dict(_described(yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))))
    # The first description of an option counts, as for Airflow.
    for path in sorted(glob.glob(os.path.join(package, "providers", "**", "get_provider_info.py"), recursive=True)):
        for name, option in _described(_provider_info(path).get("config") or {}):
            options.setdefault(name, option)
    fallback = configparser.ConfigParser()
    fallback.read(os.path.join(templates, "provider_config_fallback_defaults.cfg"), encoding="utf-8")
    for section in fallback.sections():
        for key, value in fallback.items(section, raw=True):
            sensitive = key.endswith(("password", "secret"))
            options.setdefault(f"{section}.{key}", Option(value, sensitive=sensitive, is_template=True))
    return Known(options, _deprecated(os.path.join(package, "_shared", "configuration", "parser.py")))


def _provider_info(path: str) -> dict[str, t.Any]:
    """What get_provider_info() of a provider's file returns; it is one literal."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Return) and node.value:
            with contextlib.suppress(ValueError):
                return ast.literal_eval(node.value)
    return {}


def _deprecated(path: str) -> dict[str, str]:
    """New name -> old name, from the source of Airflow's parser; nothing when it no longer has that table."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "deprecated_options" and node.value:
            with contextlib.suppress(ValueError):
                table = ast.literal_eval(node.value)
                return {".".join(new): ".".join(old[:2]) for new, old in table.items()}
    return {}


def _tree(path: str) -> ast.Module:
    """A source file, parsed; empty when there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return ast.parse(stream.read())
    except OSError:
        return ast.Module([], [])


def read_sources(config_path: str, environment_files: Iterable[str], user: str, home: str) -> Sources:
    """Read a host's settings as its services see them. A file that is not there is as an empty one.

    Raises OSError or UnicodeDecodeError on one that cannot be read.
    """
    text: str | None = None
    if os.path.exists(config_path):
        with open(config_path, encoding="utf-8") as stream:
            text = stream.read()
    # What systemd itself gives to a service with a user.
    environment = {"HOME": home, "USER": user, "LOGNAME": user, "SHELL": "/usr/sbin/nologin"}
    environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
    files: dict[str, str] = {}
    for path in environment_files:
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                values = parse(stream.read())
            environment.update(values)
            files.update(dict.fromkeys(values, path))
    return Sources(parse_config(config_path, text), environment, files, environment["HOME"])


def file_modes(paths: Iterable[str]) -> list[tuple[str, int]]:
    """The files that are there, with their modes."""
    return [(path, os.stat(path).st_mode) for path in paths if os.path.exists(path)]


def commands_as(
    user: str, group: str, environment: Mapping[str, str], timeout: float = 10
) -> Callable[[list[str]], str]:
    """What effective() asks for: runs a command as the services' user, as Airflow would. For root alone."""

    def run(argv: list[str]) -> str:
        as_user = ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", "--", *argv]
        ran = subprocess.run(
            as_user, env=dict(environment), capture_output=True, check=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
        return ran.stdout.decode(errors="ignore")

    return run
