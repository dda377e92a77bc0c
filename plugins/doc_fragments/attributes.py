# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attributes that the modules of this collection have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments C(onprem.airflow.attributes), C(.no_diff) and C(.read_only)."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and tells what it would change without changing it.
    support: full
  diff_mode:
    description: Returns what it changed, or would change, when in diff mode.
    support: full
"""

    NO_DIFF = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and tells what it would change without changing it.
    support: full
  diff_mode:
    description: Returns what it changed, or would change, when in diff mode.
    support: none
"""

    READ_ONLY = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and changes nothing in any mode.
    support: full
  diff_mode:
    description: Returns what it changed, or would change, when in diff mode.
    support: N/A
    details: It changes nothing.
"""
