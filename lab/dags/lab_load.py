"""A steady load: many tasks that wait, use no CPU, and append to a table when and where they ran.

Whoever looks for lost or doubled tasks counts its rows. A task that died has a row without an end, and one more for its
next try. A database that is away is waited for: what is tested is Airflow, not this.
"""

from __future__ import annotations

import datetime
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
    ended timestamptz,
    UNIQUE (run_id, map_index, try_number, host, pid)
)
"""
# Written again when the answer to the first time was lost
BEGIN = """
INSERT INTO lab_load (run_id, map_index, try_number, host, pid) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (run_id, map_index, try_number, host, pid) DO UPDATE SET pid = EXCLUDED.pid RETURNING id
"""
END = "UPDATE lab_load SET ended = %s WHERE id = %s RETURNING id"
# Two runs that begin at once would both make it.
LOCK = "SELECT pg_advisory_xact_lock(20260101)"


# Seconds that the database may be away.
PATIENCE = 600.0


def write(*statements: tuple[str, tuple[t.Any, ...]]) -> t.Any:
    """Runs statements in one transaction, as soon as the database lets us; returns the first value of the last one."""
    import psycopg  # of the release; too slow to import whenever the file is parsed

    # db+postgresql+psycopg://user:password@host:port/database
    url = "postgresql://" + os.environ["AIRFLOW__CELERY__RESULT_BACKEND"].split("://", 1)[1]
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with psycopg.connect(url, connect_timeout=5) as connection:
                for statement, values in statements:
                    cursor = connection.execute(statement, values)
                return cursor.fetchone()[0] if cursor.description else None
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@dag(
    dag_id="lab_load",
    schedule=None,
    is_paused_upon_creation=False,
    # The first `spanning` tasks of a run last `span` seconds each. The first of all takes some memory in its first try.
    params={"tasks": 60, "shortest": 5, "longest": 20, "spanning": 0, "span": 0, "megabytes": 0},
    # Some more than there are slots: a worker finds its next task in the queue, and a canary does not wait for long.
    max_active_tasks=12,
    max_active_runs=8,
)
def lab_load() -> None:
    @task
    def seconds() -> list[int]:
        """How long each task takes: the same in every run, long and short ones mixed."""
        write((LOCK, ()), (TABLE, ()))
        params = get_current_context()["params"]
        width = params["longest"] - params["shortest"] + 1
        return [
            params["span"] if number < params["spanning"] else params["shortest"] + number * 7 % width
            for number in range(params["tasks"])
        ]

    @task
    def work(duration: int) -> None:
        instance = get_current_context()["ti"]
        row = (instance.run_id, instance.map_index, instance.try_number, socket.gethostname(), os.getpid())
        number = write((BEGIN, row))
        if instance.map_index == 0 and instance.try_number == 1:
            b"x" * (get_current_context()["params"]["megabytes"] << 20)
        time.sleep(duration)
        write((END, (datetime.datetime.now(datetime.UTC), number)))

    work.expand(duration=seconds())


lab_load()
