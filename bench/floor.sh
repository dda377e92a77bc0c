#!/usr/bin/env bash
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The lab's cluster by bare commands, typed on every host at once: the floor that site.yml is measured against.
#
#   bench/floor.sh               from bare hosts (lab/hosts.py create) to services that have started
#   bench/floor.sh worker11 ...  more workers for a cluster that it made
#
# Made to be fast and for nothing else: it looks at nothing, repairs nothing, and cannot run twice. The secrets are the
# environment's: DATABASE_PASSWORD, BROKER_PASSWORD, ADMIN_PASSWORD, FERNET_KEY, JWT_SECRET, API_SECRET_KEY.
set -euo pipefail
cd "$(dirname "$0")/.."

locks=roles/airflow/files/locks
uv=$(grep -o '^uv==[^ ]*' "$locks/uv.txt")
dags=$(tar -C lab/dags --exclude=__pycache__ -cz . | base64 -w0)
# Of the Python that the release of Debian has.
lock=$(cat "$locks/python$(ssh -F .lab/ssh_config db1 'grep -q trixie /etc/os-release && echo 3.13 || echo 3.11').txt")
variables='DATABASE_PASSWORD BROKER_PASSWORD ADMIN_PASSWORD FERNET_KEY JWT_SECRET API_SECRET_KEY uv dags lock'

# on HOST FUNCTION: runs it there as root. All goes over stdin: sudo logs command lines, and anybody may read them.
on() {
    { declare -p $variables; declare -f; echo "$2"; } |
        ssh -F .lab/ssh_config "$1" "sudo bash -c 'script=\$(cat); exec </dev/null; set -euo pipefail; eval \"\$script\"'" \
            >"build/bench/floor-$1.log" 2>&1 || { echo "floor: $1 failed, see build/bench/floor-$1.log" >&2; return 1; }
}

# --- What runs on the hosts
packages() {
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qqy -o Dpkg::Use-Pty=0 install --no-install-recommends "$@"
}

# port HOST PORT: waits until it is open
port() { until (: <"/dev/tcp/$1/$2") 2>/dev/null; do sleep 0.2; done; }

# mark STEP: notes in the log when a step has ended, in seconds since the epoch; report.py reads it
mark() { echo "mark $1 $EPOCHREALTIME"; }

