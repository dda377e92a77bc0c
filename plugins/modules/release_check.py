#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_check
short_description: Check a configuration with a release of Airflow that does not run yet
description:
  - Takes the settings as they are going to be, and tells what an installed release would make of them. Nothing of the
    running services is read or touched.
  - Finds sections, keys and environment variables that this release does not know (any more), values that it would
    misread, and settings that a master or a worker cannot do without.
  - Then lets the release itself import, with these settings, what they name. That is the executor with its Celery
    application, the bundles of DAGs, and on a master the auth manager.
  - Reads only. The problems are returned, the task does not fail because of them.
  - O(environment) holds secrets, so use C(no_log) and tell the problems in a second task.
extends_documentation_fragment: [onprem.airflow.attributes.read_only]
options:
  release:
    description: The folder of the release.
    type: path
    required: true
  version:
    description: The version of Airflow that the release should hold. Without it, any.
    type: str
    default: ""
  config:
    description: The text of C(airflow.cfg).
    type: str
    required: true
  config_path:
    description: Where that file is going to be.
    type: path
    default: /etc/airflow/airflow.cfg
  environment:
    description: The environment of the services.
    type: dict
    default: {}
  kinds:
    description: What the host is.
    type: list
    elements: str
    choices: [master, worker]
    required: true
  user:
    description: The user of the services.
    type: str
    default: airflow
  home:
    description: The home of this user.
    type: path
    default: /var/lib/airflow
  timeout:
    description: Seconds that the imports may take.
    type: float
    default: 120
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Release | Check the settings with it
  onprem.airflow.release_check:
    release: /opt/airflow/releases/3.3.2-1a2b3c4d
    config: "{{ lookup('ansible.builtin.template', 'airflow.cfg.j2') }}"
    environment: "{{ airflow_environment }}"
    kinds: [worker]
  register: check
  no_log: true

- name: Release | Refuse settings that it does not understand
  ansible.builtin.assert:
    that: check.problems | length == 0
    fail_msg: "{{ check.problems }}"
"""

RETURN = r"""
problems:
  description: What is wrong, each with C(code), C(what) and C(fix). No text holds a secret.
  returned: always
  type: list
  elements: dict
  sample:
    - code: key_unknown
      what: "[scheduler] min_file_parsing_loop_time in /etc/airflow/airflow.cfg, line 40 means nothing to Airflow"
      fix: Take it out of airflow_config in the inventory and run onprem.airflow.site.
version:
  description: The version of Airflow in the release; empty when it is not installed yet, in check mode.
  returned: always
  type: str
  sample: 3.3.2
"""

import glob
import json
import os
import pwd
import shutil
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils import _settings
from ansible_collections.onprem.airflow.plugins.module_utils._release import MARKER, installed
from ansible_collections.onprem.airflow.plugins.module_utils._respawn import go_on_under

# Run by the release's own Python; the last line of its output is a JSON list of [setting, why it cannot be imported].
IMPORTS = r"""
import importlib, json, sys
failed = []
def attempt(setting, call):
    try:
        call()
    except BaseException as exc:
        failed.append([setting, f"{type(exc).__name__}: {exc}"])
def executor():
    from airflow.executors.executor_loader import ExecutorLoader
    ExecutorLoader.import_default_executor_cls()
def bundles():
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    DagBundlesManager()
def auth_manager():
    from airflow.configuration import conf
    conf.getimport("core", "auth_manager")
attempt("[core] executor", executor)
attempt("[celery]", lambda: importlib.import_module("airflow.providers.celery.executors.celery_executor_utils"))
attempt("[dag_processor] dag_bundle_config_list", bundles)
if "master" in sys.argv:
    attempt("[core] auth_manager", auth_manager)
