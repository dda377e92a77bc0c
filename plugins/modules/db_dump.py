#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_dump
short_description: Dump Airflow's metadata database into a file on the database host
description:
  - Runs C(pg_dump) in its custom format, which C(pg_restore) reads. The dump is a consistent image, whatever is
    written meanwhile.
  - Checks first that the disk has room for the whole database; a dump takes less, how much less is known afterwards.
  - The file can be read by root alone. It gets its name when it is whole and C(pg_restore) has read its list of
    contents, so that a dump that was cut off is never taken for one. This, the room and the removal of old dumps are
    what M(community.postgresql.postgresql_db) leaves to the caller.
  - Makes a new dump whenever it runs.
extends_documentation_fragment: [onprem.airflow.attributes.no_diff]
options:
  database:
    description: The name of the database.
    type: str
    default: airflow
  port:
    description: The port of the server on this host.
    type: int
    default: 5432
  folder:
    description: Where dumps are kept. Made with mode C(0700) when it is not there.
    type: path
    default: /var/backups/airflow
  label:
    description: What stands in the name of the file, for instance the release that runs.
    type: str
    default: ""
  keep:
    description:
      - How many dumps of the database stay, the newest. The last one with an older schema stays in any case, because
        it is the way back.
    type: int
    default: 3
  user:
    description: The system's user that may read the whole database.
    type: str
    default: postgres
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Dump | Save the metadata database
  onprem.airflow.db_dump:
    label: 3.3.1-5e6f7a8b
"""

RETURN = r"""
path:
  description: The dump; empty in check mode.
  returned: always
  type: str
  sample: /var/backups/airflow/airflow_20261122T202529Z_3.3.1-5e6f7a8b_d2f4e1b3c5a7.dump
bytes:
  description: Its size.
  returned: when it was made
  type: int
  sample: 214301
seconds:
  description: How long it took.
  returned: when it was made
  type: float
  sample: 0.8
removed:
  description: The names of old dumps that were removed.
  returned: always
  type: list
  elements: str
"""

import glob
import os
import shutil
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils._dump import PARTIAL, SUFFIX, file_name, parse, to_remove
from ansible_collections.onprem.airflow.plugins.module_utils._lock import wait_for_turn


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "str", "default": "airflow"},
            "port": {"type": "int", "default": 5432},
            "folder": {"type": "path", "default": "/var/backups/airflow"},
            "label": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 3},
            "user": {"type": "str", "default": "postgres"},
        },
        supports_check_mode=True,
    )
    params = module.params
    database, folder, port = params["database"], params["folder"], str(params["port"])
    as_user = ["runuser", "-u", params["user"], "--"]

    def ask(query: str) -> tuple[int, str]:
        options = ["--no-psqlrc", "--tuples-only", "--no-align", "--port", port, "--dbname", database]
        rc, out, err = module.run_command([*as_user, "psql", *options, "--command", query], cwd="/")
        return rc, out.strip() if rc == 0 else (err or out).strip()

    rc, size = ask("SELECT pg_database_size(current_database())")
    if rc != 0:
        module.fail_json(msg=f"The database {database} cannot be asked for its size: {size}")
    rc, schema = ask("SELECT version_num FROM alembic_version")
    if rc != 0:  # nothing has migrated it yet
        schema = ""
    place = folder
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free
    if free < int(size):
        module.fail_json(
            msg=f"{free >> 20} MB are free at {place}; a dump of the database {database} may take up to "
            f"{int(size) >> 20} MB. Free some, or name another folder in airflow_backup_dir."
        )
    if module.check_mode:
        module.exit_json(changed=True, path="", removed=[])

    os.makedirs(folder, mode=0o700, exist_ok=True)
    wait_for_turn(os.path.join(folder, ".lock"))
    for left in glob.glob(os.path.join(glob.escape(folder), f"{glob.escape(database)}_*{SUFFIX}{PARTIAL}")):
        os.unlink(left)  # of a run that was cut off
    begun = time.monotonic()
    path = os.path.join(folder, file_name(database, time.time(), params["label"], schema))
    partial = path + PARTIAL
    command = [*as_user, "pg_dump", "--format=custom", "--port", port, database]
    # Opened by root and given on: the user of pg_dump may not write into the folder.
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, cwd="/", check=False)
        os.fsync(stream.fileno())
    if done.returncode != 0:
        os.unlink(partial)
        said = done.stderr.decode(errors="replace").strip()[-2000:]
        module.fail_json(msg=f"pg_dump of the database {database} ended with {done.returncode}: {said}")
    rc, _out, err = module.run_command(["pg_restore", "--list", partial])
    if rc != 0:
        os.unlink(partial)
        module.fail_json(msg=f"pg_restore cannot read the dump that pg_dump has just made: {err.strip()[-2000:]}")
    os.rename(partial, path)
    removed = to_remove(parse(database, os.listdir(folder)), params["keep"])
    for name in removed:
        os.unlink(os.path.join(folder, name))
    module.exit_json(
        changed=True,
        path=path,
        bytes=os.path.getsize(path),
        seconds=round(time.monotonic() - begun, 1),
        removed=removed,
    )


if __name__ == "__main__":
    main()
