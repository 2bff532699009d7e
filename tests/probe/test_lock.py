"""One process at a time in a folder, and no lock outlives its process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rewardshape import InputError
from rewardshape.probe.lock import locked, taken_over
from rewardshape.trace import RunFolder, write_json


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    run = RunFolder(tmp_path / "alpha=0")
    run.path.mkdir()
    write_json(run.manifest, {"status": "running"})
    assert not run.is_left()  # nobody ever locked it: a copy may be of a run that goes on elsewhere
    code = "import sys, time; from pathlib import Path; from rewardshape.probe.lock import locked\n"
    code += "lock = locked(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another process"):
        locked(tmp_path)
    assert not run.is_left()
    process.kill()
    process.wait()
    assert run.is_left()
    locked(tmp_path).release()


def test_a_lock_that_is_released_is_free_and_holds_one_folder_only(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    held = locked(tmp_path / "one")
    locked(tmp_path / "other").release()
    held.release()
    locked(tmp_path / "one").release()


def test_a_holder_leaves_for_the_next_of_its_process_and_is_told_once(tmp_path):
    class Holds:
        def __init__(self):
            self.lock, self.told = taken_over(tmp_path, self), []

        def close(self, status):
            self.told.append(status)
            self.lock.release()

    first = Holds()
    second = Holds()
    assert (first.told, second.told) == (["interrupted"], [])
    first.lock.release()  # not the second's
    with pytest.raises(InputError, match="another process"):
        locked(tmp_path)
