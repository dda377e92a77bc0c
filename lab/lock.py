#!/usr/bin/env python3
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resolve the collection's lock files anew: `make lock`.

Reads roles/airflow/files/locks/requirements.in and writes python3.11.txt, python3.13.txt and uv.txt beside it, all
of them or none. Prints which versions changed. Needs uv (on PATH, or as a module of the Python that runs this) and a
package index.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOCKS = Path(__file__).resolve().parent.parent / "roles" / "airflow" / "files" / "locks"

# The Python of Debian 12 and of Debian 13.
PYTHONS = ("3.11", "3.13")

# glibc of Debian 12, the older of the two: newer wheels (cryptography asks for 2.34) are found, none too new.
PLATFORM = "x86_64-manylinux_2_36"

HEADER = "# Made by `make lock`: change requirements.in and run it again instead of editing here.\n"


def uv_command() -> list[str]:
    """How to call uv: the program on PATH, else the module of this Python."""
    program = shutil.which("uv")
    return [program] if program else [sys.executable, "-m", "uv"]


def resolve(source: Path, python: str, target: Path) -> None:
    """Write the lock of one requirements file for one Python to target, which must not exist.

    An existing output file would be taken as a preference by uv, and old versions would stay.
    """
    command = [*uv_command(), "pip", "compile", str(source), "--output-file", str(target), "--quiet"]
    command += ["--python-version", python, "--python-platform", PLATFORM]
    command += ["--generate-hashes", "--only-binary", ":all:"]
    # Nothing of the machine that makes a lock belongs in it: no index, no paths, no command line.
    command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    subprocess.run(command, check=True)
    target.write_text(HEADER + target.read_text(encoding="utf-8"), encoding="utf-8")


def versions(text: str) -> dict[str, str]:
    """Name and version of every pin in a lock file."""
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", text, flags=re.MULTILINE))


def changes(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """One line for each package whose version differs."""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [f"  {name}: {old.get(name, 'absent')} -> {new.get(name, 'gone')}" for name in names]


def main() -> int:
    """Resolve everything in a scratch folder, then put the files in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made: dict[str, Path] = {}
        try:
            for python in PYTHONS:
                name = f"python{python}.txt"
                print(f"Resolving {name}", flush=True)
                made[name] = Path(scratch, name)
                resolve(LOCKS / "requirements.in", python, made[name])
            print("Resolving uv.txt", flush=True)
            wanted = Path(scratch, "uv")
            wanted.write_text("uv\n", encoding="utf-8")
            made["uv.txt"] = Path(scratch, "uv.txt")
            resolve(wanted, PYTHONS[0], made["uv.txt"])
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            print(f"Nothing was changed: {error}", file=sys.stderr)
            return 1
        for name, path in made.items():
            target = LOCKS / name
            old = target.read_text(encoding="utf-8") if target.exists() else ""
            new = path.read_text(encoding="utf-8")
            lines = changes(versions(old), versions(new))
            print(f"{name}: {len(versions(new))} packages, " + (f"{len(lines)} changed" if lines else "same versions"))
            print("\n".join(lines), end="\n" if lines else "")
            beside = target.with_name(f".{name}.new")
            beside.write_text(new, encoding="utf-8")
            os.replace(beside, target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
