# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: modules that go on under the Python of a release, which has what the services have."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.respawn import has_respawned, respawn_module


def go_on_under(module: AnsibleModule, python: str) -> None:
    """Run the module again under another Python, and end with it; returns when that has happened already."""
    if has_respawned():
        return
    try:
        respawn_module(python)
    except AttributeError:  # Mitogen runs modules within a process of its own, without what this needs
        module.fail_json(
            msg="This module goes on under the Python of the release, which Mitogen's strategies cannot do."
            " Give the play another one: strategy: linear"
        )
