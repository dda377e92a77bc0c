# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: RabbitMQ's definitions (users, permissions, vhosts, policies) as plain data. Pure."""

from __future__ import annotations

import base64
import hashlib
import typing as t

HASHING = "rabbit_password_hashing_sha256"

# What tells one object of a section from another.
KEYS: dict[str, tuple[str, ...]] = {
    "vhosts": ("name",),
    "users": ("name",),
    "permissions": ("user", "vhost"),
    "policies": ("vhost", "name"),
}


def password_hash(password: str, seed: str) -> str:
    """RabbitMQ's salted hash of a password: base64(salt + SHA256(salt + password)), with a salt of four bytes.

    The salt comes from C(seed), so the same password gives the same hash in every run and a file made from it changes
    only when the password does. Take a seed that is secret and differs by user.
    Source: RabbitMQ's documentation, "Credentials and Passwords".
    """
    salt = hashlib.sha256(seed.encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _queue_type(vhost: dict[str, t.Any]) -> str:
    # 3.10 exports it within the metadata, 4.0 beside it as well.
    return (vhost.get("metadata") or {}).get("default_queue_type") or vhost.get("default_queue_type") or "undefined"


def _tags(tags: t.Any) -> list[str]:
    # A list in 3.9 and later, text with commas before.
    return sorted(tags.split(",") if isinstance(tags, str) and tags else tags or [])


def _comparable(section: str, item: dict[str, t.Any]) -> dict[str, t.Any]:
    """The part of an object that says what it is, in one form for every version of RabbitMQ."""
    if section == "vhosts":
        return {"default_queue_type": _queue_type(item)}
    if section == "users":
        return {"password_hash": item.get("password_hash"), "tags": _tags(item.get("tags"))}
    if section == "permissions":
        return {name: item.get(name) for name in ("configure", "write", "read")}
    return {name: item.get(name) for name in ("pattern", "apply-to", "definition", "priority")}


def _by_key(section: str, definitions: dict[str, t.Any]) -> dict[tuple[str, ...], dict[str, t.Any]]:
    return {
        tuple(item[key] for key in KEYS[section]): _comparable(section, item) for item in definitions.get(section) or []
    }


def differences(wanted: dict[str, t.Any], current: dict[str, t.Any]) -> list[str]:
    """Name every object that is missing from the broker or differs there; values are not told, some are secret."""
    found = []
    for section in KEYS:
        have = _by_key(section, current)
        for key, item in _by_key(section, wanted).items():
            if key not in have:
                found.append(f"{section}: {'@'.join(key)} is missing")
            elif have[key] != item:
                parts = sorted(name for name in item if item[name] != have[key].get(name))
                found.append(f"{section}: {'@'.join(key)} differs in {', '.join(parts)}")
    return found


def strays(wanted: dict[str, t.Any], current: dict[str, t.Any]) -> list[str]:
    """The users of the broker that the definitions do not name; their permissions go with them."""
    names = {user["name"] for user in wanted.get("users") or []}
    return sorted(user["name"] for user in current.get("users") or [] if user["name"] not in names)


def definitions(
    users: list[dict[str, t.Any]], vhosts: list[dict[str, t.Any]], policies: list[dict[str, t.Any]], seed: str
) -> dict[str, t.Any]:
    """The definitions file's content, from the role's lists; see the filter C(rabbitmq_definitions) for their keys."""
    return {
        "vhosts": [
            {
                "name": vhost["name"],
                "metadata": {
                    "description": vhost.get("description", ""),
                    "tags": [],
                    "default_queue_type": vhost.get("default_queue_type", "quorum"),
                },
            }
            for vhost in vhosts
        ],
        "users": [
            {
                "name": user["name"],
                "password_hash": password_hash(user["password"], f"{seed}/{user['name']}"),
                "hashing_algorithm": HASHING,
                "tags": list(user.get("tags", [])),
                "limits": {},
            }
            for user in users
        ],
        "permissions": [
            {
                "user": user["name"],
                "vhost": user["vhost"],
                **{right: user.get(right, ".*") for right in ("configure", "write", "read")},
            }
            for user in users
            if user.get("vhost")
        ],
        "policies": [{"priority": 0, "apply-to": "queues", **policy} for policy in policies],
    }
