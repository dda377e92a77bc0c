#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secrets
short_description: Makes the secrets of an Airflow cluster
description:
  - Writes a file of variables with a strong random value for every secret that the roles of this collection need.
  - A file that exists is extended by the secrets it lacks. What it holds is neither changed nor moved nor
    reformatted, so comments and values of your own stay.
  - Runs on the control machine. Values are never part of the output; a diff shows names only.
author: ["onprem.airflow authors (@onprem-airflow)"]
extends_documentation_fragment: [onprem.airflow.attributes]
requirements:
  - PyYAML
options:
  path:
    description:
      - Absolute path of the file.
      - Without it the file is C(group_vars/all/airflow_secrets.yml) beside the inventory given as O(inventory).
    type: path
  inventory:
    description:
      - Inventory sources that Ansible was given, as in the variable C(ansible_inventory_sources). Has to be one
        folder, or files of one folder. Only used without O(path).
    type: list
    elements: path
    default: []
  known:
    description:
      - Names of variables that the inventory defines already, in this file or elsewhere. These are not made.
    type: list
    elements: str
    default: []
  characters:
    description:
      - Characters of which every password contains each one, never at its ends, for sites that demand
        special characters.
      - Printable ASCII only. Keys and the Erlang cookie do not follow this, their form is given.
    type: str
    default: ""
notes:
  - A new file has mode C(0600), and nobody but its owner can read it while it is written. From an existing one the
    permissions of others are taken away.
  - A file that ansible-vault encrypted cannot be extended; the module says so and changes nothing.
"""

EXAMPLES = r"""
- name: Make what the inventory lacks
  onprem.airflow.secrets:
    inventory: "{{ ansible_inventory_sources }}"
  delegate_to: localhost
  run_once: true

- name: Make passwords that satisfy a policy, in a file of that name
  onprem.airflow.secrets:
    path: /srv/inventory/group_vars/all/airflow_secrets.yml
    characters: "!-_"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
path:
  description: The file that was written or found complete.
  returned: always
  type: str
  sample: /srv/inventory/group_vars/all/airflow_secrets.yml
added:
  description: Names of the variables that were added.
  returned: always
  type: list
  elements: str
  sample: [airflow_database_password, airflow_fernet_key]
present:
  description: Names of the variables that this file or the rest of the inventory had already.
  returned: always
  type: list
  elements: str
  sample: [airflow_broker_password]
encrypted:
  description: Whether the file is encrypted by ansible-vault.
  returned: always
  type: bool
  sample: false
"""

import os
import stat
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.onprem.airflow.plugins.module_utils import _secrets


def read(path: str) -> bytes | None:
    """The content of a file, or None."""
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Add what is missing; the result of the module."""
    _secrets.check_characters(params["characters"])
    # The file that a link leads to is the one to extend; replacing the link would part the two.
    path = os.path.realpath(params["path"] or _secrets.secrets_path(params["inventory"]))
    content = read(path)
    empty = _secrets.without_value(path, content)
    if empty:
        raise _secrets.SecretsError(
            f"{', '.join(empty)} in {path} has no value: delete the line so that one is made, or write a value."
        )
    names = _secrets.missing(path, content, params["known"])
    present = [name for name in _secrets.NAMES if name not in names]
    result: dict[str, Any] = {"path": path, "added": names, "present": present}
    result["encrypted"] = content is not None and _secrets.encrypted(content)
    old_mode = stat.S_IMODE(os.stat(path).st_mode) if content is not None else 0o600
    mode = old_mode & ~0o007
    result["changed"] = bool(names) or mode != old_mode
    result["diff"] = {
        "before_header": path,
        "after_header": path,
        "before": "".join(f"{name}: (kept)\n" for name in present),
        "after": "".join(f"{name}: ({'new' if name in names else 'kept'})\n" for name in _secrets.NAMES),
    }
    if names:
        new = _secrets.extend(path, content, names, params["characters"])
        if not check_mode:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _secrets.replace_file(path, new, mode)
    elif result["changed"] and not check_mode:
        os.chmod(path, mode)
    return result


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "inventory": {"type": "list", "elements": "path", "default": []},
            "known": {"type": "list", "elements": "str", "default": []},
            "characters": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if _secrets.yaml is None:
        module.fail_json(msg=missing_required_lib("PyYAML"), exception=traceback.format_exc())
    try:
        module.exit_json(**run(module.params, module.check_mode))
    except _secrets.SecretsError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'The secrets file'} could not be read or written: {error.strerror}.")


if __name__ == "__main__":
    main()
