# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: what can be wrong with a running cluster, by code. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass

# The checks, in the order in which a person reads them.
CHECKS = (
    "services",
    "config",
    "versions",
    "broker",
    "queues",
    "worker",
    "database",
    "api",
    "clock",
    "logs",
    "dags",
)

# Every code and the check that it belongs to. Documented in docs/verify.md, which a test compares with this.
CODES: dict[str, str] = {
    # --- the host as a whole; found on the control machine
    "unreachable": "services",
    "check_failed": "services",
    # --- services
    "unit_missing": "services",
    "unit_stopped": "services",
    "unit_failing": "services",
    "unit_disabled": "services",
    "unit_outdated": "services",
    "release_missing": "services",
    "release_not_running": "services",
    "health_failing": "services",
    "disk_full": "services",
    # --- config
    "config_missing": "config",
    "config_generated": "config",
    "config_unreadable": "config",
    "section_unknown": "config",
    "key_unknown": "config",
    "value_expanded": "config",
    "value_misread": "config",
    "executor_wrong": "config",
    "file_world_readable": "config",
    "setting_missing": "config",
    "api_url_localhost": "config",
    "setting_differs": "config",
    "secret_differs": "config",
    # --- versions
    "version_differs": "versions",
    # --- broker
    "broker_unresolved": "broker",
    "broker_refused": "broker",
    "broker_timeout": "broker",
    "broker_half_open": "broker",
    "broker_tls_mismatch": "broker",
    "broker_certificate": "broker",
    "broker_login_refused": "broker",
    "broker_vhost_missing": "broker",
    "broker_permission_missing": "broker",
    "broker_blocked": "broker",
    "broker_unconfirmed": "broker",
    "broker_error": "broker",
    "management_failing": "broker",
    # --- queues
    "queue_missing": "queues",
    "queue_wrong_type": "queues",
    "queue_not_durable": "queues",
    "queue_unserved": "queues",
    # --- worker
    "worker_silent": "worker",
    "worker_not_consuming": "worker",
    "worker_queue_unexpected": "worker",
    "worker_unknown": "worker",
    "consumer_unknown": "worker",
    # --- database: database_ is the metadata database, results_ the one of Celery's results
    "database_unresolved": "database",
    "database_refused": "database",
    "database_timeout": "database",
    "database_half_open": "database",
    "database_login_refused": "database",
    "database_missing": "database",
    "database_tls_mismatch": "database",
    "database_certificate": "database",
    "database_error": "database",
    "results_unresolved": "database",
    "results_refused": "database",
    "results_timeout": "database",
    "results_half_open": "database",
    "results_login_refused": "database",
    "results_missing": "database",
    "results_tls_mismatch": "database",
    "results_certificate": "database",
    "results_error": "database",
    "schema_behind": "database",
    "schema_unknown": "database",
    # --- api
    "api_unresolved": "api",
    "api_refused": "api",
    "api_timeout": "api",
    "api_half_open": "api",
    "api_tls_mismatch": "api",
    "api_certificate": "api",
    "api_error": "api",
    "api_version_differs": "api",
    # --- clock
    "clock_off": "clock",
    # --- logs, as a master sees a worker
    "log_unresolved": "logs",
    "log_refused": "logs",
    "log_timeout": "logs",
    "log_half_open": "logs",
    "log_forbidden": "logs",
    "log_error": "logs",
    # --- dags
    "dags_missing": "dags",
    "dags_differ": "dags",
    "dag_import_error": "dags",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    C(host) is the inventory's name of the host that has it. C(subject) names the thing that is wrong, in the form
    C(kind:name): C(unit:airflow-worker.service), C(broker:mq1:5672), C(database:db1:5432), C(api:http://master1:8080),
    C(queue:default), C(worker:worker1) or C(worker:gpu@worker1), C(setting:core.executor),
    C(file:/etc/airflow/airflow.env), C(disk:/var/log), C(host:worker1), C(log:worker1). The fix is a whole
    instruction: what to do, where.
    """

    code: str
    host: str
    what: str
    fix: str
    subject: str = ""

    @property
    def check(self) -> str:
        """The check that it belongs to. Raises KeyError on a code that is not in CODES."""
        return CODES[self.code]

    def as_dict(self) -> dict[str, str]:
        """As plain data, with the check."""
        return {**asdict(self), "check": self.check}
