#!/usr/bin/python
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: verify
short_description: Judges what the hosts of an Airflow cluster reported, and tells what is wrong
description:
  - Compares what M(onprem.airflow.executor_check) found on every host, tells causes from consequences, prints a table
    and all problems, and writes them to C(verify.json) and, for a browser, to C(verify.html).
  - Fails when there are problems. Nothing is changed on any host.
  - Runs on the control machine only, once for the whole play. It reads the results that
    M(onprem.airflow.executor_check) registered as C(__airflow_check) on every host and, of its second look at log
    servers, as C(__airflow_check_logs) on the masters.
  - A host of the group C(airflow_cluster) that the play left out, with C(--limit), is told as not looked at.
options:
  dest:
    description:
      - Folder on the control machine for C(verify.json) and C(verify.html). Made when it is missing.
      - Empty writes neither.
    type: str
    default: .
  tolerance:
    description: Seconds that a host's clock may differ from the database's.
    type: float
    default: 5
  workers:
    description:
      - The workers by their names in the inventory, each a dictionary with its C(services), as the filter
        P(onprem.airflow.cluster#filter) has them.
      - Without it, every worker is one service with the queues of C(airflow_worker_queues).
    type: dict
    default: {}
  leaving:
    description: Workers that leave the cluster. They count as workers no more.
    type: list
    elements: str
    default: []
  strict:
    description: Fail as well when something was not looked at, as hosts that C(--limit) left out.
    type: bool
    default: false
author: ["onprem.airflow authors (@onprem-airflow)"]
attributes:
  check_mode:
    support: full
    description: Can run in check mode and then does the same; what it writes is a report.
  diff_mode:
    support: N/A
    description: Nothing is changed, so there is no difference to show.
seealso:
  - module: onprem.airflow.executor_check
"""

EXAMPLES = r"""
- name: Tell what is wrong with the cluster
  onprem.airflow.verify:
    dest: reports
  run_once: true
"""

RETURN = r"""
problem_count:
  description: Number of problems, without their consequences.
  returned: always
  type: int
  sample: 1
document_paths:
  description: The files that were written.
  returned: always
  type: list
  elements: str
  sample: [/srv/reports/verify.json, /srv/reports/verify.html]
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "str", "default": "."},
            "tolerance": {"type": "float", "default": 5},
            "workers": {"type": "dict", "default": {}},
            "leaving": {"type": "list", "elements": "str", "default": []},
            "strict": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    module.fail_json(msg="onprem.airflow.verify runs on the control machine, not on a host")


if __name__ == "__main__":
    main()
