# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file systems that services write to."""

from __future__ import annotations

import json
import os
import pathlib
import types
import typing as t

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _disks
from ansible_collections.onprem.airflow.plugins.module_utils._disks import MB, Place

NEEDED = {"airflow_master": 500 * MB, "airflow_worker": 600 * MB}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, int]]:
    """File systems by their mount points; a test changes them. What lies in no other one is in that of /."""
    mounts: dict[str, dict[str, int]] = {"/": {}, "/tmp": {}, "/var/log": {}}

    def mount(path: str) -> str:
        return max((name for name in mounts if f"{path}/".startswith(f"{name.rstrip('/')}/")), key=len)

    def stat(path: str) -> t.Any:
        if path.startswith("/absent"):
            raise FileNotFoundError(path)
        return types.SimpleNamespace(st_dev=1 + list(mounts).index(mount(path)))

    def statvfs(path: str) -> t.Any:
        values = {"f_frsize": 4096, "f_blocks": 8000 * 256, "f_bavail": 4000 * 256, "f_files": 9, "f_favail": 5}
        return types.SimpleNamespace(**{**values, **mounts[mount(path)]})

    monkeypatch.setattr(_disks, "os", types.SimpleNamespace(stat=stat, statvfs=statvfs, path=os.path))
    monkeypatch.setattr(os.path, "realpath", lambda path: path)
    return mounts


def short(*places: Place) -> dict[str, dict[str, int]]:
    return {disk.mount: disk.short for disk in _disks.file_systems(places)}


def test_each_file_system_is_told_once(machine: dict[str, dict[str, int]]) -> None:
    places = [
        Place("airflow_worker", "/var/log/airflow", 5),
        Place("airflow_worker", "/var/lib/airflow", 5),
        Place("postgresql", "/var/lib/postgresql", 5),
        Place("postgresql", "/absent/folder", 5),
    ]
    first, second = _disks.file_systems(places)
    assert (first.mount, first.folders) == ("/var/log", ("/var/log/airflow",))
    assert (second.mount, second.folders) == ("/", ("/var/lib/airflow", "/var/lib/postgresql"))
    assert (first.free, first.size, first.inodes) == (4000 * MB, 8000 * MB, 5)
    assert first.as_dict() == {
        "mount": "/var/log",
        "folders": ["/var/log/airflow"],
        "free_mb": 4000,
        "size_mb": 8000,
        "free_inodes": 5,
        "short": [],
    }


def test_who_is_short_of_space(machine: dict[str, dict[str, int]]) -> None:
    machine["/"] = {"f_bavail": 300 * 256}
    places = [
        Place("airflow_worker", "/var/lib/airflow", 512 * MB),
        Place("postgresql", "/var/lib/postgresql", 256 * MB),
        Place("rabbitmq", "/var/log/rabbitmq", 9000 * MB),
    ]
    assert short(*places) == {"/": {"airflow_worker": 512 * MB}, "/var/log": {"rabbitmq": 8000 * MB}}
    machine["/"]["f_bavail"] = 256 * 256
    assert short(places[1]) == {"/": {}}, "just enough"
    machine["/"]["f_bavail"] -= 1
    assert short(places[1]) == {"/": {"postgresql": 256 * MB}}


def test_no_space_at_all_is_too_little_for_everybody(machine: dict[str, dict[str, int]]) -> None:
    place = Place("rabbitmq", "/var/lib/rabbitmq", 0)
    assert short(place) == {"/": {}}
    machine["/"] = {"f_bavail": 0}
    assert short(place) == {"/": {"rabbitmq": 0}}


def test_inodes_run_out_only_where_they_are_counted(machine: dict[str, dict[str, int]]) -> None:
    place = Place("airflow_worker", "/var/lib/airflow", 1)
    machine["/"] = {"f_favail": 0}
    assert short(place) == {"/": {"airflow_worker": 1}}
    machine["/"] = {"f_favail": 0, "f_files": 0}
    assert short(place) == {"/": {}} and _disks.file_systems([place])[0].inodes is None


def test_of_a_small_tmp_a_tenth_is_enough(machine: dict[str, dict[str, int]]) -> None:
    machine["/tmp"] = {"f_blocks": 400 * 256, "f_bavail": 41 * 256}
    places = _disks.places(["airflow_worker"], NEEDED, "/var/lib/airflow")
    assert short(*places) == {"/var/log": {}, "/": {}, "/tmp": {}}
    machine["/tmp"]["f_bavail"] = 39 * 256
    assert short(*places)["/tmp"] == {"airflow_worker": 40 * MB}


