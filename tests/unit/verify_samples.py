# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clusters as executor_check reports them: healthy ones, and changes that make them ill."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.onprem.airflow.plugins.module_utils import _verify
from ansible_collections.onprem.airflow.plugins.module_utils._problems import CODES
from ansible_collections.onprem.airflow.plugins.module_utils._verify_compare import Host, Service

MUST_MATCH = {
    "core.executor": ("master", "worker"),
    "core.execution_api_server_url": ("worker",),
    "core.parallelism": ("master",),
    "celery.broker_url": ("master", "worker"),
}
NOW = 1795353700.0
MASTER_UNITS = ("api-server", "scheduler", "dag-processor", "triggerer")
UNITS = {
    "postgresql": ["postgresql@17-main.service"],
    "rabbitmq": ["rabbitmq-server.service"],
    "airflow_master": [f"airflow-{name}.service" for name in MASTER_UNITS],
    "airflow_worker": ["airflow-worker.service"],
}
FILES = {f"{name}.py": f"{number:08x}" for number, name in enumerate(("daily", "reports", "etl/load", "etl/common"))}

FIXES = {
    "broker_login_refused": "run onprem.airflow.site --limit gpu1,mq1, which gives both the inventory's password",
    "unit_disabled": "`systemctl enable airflow-triggerer` on the host",
    "unit_stopped": "`systemctl start rabbitmq-server` on the host; `journalctl -u rabbitmq-server` tells why",
}

# What stands in the file of a drained worker.
NOTE = "since 2026-11-22T13:05:00Z by ann"
SILENT: dict[str, Any] = {"answers": False, "active_queues": [], "sockets": [], "concurrency": None, "running": None}


