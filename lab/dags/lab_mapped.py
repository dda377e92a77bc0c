"""Tasks that say where they ran: enough of them at a time that every worker gets some."""

from __future__ import annotations

import socket
import time

from airflow.sdk import dag, get_current_context, task


@dag(dag_id="lab_mapped", schedule=None, is_paused_upon_creation=False, params={"n": 8})
def lab_mapped() -> None:
    @task
    def numbers() -> list[int]:
        return list(range(get_current_context()["params"]["n"]))

    @task
    def where(number: int) -> str:
        time.sleep(5)
        print(f"task {number} ran on {socket.gethostname()}")
        return socket.gethostname()

    where.expand(number=numbers())


lab_mapped()