def test_the_places_of_each_role(tmp_path: pathlib.Path) -> None:
    def found(*roles: str, logs: str = "") -> list[tuple[str, str, int]]:
        absent = str(tmp_path / "absent")
        places = _disks.places(roles, NEEDED, "/home/airflow", logs, absent, absent)
        return [(place.role, place.path, place.needed) for place in places]

    for role, needed in NEEDED.items():
        assert found(role) == [(role, path, needed) for path in ("/var/log/airflow", "/home/airflow", "/tmp")]
    assert found("airflow_worker", logs="/srv/logs")[0][1] == "/srv/logs"
    assert found("rabbitmq") == [
        ("rabbitmq", "/var/lib/rabbitmq", 50_000_000),
        ("rabbitmq", "/var/log/rabbitmq", 0),
    ]
    assert found("postgresql") == [("postgresql", "/var/log/postgresql", 256 * MB)]
    assert len(found("airflow_master", "airflow_worker", "rabbitmq", "postgresql")) == 9


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("", 50_000_000),
        ("# disk_free_limit.absolute = 1GB\n", 50_000_000),
        ("listeners.tcp.default = 5672\ndisk_free_limit.absolute = 2GB\n", 2_000_000_000),
        ("disk_free_limit.absolute=3GiB", 3 << 30),
        ("disk_free_limit.absolute = 4M", 4 << 20),
        ("disk_free_limit.absolute = 123456", 123456),
        ("disk_free_limit.absolute = 1GB\ndisk_free_limit.absolute = 5kB", 5000),
    ],
)
def test_the_limit_of_the_broker(text: str, limit: int) -> None:
    assert _disks.broker_limit(text) == limit


def test_the_folders_of_the_database(tmp_path: pathlib.Path) -> None:
    assert _disks.database_folders(str(tmp_path / "absent")) == []
    for name, text in (("main", "x = 1\n"), ("other", "")):
        folder = tmp_path / "etc" / "17" / name
        folder.mkdir(parents=True)
        (folder / "postgresql.conf").write_text(text)
    data, wal = tmp_path / "data", tmp_path / "wal"
    data.mkdir()
    wal.mkdir()
    (data / "pg_wal").symlink_to(wal)
    (tmp_path / "etc" / "17" / "other" / "postgresql.conf").write_text(f"data_directory = '{data}'\t# moved\n")
    found = _disks.database_folders(str(tmp_path / "etc"))
    assert found == ["/var/lib/postgresql/17/main", str(data), str(wal)]


def test_a_real_file_system(tmp_path: pathlib.Path) -> None:
    (disk,) = _disks.file_systems([Place("rabbitmq", str(tmp_path)), Place("rabbitmq", str(tmp_path / "absent"))])
    assert disk.folders == (str(tmp_path),) and str(tmp_path).startswith(disk.mount) and disk.size > disk.free > 0
    assert os.path.ismount(disk.mount) or disk.mount == "/"
    (disk,) = _disks.file_systems([Place("rabbitmq", str(tmp_path), 1 << 60)])
    assert disk.short == {"rabbitmq": disk.size}


def test_a_worker_that_the_watchdog_has_stopped(tmp_path: pathlib.Path) -> None:
    path, units = tmp_path / "state.json", ["airflow-worker.service"]
    assert not _disks.held(units, str(path))
    for kept, expected in (
        ({"airflow-worker.service": {"stopped": 12.5, "wait": 0}}, True),
        ({"airflow-worker.service": {"stopped": None, "wait": 0}}, False),
        ({"airflow-worker@b.service": {"stopped": 12.5, "wait": 0}}, False),
    ):
        path.write_text(json.dumps({"trusted": [], "units": kept}))
        assert _disks.held(units, str(path)) is expected
    for text in ("{", "[]", "{}", '{"units": {"airflow-worker.service": 1}}'):
        path.write_text(text)
        assert not _disks.held(units, str(path))


def test_it_knows_the_watchdog() -> None:
    """Its file, the place of that, and the space that it waits for."""
    text = (pathlib.Path(__file__).parents[2] / "roles/airflow_worker/files/airflow_watchdog.py").read_text()
    assert f"SPARE = {_disks.SPARE}\n" in text
    assert f'"{os.path.basename(_disks.WATCHDOG_STATE)}"' in text
    for name in ("trusted", "units", "stopped"):
        assert f'"{name}"' in text
