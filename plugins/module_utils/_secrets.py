# Private to the onprem.airflow collection: no interface for others, may change with any release.
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which secrets a cluster needs, how each is made, and the text of the file that holds them."""

from __future__ import annotations

import base64
import os
import re
import secrets
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

try:
    import yaml
except ImportError:  # the module reports it; ansible-core itself needs PyYAML, so this is another Python than Ansible's
    yaml = None  # type: ignore[assignment]

# Within the folder of the inventory.
DEFAULT_FILE = os.path.join("group_vars", "all", "airflow_secrets.yml")

ALPHANUMERIC = string.ascii_letters + string.digits

# 32 alphanumerics are 190 bits.
PASSWORD_LENGTH = 32

HEADER = """\
---
# The secrets of this Airflow cluster. Encrypt this file with ansible-vault before you commit or share it.
# In a value of your own write ' as '', and !unsafe before the quotes when it contains {{, {% or {#.
"""


class SecretsError(Exception):
    """Something that the person who runs the playbook has to decide or repair."""


@dataclass(frozen=True)
class Secret:
    """One variable of the file. The comment goes above it; make takes the characters a password has to contain."""

    name: str
    comment: str
    make: Callable[[str], str]


def password(characters: str) -> str:
    """A random password that contains each of the characters once, never as its first or last.

    Blanks at an end get lost in too many programs. Nothing that opens a Jinja2 template
    comes out, because Ansible would template the value.
    """
    while True:
        inner = [secrets.choice(ALPHANUMERIC) for _count in range(PASSWORD_LENGTH - 2)]
        for character in sorted(set(characters)):
            inner.insert(secrets.randbelow(len(inner) + 1), character)
        text = secrets.choice(ALPHANUMERIC) + "".join(inner) + secrets.choice(ALPHANUMERIC)
        if not re.search(r"\{[{%#]", text):
            return text


def fernet_key(_characters: str) -> str:
    """32 random bytes in the form that the cryptography library asks for."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii")


def jwt_secret(_characters: str) -> str:
    """64 random bytes: HS512, with which Airflow signs by default, is only as strong as its 512 bits of key."""
    return secrets.token_urlsafe(64)


def api_secret_key(_characters: str) -> str:
    """32 random bytes."""
    return secrets.token_urlsafe(32)


def erlang_cookie(_characters: str) -> str:
    """48 alphanumerics: the cookie is an Erlang atom, and passes through shell scripts of the RabbitMQ package."""
    return "".join(secrets.choice(ALPHANUMERIC) for _count in range(48))


SECRETS = (
    Secret("airflow_database_password", "PostgreSQL login of the metadata database; only on masters.", password),
    Secret(
        "airflow_results_database_password", "PostgreSQL login of the task results; on masters and workers.", password
    ),
    Secret("airflow_broker_password", "RabbitMQ login of Airflow; on masters and workers.", password),
    Secret(
        "airflow_fernet_key",
        "Encrypts connections and variables in the metadata database. Lost key, lost connections: keep a copy.",
        fernet_key,
    ),
    Secret("airflow_jwt_secret", "Signs the tokens with which tasks and people talk to the API server.", jwt_secret),
    Secret(
        "airflow_api_secret_key",
        "Signs web sessions and the requests for task logs; on masters and workers.",
        api_secret_key,
    ),
    Secret("airflow_admin_password", "First login to the web UI, as airflow_admin_user.", password),
    Secret("rabbitmq_erlang_cookie", "Shared by the RabbitMQ nodes and their command line tools.", erlang_cookie),
)

NAMES = tuple(secret.name for secret in SECRETS)


def check_characters(characters: str) -> None:
    """Refuse what PostgreSQL, RabbitMQ, URLs and unit files do not all take in the same way."""
    wrong = sorted({character for character in characters if not 32 <= ord(character) <= 126})
    if wrong:
        listed = ", ".join(f"U+{ord(character):04X}" for character in wrong)
        raise SecretsError(f"characters may only contain printable ASCII characters, not {listed}.")


