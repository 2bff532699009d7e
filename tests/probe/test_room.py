"""The bound is above every plan, and a run that does not fit is refused before its weights are read."""

from __future__ import annotations

import os
import platform
from types import SimpleNamespace

import psutil
import pytest

from rewardshape import InputError
from rewardshape.probe import plan
from rewardshape.probe.plan import memory
from rewardshape.probe.room import at_most, device_memory, give_back, limits_of_groups, process_memory
from tests.probe.test_plan import CONFIG, SETTINGS, run_of, some_pairs


@pytest.mark.parametrize("name", SETTINGS)
def test_the_bound_is_above_the_plan(name):
    pairs = some_pairs(4)
    found = memory(CONFIG, run_of(name), pairs, pairs, "cpu")
    assert at_most(CONFIG, found.parameters, pairs) > found.peak - found.process


def test_a_container_has_what_it_was_given(tmp_path):
    given, none = tmp_path / "memory.max", tmp_path / "unlimited"
    given.write_text("4000000\n")
    none.write_text("max\n")
    assert device_memory([given, none, tmp_path / "missing"])[1] == 4_000_000
    assert device_memory([none])[1] == psutil.virtual_memory().total


def test_a_job_has_the_least_that_any_group_around_it_was_given(tmp_path):
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    own.write_text("12:cpu:/elsewhere\n0::/slurm/job_7/step_0\n")
    (root / "slurm" / "job_7" / "step_0").mkdir(parents=True)
    (root / "slurm" / "job_7" / "memory.max").write_text("3000000\n")
    (root / "slurm" / "memory.max").write_text("9000000\n")
    assert device_memory(limits_of_groups(own, root))[1] == 3_000_000
    own.write_text("4:memory:/job\n")
    (root / "memory" / "job").mkdir(parents=True)
    (root / "memory" / "memory.limit_in_bytes").write_text("2000000\n")
    assert device_memory(limits_of_groups(own, root))[1] == 2_000_000
    assert limits_of_groups(tmp_path / "another system", root) == []


def test_a_process_holds_what_the_system_says():
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    assert process_memory() == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.05)


def test_a_run_that_does_not_fit_is_refused_before_its_weights_are_read(probe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plan, "device_memory", lambda: ("this machine (cpu)", 50_000_000))
    monkeypatch.setattr("rewardshape.probe.run.load_policy", lambda *_: pytest.fail("loaded"))
    assert probe(tmp_path / "run") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: this machine (cpu): 0.1 GB, and the run needs about ")
    assert not (tmp_path / "run").exists()


def test_several_runs_at_a_time_share_the_memory(probe, tmp_path, capsys, monkeypatch):
    def needs_loading(*_):
        raise InputError("it fits")

    monkeypatch.setattr(plan, "device_memory", lambda: ("this machine (cpu)", 50_000_000))
    monkeypatch.setattr(plan, "at_most", lambda *_: 1e12)
    monkeypatch.setattr(plan, "memory", lambda *_: SimpleNamespace(peak=30e6))
    monkeypatch.setattr("rewardshape.probe.run.load_policy", needs_loading)
    two = ("--alpha", "0", "0.25")
    assert probe(tmp_path / "one", *two) == 2
    assert "it fits" in capsys.readouterr().err
    assert probe(tmp_path / "both", *two, "--jobs", "2") == 2
    said = capsys.readouterr().err
    assert "this machine (cpu): 0.0 GB for each of --jobs 2, and the run needs about 0.0" in said


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library gives back as it likes")
def test_freed_memory_goes_back_to_the_system_where_a_process_holds_much(monkeypatch):
    pieces = [bytes(60_000) for _ in range(4000)]
    above = pieces.pop()  # the C library gives back by itself what nothing lies above
    pieces.clear()
    before = process_memory()
    give_back()
    assert process_memory() == pytest.approx(before, rel=0.02) or before > 2e9  # not much: not worth the time
    monkeypatch.setattr("rewardshape.probe.room.MUCH", 0)
    give_back()
    assert before - process_memory() > 150e6
    assert len(above) == 60_000
