# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade and rollback: what is planned and refused, which releases and dumps stay, the way back of the schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.airflow.plugins.filter.upgrade_plan import upgrade_plan
from ansible_collections.onprem.airflow.plugins.module_utils import _dump, _release, _schema
from ansible_collections.onprem.airflow.plugins.module_utils._upgrade import Host, Plan, plan_rollback, plan_upgrade

OLD, NEW, THIRD = "3.3.1-aaaaaaaa", "3.3.2-bbbbbbbb", "3.3.0-cccccccc"


def host(name: str, current: str = OLD, wanted: str = NEW, previous: str = "", **more: Any) -> Host:
    """A host that runs what is current, with what any link leads to installed."""
    names = {current, previous, *more.pop("also", ())} - {""}
    unit = "airflow-scheduler.service" if name.startswith("master") else "airflow-worker.service"
    units = more.pop("units", {unit: {"active": "active", "release": current, "held": False}} if current else {})
    python = more.pop("python", "3.13")
    installed = {each: {"version": _release.version_of(each), "python": python} for each in names}
    return Host(
        name,
        wanted,
        current,
        previous,
        installed,
        units,
        is_master=name.startswith("master"),
        **more,
    )


def said(plan: Plan) -> str:
    return "\n".join(plan.as_dict()["problems"])


# --- Upgrade
def test_an_upgrade_takes_every_host_to_the_wanted_release() -> None:
    plan = plan_upgrade([host("master1"), host("worker1")])
    assert plan.targets == {"master1": NEW, "worker1": NEW}
    assert (plan.problems, plan.due, plan.begun) == ([], True, False)
    assert plan.lines == [f"master1, worker1: {OLD} -> {NEW}"]


def test_nothing_is_due_when_every_process_runs_the_wanted_release() -> None:
    plan = plan_upgrade([host("master1", NEW), host("worker1", NEW)])
    assert (plan.problems, plan.due) == ([], False)


@pytest.mark.parametrize(
    "unit",
    [
        {"active": "active", "release": OLD, "held": False},  # switched, not restarted
        {"active": "inactive", "release": "", "held": False},  # stopped for the migration
        {"active": "failed", "release": "", "held": False},
    ],
)
def test_an_upgrade_that_was_cut_off_goes_on(unit: dict[str, Any]) -> None:
    cut = host("master1", NEW, previous=OLD, units={"airflow-scheduler.service": unit})
    plan = plan_upgrade([cut, host("worker1", previous=OLD)])
    assert (plan.problems, plan.due, plan.begun) == ([], True, True)
    assert any("airflow-scheduler.service" in line for line in plan.lines)


def test_a_drained_worker_is_no_reason_to_go_on_for_ever() -> None:
    unit = {"active": "active", "release": OLD, "held": True}
    plan = plan_upgrade([host("master1", NEW), host("worker1", NEW, units={"airflow-worker.service": unit})])
    assert not plan.due
    assert any("drained" in line for line in plan.lines)


@pytest.mark.parametrize(
    ("current", "wanted", "told"),
    [
        (NEW, OLD, "onprem.airflow.rollback"),
        ("3.10.0-aaaaaaaa", "3.9.1-bbbbbbbb", "onprem.airflow.rollback"),
        (OLD, "4.0.0-bbbbbbbb", "different major"),
        ("3.2.1-aaaaaaaa", NEW, "older than this collection"),
        ("3.2.1-aaaaaaaa", "3.2.0-bbbbbbbb", "older than this collection"),
        (OLD, "latest-bbbbbbbb", "no version"),
    ],
)
def test_steps_that_airflow_does_not_support_are_refused(current: str, wanted: str, told: str) -> None:
    plan = plan_upgrade([host("master1", current, wanted), host("worker1", current, wanted)])
    assert told in said(plan)
    assert said(plan).startswith("master1, worker1: ")  # once, with all hosts


@pytest.mark.parametrize("wanted", ["3.3.1-bbbbbbbb", "3.10.0-bbbbbbbb"])
def test_another_lock_and_a_later_minor_version_are_fine(wanted: str) -> None:
    assert plan_upgrade([host("master1", OLD, wanted), host("worker1", OLD, wanted)]).problems == []


def test_two_releases_none_of_them_wanted_are_refused_unless_forced() -> None:
    hosts = [host("master1"), host("worker1", THIRD)]
    assert "several releases" in said(plan_upgrade(hosts))
    assert f"{THIRD} on worker1" in said(plan_upgrade(hosts))
    assert plan_upgrade(hosts, force=True).problems == []


def test_one_lock_under_two_pythons_is_one_release() -> None:
    hosts = [host("master1"), host("worker1", "3.3.1-dddddddd", python="3.11")]
    assert plan_upgrade(hosts).problems == []


def test_no_master_may_be_left_out_and_no_bare_host_be_in() -> None:
    plan = plan_upgrade([host("master1"), host("worker9", "")], absent_masters=["master2"])
    assert "master2: is left out by --limit" in said(plan)
    assert "--limit '!worker9'" in said(plan)
    assert "onprem.airflow.site" in said(plan_upgrade([host("master1", "")]))


