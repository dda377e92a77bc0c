#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Install one release of Airflow into a folder of its own
description:
  - Makes a virtual environment from a lock file with C(uv), with compiled bytecode.
  - A finished release is never changed in place. Another lock is another folder, and an installation that was cut off
    is begun anew.
extends_documentation_fragment: [onprem.airflow.attributes.no_diff]
options:
  path:
    description: The folder of the release, for instance C(/opt/airflow/releases/3.3.2-1a2b3c4d).
    type: path
    required: true
  lock:
    description:
      - The text of the lock or requirements file.
      - With hashes, as C(uv pip compile --generate-hashes) writes it, exactly these packages are installed and every
        one is checked. Without, the requirements are resolved on the host.
    type: str
    required: true
  extra_packages:
    description: Requirements installed on top of the lock, with the lock's own versions as their constraints.
    type: list
    elements: str
    default: []
  constraints_url:
    description: A constraints file for a O(lock) without hashes.
    type: str
    default: ""
  installer:
    description: The text of the requirements file, with hashes, that pins C(uv) itself.
    type: str
    required: true
  python:
    description: The Python of the release. It needs C(ensurepip), which Debian has in python3-venv.
    type: path
    default: /usr/bin/python3
  proof:
    description:
      - Whether to prove that Celery imports under Airflow's Celery provider before the release counts as installed.
      - A lock whose packages were imported together before need not pay for it again on each host.
    type: bool
    default: true
  index_url:
    description: The package index, in place of the installers' default. May hold a password; it is never in argv.
    type: str
    default: ""
  find_links:
    description: A folder or address with wheels, looked at beside the index.
    type: str
    default: ""
  offline:
    description: Take packages from O(find_links) alone.
    type: bool
    default: false
  ca_file:
    description: A PEM file on the host with the certificate authorities that the index is trusted by.
    type: path
    default: ""
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Install | Install the release
  onprem.airflow.release:
    path: /opt/airflow/releases/3.3.2-1a2b3c4d
    lock: "{{ lookup('ansible.builtin.file', 'locks/python3.13.txt') }}"
    installer: "{{ lookup('ansible.builtin.file', 'locks/uv.txt') }}"
"""

RETURN = r"""
seconds:
  description: How long each step took, in seconds. Empty when the release was there.
  returned: always
  type: dict
  sample: {"installer": 5.1, "packages": 24.9, "proof": 2.2}
"""

import glob
import os
import shutil
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils._lock import wait_for_turn
from ansible_collections.onprem.airflow.plugins.module_utils._release import (
    MARKER,
    Source,
    install_command,
    installer_environment,
)

# The import that fails when Celery and the provider do not fit, while `airflow celery worker --help` still succeeds.
PROOF = "import airflow.providers.celery.executors.celery_executor_utils"
# pip from the wheel that ensurepip would install it from, Debian's or Python's own: an environment with pip in it takes
# longer to make than the one command that it would be for.
PIP = """
import ensurepip, glob, os, runpy, sys
folders = (os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"), "/usr/share/python-wheels")
wheels = [wheel for folder in folders for wheel in glob.glob(os.path.join(folder, "pip-*.whl"))]
if not wheels:
    raise SystemExit("ensurepip has no wheel of pip in " + " or ".join(folders))
sys.path.insert(0, wheels[0])
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "lock": {"type": "str", "required": True},
            "extra_packages": {"type": "list", "elements": "str", "default": []},
            "constraints_url": {"type": "str", "default": ""},
            "installer": {"type": "str", "required": True},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "proof": {"type": "bool", "default": True},
            "index_url": {"type": "str", "default": "", "no_log": True},
            "find_links": {"type": "str", "default": ""},
            "offline": {"type": "bool", "default": False},
            "ca_file": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = params["path"]
    marker = os.path.join(path, MARKER)
    if os.path.exists(marker):
        module.exit_json(changed=False, seconds={})
    if module.check_mode:
        module.exit_json(changed=True, seconds={})
    releases = os.path.dirname(path)
    os.makedirs(releases, mode=0o755, exist_ok=True)
    wait_for_turn(os.path.join(releases, ".lock"))
    if os.path.exists(marker):  # finished by a run that was killed on the control machine only
        module.exit_json(changed=True, seconds={})

    source = Source(params["index_url"], params["find_links"], params["ca_file"], params["offline"])
    environment = installer_environment(source)
    seconds: dict[str, float] = {}

    def step(name: str, *command: str) -> None:
        begun = time.monotonic()
        rc, out, err = module.run_command(list(command), environ_update=environment, cwd=work)
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - begun, 1)
        if rc != 0:
            module.fail_json(
                msg=f"Installing {path}: {os.path.basename(command[0])} failed in step {name} (rc {rc}). It said:\n"
                + "\n".join((err or out).strip().splitlines()[-20:])
                + "\nThe next run begins this release anew."
            )

    # On the disk of the release: /tmp is memory on Debian 13, and packages are linked, not copied, within one disk.
    for left in glob.glob(os.path.join(releases, ".installing-*")):  # of a run that was cut off
        shutil.rmtree(left, ignore_errors=True)
    work = tempfile.mkdtemp(prefix=".installing-", dir=releases)
    try:
        environment["UV_CACHE_DIR"] = os.path.join(work, "cache")
        environment["AIRFLOW_HOME"] = work  # the proof makes an airflow.cfg with random secrets in its home
        for name in ("lock", "installer"):
            with open(os.path.join(work, f"{name}.txt"), "w", encoding="utf-8") as stream:
                stream.write(params[name])
        lock = os.path.join(work, "lock.txt")
        uv_home, python = os.path.join(work, "uv"), os.path.join(path, "bin", "python")
        options = ("--target", uv_home, "--no-compile", "--require-hashes", "-r", os.path.join(work, "installer.txt"))
        step("installer", params["python"], "-c", PIP, "install", *options)
        uv = os.path.join(uv_home, "bin", "uv")
        shutil.rmtree(path, ignore_errors=True)
        step("packages", uv, "venv", "--python", params["python"], path)
        step("packages", *install_command(uv, python, params["lock"], lock, params["constraints_url"]))
        if params["extra_packages"]:
            step(
                "extra_packages",
                *(uv, "pip", "install", "--python", python, "--compile-bytecode", "--constraints", lock),
                *params["extra_packages"],
            )
        if params["proof"]:
            step("proof", python, "-c", PROOF)
        with open(marker, "w", encoding="utf-8") as stream:
            stream.write(params["lock"])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    module.exit_json(changed=True, seconds=seconds)


if __name__ == "__main__":
    main()
