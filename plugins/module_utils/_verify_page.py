# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: what verify found, as one page for a browser. Pure."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from html import escape

from ansible_collections.onprem.airflow.plugins.module_utils._verify import table, verdict


def page(document: Mapping[str, t.Any]) -> str:
    """One self-contained page."""
    return f"<!doctype html><title>{escape(verdict(document))}</title><pre>{escape(table(document, 200))}</pre>"
