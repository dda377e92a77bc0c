#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_definitions
short_description: Make a running RabbitMQ agree with its definitions file
description:
  - Compares users, permissions, virtual hosts and policies of the running broker with the definitions file that it
    reads at boot, imports the file when they differ, and deletes the users that the file does not name.
  - A password is changed by its hash in the file, so none is ever in argv.
  - RabbitMQ's own import only adds and overwrites; it never deletes.
  - Calls C(rabbitmqctl) as the user C(rabbitmq), because Debian's hands its arguments through a shell when root calls
    it.
extends_documentation_fragment: [onprem.airflow.attributes.no_diff]
options:
  path:
    description: The definitions file on the host.
    type: path
    default: /etc/rabbitmq/definitions.json
  timeout:
    description: Seconds that each call of C(rabbitmqctl) may take, and that an import may take to show.
    type: int
    default: 60
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Accounts | Make the broker agree with its definitions
  onprem.airflow.rabbitmq_definitions:
"""

RETURN = r"""
differences:
  description: What was missing or different in the broker, by name, without values.
  returned: always
  type: list
  elements: str
  sample: ["users: airflow differs in password_hash"]
deleted:
  description: The users that were, or would be, deleted.
  returned: always
  type: list
  elements: str
  sample: ["guest"]
"""

import json
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils._rabbitmq import differences, strays

HOME = "/var/lib/rabbitmq"
AS_RABBITMQ = ("setpriv", "--reuid=rabbitmq", "--regid=rabbitmq", "--init-groups")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/rabbitmq/definitions.json"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    path, timeout = module.params["path"], module.params["timeout"]

    def rabbitmqctl(*arguments: str) -> str:
        # No -q and nothing on stdin: with either, 4.0.5 can wait for its standard input for ever.
        command = ["timeout", str(timeout + 10), *AS_RABBITMQ, program, "--timeout", str(timeout), *arguments]
        rc, out, err = module.run_command(command, environ_update={"HOME": HOME}, cwd=HOME)
        if rc != 0:
            module.fail_json(msg=f"rabbitmqctl {arguments[0]} ended with {rc}: {(err or out).strip()}")
        return out

    def exported() -> dict[str, t.Any]:
        out = rabbitmqctl("export_definitions", "-", "--format", "json")
        return json.loads(out[out.index("{") : out.rindex("}") + 1])

    program = module.get_bin_path("rabbitmqctl") or ""
    if module.check_mode and not (program and os.path.exists(path)):
        module.exit_json(changed=True, differences=["everything: RabbitMQ is not there yet"], deleted=[])
    try:
        with open(path, encoding="utf-8") as stream:
            wanted = json.load(stream)
    except (OSError, ValueError) as exc:
        module.fail_json(msg=f"The definitions file cannot be read: {exc}")
    current = exported()
    found, deleted = differences(wanted, current), strays(wanted, current)
    if not module.check_mode:
        if found:
            rabbitmqctl("import_definitions", path)
            # The import goes on after rabbitmqctl has returned.
            end = time.monotonic() + timeout
            while left := differences(wanted, exported()):
                if time.monotonic() > end:
                    module.fail_json(msg=f"{timeout} s after the import the broker still differs: {'; '.join(left)}")
                time.sleep(0.5)
        for user in deleted:
            rabbitmqctl("delete_user", user)
    module.exit_json(changed=bool(found or deleted), differences=found, deleted=deleted)


if __name__ == "__main__":
    main()
