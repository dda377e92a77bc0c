# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: environment files, as systemd and a POSIX shell both read them. Pure."""

from __future__ import annotations

import re

# Within double quotes a backslash keeps these as they are, in systemd's reader and in sh alike
# (systemd.exec(5), EnvironmentFile=; POSIX shell, 2.2.3).
_SPECIAL = re.compile(r'(["\\`$])')


def quote(value: str) -> str:
    """A value in double quotes that systemd and sh read back as it was.

    Raises ValueError on a line break, which ends a value for systemd.
    """
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError("a value of an environment file cannot hold a line break")
    return '"' + _SPECIAL.sub(r"\\\1", value) + '"'


def render(values: dict[str, str]) -> str:
    """The text of an environment file, sorted by name."""
    return "".join(f"{name}={quote(str(values[name]))}\n" for name in sorted(values))


def parse(text: str) -> dict[str, str]:
    """Read what render() wrote, and the plain or single-quoted forms that a person writes."""
    values = {}
    for line in text.splitlines():
        line = line.strip()
        if not line or line[0] in "#;" or "=" not in line:
            continue
        name, value = line.split("=", 1)
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = re.sub(r'\\(["\\`$])', r"\1", value[1:-1])
        elif len(value) >= 2 and value[0] == value[-1] == "'":
            value = value[1:-1]
        values[name.strip()] = value
    return values
