"""Tasks that do nothing: what they take is Airflow's own time. bench/bench.py counts it."""

from __future__ import annotations

from airflow.sdk import chain, dag, get_current_context, task


@task
def nothing(_number: int = 0) -> None:
    pass


@dag(dag_id="lab_quick", schedule=None, is_paused_upon_creation=False, params={"n": 500})
def lab_quick() -> None:
    """Many at once."""

    @task
    def numbers() -> list[int]:
        return list(range(get_current_context()["params"]["n"]))

    nothing.expand(_number=numbers())


@dag(dag_id="lab_chain", schedule=None, is_paused_upon_creation=False)
def lab_chain() -> None:
    """One after the other."""
    chain(*[nothing.override(task_id=f"nothing_{number}")() for number in range(20)])


lab_quick()
lab_chain()