class Sample:
    """A cluster with its reports, all well. The methods make something ill, the way the module tells it."""

    def __init__(self, workers: Mapping[str, list[str]] | int = 2, masters: int = 1, single: bool = False) -> None:
        if isinstance(workers, int):
            workers = {f"worker{number}": ["default"] for number in range(1, workers + 1)}
        groups: dict[str, list[str]] = {"db1": ["postgresql"], "mq1": ["rabbitmq"]}
        groups |= {f"master{number}": ["airflow_master"] for number in range(1, masters + 1)}
        groups |= {name: ["airflow_worker"] for name in workers}
        if single:
            groups, workers = {"airflow1": list(UNITS)}, {"airflow1": ["default"]}
        self.hosts: dict[str, Host] = {}
        self.results: dict[str, dict[str, Any]] = {}
        self.queues = dict(workers)
        for number, (name, roles) in enumerate(groups.items()):
            address = f"10.0.{number // 250}.{number % 250 + 1}"
            self.hosts[name] = Host(name, tuple(roles), (name, address), tuple(workers.get(name, ())))
            self.results[name] = {"changed": False, "ok": True, "problems": [], "report": self._report(name, address)}
        consumers = [
            {"queue": queue, "host": self.hosts[name].addresses[1], "port": 41000}
            for name, queues in workers.items()
            for queue in queues
        ]
        for name in self.masters:
            report = self.results[name]["report"]
            report["consumers"] = consumers
            report["queues"] = [
                {
                    "name": queue,
                    "type": "quorum",
                    "durable": True,
                    "messages": 0,
                    "consumers": sum(queue in queues for queues in workers.values()),
                }
                for queue in sorted({queue for queues in workers.values() for queue in queues})
            ]

    @property
    def masters(self) -> list[str]:
        return [name for name, host in self.hosts.items() if "airflow_master" in host.groups]

    @property
    def workers(self) -> list[str]:
        return [name for name, host in self.hosts.items() if "airflow_worker" in host.groups]

    def _report(self, name: str, address: str) -> dict[str, Any]:
        host = self.hosts[name]
        report: dict[str, Any] = {
            "roles": list(host.groups),
            "identity": {"hostname": name, "fqdn": name, "addresses": [address], "log_name": name, "log_port": 8793},
            "units": [
                {"name": unit, "active": "active", "sub": "running", "enabled": "enabled", "restarts": 0}
                for role in host.groups
                for unit in UNITS[role]
            ],
            "skipped": [],
            "wall_seconds": 1.6,
            "cpu_seconds": 1.1,
        }
        master, worker = "airflow_master" in host.groups, "airflow_worker" in host.groups
        if not master and not worker:
            return report
        jitter = sum(map(ord, name)) % 17 / 10  # so that pictures have something to show
        broker, database = ("airflow1",) * 2 if "airflow1" in self.hosts else ("mq1", "db1")
        report |= {
            "release": "3.3.2-5f2a9c01",
            "settings": {
                "core.executor": "CeleryExecutor",
                "celery.broker_url": f"amqp://airflow:***@{broker}:5672/airflow",
                **({"core.parallelism": "128"} if master else {}),
                **({"core.execution_api_server_url": "http://master1:8080/execution/"} if worker else {}),
            },
            "fingerprints": {
                "api.secret_key": "aa",
                "celery.broker_url": "bb",
                "celery.result_backend": "cc",
                **(
                    {"core.fernet_key": "dd", "api_auth.jwt_secret": "ee", "database.sql_alchemy_conn": "ff"}
                    if master
                    else {}
                ),
            },
            "versions": {
                "python": "3.13.5",
                "apache-airflow": "3.3.2",
                "apache-airflow-providers-celery": "3.20.0",
                "celery": "5.6.3",
                "kombu": "5.6.2",
                "psycopg": "3.2.1",
            },
            "broker": {
                "nodes": [
                    {
                        "address": f"{broker}:5672",
                        "tls": False,
                        "resolve_ms": 0.2,
                        "tcp_ms": 0.3,
                        "login_ms": 8.1,
                        "round_trip_ms": 1.4 + jitter,
                        "problem": None,
                    }
                ],
                "management": master,
            },
            "databases": {
                name: {"address": f"{database}:5432/airflow", "ms": 2.1 + jitter, "problem": None}
                for name in (["metadata"] if master else []) + ["results"]
            },
            "api": [{"url": "http://master1:8080/execution/", "ms": 3 + jitter, "version": "3.3.2", "problem": None}],
            "clock": {"database_offset": 0.012 - jitter / 100, "api_offset": 0.2, "uncertainty": 0.005},
            "dags": {"bundles": {"dags-folder": {"digest": "same", "files": dict(FILES)}}, "import_errors": []},
        }
        if master:
            report |= {
                "unserved": [],
                "log_servers": [{"name": w, "port": 8793, "ms": 3.2, "problem": None} for w in self.queues],
            }
        if worker:
            queues = self.queues[name]
            report["workers"] = [
                {
                    "unit": "airflow-worker.service",
                    "node": f"celery@{name}",
                    "queues": list(queues),
                    "drained": "",
                    "answers": True,
                    "active_queues": list(queues),
                    "concurrency": 8,
                    "running": 1,
                    "sockets": [[address, 41000]],
                    "ping_ms": 12.0,
                }
            ]
            report["queues"] = [
                {
                    "name": queue,
                    "type": "quorum",
                    "durable": True,
                    "messages": 0,
                    "consumers": sum(queue in served for served in self.queues.values()),
                }
                for queue in queues
            ]
        return report

    # --- illnesses ---------------------------------------------------------------------------------------------

    def report(self, host: str) -> dict[str, Any]:
        return self.results[host]["report"]  # type: ignore[no-any-return]

    def problem(self, code: str, host: str, subject: str = "", what: str = "") -> Sample:
        """One that the module itself tells."""
        given = {"code": code, "check": CODES[code], "host": host, "subject": subject}
        given |= {"what": what or f"{subject or host} has {code}", "fix": FIXES.get(code, f"mend {code}")}
        self.results[host]["problems"].append(given)
        self.results[host]["ok"] = False
        return self

    def unreachable(self, host: str) -> Sample:
        self.results[host] = {"unreachable": True, "msg": f"ssh: connect to host {host} port 22: No route to host"}
        return self

    def failed(self, host: str) -> Sample:
        self.results[host] = {"failed": True, "msg": "MODULE FAILURE\nSee stdout"}
        return self

    def leave_out(self, host: str) -> Sample:
        known = self.hosts[host]
        self.hosts[host] = Host(known.name, known.groups, known.addresses, known.queues, in_run=False)
        self.results[host] = {}
        return self

    def setting(self, host: str, name: str, value: str | None) -> Sample:
        if value is None:
            del self.report(host)["settings"][name]
        else:
            self.report(host)["settings"][name] = value
        return self

    def silence(self, worker: str) -> Sample:
        """The worker takes no tasks any more."""
        address = self.hosts[worker].addresses[1]
        if "report" in self.results[worker]:
            self.report(worker)["workers"][0] |= SILENT
            self.report(worker)["queues"] = []
        for name in self.masters:
            if "report" in self.results[name]:
                report = self.report(name)
                report["consumers"] = [entry for entry in report.get("consumers") or [] if entry["host"] != address]
                served = {entry["queue"] for entry in report["consumers"]}
                for entry in report.get("queues") or []:
                    entry["consumers"] = sum(c["queue"] == entry["name"] for c in report["consumers"])
                    if not entry["consumers"]:
                        entry["messages"] = 3
                report["unserved"] = [
                    {"queue": queue, "why": "3 messages wait"} for queue in self.queues[worker] if queue not in served
                ]
        return self

    def split(self, worker: str, **services: list[str]) -> Sample:
        """Give a worker several services, by their names, in place of one."""
        known, report = self.hosts[worker], self.report(worker)
        made = tuple(Service(f"airflow-worker@{name}.service", name, tuple(q)) for name, q in services.items())
        queues = tuple(queue for service in made for queue in service.queues)
        self.hosts[worker] = Host(known.name, known.groups, known.addresses, queues, services=made)
        (one,) = report["workers"]
        report["workers"] = [
            {
                **one,
                "unit": service.unit,
                "node": f"{service.node}@{worker}",
                "queues": list(service.queues),
                "active_queues": list(service.queues),
                "sockets": [[known.addresses[1], 41000 + number]],
            }
            for number, service in enumerate(made)
        ]
        return self

    def drain(self, worker: str, unit: str = "airflow-worker.service", stopped: bool = False) -> Sample:
        """The worker takes no tasks, because somebody wanted it so."""
        drained = next(entry for entry in self.report(worker)["workers"] if entry["unit"] == unit)
        gone = {(queue, tuple(socket)) for queue in drained["queues"] for socket in drained["sockets"]}
        drained |= {"drained": NOTE, "active_queues": [], "running": 2}
        if stopped:
            drained |= {"answers": None, "concurrency": None, "running": None, "sockets": []}
            self.report(worker)["units"][0] |= {"active": "inactive", "sub": "dead"}
        for name in (*self.masters, *self.workers):
            report = self.report(name)
            for entry in report["queues"]:
                if entry["name"] in drained["queues"]:
                    entry["consumers"] -= 1
        for name in self.masters:
            report = self.report(name)
            report["consumers"] = [
                entry for entry in report["consumers"] if (entry["queue"], (entry["host"], entry["port"])) not in gone
            ]
        return self

    def broker_down(self) -> Sample:
        self.report("mq1")["units"][0] |= {"active": "inactive", "sub": "dead"}
        self.problem("unit_stopped", "mq1", "unit:rabbitmq-server.service", "rabbitmq-server is stopped")
        return self.broker_away("broker_refused")

    def broker_away(self, code: str) -> Sample:
        for name in [*self.masters, *self.workers]:
            for node in self.report(name)["broker"]["nodes"]:
                node |= {"login_ms": None, "round_trip_ms": None, "problem": code}
            self.problem(code, name, "broker:mq1:5672", "mq1:5672 refuses connections")
            self.report(name)["queues"] = []
        for name in self.masters:
            self.report(name)["consumers"] = []
            self.report(name)["skipped"].append({"check": "queues", "why": "no connection to the broker"})
        for name in self.workers:
            self.report(name)["workers"][0] |= SILENT
            self.problem("worker_silent", name, f"worker:{name}", "its worker does not answer")
            self.problem("unit_failing", name, "unit:airflow-worker.service", "airflow-worker keeps failing")
        return self

    def six_problems(self) -> Sample:
        """For pictures: different faults, with consequences. Needs a worker for gpu, and worker1 to worker3."""
        gpu = next(name for name, queues in self.queues.items() if "gpu" in queues)
        text = "mq1:5672 refuses the login of the user airflow to the virtual host airflow"
        self.problem("broker_login_refused", gpu, "broker:mq1:5672", text)
        self.report(gpu)["broker"]["nodes"][0] |= {"problem": "broker_login_refused", "round_trip_ms": None}
        self.problem("unit_failing", gpu, "unit:airflow-worker.service", "airflow-worker.service restarted 14 times")
        self.problem("worker_silent", gpu, f"worker:{gpu}", "the worker does not answer")
        self.silence(gpu)
        self.report(gpu)["skipped"].append({"check": "queues", "why": "no connection to the broker"})
        for master in self.masters:
            self.report(master)["log_servers"][-1] |= {"ms": None, "problem": "log_refused"}
        self.report(gpu)["fingerprints"]["celery.broker_url"] = "other"
        for master in self.masters:
            self.problem("log_refused", master, f"log:{gpu}", f"{gpu}:8793 refuses connections, so no log can be read")
        self.report("worker1")["clock"]["database_offset"] = 372.4
        for master in self.masters:
            text = "worker1 refuses the request for a log: its signature is not yet valid"
            self.problem("log_forbidden", master, "log:worker1", text)
        tree = self.report("worker2")["dags"]["bundles"]["dags-folder"]
        tree |= {"digest": "old", "files": {**FILES, "etl/common.py": "ffffffff", "old_report.py": "12345678"}}
        del tree["files"]["daily.py"]
        self.setting("worker2", "core.execution_api_server_url", "http://master1.old:8080/execution/")
        self.report("worker2")["api"] = [
            {"url": "http://master1.old:8080/execution/", "ms": None, "version": None, "problem": "api_unresolved"}
        ]
        text = "the name master1.old of http://master1.old:8080/execution/ cannot be resolved"
        self.problem("api_unresolved", "worker2", "api:http://master1.old:8080", text)
        self.report("worker3")["versions"] |= {"celery": "5.5.3", "apache-airflow-providers-celery": "3.19.0"}
        text = "airflow-triggerer.service is not enabled, so it will not come back after a reboot"
        self.problem("unit_disabled", self.masters[-1], "unit:airflow-triggerer.service", text)
        return self

    # --- the judgement -----------------------------------------------------------------------------------------

    def document(self, **options: Any) -> dict[str, Any]:
        """What verify makes of it. Through JSON, so that it is what a reader of the file gets."""
        given: dict[str, Any] = {"version": "1.0.0", "now": NOW, "must_match": MUST_MATCH, **options}
        results = copy.deepcopy(self.results)
        document: dict[str, Any] = json.loads(json.dumps(_verify.verify(list(self.hosts.values()), results, **given)))
        return document

    def codes(self, **options: Any) -> list[tuple[str, list[str]]]:
        return [(problem["code"], problem["hosts"]) for problem in self.document(**options)["problems"]]


