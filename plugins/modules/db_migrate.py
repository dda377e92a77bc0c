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
  - Refuses a database that a newer release has migrated, unless it is told to take it back.
extends_documentation_fragment: [onprem.airflow.metadata, onprem.airflow.attributes.no_diff]
options:
  state:
    description:
      - V(present) brings a database that is behind O(release) to its schema.
      - V(downgraded) takes a database that a newer release has migrated back to the schema of O(release). Only a
        release that knows the newer schema can do that, so one that does must be installed on this host. It undoes
        its migrations with C(airflow db downgrade) and, for the tables of the login, C(airflow fab-db downgrade).
        What a migration has added is lost with that. Stop schedulers, DAG processors and triggerers first.
    type: str
    choices: [present, downgraded]
    default: present
  root:
    description: Where O(state=downgraded) looks for releases, the folder with C(releases) in it.
    type: path
    default: /opt/airflow
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Database | Migrate
  onprem.airflow.db_migrate:
    environment_files: [/etc/airflow/airflow.env, /etc/airflow/master.env]
  run_once: true

- name: Database | Take it back to the release before
  onprem.airflow.db_migrate:
    release: /opt/airflow/previous
    environment_files: [/etc/airflow/airflow.env, /etc/airflow/master.env]
    state: downgraded
  run_once: true
"""

RETURN = r"""
behind:
  description: Each chain of migrations that the database was behind in, with its revision before and after.
  returned: when O(state=present) and the database answered
  type: list
  elements: str
  sample: ["alembic_version: empty -> d2f4e1b3c5a7"]
ahead:
  description: Each chain of migrations that the database was ahead in, with its revision before and after.
  returned: when O(state=downgraded) and the database answered
  type: list
  elements: str
  sample: ["alembic_version: d2f4e1b3c5a7 -> 1d6611b6ab7c"]
by:
  description: The release that took the database back, or would.
  returned: when O(state=downgraded) and there was something to take back
  type: str
  sample: 3.3.2-1a2b3c4d
"""

import glob
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
from ansible_collections.onprem.airflow.plugins.module_utils._release import installed
from ansible_collections.onprem.airflow.plugins.module_utils._schema import (
    CHAINS,
    DOWNGRADE,
    back,
    compare,
    release_chains,
)

# What _schema.release_chains() returns
Chains = dict[str, t.Any]


def _revisions(connection: t.Any) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for table in CHAINS:
        if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()[0]:
            row = connection.execute(f"SELECT version_num FROM {table}").fetchone()  # a constant of ours
            found[table] = row[0] if row else None
    return found


def _own_chains(module: AnsibleModule) -> Chains:
    spec = importlib.util.find_spec("airflow")
    folders = (spec.submodule_search_locations if spec else None) or []
    if not folders:
        module.fail_json(msg=f"{module.params['release']} holds no Airflow: remove the release and run again")
    chains: Chains = {}
    for package in folders:
        chains.update(release_chains(os.fspath(package)))
    if "alembic_version" not in chains:
        module.fail_json(msg=f"{module.params['release']} has no migrations: its layout is not that of Airflow 3.3")
    return chains


def _way_back(module: AnsibleModule, chains: Chains, current: dict[str, str | None]) -> tuple[str, dict[str, str]]:
    """The installed release that can take the database back, and to which revisions."""
    root = module.params["root"]
    why: list[str] = []
    found = installed(root)
    for name in sorted(found, key=lambda each: found[each].since, reverse=True):
        newer: Chains = {}
        folder = glob.escape(os.path.join(root, "releases", name))
        for package in glob.glob(f"{folder}/lib/python3*/site-packages/airflow"):
            newer.update(release_chains(package))
        try:
            return name, back(chains, newer, current)
        except ValueError as exc:
            why.append(f"{name}: {exc}")
    return module.fail_json(
        msg=f"No release in {root}/releases can take the metadata database back to the schema of "
        f"{module.params['release']} ({'; '.join(why) or 'there is none'}). Install the release that migrated it, or "
        "restore the dump that was made before the upgrade."
    )


def _migrate(module: AnsibleModule, chains: Chains, values: dict[str, str], connection: t.Any) -> None:
    behind, unknown = compare(chains, _revisions(connection))
    if unknown:
        module.fail_json(
            msg=f"The metadata database was migrated by a newer release: {'; '.join(unknown)}, which this release "
            "does not know. Install that release, or take the database back with it: onprem.airflow.rollback"
        )
    if behind and not module.check_mode:
        run_airflow(module, values, "db", "migrate")
        left = compare(chains, _revisions(connection))[0]
        if left:
            module.fail_json(msg=f"airflow db migrate ended well, but the database is still behind: {'; '.join(left)}")
    module.exit_json(changed=bool(behind), behind=behind)


def _downgrade(module: AnsibleModule, chains: Chains, values: dict[str, str], connection: t.Any) -> None:
    current = _revisions(connection)
    if not compare(chains, current)[1]:
        module.exit_json(changed=False, ahead=[])
    name, targets = _way_back(module, chains, current)
    ahead = [f"{table}: {current[table]} -> {revision}" for table, revision in targets.items()]
    if not module.check_mode:
        folder = os.path.join(module.params["root"], "releases", name)
        # The login's tables first, while the rest is as the release that undoes its migrations knows it.
        for table in sorted(targets, reverse=True):
            run_airflow(module, values, *DOWNGRADE[table], "--to-revision", targets[table], "--yes", release=folder)
        if left := compare(chains, _revisions(connection))[1]:
            module.fail_json(msg=f"airflow db downgrade ended well, but the database is still ahead: {'; '.join(left)}")
    module.exit_json(changed=True, ahead=ahead, by=name)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "state": {"choices": ["present", "downgraded"], "default": "present"},
            "root": {"type": "path", "default": "/opt/airflow"},
        },
        supports_check_mode=True,
    )
    use_release_python(module)
    values = environment(module)
    chains = _own_chains(module)
    with connect(module, values[CONNECTION]) as connection:
        run_alone(module, connection)
        (_migrate if module.params["state"] == "present" else _downgrade)(module, chains, values, connection)


if __name__ == "__main__":
    main()
