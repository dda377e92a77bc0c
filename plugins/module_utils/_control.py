# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: workers asked and told over the broker, with Celery's own API."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.onprem.airflow.plugins.module_utils import _look, _settings
from ansible_collections.onprem.airflow.plugins.module_utils._drain import Task, tasks


def broker_of(shown: t.Mapping[str, str], release: str, home: str) -> tuple[str, dict[str, t.Any]]:
    """The broker's URL, and the settings of Celery that matter for it, as a unit's process has them.

    C(shown) is what systemd says of the unit. Raises OSError or UnicodeDecodeError on a file that cannot be read.
    """
    sources = _look.sources(shown, home)
    known = _settings.release_options(os.path.join(_look.site_packages(release), "airflow"))
    found = _settings.effective(known, sources, _settings.commands_as("airflow", "airflow", sources.environment))
    settings = _look.celery_settings(_settings.celery_options(found), _settings.broker_tls(found))
    return _settings.value_of(found, "celery.broker_url"), settings


class Control:
    """The workers of a broker. C(timeout) is how many seconds an answer may take; silence is no error."""

    def __init__(self, broker_url: str, settings: t.Mapping[str, t.Any], timeout: float) -> None:
        self.app = _look.celery(broker_url, settings)
        self.timeout = timeout

    def close(self) -> None:
        """Give the connections back."""
        self.app.close()

    def consumers(self) -> dict[str, list[str]]:
        """The queues that each worker of the broker takes tasks from, by the names of their nodes.

        Everybody is asked, so this always takes the whole time.
        """
        answers = self.app.control.inspect(timeout=self.timeout).active_queues() or {}
        return {node: sorted(str(queue["name"]) for queue in queues) for node, queues in answers.items()}

    def stop_taking(self, node: str) -> bool:
        """Have a worker take no more tasks; returns whether it answered and does."""
        queues = self._queues(node)
        for queue in queues or []:
            self.app.control.cancel_consumer(queue, destination=[node], reply=True, timeout=self.timeout)
        return queues is not None and self._queues(node) == []

    def tasks(self, node: str) -> list[Task] | None:
        """The tasks that a worker has taken and not finished; None when it does not answer."""
        inspect = self.app.control.inspect(destination=[node], timeout=self.timeout)
        # In this order: a task that begins to run between the two answers is in both, not in neither.
        reserved, active = inspect.reserved(), inspect.active()
        if not active or not reserved or node not in active or node not in reserved:
            return None
        return tasks(active[node], reserved[node])

    def _queues(self, node: str) -> list[str] | None:
        inspect = self.app.control.inspect(destination=[node], timeout=self.timeout)
        answers = inspect.active_queues() or {}
        return [str(queue["name"]) for queue in answers[node] or []] if node in answers else None
