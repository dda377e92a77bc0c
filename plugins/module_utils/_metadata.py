# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: modules that talk to Airflow's metadata database with the release's own Python."""

from __future__ import annotations

import os
import time
import typing as t
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils._environment import parse
from ansible_collections.onprem.airflow.plugins.module_utils._lock import wait_for_turn
from ansible_collections.onprem.airflow.plugins.module_utils._respawn import go_on_under

CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"

ARGUMENTS: dict[str, t.Any] = {
    "release": {"type": "path", "default": "/opt/airflow/current"},
    "environment_files": {"type": "list", "elements": "path", "required": True},
    "user": {"type": "str", "default": "airflow"},
    "timeout": {"type": "int", "default": 60},
}


def use_release_python(module: AnsibleModule) -> None:
    """Go on under the Python of the release, which has psycopg; in check mode on a bare host there is none yet."""
    python = os.path.join(module.params["release"], "bin", "python")
    if not os.path.exists(python):
        if module.check_mode:
            module.exit_json(changed=True, msg=f"{python} is not there yet")
        module.fail_json(msg=f"{python} is missing: install the release first (role onprem.airflow.airflow)")
    go_on_under(module, python)


def environment(module: AnsibleModule) -> dict[str, str]:
    """The services' own environment. Ends in check mode when a file is not there yet."""
    values: dict[str, str] = {}
    for path in module.params["environment_files"]:
        try:
            with open(path, encoding="utf-8") as stream:
                values.update(parse(stream.read()))
        except FileNotFoundError:
            if module.check_mode:
                module.exit_json(changed=True, msg=f"{path} is not there yet")
            module.fail_json(msg=f"{path} is missing: run the role onprem.airflow.airflow_master from its beginning")
    if CONNECTION not in values:
        module.fail_json(msg=f"{CONNECTION} is in none of {', '.join(module.params['environment_files'])}")
    return values


def run_alone(module: AnsibleModule, connection: t.Any) -> None:
    """Wait for what an earlier run may have left running here, and for other masters; then hold the turn.

    A second migration fails while the first one works, and so does a second making of the same user. The file's lock
    outlives a run that was killed, as the command that it started does; the database's is for all masters.
    """
    if not module.check_mode:
        wait_for_turn("/run/lock/onprem-airflow-metadata.lock")
        connection.execute("SELECT pg_advisory_lock(hashtext('onprem.airflow'))")


def libpq_url(sqlalchemy_url: str) -> str:
    """The same address for libpq, which knows no drivers: C(postgresql+psycopg://...) becomes C(postgresql://...)."""
    return "postgresql://" + sqlalchemy_url.split("://", 1)[1]


def connect(module: AnsibleModule, url: str) -> t.Any:
    """Connect to the database, for C(timeout) seconds if need be; the message of a failure holds no password."""
    import psycopg

    end = time.monotonic() + module.params["timeout"]
    while True:
        try:
            return psycopg.connect(libpq_url(url), connect_timeout=5, autocommit=True)
        except psycopg.OperationalError as exc:
            if time.monotonic() < end and not module.check_mode:
                time.sleep(1)
                continue
            if module.check_mode:
                module.exit_json(changed=True, msg="the database does not answer yet")
            parts = urlsplit(url)
            module.fail_json(
                msg=f"The database {parts.path.lstrip('/')} on {parts.hostname}:{parts.port or 5432} does not let "
                f"{parts.username} in: {str(exc).strip()}. Check that PostgreSQL runs there, that its pg_hba.conf "
                "admits this host, and that the password is the same."
            )


def run_airflow(
    module: AnsibleModule, values: dict[str, str], *arguments: str, stdin: str | None = None, release: str = ""
) -> str:
    """Run Airflow's CLI as its user; returns its output, and fails with it when it fails.

    C(release) is the folder of another release than the module's own.
    setsid: with a terminal at hand (sudo's use_pty is on by default in Debian 13) getpass would ask that, not stdin.
    """
    program = os.path.join(release or module.params["release"], "bin", "airflow")
    user = module.params["user"]
    as_user = ["setsid", "--wait", "setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
    rc, out, err = module.run_command([*as_user, program, *arguments], environ_update=values, data=stdin, cwd="/")
    if rc != 0:
        module.fail_json(msg=f"airflow {' '.join(arguments[:2])} ended with {rc}: {(err or out).strip()[-2000:]}")
    return out
