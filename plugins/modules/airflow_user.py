#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: airflow_user
short_description: A user of Airflow's web UI and API, with the FAB auth manager
description:
  - Makes sure that a user exists, has a role, and can log in with the given password. A changed password takes effect.
  - Reads the database first and calls Airflow's command only when something differs. The password reaches it through
    standard input.
extends_documentation_fragment: [onprem.airflow.metadata, onprem.airflow.attributes.no_diff]
options:
  name:
    description: The name to log in with.
    type: str
    required: true
  password:
    description: The password.
    type: str
    required: true
  role:
    description: The role, for instance V(Admin), V(Op), V(User), V(Viewer). Other roles that the user has are left.
    type: str
    default: Admin
  email:
    description: The e-mail address, which must differ from that of every other user. Used when the user is made.
    type: str
    required: true
  first_name:
    description: The first name. Used when the user is made.
    type: str
    default: Airflow
  last_name:
    description: The last name. Used when the user is made.
    type: str
    default: Admin
  wait_for_role:
    description:
      - Seconds to wait until the role has permissions, for a database whose first API server is starting. It writes
        them, and of two writers at once one would fail.
      - After that, and with V(0), the command that makes the user writes them itself.
    type: int
    default: 0
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Administrator | Make it
  onprem.airflow.airflow_user:
    name: admin
    password: "{{ airflow_admin_password }}"
    email: admin@localhost
    environment_files: [/etc/airflow/airflow.env, /etc/airflow/master.env]
  no_log: true
  run_once: true
"""

RETURN = r"""
did:
  description: What was done, or would be.
  returned: when the database answered
  type: list
  elements: str
  choices: [created, password, role]
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils._metadata import (
    ARGUMENTS,
    CONNECTION,
    connect,
    environment,
    run_airflow,
    run_alone,
    use_release_python,
)


def has_permissions(connection: t.Any, role: str, seconds: float) -> bool:
    """Whether a role has any, as soon as it has, or after C(seconds)."""
    query = "SELECT EXISTS (SELECT FROM ab_permission_view_role p JOIN ab_role r ON r.id = p.role_id WHERE r.name = %s)"
    end = time.monotonic() + seconds
    while not (found := bool(connection.execute(query, (role,)).fetchone()[0])) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "role": {"type": "str", "default": "Admin"},
            "email": {"type": "str", "required": True},
            "first_name": {"type": "str", "default": "Airflow"},
            "last_name": {"type": "str", "default": "Admin"},
            "wait_for_role": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    use_release_python(module)
    values = environment(module)
    from werkzeug.security import check_password_hash  # FAB stores werkzeug's hashes

    name, password, role = (module.params[key] for key in ("name", "password", "role"))
    twice = f"{password}\n{password}\n"  # asked for, then asked to repeat
    with connect(module, values[CONNECTION]) as connection:
        run_alone(module, connection)
        if not connection.execute("SELECT to_regclass('ab_user')").fetchone()[0]:
            if module.check_mode:
                module.exit_json(changed=True, did=["created"])
            module.fail_json(
                msg="The metadata database has no table ab_user: migrate it first, with the FAB provider installed"
            )
        row = connection.execute("SELECT id, password FROM ab_user WHERE username = %s", (name,)).fetchone()
        roles = connection.execute(
            "SELECT r.name FROM ab_role r JOIN ab_user_role ur ON ur.role_id = r.id JOIN ab_user u ON u.id = ur.user_id"
            " WHERE u.username = %s",
            (name,),
        ).fetchall()
        if row is None:
            did = ["created"]
        else:
            did = ["password"] if not check_password_hash(row[1] or "", password) else []
            did += ["role"] if (role,) not in roles else []
        if did and not module.check_mode:
            # Where permissions are already the command need not write them, and takes less time.
            if has_permissions(connection, role, module.params["wait_for_role"]):
                values["AIRFLOW__FAB__UPDATE_FAB_PERMS"] = "False"
            if "created" in did:
                options = ("--username", name, "--role", role, "--email", module.params["email"])
                names = ("--firstname", module.params["first_name"], "--lastname", module.params["last_name"])
                run_airflow(module, values, "users", "create", *options, *names, stdin=twice)
            if "password" in did:
                run_airflow(module, values, "users", "reset-password", "--username", name, stdin=twice)
            if "role" in did:
                run_airflow(module, values, "users", "add-role", "--username", name, "--role", role)
    module.exit_json(changed=bool(did), did=did)


if __name__ == "__main__":
    main()