def secrets_path(sources: list[str]) -> str:
    """Where the secrets of an inventory belong, from the sources Ansible was given by `-i`."""
    choose = "name the file: -e airflow_secrets_file=/path/of/inventory/group_vars/all/airflow_secrets.yml"
    folders: list[str] = []
    for source in sources:
        if os.path.isdir(source):
            folder = os.path.abspath(source)
        elif os.path.isfile(source):
            folder = os.path.dirname(os.path.abspath(source))
        elif "," in source:
            raise SecretsError(
                f"The inventory is a list of hosts ({source}), which has no folder for variables; {choose}"
            )
        else:
            raise SecretsError(f"There is no inventory at {source}; give yours with -i, or {choose}")
        if folder not in folders:
            folders.append(folder)
    if not folders:
        raise SecretsError(f"No inventory was given; give yours with -i, or {choose}")
    if len(folders) > 1:
        raise SecretsError(f"There are several inventories ({', '.join(folders)}); {choose}")
    return os.path.join(folders[0], DEFAULT_FILE)


def encrypted(content: bytes) -> bool:
    """Whether the whole file is encrypted by ansible-vault."""
    return content.startswith(b"$ANSIBLE_VAULT")


def parse(path: str, content: bytes) -> dict[str, Any]:
    """The variables of a secrets file. Tags of Ansible (!vault, !unsafe) are left alone."""

    class Loader(yaml.SafeLoader):
        """SafeLoader that takes any local tag for its bare value."""

    def bare(loader: Any, _suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return loader.construct_scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_mapping(node, deep=True)

    Loader.add_multi_constructor("!", bare)
    try:
        data = yaml.load(content, Loader=Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        # Not the error's own text: it quotes the line, and with it the secret.
        where = f" at line {mark.line + 1}" if mark else ""
        raise SecretsError(f"{path} is not valid YAML{where}; repair it first.") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SecretsError(f"{path} has to be a mapping of variables to values; repair it first.")
    return data


def missing(path: str, content: bytes | None, known: Iterable[str]) -> list[str]:
    """Names of the secrets that neither the file (None: there is no file) nor the rest of the inventory has."""
    wanted = [name for name in NAMES if name not in set(known)]
    if content is None or not wanted:
        return wanted
    if encrypted(content):
        raise SecretsError(
            f"{path} is encrypted, and {', '.join(wanted)} could not be seen. If the file has them, nothing is to"
            f" be done here. To add what it lacks: ansible-vault decrypt '{path}', run this playbook again,"
            f" ansible-vault encrypt '{path}'."
        )
    return [name for name in wanted if name not in parse(path, content)]


def without_value(path: str, content: bytes | None) -> list[str]:
    """Names that stand in the file but have no value."""
    if content is None or encrypted(content):
        return []
    data = parse(path, content)
    return [name for name in NAMES if name in data and data[name] in (None, "")]


def quoted(value: str) -> str:
    """A YAML scalar in which every printable character stands for itself."""
    return "'" + value.replace("'", "''") + "'"


def extend(path: str, content: bytes | None, names: Iterable[str], characters: str) -> bytes:
    """The content with the named secrets added at its end, and not a byte of the old part changed."""
    added = {secret.name: secret.make(characters) for secret in SECRETS if secret.name in set(names)}
    comments = {secret.name: secret.comment for secret in SECRETS}
    lines = [f"\n# {comments[name]}\n{name}: {quoted(value)}\n" for name, value in added.items()]
    old = HEADER.encode() if content is None or not content.strip() else content
    if not old.endswith(b"\n"):
        old += b"\n"
    new = old + "".join(lines).encode("ascii")
    # Text is appended so that comments and order stay; in a file whose mapping is indented, in braces or ended by `...`
    # that does not give what was meant, and is better said than written.
    before = parse(path, content or b"")
    problem = (
        f"{', '.join(added)} cannot be added at the end of {path}: its variables have to begin in the first column."
    )
    try:
        after = parse(path, new)
    except SecretsError:
        raise SecretsError(problem) from None
    if after != {**before, **added}:
        raise SecretsError(problem)
    return new


def replace_file(path: str, content: bytes, mode: int) -> None:
    """Put content at path in one step, readable by nobody else at any moment."""
    beside = f"{path}.{secrets.token_hex(8)}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            if os.path.exists(path):
                old = os.stat(path)
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                    os.fchown(handle.fileno(), old.st_uid, old.st_gid)
            os.fchmod(handle.fileno(), mode)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
