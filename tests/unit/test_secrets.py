# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets: strong enough, read back by Ansible as made, never shown; what a file holds is left alone."""

from __future__ import annotations

import base64
import itertools
import os
import re
import stat
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.onprem.airflow.plugins.module_utils import _secrets

CHECKOUT = Path(__file__).resolve().parents[2]
PUNCTUATION = string.punctuation + " "
LAB = "@/%:#'$\\ "
PASSWORDS = [name for name in _secrets.NAMES if name.endswith("_password")]

INVENTORY = """\
all:
  children:
    airflow_cluster:
      hosts:
        host1: {ansible_connection: local}
"""


def inventory(folder: Path) -> Path:
    """An inventory folder with one host."""
    folder.mkdir(parents=True)
    (folder / "hosts.yml").write_text(INVENTORY)
    return folder


def read_by_ansible(path: Path) -> dict[str, Any]:
    """The variables as Ansible's own loader reads them, and its templar renders them."""
    loader = DataLoader()
    values = loader.load_from_file(str(path), trusted_as_template=True)
    return {name: Templar(loader=loader, variables={}).template(value) for name, value in values.items()}


def test_every_secret_that_the_variables_need_is_made() -> None:
    expected = {"airflow_database_password", "airflow_results_database_password", "airflow_broker_password"}
    expected |= {"airflow_fernet_key", "airflow_jwt_secret", "airflow_api_secret_key", "airflow_admin_password"}
    assert set(_secrets.NAMES) == expected | {"rabbitmq_erlang_cookie"}


def test_the_playbook_knows_the_same_names() -> None:
    (play,) = yaml.safe_load((CHECKOUT / "playbooks" / "secrets.yml").read_text())
    assert tuple(play["vars"]["__airflow_secrets_names"]) == _secrets.NAMES


def test_keys_have_their_form_and_strength() -> None:
    made = {secret.name: secret.make(LAB) for secret in _secrets.SECRETS}
    assert len(base64.urlsafe_b64decode(made["airflow_fernet_key"])) == 32
    assert len(base64.urlsafe_b64decode(made["airflow_jwt_secret"] + "==")) >= 64
    assert len(base64.urlsafe_b64decode(made["airflow_api_secret_key"] + "=")) >= 32
    assert re.fullmatch(r"[A-Za-z0-9]{48}", made["rabbitmq_erlang_cookie"])
    assert all(re.fullmatch(r"[A-Za-z0-9_=-]+", made[name]) for name in made if name not in PASSWORDS)
    assert len(set(made.values())) == len(made)


def test_plain_passwords_are_alphanumeric() -> None:
    passwords = {_secrets.password("") for _count in range(50)}
    assert len(passwords) == 50
    assert all(re.fullmatch(r"[A-Za-z0-9]{32}", text) for text in passwords)


@pytest.mark.parametrize("characters", [*PUNCTUATION, LAB, PUNCTUATION, "{%", "{{%#", "aa@@"])
def test_every_asked_character_is_inside_every_password(characters: str) -> None:
    for _count in range(50):
        text = _secrets.password(characters)
        assert set(characters) <= set(text[1:-1])
        assert text[0].isalnum() and text[-1].isalnum()
        assert not any(start in text for start in ("{{", "{%", "{#"))


@pytest.mark.parametrize("characters", ["\n", "\t", "é", "a\x00", "\x7f"])
def test_other_characters_are_refused(characters: str) -> None:
    with pytest.raises(_secrets.SecretsError, match="U\\+00"):
        _secrets.check_characters(characters)
    _secrets.check_characters(PUNCTUATION)


def test_every_pair_of_characters_survives_ansible(tmp_path: Path) -> None:
    pairs = [
        "".join(pair) for pair in itertools.product(PUNCTUATION, repeat=2) if "".join(pair) not in ("{{", "{%", "{#")
    ]
    values = {f"v{number}": f"a{pair}b" for number, pair in enumerate(pairs)}
    path = tmp_path / "vars.yml"
    path.write_text("".join(f"{name}: {_secrets.quoted(value)}\n" for name, value in values.items()))
    assert read_by_ansible(path) == values