def large(workers: int = 196) -> Sample:
    """Two hundred hosts: three queues."""
    kinds = (["default"], ["default", "etl"], ["gpu"])
    names = {f"worker{number}": kinds[0 if number % 10 < 6 else 1] for number in range(1, workers)}
    return Sample({**names, "gpu1": kinds[2]}, masters=2)


def pictures() -> dict[str, Sample]:
    """Samples worth looking at."""
    five = {"worker1": ["default"], "worker2": ["default"], "worker3": ["default", "etl"], "gpu1": ["gpu"]}
    return {
        "ok": Sample(2),
        "broker": Sample(2).broker_down(),
        "six": Sample(five, masters=2).six_problems(),
        "large": large().six_problems(),
        "large-ok": large(),
        "single": Sample(single=True),
        "drained": Sample(five, masters=2).drain("worker1").drain("worker2", stopped=True),
        "drained, problem": Sample(five, masters=2).drain("worker1").drain("gpu1", stopped=True),
        "limited": Sample(five, masters=2).leave_out("worker3").unreachable("worker2").silence("worker2"),
    }


if __name__ == "__main__":
    from ansible_collections.onprem.airflow.plugins.module_utils._verify_page import page

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, sample in pictures().items():
        (folder / f"{name}.html").write_text(page(sample.document()))
        (folder / f"{name}.json").write_text(json.dumps(sample.document(), indent=2))
