# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done to the running cluster, one thing at a time, and what verify has to say of it."""

from __future__ import annotations

import dataclasses
import secrets
import shlex
import typing as t

CFG = "/etc/airflow/airflow.cfg"
ENV = "/etc/airflow/airflow.env"
MASTER_ENV = "/etc/airflow/master.env"
DAGS = "/var/lib/airflow/dags"
MASTERS = ("master1", "master2")
WORKERS = ("worker1", "worker2")
KEPT = "/run/kept"
ALL = (*MASTERS, *WORKERS)

# Looks for no other than these; they are no secrets of the cluster, but verify cannot know.
WRONG_PASSWORD = secrets.token_urlsafe(24)
WRONG_KEY = secrets.token_urlsafe(32)
# 32 bytes in URL-safe base64, which a Fernet key has to be
WRONG_FERNET_KEY = secrets.token_urlsafe(32) + "="
INVENTED = (WRONG_PASSWORD, WRONG_KEY, WRONG_FERNET_KEY)

Scripts = t.Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A way to break the cluster. Scripts are run by root with bash on the hosts that they are given for."""

    name: str
    # What verify says: this one problem, on these hosts; regular expressions of its words.
    code: str
    hosts: tuple[str, ...]
    subject: str
    what: str
    fix: str
    # Codes that have to show, and those that may, as consequences.
    shows: tuple[str, ...] = ()
    may_show: tuple[str, ...] = ()
    breaks: Scripts = dataclasses.field(default_factory=dict)
    mends: Scripts = dataclasses.field(default_factory=dict)
    # A rule of the firewall in front of a host
    firewall: tuple[str, str] | None = None
    # Ways over the broker's own interface: names of methods of Broker, with arguments
    broker_breaks: tuple[tuple[str, ...], ...] = ()
    broker_mends: tuple[tuple[str, ...], ...] = ()
    # Variables of hosts for this run of verify
    variables: t.Mapping[str, t.Mapping[str, str]] = dataclasses.field(default_factory=dict)
    # What is waited for before verify runs, and after mending: the name of a method of Cluster, with arguments
    until: tuple[str, ...] = ()
    until_mended: tuple[str, ...] = ()


# --- Ways to break something
def edited(path: str, expression: str, *after: str) -> tuple[str, str]:
    """Scripts that change a file with sed, and change it back. Its times stay: no service needs a restart for it."""
    names = f"file=$(echo {path}); kept={KEPT}/$(basename $file); mkdir -p -m 700 {KEPT}"
    change = f"test ! -e $kept; cp -p $file $kept; sed -i -e {shlex.quote(expression)} $file"
    check = "! cmp -s $kept $file; touch -r $kept $file"
    return "\n".join([names, change, check, *after]), "\n".join([names, "test ! -e $kept || mv $kept $file", *after])


def edit(host: str, path: str, expression: str, *after: str) -> dict[str, t.Any]:
    """The two as arguments of Fault, for one host."""
    breaks, mends = edited(path, expression, *after)
    return {"breaks": {host: breaks}, "mends": {host: mends}}


RESTART_WORKER = "systemctl restart airflow-worker"
RELEASE = "release=$(readlink -f /opt/airflow/current)"

# Tells a worker something as Airflow's own commands do, with the settings that its services have.
TELL = r"""
set -a; . /etc/airflow/airflow.env; set +a
cd /
/opt/airflow/current/bin/python - {arguments} <<'END'
import os, sys
from celery import Celery
command, queue, node = sys.argv[1:]
app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
app.conf.update(control_queue_exclusive=True)
answer = app.control.broadcast(
    command, arguments={{"queue": queue}}, destination=[node], reply=True, timeout=5, limit=1
)
assert answer and "ok" in answer[0][node], answer
if command == "cancel_consumer" and queue != "default":
    app.connection().channel().queue_delete(queue)
