#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tree
short_description: Makes a folder of the hosts equal to a folder of the control machine
description:
  - Adds the files that the hosts lack, replaces those that differ, and removes everything else, so that O(dest) holds
    the files of O(src) and nothing more. Folders without a file are not made, and removed.
  - Only what differs is sent, in one archive and over Ansible's own connection, so it works for an ordinary user with a
    sudo password. When nothing differs a run costs one module call.
  - Each file appears in one step, and new files appear before old ones go. Someone who reads the folder meanwhile sees
    whole files only.
extends_documentation_fragment: [onprem.airflow.attributes]
options:
  src:
    description:
      - Folder on the control machine, as an absolute path.
      - Links in it are followed as long as they stay inside it; any other link is refused by its name.
    type: path
    required: true
  dest:
    description:
      - Folder on the hosts, as an absolute path. Its parent has to exist.
      - C(/), folders of the system such as C(/etc) or C(/var/lib), and links are refused.
    type: path
    required: true
  owner:
    description:
      - User that owns O(dest) and everything in it. Without it, owners stay as they are.
    type: str
  group:
    description:
      - Group of O(dest) and everything in it. Without it, groups stay as they are.
    type: str
  file_mode:
    description:
      - Mode of the files as an octal string. A file that its owner may execute in O(src) may be executed by everyone
        who may read it.
    type: str
    default: "0644"
  dir_mode:
    description:
      - Mode of O(dest) and the folders in it as an octal string.
    type: str
    default: "0755"
  exclude:
    description:
      - Names in O(src) that are left out, with C(*), C(?) and C([...]) as in a shell. A pattern with a slash is matched
        with the path below O(src), any other with the name of a file or folder at any depth.
      - A file of such a name in O(dest) is removed like any other that O(src) does not give.
    type: list
    elements: str
    default: ["__pycache__", "*.pyc", ".git"]
  allow_empty:
    description:
      - Whether O(src) may be without a single file, which empties O(dest).
    type: bool
    default: false
  compile_with:
    description:
      - A Python of the hosts, which has to be able to compile the DAGs in O(src). If it cannot, the task fails with
        file, line and reason, and O(dest) stays as it is. Nothing of the files is executed.
      - DAGs are the C(*.py) files that Airflow opens, with C(airflow) and C(dag) or C(asset) in their text and not
        named in C(.airflowignore), and the files of O(src) that they import.
      - All of them are checked, also those that the host has already; but only when something differs.
    type: path
  state:
    description:
      - Set by the part of this module that runs on the control machine, not by tasks.
    type: str
    choices: [compare, compile, apply]
    default: compare
  manifest:
    description:
      - Set by the part of this module that runs on the control machine, not by tasks.
    type: dict
  archive:
    description:
      - Set by the part of this module that runs on the control machine, not by tasks.
    type: path
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Put the DAGs on the hosts
  onprem.airflow.tree:
    src: /srv/dags
    dest: /var/lib/airflow/dags
    owner: root
    group: airflow
    file_mode: "0640"
    dir_mode: "0750"
"""

RETURN = r"""
added:
  description: Files that were not there, relative to O(dest).
  returned: success
  type: list
  elements: str
  sample: [reports/daily.py]
updated:
  description: Files whose content differed.
  returned: success
  type: list
  elements: str
  sample: [common.py]
removed:
  description: What O(src) does not have. Folders end in a slash.
  returned: success
  type: list
  elements: str
  sample: [old.py]
fixed:
  description: Files and folders of which only owner, group or mode differed. C(.) is O(dest) itself.
  returned: success
  type: list
  elements: str
  sample: ["."]
files:
  description: How many files O(src) has.
  returned: success
  type: int
  sample: 12
digest:
  description: One SHA-256 for the paths and contents of O(src), to compare hosts with.
  returned: success
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
"""

import grp
import pwd
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils import _tree


def ownership(params: dict[str, Any], check_mode: bool) -> _tree.Ownership:
    """Names and octal strings as numbers."""
    uid = gid = -1
    try:
        file_mode, dir_mode = int(params["file_mode"], 8), int(params["dir_mode"], 8)
    except ValueError as error:
        raise _tree.TreeError(f"file_mode and dir_mode have to be octal strings such as '0644': {error}.") from error
    # On a fresh host in check mode the user is yet to be made: everything will differ, and that is all there is to say.
    missing = []
    if params["owner"] is not None:
        try:
            uid = pwd.getpwnam(params["owner"]).pw_uid
        except KeyError:
            missing.append(f"user {params['owner']}")
    if params["group"] is not None:
        try:
            gid = grp.getgrnam(params["group"]).gr_gid
        except KeyError:
            missing.append(f"group {params['group']}")
    if missing and not check_mode:
        raise _tree.TreeError(f"There is no {' and no '.join(missing)} on this host.")
    return _tree.Ownership(uid, gid, file_mode, dir_mode)


def run(params: dict[str, Any], check_mode: bool, diff: bool) -> dict[str, Any]:
    """Compare; in the second call compile and, unless in check mode, apply."""
    manifest = _tree.from_plain(params["manifest"] or {})
    dest = params["dest"].rstrip("/") or "/"
    owners = ownership(params, check_mode)
    plan = _tree.compare(manifest, dest, owners)
    result = plan.result()
    if params["state"] != "compare" and params["compile_with"] and plan.changed:
        _tree.check_compiles(manifest, plan, dest, params["archive"], params["compile_with"])
    if params["state"] == "apply":
        _tree.apply(manifest, plan, dest, owners, params["archive"])
    elif diff and params["state"] == "compare":
        result["texts"] = _tree.texts(dest, [*plan.updated, *plan.removed])
    return result


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "file_mode": {"type": "str", "default": "0644"},
            "dir_mode": {"type": "str", "default": "0755"},
            "exclude": {"type": "list", "elements": "str", "default": ["__pycache__", "*.pyc", ".git"]},
            "allow_empty": {"type": "bool", "default": False},
            "compile_with": {"type": "path"},
            "state": {"type": "str", "choices": ["compare", "compile", "apply"], "default": "compare"},
            "manifest": {"type": "dict"},
            "archive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module.params, module.check_mode, module._diff))
    except _tree.TreeError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['dest']}: {error.strerror or error}.")


if __name__ == "__main__":
    main()