def test_all_hosts_get_one_version() -> None:
    assert "airflow_version for all hosts" in said(plan_upgrade([host("master1"), host("worker1", wanted="3.3.3-b")]))


# --- Rollback
def test_rollback_leads_to_the_release_before() -> None:
    plan = plan_rollback([host("master1", NEW, previous=OLD), host("worker1", NEW, previous=OLD)])
    assert plan.targets == {"master1": OLD, "worker1": OLD}
    assert (plan.problems, plan.due) == ([], True)


def test_rollback_is_the_same_wherever_the_upgrade_was_cut_off() -> None:
    """All hosts note the way back before the first is switched."""
    plan = plan_rollback([host("master1", NEW, previous=OLD), host("worker1", OLD, previous=OLD, also=[THIRD])])
    assert plan.targets == {"master1": OLD, "worker1": OLD}
    assert plan.problems == []


def test_rollback_again_changes_nothing() -> None:
    plan = plan_rollback([host("master1", OLD, previous=OLD, also=[NEW]), host("worker1", OLD, previous=OLD)])
    assert (plan.problems, plan.due) == ([], False)


def test_rollback_refuses_when_the_hosts_would_part() -> None:
    plan = plan_rollback([host("master1", NEW, previous=OLD), host("worker1", OLD, previous=THIRD)])
    assert "had different releases before" in said(plan)
    assert "airflow_rollback_to=3.3.0-cccccccc" in said(plan)


def test_rollback_to_a_version_or_a_name() -> None:
    hosts = [host("master1", NEW, previous=OLD, also=[THIRD]), host("worker1", NEW, previous=OLD, also=[THIRD])]
    for to in (THIRD, "3.3.0"):
        plan = plan_rollback(hosts, to)
        assert (plan.problems, set(plan.targets.values())) == ([], {THIRD})
    assert "no host has the release 3.3.7" in said(plan_rollback(hosts, "3.3.7")).lower()
    both = [host("master1", NEW, also=["3.3.1-one", "3.3.1-two"])]
    assert "3.3.1-one or 3.3.1-two" in said(plan_rollback(both, "3.3.1"))


def test_rollback_installs_on_a_host_that_came_later_only_what_the_inventory_names() -> None:
    old, new = host("master1", NEW, previous=OLD), host("worker9", NEW)
    refused = plan_rollback([old, new])
    assert "worker9: does not have the release to go back to" in said(refused)
    assert said(refused).count("worker9:") == 1
    restored = host("worker9", NEW, wanted=OLD)
    plan = plan_rollback([old, restored])
    assert (plan.problems, plan.targets["worker9"]) == ([], OLD)


def test_rollback_without_anything_to_go_back_to() -> None:
    assert "no host has an earlier release" in said(plan_rollback([host("master1", NEW)])).lower()
    assert "nothing to go back from" in said(plan_rollback([host("master1", "")]))


def test_rollback_never_leads_forward() -> None:
    plan = plan_rollback([host("master1", OLD, previous=OLD, also=[NEW])], NEW)
    assert "onprem.airflow.upgrade" in said(plan)


def test_the_filter_reads_the_variables_of_the_hosts() -> None:
    unit = {"airflow-worker.service": {"active": "active", "release": OLD, "held": False}}
    releases = {
        "current": OLD,
        "previous": "",
        "installed": {OLD: {"version": "3.3.1", "python": "3.13"}},
        "units": unit,
        "removed": [],
    }
    hostvars = {"m": {"__airflow_releases": releases, "__airflow_wanted": {"release": NEW}}}
    plan = upgrade_plan(["m"], hostvars, ["m", "n"])
    assert plan["targets"] == {"m": NEW}
    assert plan["problems"][0].startswith("n: is left out")
    assert upgrade_plan(["m"], hostvars, ["m"], back=True, to="3.3.1")["targets"] == {"m": OLD}