END
"""


def tell(command: str, queue: str, worker: str) -> str:
    return TELL.format(arguments=f"{command} {queue} celery@{worker}")


# The schema as it was before the last migration, as far as its number goes.
SCHEMA = r"""
set -a; . /etc/airflow/master.env; set +a
/opt/airflow/current/bin/python - {arguments} <<'END'
import glob, os, pathlib, re, sys
import psycopg
kept = pathlib.Path("/run/revision")
with psycopg.connect(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg", "")) as connection:
    if sys.argv[1] == "break":
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
        kept.write_text(revision)
        texts = [open(path).read() for path in glob.glob(
            "/opt/airflow/current/lib/python3*/site-packages/airflow/migrations/versions/*.py")]
        text = next(text for text in texts if re.search(rf"^revision = .{{revision}}.$", text, re.M))
        revision = re.search(r"^down_revision = .(\w+).$", text, re.M)[1]
        connection.execute("UPDATE alembic_version SET version_num = %s", (revision,))
    elif kept.exists():
        connection.execute("UPDATE alembic_version SET version_num = %s", (kept.read_text(),))
        kept.unlink()
END
"""

# As a host whose names come from a file, in which one is forgotten.
FORGET_WORKER2 = r"""
cp -p /etc/nsswitch.conf /run/nsswitch.conf; cp /etc/hosts /run/hosts
for name in db1 mq1 master1 worker1; do
  getent ahosts $name | awk -v name=$name 'NR == 1 { print $1, name }'
done >> /etc/hosts
sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf
! getent hosts worker2
"""
REMEMBER_WORKER2 = r"""
test ! -e /run/hosts || { cat /run/hosts > /etc/hosts; rm /run/hosts; }
test ! -e /run/nsswitch.conf || mv /run/nsswitch.conf /etc/nsswitch.conf
"""

# A Python whose clock is wrong: modules that run with it see what they would see on a host that is so far ahead. The
# Python of the release, under which the module goes on, inherits it.
AHEAD = r"""
mkdir -p /run/python-ahead
cat > /run/python-ahead/sitecustomize.py <<'END'
import time
right = time.time
time.time = lambda: right() + {seconds}
END
cat > /usr/local/bin/python-ahead <<'END'
#!/bin/sh
PYTHONPATH=/run/python-ahead exec /usr/bin/python3 "$@"
END
chmod 755 /usr/local/bin/python-ahead
"""
NOT_AHEAD = "rm -rf /run/python-ahead /usr/local/bin/python-ahead"


def clock_ahead(host: str, seconds: int) -> dict[str, t.Any]:
    return {
        "code": "clock_off",
        "hosts": (host,),
        "subject": f"host:{host}",
        "what": rf"its clock is {seconds}\.\d s ahead of the database's",
        "fix": r"systemd-timesyncd or chrony",
        "breaks": {host: AHEAD.format(seconds=seconds)},
        "mends": {host: NOT_AHEAD},
        "variables": {host: {"ansible_python_interpreter": "/usr/local/bin/python-ahead"}},
    }


# --- The faults, in groups; at the end the cluster has to be without a problem
SETTINGS = (
    Fault(
        "misspelt section",
        "section_unknown",
        ("worker1",),
        "setting:celry",
        r"\[celry\] in /etc/airflow/airflow\.cfg, line \d+ with worker_prefetch_multiplier means nothing",
        r"Write \[celery\] in place of \[celry\]",
        **edit("worker1", CFG, "$a [celry]\\nworker_prefetch_multiplier = 1"),
    ),
    Fault(
        "misspelt key",
        "key_unknown",
        ("worker2",),
        "setting:celery.worker_prefetch_multiplyer",
        r"did you mean \[celery\] worker_prefetch_multiplier\?",
        r"Write \[celery\] worker_prefetch_multiplier in place of \[celery\] worker_prefetch_multiplyer",
        **edit("worker2", CFG, "/^\\[celery\\]/a worker_prefetch_multiplyer = 1"),
    ),
    Fault(
        "key in the section where older releases had it",
        "key_unknown",
        ("master1",),
        "setting:api.jwt_secret",
        r"\[api\] jwt_secret in /etc/airflow/airflow\.cfg, line \d+ means nothing to Airflow",
        r"Write \[api_auth\] jwt_secret in place of \[api\] jwt_secret",
        **edit("master1", CFG, f"/^\\[api\\]/a jwt_secret = {WRONG_KEY}"),
    ),
    Fault(
        "execution API at localhost",
        "api_url_localhost",
        ("worker1",),
        "setting:core.execution_api_server_url",
        r"http://localhost:8080/execution/, which is this worker itself",
        r"airflow_api_url",
        shows=("api_refused", "setting_differs"),
        **edit(
            "worker1",
            CFG,
            "s#^execution_api_server_url = .*#execution_api_server_url = http://localhost:8080/execution/#",
        ),
    ),
    Fault(
        "world-readable secret file",
        "file_world_readable",
        ("master2",),
        f"file:{ENV}",
        r"/etc/airflow/airflow\.env can be read by every user of the host \(mode 0644\)",
        r"chmod o-rwx /etc/airflow/airflow\.env",
        breaks={"master2": f"chmod 0644 {ENV}"},
        mends={"master2": f"chmod 0640 {ENV}"},
    ),
    Fault(
        "Fernet key different on one of two masters",
        "secret_differs",
        MASTERS,
        "setting:core.fernet_key",
        r"core\.fernet_key differs between master1 and master2; no value has a majority",
        r"onprem\.airflow\.site",
        **edit("master2", MASTER_ENV, f's#^\\(AIRFLOW__CORE__FERNET_KEY\\)=.*#\\1="{WRONG_FERNET_KEY}"#'),
    ),
    Fault(
        "JWT secret different on one of two masters",
        "secret_differs",
        MASTERS,
        "setting:api_auth.jwt_secret",
        r"api_auth\.jwt_secret differs between master1 and master2; no value has a majority",
        r"onprem\.airflow\.site",
        **edit("master1", MASTER_ENV, f's#^\\(AIRFLOW__API_AUTH__JWT_SECRET\\)=.*#\\1="{WRONG_KEY}"#'),
    ),
    Fault(
        "unit disabled",
        "unit_disabled",
        ("master1",),
        "unit:airflow-scheduler.service",
        r"airflow-scheduler\.service is disabled: it will not start when the host boots",
        r"systemctl enable airflow-scheduler",
        breaks={"master1": "systemctl --quiet disable airflow-scheduler"},
        mends={"master1": "systemctl --quiet enable airflow-scheduler"},
    ),
    Fault(
        "other provider version on one host",
        "version_differs",
        ("worker2",),
        "versions",
        r"apache-airflow-providers-standard 0\.0\.1 instead of \d",
        r"onprem\.airflow\.site",
        breaks={
            "worker2": "cd /opt/airflow/current/lib/python3*/site-packages;"
            " old=$(ls -d apache_airflow_providers_standard-*.dist-info); echo $old > /run/provider;"
            " mv $old apache_airflow_providers_standard-0.0.1.dist-info"
        },
        mends={
            "worker2": "cd /opt/airflow/current/lib/python3*/site-packages; test ! -e /run/provider"
            " || mv apache_airflow_providers_standard-0.0.1.dist-info $(cat /run/provider);"
            " rm -f /run/provider"
        },
    ),
    Fault(
        "current switched but service not restarted",
        "release_not_running",
        ("worker1",),
        "unit:airflow-worker.service",
        r"airflow-worker\.service still runs the release \S+, while current is \S+-next",
        r"systemctl restart airflow-worker",
        breaks={"worker1": f"{RELEASE}; cp -al $release $release-next; ln -sfn $release-next /opt/airflow/current"},
        mends={
            "worker1": f"{RELEASE}; ln -sfn ${{release%-next}} /opt/airflow/current; rm -rf ${{release%-next}}-next"
        },
    ),
    Fault(
        "DAG file missing on one worker",
        "dags_differ",
        ("worker1",),
        "bundle:dags-folder",
        r"dags-folder are not those of master1, master2: missing lab_mapped\.py",
        r"onprem\.airflow\.deploy_dags",
        breaks={"worker1": f"mv {DAGS}/lab_mapped.py /run/lab_mapped.py"},
        mends={"worker1": f"test ! -e /run/lab_mapped.py || mv /run/lab_mapped.py {DAGS}/lab_mapped.py"},
    ),
    Fault("clock of a worker 20 s off", **clock_ahead("worker2", 20)),
    # Workers take requests for logs from clocks that are up to 30 s off.
    Fault("clock of a master 60 s off", shows=("log_forbidden",), **clock_ahead("master2", 60)),
)

CONNECTIONS = (
    Fault(
        "results database refused",
        "results_login_refused",
        ("worker2",),
        "database:db1:5432/airflow_results",
        r"refuses the login of airflow_results: .*pg_hba\.conf",
        r"the server does not admit this host",
        **edit(
            "db1",
            "/etc/postgresql/*/main/pg_hba.conf",
            "/airflow_results.*10\\.213\\.77\\.15/d",
            "systemctl reload 'postgresql@*'",
        ),
    ),
    Fault(
        "schema one revision behind",
        "schema_behind",
        MASTERS,
        "database:db1:5432/airflow",
        r"alembic_version: [0-9a-f]+ -> [0-9a-f]+",
        r"onprem\.airflow\.site`, which migrates it",
        breaks={"master1": SCHEMA.format(arguments="break")},
        mends={"master1": SCHEMA.format(arguments="mend")},
    ),
    Fault(
        "log port closed",
        "log_refused",
        MASTERS,
        "log:worker2",
        r"the log server of the worker at worker2:8793 refuses the connection",
        r"systemctl restart airflow-worker",
        firewall=("worker2", "INPUT -p tcp --dport 8793 -j REJECT --reject-with tcp-reset"),
    ),
    Fault(
        "worker's hostname not resolvable from the master",
        "log_unresolved",
        ("master2",),
        "log:worker2",
        r"the name worker2 .* does not resolve",
        r"make worker2 resolve here",
        breaks={"master2": FORGET_WORKER2},
        mends={"master2": REMEMBER_WORKER2},
    ),
    Fault(
        "DAG with an import error",
        "dag_import_error",
        MASTERS,
        "dag:dags-folder/lab_broken.py",
        r"lab_broken\.py .*cannot be imported: .*no_such_module",
        r"mend the file and deploy it",
        breaks=dict.fromkeys(
            ALL,
            # Airflow opens only files that name airflow and a dag.
            f"install -m 640 -g airflow /dev/stdin {DAGS}/lab_broken.py <<< 'import no_such_module, airflow.sdk.dag'",
        ),
        mends=dict.fromkeys(ALL, f"rm -f {DAGS}/lab_broken.py"),
        until=("import_errors", "1"),
        until_mended=("import_errors", "0"),
    ),
)

QUEUES = (
    Fault(
        "queue that no worker serves",
        "queue_unserved",
        MASTERS,
        "queue:lost",
        r"no worker takes tasks from the queue lost \(messages that wait in it: 1\)",
        r"put it into airflow_worker_queues of a worker",
        broker_breaks=(("declare", "lost", "quorum"), ("send", "lost")),
        broker_mends=(("delete", "lost"),),
        until=("waiting", "lost"),
    ),
    Fault(
        "worker that answers ping and consumes nothing",
        "worker_not_consuming",
        ("worker1",),
        "queue:default",
        r"answers ping and takes no tasks from the queue default",
        r"systemctl restart airflow-worker",
        breaks={"worker1": tell("cancel_consumer", "default", "worker1")},
        # Told to read it again it would, but only until it next connects to the broker.
        mends={"worker1": RESTART_WORKER},
    ),
    Fault(
        "worker on a queue that the inventory does not name",
        "worker_queue_unexpected",
        ("worker2",),
        "queue:other",
        r"takes tasks from the queue other, which the inventory does not give it",
        r"add other to airflow_worker_queues",
        breaks={"worker2": tell("add_consumer", "other", "worker2")},
        mends={"worker2": tell("cancel_consumer", "other", "worker2")},
    ),
)

WORKER_GONE = ("worker_silent", "worker_not_consuming", "unit_failing", "log_refused", "log_timeout")
BROKER = (
    Fault(
        "permission missing",
        "broker_permission_missing",
        ALL,
        "broker:mq1:5672",
        r"does not give airflow the rights that Celery needs",
        r"onprem\.airflow\.site`, which grants them",
        breaks={"mq1": "cd /; rabbitmqctl --quiet set_permissions -p airflow airflow '^$' '.*' '.*'"},
        mends={"mq1": "cd /; rabbitmqctl --quiet set_permissions -p airflow airflow '.*' '.*' '.*'"},
    ),
    Fault(
        "broker port dropped",
        "broker_timeout",
        ALL,
        "broker:mq1:5672",
        r"packets are dropped",
        r"open the port from this host to mq1:5672 in every firewall",
        firewall=("mq1", "INPUT -p tcp --dport 5672 -j DROP"),
    ),
    Fault(
        "broker down",
        "unit_stopped",
        ("mq1",),
        "unit:rabbitmq-server.service",
        r"rabbitmq-server\.service is stopped",
        r"systemctl start rabbitmq-server",
        shows=("broker_refused",),
        may_show=("unit_failing",),
        breaks={"mq1": "systemctl stop rabbitmq-server"},
        mends={"mq1": "systemctl start rabbitmq-server"},
        until_mended=("consuming",),
    ),
    Fault(
        "vhost missing",
        "broker_vhost_missing",
        ALL,
        "broker:mq1:5672",
        r"has no such virtual host",
        r"onprem\.airflow\.site`, which makes it",
        may_show=WORKER_GONE,
        breaks={"mq1": "cd /; rabbitmqctl --quiet delete_vhost airflow"},
        mends={"mq1": "cd /; rabbitmqctl --quiet import_definitions /etc/rabbitmq/definitions.json"},
        until_mended=("consuming",),
    ),
    Fault(
        "queue of the wrong type",
        "queue_wrong_type",
        WORKERS,
        "queue:default",
        r"the queue default is a classic queue, and airflow_queue_type is quorum",
        r"rabbitmqctl delete_queue -p \S+ default",
        # Workers end over it, sooner or later: then nobody serves the queue.
        may_show=(*WORKER_GONE, "queue_unserved"),
        broker_breaks=(("delete", "default"), ("declare", "default", "classic")),
        broker_mends=(("delete", "default"),),
        mends=dict.fromkeys(WORKERS, RESTART_WORKER),
        until_mended=("consuming",),
    ),
)

ONE_WORKER = (
    Fault(
        "wrong broker password on one worker",
        "broker_login_refused",
        ("worker2",),
        "broker:mq1:5672",
        r"refuses the login of airflow",
        r"airflow_broker_password differs",
        shows=("secret_differs",),
        may_show=WORKER_GONE,
        **edit("worker2", ENV, f"s#\\(amqp://airflow:\\)[^@]*@#\\1{WRONG_PASSWORD}@#", RESTART_WORKER),
    ),
    Fault(
        "API secret different on one worker",
        "secret_differs",
        ("worker1",),
        "setting:api.secret_key",
        r"api\.secret_key is another than on master1, master2, worker2",
        r"onprem\.airflow\.site",
        shows=("log_forbidden",),
        **edit("worker1", ENV, f's#^\\(AIRFLOW__API__SECRET_KEY\\)=.*#\\1="{WRONG_KEY}"#', RESTART_WORKER),
    ),
    Fault(
        "unit stopped",
        "unit_stopped",
        ("worker2",),
        "unit:airflow-worker.service",
        r"airflow-worker\.service is stopped",
        r"systemctl start airflow-worker",
        shows=("log_refused",),
        breaks={"worker2": "systemctl stop airflow-worker"},
        mends={"worker2": "systemctl start airflow-worker"},
    ),
)

GROUPS = {
    "settings": SETTINGS,
    "connections": CONNECTIONS,
    "queues": QUEUES,
    "broker": BROKER,
    "one worker": ONE_WORKER,
}
