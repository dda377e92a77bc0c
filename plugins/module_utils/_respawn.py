# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: modules that need the packages of a release, because those are what the services have."""

from __future__ import annotations

import importlib
import os
import platform
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.respawn import has_respawned, respawn_module


def go_on_under(module: AnsibleModule, python: str) -> None:
    """Run the module again under the Python of a release, and end with it; returns once its packages are at hand.

    Mitogen runs modules within a process of its own, which cannot be started anew. There this process reads the
    packages itself: that works as long as the release was made for the same version of Python.
    """
    if has_respawned():
        return
    try:
        respawn_module(python)
    except AttributeError:  # of Ansible's own wrapper around a module, which Mitogen does without
        version = ".".join(platform.python_version_tuple()[:2])
        packages = os.path.join(os.path.dirname(os.path.dirname(python)), "lib", f"python{version}", "site-packages")
        if not os.path.isdir(packages):
            module.fail_json(
                msg=f"Mitogen runs modules under Python {version}, and {packages} is missing: the release was made for "
                "another Python. Run the playbook without Mitogen: ANSIBLE_STRATEGY=linear"
            )
        sys.path.insert(0, packages)
        importlib.invalidate_caches()