@pytest.mark.parametrize("characters", ["", LAB, PUNCTUATION, *PUNCTUATION])
def test_a_made_file_is_read_back_by_ansible(characters: str, tmp_path: Path) -> None:
    path = tmp_path / "vars.yml"
    path.write_bytes(_secrets.extend(str(path), None, _secrets.NAMES, characters))
    values = read_by_ansible(path)
    assert tuple(values) == _secrets.NAMES
    assert all(set(characters) <= set(values[name]) for name in PASSWORDS)


def test_each_secret_has_a_comment() -> None:
    lines = _secrets.extend("x", None, _secrets.NAMES, "").decode().splitlines()
    for name in _secrets.NAMES:
        (number,) = [number for number, line in enumerate(lines) if line.startswith(f"{name}: ")]
        assert lines[number - 1].startswith("# ")


OLD_FILES = {
    "comments": "# ours\nairflow_fernet_key: 'old'   # keep\n\nother: [1, 2]\n",
    "no newline": "airflow_fernet_key: old",
    "vaulted value": "airflow_fernet_key: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n",
    "unsafe": "---\nairflow_fernet_key: !unsafe '{{ x'\n",
    "crlf": "---\r\nairflow_fernet_key: old\r\n",
    "other order": "zzz: 1\nrabbitmq_erlang_cookie: COOKIE\nairflow_fernet_key: old\n",
    "alias": "a: &x old\nairflow_fernet_key: *x\n",
}


@pytest.mark.parametrize("old", OLD_FILES.values(), ids=OLD_FILES.keys())
def test_adding_keeps_every_byte_that_was_there(old: str) -> None:
    content = old.encode()
    names = _secrets.missing("x", content, [])
    assert "airflow_fernet_key" not in names and "airflow_broker_password" in names
    new = _secrets.extend("x", content, names, LAB)
    assert new.startswith(content)
    assert not _secrets.missing("x", new, [])


@pytest.mark.parametrize("content", [b"", b"\n", None])
def test_an_empty_file_is_like_none(content: bytes | None) -> None:
    new = _secrets.extend("x", content, _secrets.missing("x", content, []), "")
    assert new.startswith(b"---\n#")


@pytest.mark.parametrize("old", ["{a: b}\n", "  a: b\n", "a: b\n...\n", "a: |\n  text\n ---\n"])
def test_a_file_that_cannot_be_added_to_is_refused(old: str) -> None:
    with pytest.raises(_secrets.SecretsError, match=r"cannot be added|not valid YAML"):
        _secrets.extend("x", old.encode(), ["airflow_broker_password"], "")


@pytest.mark.parametrize("old", ["- a\n", "text\n", "a: [\n", "a: b: c\n", "\x00"])
def test_a_broken_file_is_refused_without_quoting_it(old: str) -> None:
    with pytest.raises(_secrets.SecretsError, match="repair it first") as caught:
        _secrets.missing(
            "x", b"airflow_broker_password: tellnobody\n" + old.encode() if ":" in old else old.encode(), []
        )
    assert "tellnobody" not in str(caught.value)