# --- The releases of a host
@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three finished releases, an unfinished one, current and previous."""
    for age, name in enumerate((NEW, OLD, THIRD)):
        packages = tmp_path / "releases" / name / "lib/python3.13/site-packages"
        (packages / f"apache_airflow_core-{name[:5]}.dist-info").mkdir(parents=True)
        marker = tmp_path / "releases" / name / _release.MARKER
        marker.touch()
        os.utime(marker, (1000 - age, 1000 - age))
    (tmp_path / "releases" / ".installing-x").mkdir()
    (tmp_path / "releases" / ".lock").touch()
    (tmp_path / "current").symlink_to(tmp_path / "releases" / NEW)
    (tmp_path / "previous").symlink_to(tmp_path / "releases" / OLD)
    return tmp_path


def test_releases_are_found_by_what_is_in_them(root: Path) -> None:
    (root / "releases" / OLD / "lib/python3.13/site-packages/apache_airflow_core-3.3.1.dist-info").rename(
        root / "releases" / OLD / "lib/python3.13/site-packages/apache_airflow_core-3.4.0.dist-info"
    )
    found = _release.installed(str(root))
    assert {name: (each.version, each.python) for name, each in found.items()} == {
        NEW: ("3.3.2", "3.13"),
        OLD: ("3.4.0", "3.13"),
        THIRD: ("3.3.0", "3.13"),
    }
    assert _release.linked(str(root), "current") == NEW
    assert _release.unfinished(str(root)) == [str(root / "releases" / ".installing-x")]


def test_a_link_to_elsewhere_or_none_is_no_release(root: Path) -> None:
    (root / "previous").unlink()
    assert _release.linked(str(root), "previous") == ""
    (root / "previous").symlink_to("/usr/bin")
    assert _release.linked(str(root), "previous") == ""
    (root / "other").symlink_to(f"releases/{OLD}")
    assert _release.linked(str(root), "other") == OLD


def test_what_is_needed_is_never_removed_and_counts(root: Path) -> None:
    found = _release.installed(str(root))
    assert _release.to_remove(found, {NEW, OLD}, 3) == []
    assert _release.to_remove(found, {NEW, OLD}, 2) == [THIRD]
    assert _release.to_remove(found, {NEW, OLD}, 0) == [THIRD]
    assert _release.to_remove(found, {NEW, THIRD}, 2) == [OLD]
    assert _release.to_remove(found, {NEW, OLD, THIRD}, 1) == []
    assert _release.to_remove(found, set(), 0) == [THIRD, OLD, NEW]


def test_the_release_of_a_process_is_that_of_its_libraries(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "13").mkdir()
    (tmp_path / "12" / "maps").write_text(
        "7f00-7f01 r-xp 0 08:01 1 /usr/bin/python3.13\n"
        f"7f02-7f03 r-xp 0 08:01 2 /opt/airflow/releases/{OLD}/lib/python3.13/site-packages/x.so\n"
    )
    (tmp_path / "13" / "maps").write_text("7f00-7f01 r-xp 0 08:01 1 /opt/airflow/current/x\n")
    assert _release.release_of(12, "/opt/airflow", str(tmp_path)) == OLD
    assert _release.release_of(99, "/opt/airflow", str(tmp_path)) == ""
    assert _release.in_use("/opt/airflow", str(tmp_path)) == {OLD}


# --- Dumps
def test_the_name_of_a_dump_can_be_read_back() -> None:
    name = _dump.file_name("air_flow", 1795380000, "3.3.1-a/b_c", "d2f4")
    assert name == "air_flow_20261122T204000Z_3.3.1-a-b-c_d2f4.dump"
    (dump,) = _dump.parse("air_flow", [name, name + ".partial", "other_" + name, ".lock"])
    assert (dump.label, dump.schema) == ("3.3.1-a-b-c", "d2f4")
    assert _dump.parse("airflow", [_dump.file_name("airflow", 0, "", "")])[0].schema == "none"


def test_the_last_dump_of_the_schema_before_stays() -> None:
    def names(*schemas: str) -> list[_dump.Dump]:
        made = [_dump.file_name("airflow", number * 60, "r", schema) for number, schema in enumerate(schemas)]
        return _dump.parse("airflow", made)

    dumps = names("old", "old", "new", "new", "new", "new")
    assert [dump.schema for dump in dumps[:2]] == ["new", "new"]  # the newest first
    removed = _dump.to_remove(dumps, 3)
    assert removed == [dumps[3].name, dumps[5].name]
    assert _dump.to_remove(dumps, 10) == []
    assert _dump.to_remove(dumps, 0) == [dumps[1].name, dumps[2].name, dumps[3].name, dumps[5].name]
    assert _dump.to_remove([], 3) == []


# --- The way back of the schema
OLDER = {"alembic_version": {"a": None, "b": "a"}, "alembic_version_fab": {"x": None}}
NEWER = {"alembic_version": {"a": None, "b": "a", "c": "b", "d": "c"}, "alembic_version_fab": {"x": None, "y": "x"}}


def test_the_schema_goes_back_to_the_head_of_the_older_release() -> None:
    ahead = {"alembic_version": "d", "alembic_version_fab": "y"}
    assert _schema.back(OLDER, NEWER, ahead) == {"alembic_version": "b", "alembic_version_fab": "x"}
    # cut off between two migrations, or after one of the chains
    half: dict[str, str | None] = {"alembic_version": "c", "alembic_version_fab": "x"}
    assert _schema.back(OLDER, NEWER, half) == {"alembic_version": "b"}


@pytest.mark.parametrize("revision", ["a", "b", None])
def test_what_the_older_release_knows_stays(revision: str | None) -> None:
    assert _schema.back(OLDER, NEWER, {"alembic_version": revision}) == {}


def test_no_way_back_is_said() -> None:
    with pytest.raises(ValueError, match="alembic_version is at z"):
        _schema.back(OLDER, NEWER, {"alembic_version": "z"})
    apart = {"alembic_version": {"a": None, "d": "a"}}
    with pytest.raises(ValueError, match="no way leads back to b"):
        _schema.back(OLDER, apart, {"alembic_version": "d"})


def test_every_chain_has_a_command_that_takes_it_back() -> None:
    assert set(_schema.DOWNGRADE) == set(_schema.CHAINS)
