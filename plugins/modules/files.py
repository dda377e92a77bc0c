#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Bring a whole set of files, folders and links into place in one task
description:
  - Writes all configuration files of a component in one task, with a diff for each. A task costs the controller and the
    host about half a second whatever it does, so a loop over ten templates is ten times as dear as this.
  - A file is written beside its target with its final owner and mode, checked with O(files[].validate), then renamed.
    A reader sees the old file or the new one, never half of one, and a refused file never takes effect.
  - Missing parent folders are made, C(root:root) and C(0755).
extends_documentation_fragment: [onprem.airflow.attributes]
options:
  files:
    description:
      - The paths, brought into place in this order.
      - Mark the task C(no_log) when a content carries a secret.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The absolute path.
        type: path
        required: true
      state:
        description: What should stand at the path. V(absent) removes a folder with all that is in it.
        type: str
        choices: [file, directory, link, absent]
        default: file
      content:
        description: The whole text of a file, UTF-8. Required with O(files[].state=file).
        type: str
      link:
        description: What a link points at. Required with O(files[].state=link).
        type: str
      former:
        description:
          - The path of another link, which gets the target that this link had whenever that changes. A way back.
        type: path
      owner:
        description: The name of the owner. Left as it is (or root for a new path) when not given.
        type: str
      group:
        description: The name of the group. Left as it is (or root for a new path) when not given.
        type: str
      mode:
        description:
          - The permissions as an octal string. Left as they are when not given; a new file then gets V(0644), a new
            folder V(0755).
        type: str
      validate:
        description:
          - A command that checks a new file before it takes effect, with C(%s) where the file's path goes. It is split
            like a shell would, but no shell runs it. Not run in check mode, where the program may not be installed yet.
        type: str
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Configure | Write RabbitMQ's files
  onprem.airflow.files:
    files:
      - path: /etc/rabbitmq/rabbitmq.conf
        content: "{{ lookup('ansible.builtin.template', 'rabbitmq.conf.j2') }}"
        owner: root
        group: rabbitmq
        mode: "0640"
      - path: /opt/airflow/current
        state: link
        link: /opt/airflow/releases/3.3.2-1a2b3c4d
        former: /opt/airflow/previous
"""

RETURN = r"""
changes:
  description: What was changed, or would be, by path. Empty when everything was right.
  returned: always
  type: dict
  sample: {"/etc/rabbitmq/rabbitmq.conf": ["content", "mode 0644 -> 0640"]}
"""

import shlex
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils._files import FilesError, Wanted, apply, compare, look


def _checker(module: AnsibleModule) -> t.Callable[[str, str], None]:
    def check(command: str, path: str) -> None:
        rc, out, err = module.run_command([part.replace("%s", path) for part in shlex.split(command)])
        if rc != 0:
            raise FilesError(f"{command} refused the new file (rc {rc}): {(err or out).strip()}")

    return check


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "state": {"choices": ["file", "directory", "link", "absent"], "default": "file"},
                    "content": {"type": "str"},
                    "link": {"type": "str"},
                    "former": {"type": "path"},
                    "owner": {"type": "str"},
                    "group": {"type": "str"},
                    "mode": {"type": "str"},
                    "validate": {"type": "str"},
                },
                "required_if": [("state", "file", ["content"]), ("state", "link", ["link"])],
            },
        },
        supports_check_mode=True,
    )
    changes: dict[str, list[str]] = {}
    diffs: list[dict[str, str]] = []
    try:
        for params in module.params["files"]:
            wanted = Wanted(**params)
            found = look(wanted.path)
            change = compare(wanted, found)
            if not change.what:
                continue
            changes[wanted.path] = change.what
            header = f"{wanted.path} ({', '.join(change.what)})"
            diffs.append(
                {"before": change.before, "after": change.after, "before_header": header, "after_header": header}
                if change.before or change.after
                else {"prepared": f"{header}\n"}
            )
            if not module.check_mode:
                apply(wanted, found, _checker(module))
    except (FilesError, OSError, ValueError) as exc:
        module.fail_json(msg=str(exc), changes=changes)
    module.exit_json(changed=bool(changes), changes=changes, diff=diffs)


if __name__ == "__main__":
    main()
