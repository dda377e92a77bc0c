# Private to the collection onprem.airflow: may change without notice.
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How large things must be for a given cluster: pure arithmetic, shared by the preflight and the filters."""

from __future__ import annotations

import math
from collections.abc import Iterable

# Connections that are nobody's pool: 3 that PostgreSQL keeps for superusers, 10 for backup, monitoring, a person.
RESERVED_CONNECTIONS = 13


def default_worker_concurrency(memory_mb: int, cpus: int) -> int:
    """Task slots of a worker from its memory (MB) and CPUs: never more than 16, never fewer than 1.

    A task process takes about 256 MB, the worker itself about 512 MB.
    """
    by_cpu = max(2, 2 * cpus)
    by_memory = max(1, (memory_mb - 512) // 256)
    return min(16, by_cpu, by_memory)


def required_connections(
    api_workers: int,
    schedulers: int,
    triggerers: int,
    dag_processors: int,
    worker_concurrencies: Iterable[int],
) -> int:
    """The smallest max_connections at which no process of the cluster waits for, or is refused, a connection.

    Every figure is the number of processes in the whole cluster. An API server process may open 30 connections
    (a synchronous and an asynchronous pool of 5 + 10), scheduler and triggerer 30, a DAG processor 15. Every task
    slot of a worker keeps one to the result backend, and the worker one more. A quarter is left for restarts,
    when old and new processes overlap.
    """
    pools = 30 * api_workers + 30 * (schedulers + triggerers) + 15 * dag_processors
    pools += sum(concurrency + 1 for concurrency in worker_concurrencies)
    return math.ceil(1.25 * pools) + RESERVED_CONNECTIONS
