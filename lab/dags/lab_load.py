"""A steady load: many tasks that wait, use no CPU, and append to a table when and where they ran.

Whoever looks for lost or doubled tasks counts its rows. None of them is tried again: a loss shows as a failure.
"""

from __future__ import annotations

import os
import socket
import time
import typing as t

from airflow.sdk import dag, get_current_context, task

# In the database of Celery's results, which every worker reaches.
TABLE = """
CREATE TABLE IF NOT EXISTS lab_load (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text NOT NULL,
    map_index integer NOT NULL,
    try_number integer NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    started timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended timestamptz
)
"""
BEGIN = "INSERT INTO lab_load (run_id, map_index, try_number, host, pid) VALUES (%s, %s, %s, %s, %s) RETURNING id"
END = "UPDATE lab_load SET ended = clock_timestamp() WHERE id = %s"
# Two runs that begin at once would both make it.
LOCK = "SELECT pg_advisory_xact_lock(20260101)"


def connect() -> t.Any:
    import psycopg  # of the release; too slow to import whenever the file is parsed

    # db+postgresql+psycopg://user:password@host:port/database
    url = os.environ["AIRFLOW__CELERY__RESULT_BACKEND"]
    return psycopg.connect("postgresql://" + url.split("://", 1)[1], autocommit=True)


@dag(
    dag_id="lab_load",
    schedule=None,
    is_paused_upon_creation=False,
    params={"tasks": 60, "shortest": 5, "longest": 20},
    # Some more than there are slots: a worker finds its next task in the queue, and a canary does not wait for long.
    max_active_tasks=12,
    max_active_runs=8,
)
def lab_load() -> None:
    @task(retries=0)
    def seconds() -> list[int]:
        """How long each task takes: the same in every run, long and short ones mixed."""
        with connect() as connection, connection.transaction():
            connection.execute(LOCK)
            connection.execute(TABLE)
        params = get_current_context()["params"]
        span = params["longest"] - params["shortest"] + 1
        return [params["shortest"] + number * 7 % span for number in range(params["tasks"])]

    @task(retries=0)
    def work(duration: int) -> None:
        instance = get_current_context()["ti"]
        with connect() as connection:
            row = (instance.run_id, instance.map_index, instance.try_number, socket.gethostname(), os.getpid())
            (number,) = connection.execute(BEGIN, row).fetchone()
            time.sleep(duration)
            connection.execute(END, (number,))

    work.expand(duration=seconds())


lab_load()
