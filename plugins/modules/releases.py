#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: releases
short_description: Tell which releases of Airflow a host has and runs, and remove old ones
description:
  - Names the releases in C(/opt/airflow/releases), where the links C(current) and C(previous) lead, and which release
    the process of each unit has loaded its libraries from. That may be an older one than C(current), until the unit is
    restarted.
  - With O(keep) it removes old releases, never one that a link leads to or that a process still runs.
  - Does not need a release; on a host without any it says so.
extends_documentation_fragment: [onprem.airflow.attributes.no_diff]
options:
  root:
    description: The folder with C(releases), C(current) and C(previous).
    type: path
    default: /opt/airflow
  keep:
    description:
      - How many releases stay, the newest. C(current), C(previous) and what runs are among them, even if that makes
        more.
      - Without it, nothing is removed.
    type: int
author: ["onprem.airflow authors (@onprem-airflow)"]
"""

EXAMPLES = r"""
- name: Releases | Look
  onprem.airflow.releases:
  register: releases

- name: Prune | Remove all but the newest three
  onprem.airflow.releases:
    keep: 3
"""

RETURN = r"""
current:
  description: The release that C(current) leads to; empty without one.
  returned: always
  type: str
  sample: 3.3.2-1a2b3c4d
previous:
  description: The release that C(current) led to before; empty when there is none.
  returned: always
  type: str
  sample: 3.3.1-5e6f7a8b
installed:
  description: The finished releases by their names, each with the C(version) of Airflow and of C(python).
  returned: always
  type: dict
  sample: {3.3.2-1a2b3c4d: {version: 3.3.2, python: "3.13"}}
units:
  description:
    - The services of Airflow by the names of their units. C(active) is what systemd says, C(release) what its process
      runs, and C(held) whether it is drained.
  returned: always
  type: dict
  sample: {airflow-worker.service: {active: active, release: 3.3.2-1a2b3c4d, held: false}}
removed:
  description: The names of what was removed, or would be.
  returned: always
  type: list
  elements: str
  sample: [3.3.0-9c0d1e2f]
"""

import glob
import os
import shutil
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.airflow.plugins.module_utils._drain import held
from ansible_collections.onprem.airflow.plugins.module_utils._lock import wait_for_turn
from ansible_collections.onprem.airflow.plugins.module_utils._release import (
    MARKER,
    in_use,
    installed,
    linked,
    release_of,
    to_remove,
    unfinished,
)
from ansible_collections.onprem.airflow.plugins.module_utils._service import parse_show

UNITS = "/etc/systemd/system/airflow-*.service"
SHOWN = "Id,ActiveState,MainPID"


def _units(module: AnsibleModule, root: str) -> dict[str, dict[str, t.Any]]:
    names = sorted(os.path.basename(path) for path in glob.glob(UNITS) if not path.endswith("@.service"))
    if not names:
        return {}
    systemctl = module.get_bin_path("systemctl", required=True)
    out = module.run_command([systemctl, "show", f"--property={SHOWN}", "--", *names], check_rc=True)[1]
    shown = parse_show(out)
    return {
        name: {
            "active": shown[name].get("ActiveState", ""),
            "release": release_of(int(shown[name].get("MainPID") or 0), root),
            "held": bool(held(name)),
        }
        for name in names
        if name in shown
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={"root": {"type": "path", "default": "/opt/airflow"}, "keep": {"type": "int"}},
        supports_check_mode=True,
    )
    root, keep = module.params["root"], module.params["keep"]
    folder = os.path.join(root, "releases")
    if keep is not None and not module.check_mode and os.path.isdir(folder):
        wait_for_turn(os.path.join(folder, ".lock"))  # so that what is unfinished is not being finished
    found = installed(root)
    current, previous = linked(root, "current"), linked(root, "previous")
    removed: list[str] = []
    if keep is not None:
        old = to_remove(found, ({current, previous} | in_use(root)) - {""}, keep)
        removed = [os.path.basename(path) for path in unfinished(root)] + old
        for name in () if module.check_mode else removed:
            marker = os.path.join(folder, name, MARKER)
            if os.path.exists(marker):
                os.unlink(marker)  # first, so that what is half removed does not count as installed
            shutil.rmtree(os.path.join(folder, name))
        found = {name: release for name, release in found.items() if name not in old}
    module.exit_json(
        changed=bool(removed),
        current=current,
        previous=previous,
        installed={name: {"version": each.version, "python": each.python} for name, each in found.items()},
        units=_units(module, root),
        removed=removed,
    )


if __name__ == "__main__":
    main()