print()
print(json.dumps(failed))
"""
LINE = 300


def _problem(code: str, what: str, fix: str) -> dict[str, str]:
    return {"code": code, "what": what, "fix": fix}


def imports(module: AnsibleModule, sources: _settings.Sources, python: str) -> t.Iterator[dict[str, str]]:
    """What the release itself cannot import with these settings."""
    user = module.params["user"]
    entry = pwd.getpwnam(user)
    # Its own folder, because the user of the services has to read it while nobody else may.
    work = tempfile.mkdtemp(prefix="onprem-airflow-check-")
    try:
        config = os.path.join(work, "airflow.cfg")
        with open(config, "w", encoding="utf-8") as stream:
            stream.write(module.params["config"])
        for path in (config, work):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        os.chmod(config, 0o600)
        script = os.path.join(work, "check.py")
        with open(script, "w", encoding="utf-8") as stream:
            stream.write(IMPORTS)
        os.chmod(script, 0o644)
        as_user = ["setpriv", f"--reuid={user}", f"--regid={entry.pw_gid}", "--init-groups", "timeout"]
        command = [*as_user, f"{module.params['timeout']:g}", python, script, *module.params["kinds"]]
        rc, out, err = module.run_command(
            command, environ_update={**sources.environment, "AIRFLOW_CONFIG": config}, cwd=work
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    last = (out.strip().splitlines() or [""])[-1]
    try:
        failed = json.loads(last) if rc == 0 else None
    except ValueError:
        failed = None
    if failed is None:
        why = (err.strip().splitlines() or out.strip().splitlines() or [f"it ended with {rc}"])[-1]
        failed = [["these settings", why]]
    for setting, why in failed:
        told = _settings.masked(" ".join(str(why).replace(config, module.params["config_path"]).split()))
        yield _problem(
            "import_failed",
            f"with {setting} as it is set, this release cannot be used: {told[:LINE]}",
            "Install what is missing with airflow_extra_packages, or correct the setting in airflow_config, and run "
            "onprem.airflow.site.",
        )


def settings(module: AnsibleModule, sources: _settings.Sources, package: str) -> t.Iterator[dict[str, str]]:
    """What the release does not understand of these settings."""
    known = _settings.release_options(package)
    user = module.params["user"]
    found = _settings.effective(known, sources, _settings.commands_as(user, user, sources.environment))
    kinds = module.params["kinds"]
    for problem in _settings.problems("", known, sources, found, kinds):
        # Where an API server is on this very host, a worker may well call it so.
        if not (problem.code == "api_url_localhost" and "master" in kinds):
            yield _problem(problem.code, problem.what, problem.fix)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "path", "required": True},
            "version": {"type": "str", "default": ""},
            "config": {"type": "str", "required": True},
            "config_path": {"type": "path", "default": "/etc/airflow/airflow.cfg"},
            # Its values are not masked one by one: a home folder is among them. The task has no_log.
            "environment": {"type": "dict", "default": {}, "no_log": False},
            "kinds": {"type": "list", "elements": "str", "choices": ["master", "worker"], "required": True},
            "user": {"type": "str", "default": "airflow"},
            "home": {"type": "path", "default": "/var/lib/airflow"},
            "timeout": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    params = module.params
    release = os.path.realpath(params["release"])
    if not os.path.exists(os.path.join(release, MARKER)):
        if module.check_mode:
            module.exit_json(changed=False, problems=[], version="")
        module.fail_json(msg=f"{release} is not installed: run the tasks install of the role onprem.airflow.airflow")
    python = os.path.join(release, "bin", "python")
    go_on_under(module, python)  # which has PyYAML
    version = installed(os.path.dirname(os.path.dirname(release)))[os.path.basename(release)].version
    environment = {key: str(value) for key, value in params["environment"].items()}
    base = _settings.read_sources("/nonexistent", [], params["user"], params["home"])
    sources = _settings.Sources(
        _settings.parse_config(params["config_path"], params["config"]),
        {**base.environment, **environment},
        dict.fromkeys(environment, "the environment of the services"),
        params["home"],
    )
    problems = []
    if params["version"] not in ("", version):
        problems.append(
            _problem(
                "version_differs",
                f"the lock holds Airflow {version}, but airflow_version says {params['version']}",
                f'Set airflow_version: "{version}", or give the right airflow_lock.',
            )
        )
    for package in glob.glob(f"{glob.escape(release)}/lib/python3*/site-packages/airflow"):
        problems += settings(module, sources, package)
    if not sources.config.error:  # which is told already, and would come back from every import
        problems += imports(module, sources, python)
    module.exit_json(changed=False, problems=problems, version=version)


if __name__ == "__main__":
    main()