def test_where_the_file_goes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("hosts.yml", "more.yml"):
        (tmp_path / "a" / name).touch()
    expected = str(tmp_path / "a" / "group_vars" / "all" / "airflow_secrets.yml")
    a = str(tmp_path / "a")
    for sources in ([a], [f"{a}/"], [f"{a}/hosts.yml"], [f"{a}/hosts.yml", f"{a}/more.yml"], [a, f"{a}/more.yml"]):
        assert _secrets.secrets_path(sources) == expected


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "No inventory"),
        (["h1,h2,"], "list of hosts"),
        (["{tmp}/none"], "no inventory at"),
        (["{tmp}/a", "{tmp}/b"], "several"),
    ],
)
def test_where_it_cannot_tell(sources: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(_secrets.SecretsError, match=message) as caught:
        _secrets.secrets_path([source.format(tmp=tmp_path) for source in sources])
    assert "airflow_secrets_file=" in str(caught.value)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def fail(*_arguments: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        _secrets.replace_file(str(path), b"new", 0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"] and path.read_text() == "old"


def test_the_playbook_makes_adds_and_leaves(ansible_playbook: Callable[..., Any], tmp_path: Path) -> None:
    folder = inventory(tmp_path / "inv")
    path = folder / "group_vars" / "all" / "airflow_secrets.yml"
    characters = "-e", f'{{"airflow_secrets_characters": "{LAB}"}}'.replace("\\", "\\\\")

    checked = ansible_playbook("-i", folder, "onprem.airflow.secrets", "--check", "--diff")
    assert checked.rc == 0, checked.output
    assert not path.exists() and not path.parent.exists()

    made = ansible_playbook("-i", folder / "hosts.yml", "onprem.airflow.secrets", *characters, "-vvv", "--diff")
    assert made.rc == 0, made.output
    values = read_by_ansible(path)
    assert tuple(values) == _secrets.NAMES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(set(LAB) <= set(values[name]) for name in PASSWORDS)
    assert not [name for name, value in values.items() if value in made.output]
    (said,) = made.tasks["Secrets | Say what comes next"].values()
    assert f"ansible-vault encrypt '{path}'" in said["msg"][1] and "onprem.airflow.site" in said["msg"][2]

    content = path.read_bytes()
    again = ansible_playbook("-i", folder, "onprem.airflow.secrets", *characters)
    assert again.rc == 0, again.output
    assert not next(iter(again.tasks["Secrets | Make those that the inventory lacks"].values()))["changed"]
    assert path.read_bytes() == content

    # A value that stands elsewhere in the inventory, for one host only, is not made a second time here.
    kept = b"".join(
        line for line in content.splitlines(keepends=True) if not line.startswith((b"airflow_f", b"airflow_b"))
    )
    path.write_bytes(kept)
    path.chmod(0o644)
    (folder / "host_vars").mkdir()
    (folder / "host_vars" / "host1.yml").write_text("airflow_fernet_key: '{{ from_elsewhere }}'\n")
    added = ansible_playbook("-i", folder, "onprem.airflow.secrets")
    assert added.rc == 0, added.output
    (result,) = added.tasks["Secrets | Make those that the inventory lacks"].values()
    assert result["added"] == ["airflow_broker_password"]
    assert path.read_bytes().startswith(kept) and stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_playbook_refuses_an_encrypted_file(ansible_playbook: Callable[..., Any], tmp_path: Path) -> None:
    folder = inventory(tmp_path / "inv")
    path = tmp_path / "elsewhere.yml"
    path.write_text("airflow_fernet_key: x\n")
    (tmp_path / "vault").write_text("word")
    vault = [
        sys.executable,
        "-m",
        "ansible",
        "vault",
        "encrypt",
        "--vault-password-file",
        str(tmp_path / "vault"),
        str(path),
    ]
    subprocess.run(vault, check=True, capture_output=True)
    content = path.read_bytes()
    ran = ansible_playbook("-i", folder, "onprem.airflow.secrets", "-e", f"airflow_secrets_file={path}")
    assert ran.rc != 0
    assert "is encrypted" in ran.output and "ansible-vault decrypt" in ran.output
    assert path.read_bytes() == content


def test_a_complete_encrypted_file_of_the_inventory_is_left_in_peace(
    ansible_playbook: Callable[..., Any], tmp_path: Path
) -> None:
    folder = inventory(tmp_path / "inv")
    path = folder / "group_vars" / "all" / "airflow_secrets.yml"
    path.parent.mkdir(parents=True)
    path.write_bytes(_secrets.extend("x", None, _secrets.NAMES, LAB))
    path.chmod(0o600)
    (tmp_path / "vault").write_text("word")
    word = ["--vault-password-file", str(tmp_path / "vault")]
    subprocess.run(
        [sys.executable, "-m", "ansible", "vault", "encrypt", *word, str(path)], check=True, capture_output=True
    )
    ran = ansible_playbook("-i", folder, "onprem.airflow.secrets", *word)
    assert ran.rc == 0, ran.output
    (result,) = ran.tasks["Secrets | Make those that the inventory lacks"].values()
    assert not result["changed"] and result["encrypted"] and not result["added"]


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ("airflow_fernet_key:\n", "has no value"),
        ("airflow_fernet_key: ''\n", "has no value"),
        ("- a\n", "has to be a mapping"),
    ],
)
def test_the_playbook_refuses_what_it_cannot_repair(
    old: str, message: str, ansible_playbook: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "file.yml"
    path.write_text(old)
    arguments = ("-i", inventory(tmp_path / "inv"), "onprem.airflow.secrets", "-e", f"airflow_secrets_file={path}")
    ran = ansible_playbook(*arguments)
    assert ran.rc != 0 and message in ran.output
    assert path.read_text() == old
