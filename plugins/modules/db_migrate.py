#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_migrate
short_description: Bring Airflow's metadata database to the schema of a release
description:
  - Compares the revisions in the database with those of the installed release and runs C(airflow db migrate) only when
    the database is behind. The comparison takes a fraction of a second, the command more than three.
  - Run it on one host. Airflow's own lock lets a second migration fail after 1.8 seconds.
  - Refuses a database that a newer release has migrated.
extends_documentation_fragment: [onprem.airflow.metadata, onprem.airflow.attributes.no_diff]
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Database | Migrate
  onprem.airflow.db_migrate:
    environment_files: [/etc/airflow/airflow.env, /etc/airflow/master.env]
  run_once: true
"""

RETURN = r"""
behind:
  description: Each chain of migrations that the database was behind in, with its revision before and after.
  returned: when the database answered
  type: list
  elements: str
  sample: ["alembic_version: empty -> 1d6611b6ab7c"]
"""

import importlib.util
import os
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
from ansible_collections.onprem.airflow.plugins.module_utils._schema import CHAINS, compare, release_chains


def _revisions(connection: t.Any) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for table in CHAINS:
        if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()[0]:
            row = connection.execute(f"SELECT version_num FROM {table}").fetchone()  # a constant of ours
            found[table] = row[0] if row else None
    return found


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    use_release_python(module)
    values = environment(module)
    spec = importlib.util.find_spec("airflow")
    folders = (spec.submodule_search_locations if spec else None) or []
    if not folders:
        module.fail_json(msg=f"{module.params['release']} holds no Airflow: remove the release and run again")
    chains: dict[str, t.Any] = {}
    for package in folders:
        chains.update(release_chains(os.fspath(package)))
    if "alembic_version" not in chains:
        module.fail_json(msg=f"{module.params['release']} has no migrations: its layout is not that of Airflow 3.3")
    run_alone(module)
    with connect(module, values[CONNECTION]) as connection:
        behind, unknown = compare(chains, _revisions(connection))
        if unknown:
            module.fail_json(
                msg=f"The metadata database was migrated by a newer release: {'; '.join(unknown)}, which this release "
                "does not know. Install that release, or run its own `airflow db downgrade` first."
            )
        if behind and not module.check_mode:
            run_airflow(module, values, "db", "migrate")
            left = compare(chains, _revisions(connection))[0]
            if left:
                module.fail_json(
                    msg=f"airflow db migrate ended well, but the database is still behind: {'; '.join(left)}"
                )
    module.exit_json(changed=bool(behind), behind=behind)


if __name__ == "__main__":
    main()