# Their first starts already have the right settings.
database() {
    mkdir -p /etc/postgresql-common/createcluster.d
    cat >/etc/postgresql-common/createcluster.d/floor.conf <<-END
	initdb_options = '--data-checksums --encoding=UTF8 --locale=C.UTF-8'
	listen_addresses = '*'
	max_connections = 500
	END
    packages postgresql
    echo 'host all all samenet scram-sha-256' >>/etc/postgresql/*/main/pg_hba.conf
    cd /
    runuser -u postgres -- psql -Xqv ON_ERROR_STOP=1 <<-END
	SELECT pg_reload_conf();
	CREATE ROLE airflow LOGIN PASSWORD '$DATABASE_PASSWORD';
	CREATE DATABASE airflow OWNER airflow TEMPLATE template0 ENCODING UTF8;
	CREATE DATABASE airflow_results OWNER airflow TEMPLATE template0 ENCODING UTF8;
	END
}

broker() {
    useradd --system --user-group --home-dir /var/lib/rabbitmq --shell /usr/sbin/nologin rabbitmq
    mkdir -p /etc/rabbitmq
    install -m 640 -g rabbitmq /dev/stdin /etc/rabbitmq/rabbitmq.conf <<-END
	default_user = airflow
	default_pass = $BROKER_PASSWORD
	default_vhost = airflow
	consumer_timeout = 90000000
	END
    echo '[rabbitmq_management].' >/etc/rabbitmq/enabled_plugins
    packages rabbitmq-server
}

release() {
    useradd --system --user-group --home-dir /var/lib/airflow --shell /usr/sbin/nologin airflow
    packages python3-pip-whl ca-certificates git
    mark packages
    export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
    python3 "$(echo /usr/share/python-wheels/pip-*.whl)/pip" install -q --disable-pip-version-check --no-compile \
        --target /opt/airflow/uv "$uv"
    /opt/airflow/uv/bin/uv -q venv --python /usr/bin/python3 /opt/airflow/current
    echo "$lock" >/opt/airflow/lock.txt
    /opt/airflow/uv/bin/uv -q pip sync --python /opt/airflow/current --require-hashes --compile-bytecode /opt/airflow/lock.txt
    mark release
}

settings() {
    install -d -o airflow -g airflow /var/lib/airflow /var/log/airflow
    install -d /etc/airflow /var/lib/airflow/dags
    base64 -d <<<"$dags" | tar -xzC /var/lib/airflow/dags
    cat >/etc/airflow/airflow.cfg <<-END
	[core]
	executor = CeleryExecutor
	auth_manager = airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager
	dags_folder = /var/lib/airflow/dags
	execution_api_server_url = http://master1:8080/execution/
	load_examples = False
	[dag_processor]
	refresh_interval = 5
	[logging]
	base_log_folder = /var/log/airflow
	[celery]
	extra_celery_config = {"task_default_queue_type": "quorum", "broker_native_delayed_delivery_queue_type": "classic"}
	END
    install -m 640 -g airflow /dev/stdin /etc/airflow/airflow.env <<-END
	AIRFLOW_HOME=/var/lib/airflow
	AIRFLOW_CONFIG=/etc/airflow/airflow.cfg
	AIRFLOW__CELERY__BROKER_URL=amqp://airflow:$BROKER_PASSWORD@mq1:5672/airflow
	AIRFLOW__CELERY__RESULT_BACKEND=db+postgresql+psycopg://airflow:$DATABASE_PASSWORD@db1:5432/airflow_results
	AIRFLOW__API__SECRET_KEY=$API_SECRET_KEY
	END
}

# unit NAME ARGUMENTS...: a service of Airflow
unit() {
    cat >"/etc/systemd/system/airflow-$1.service" <<-END
	[Service]
	User=airflow
	WorkingDirectory=/var/lib/airflow
	EnvironmentFile=/etc/airflow/airflow.env
	ExecStart=/opt/airflow/current/bin/airflow ${*:2}
	Restart=always
	[Install]
	WantedBy=multi-user.target
	END
}

master() {
    release
    settings
    cat >>/etc/airflow/airflow.env <<-END
	AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=postgresql+psycopg://airflow:$DATABASE_PASSWORD@db1:5432/airflow
	AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC=postgresql+psycopg://airflow:$DATABASE_PASSWORD@db1:5432/airflow
	AIRFLOW__CORE__FERNET_KEY=$FERNET_KEY
	AIRFLOW__API_AUTH__JWT_SECRET=$JWT_SECRET
	END
    services='api-server scheduler dag-processor triggerer'
    for service in $services; do unit "$service" "$service"; done
    port db1 5432
    set -a
    . /etc/airflow/airflow.env
    set +a
    runuser -u airflow -- /opt/airflow/current/bin/airflow db migrate
    systemctl enable --now airflow-scheduler airflow-dag-processor airflow-triggerer
    # Before the API server, which at its first start writes the same permissions: one of the two would fail. The command
    # asks for the password when it has none; here the first line is the answer, the second repeats it.
    printf '%s\n' "$ADMIN_PASSWORD" "$ADMIN_PASSWORD" | runuser -u airflow -- \
        /opt/airflow/current/bin/airflow users create -u admin -r Admin -e admin@example.com -f Admin -l User
    systemctl enable --now airflow-api-server
}

worker() {
    release
    settings
    unit worker celery worker --concurrency $((2 * $(nproc)))  # as ours
    mark settings
    port mq1 5672
    systemctl enable --now airflow-worker
}

# --- Everything at once
mkdir -p build/bench
if [ $# -gt 0 ]; then
    for name; do on "$name" worker & done
else
    on db1 database &
    on mq1 broker &
    on master1 master &
    on worker1 worker &
    on worker2 worker &
fi
failed=0
for job in $(jobs -p); do wait "$job" || failed=1; done
exit $failed
