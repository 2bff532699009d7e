"""A run that was stopped, killed or torn ends in the trace of one that was not: the same bytes."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from rewardshape import InputError
from rewardshape.probe.__main__ import main
from rewardshape.probe.checkpoints import keep_whole, newest_whole
from rewardshape.probe.resume import ROUNDING, check_manifest, mend_record, require_its_runs
from rewardshape.probe.settings import SETTINGS
from rewardshape.trace import RunFolder, read_trace
from tests.processes import Python, lines_in

STEPS = 24
FLAGS = [
    "--steps",
    str(STEPS),
    "--checkpoint-every",
    "3",
    "--keep-checkpoints",
    "2",
    "--objective",
    "dpo",
    "--beta",
    "0.1",
]


@pytest.fixture(scope="module")
def uninterrupted(probe: Callable[..., int], made_once) -> Path:
    def make(folder: Path) -> None:
        assert probe(folder / "run", *FLAGS) == 0

    return made_once("uninterrupted", make) / "run"


WAITS = """
import sys, time
from rewardshape.probe.__main__ import main
from rewardshape.probe.recorder import Recorder

begun = Recorder.on_step_begin

def wait(self, args, state, control, **keywords):
    begun(self, args, state, control, **keywords)
    while state.global_step == args.max_steps - 1 and not self.stop.is_set():  # the last step waits for the signal
        time.sleep(0.01)

Recorder.on_step_begin = wait
sys.exit(main(sys.argv[1:]))
"""


def start(output: Path, checkpoint: str, pairs_file: str, *, program: tuple[str, str]) -> Python:
    small = ["--batch-size", "8", "--probe-pairs", "12", "--learning-rate", "1e-3", *FLAGS]
    return Python(*program, checkpoint, "--data", pairs_file, "--output", output, *small)


def test_killed_at_random_moments_and_resumed_gives_the_same_trace(
    uninterrupted, checkpoint, pairs_file, tmp_path
):
    seed = time.time_ns()
    rng = random.Random(seed)
    output = tmp_path / "run"
    process = start(output, checkpoint, pairs_file, program=("-m", "rewardshape.probe"))
    lines, later = rng.randint(2, STEPS), rng.random() * 0.1
    process.until(lambda: lines_in(output / "trace.jsonl") >= lines)
    time.sleep(later)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = (output / "trace.jsonl").read_bytes()
    moment = f"seed {seed}: killed {later:.3f} seconds after line {lines}, with {len(kept)} bytes recorded"
    assert main(["--resume", "--output", str(output), "--quiet"]) == 0, moment
    assert (output / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes(), moment
    assert read_trace(output).settings["status"] == "done", moment


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_checkpoints_says_how_to_go_on_and_loses_nothing(
    uninterrupted, checkpoint, pairs_file, tmp_path, number, status
):
    output = tmp_path / "run"
    process = start(output, checkpoint, pairs_file, program=("-c", WAITS))
    process.until(lambda: lines_in(output / "trace.jsonl") >= 4)
    process.send_signal(number)
    assert process.wait(60) == status
    assert f"--resume --output {output}" in process.said
    assert "Traceback" not in process.said
    steps = read_trace(output).steps["step"].max()
    assert newest_whole(output / "checkpoints") == (output / "checkpoints" / f"checkpoint-{steps}", [])
    assert main(["--resume", "--output", str(output), "--quiet"]) == 0
    assert (output / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()


def half_done(uninterrupted: Path, output: Path, *, keep_last: bool = False, status: str = "running") -> None:
    """A folder as a kill between two checkpoints leaves it: records beyond the checkpoint, the last line torn.

    With `keep_last` as a kill after the last checkpoint does.
    """
    shutil.copytree(uninterrupted, output)
    manifest = output / "run.json"
    manifest.write_text(manifest.read_text().replace('"status": "done"', f'"status": "{status}"'))
    if not keep_last:
        shutil.rmtree(output / "checkpoints" / f"checkpoint-{STEPS}")
        lines = (output / "trace.jsonl").read_text().splitlines(keepends=True)
        (output / "trace.jsonl").write_text("".join(lines[:-2]) + lines[-2][:40])
    command = output / "command.json"
    content = command.read_text().replace(str(uninterrupted), str(output))
    command.write_text(content.replace('"quiet": true', '"quiet": false'))


def test_a_torn_last_line_and_records_beyond_the_checkpoint_are_dropped(uninterrupted, tmp_path):
    half_done(uninterrupted, tmp_path / "run")
    assert read_trace(tmp_path / "run").steps["step"].max() == STEPS - 2
    assert main(["--resume", "--output", str(tmp_path / "run"), "--quiet"]) == 0
    assert (tmp_path / "run" / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_said_and_the_older_one_taken(uninterrupted, tmp_path, capsys):
    name = "optimizer.pt"
    output = tmp_path / "run"
    half_done(uninterrupted, output, keep_last=True)
    flip(output / "checkpoints" / f"checkpoint-{STEPS}" / name)
    assert main(["--resume", "--output", str(output)]) == 0
    said = capsys.readouterr().err
    assert (
        f"checkpoint-{STEPS}: {name} is not what was written: the run goes on from step {STEPS - 3}" in said
    )
    assert (output / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()


def test_where_no_checkpoint_is_whole_the_run_begins_anew_and_says_so(uninterrupted, tmp_path, capsys):
    output = tmp_path / "run"
    half_done(uninterrupted, output)
    flip(output / "checkpoints" / f"checkpoint-{STEPS - 3}" / "optimizer.pt")
    assert main(["--resume", "--output", str(output)]) == 0
    assert "optimizer.pt is not what was written: the run begins anew" in capsys.readouterr().err
    assert (output / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()


@pytest.mark.parametrize(("line", "done"), [(2, True), (STEPS, False)])
def test_a_damaged_record_is_repaired_where_that_was_asked(uninterrupted, tmp_path, capsys, line, done):
    """Beyond the older checkpoint the run goes on from there, before it the run begins anew: the same record."""
    output = tmp_path / "run"
    half_done(uninterrupted, output, keep_last=True, status="done" if done else "running")
    lines = (uninterrupted / "trace.jsonl").read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:line], lines[line][:9] + b"\n", *lines[line + 1 :]])
    (output / "trace.jsonl").write_bytes(damaged)
    assert main(["--resume", "--output", str(output), "--quiet"]) == 2
    assert f"trace.jsonl:{line + 1}: not a record" in capsys.readouterr().err
    assert (output / "trace.jsonl").read_bytes() == damaged
    assert main(["--resume", "--repair", "--output", str(output)]) == 0
    said = capsys.readouterr().err
    assert (f"the steps after {STEPS - 3} are done again" if line == STEPS else "the run begins anew") in said
    assert (output / "trace.damaged.jsonl").read_bytes() == damaged
    assert (output / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()


def test_beside_an_edited_record_a_checkpoint_that_fits_is_taken_where_that_was_asked(
    uninterrupted, tmp_path
):
    output = tmp_path / "run"
    half_done(uninterrupted, output, keep_last=True)
    lines = (uninterrupted / "trace.jsonl").read_bytes().splitlines(keepends=True)
    edited = b"".join([*lines[:-2], lines[-2].replace(b'"loss":', b'"loss":1'), lines[-1]])
    (output / "trace.jsonl").write_bytes(edited)
    *_, said = mend_record(RunFolder(output))
    newest = output / "checkpoints" / f"checkpoint-{STEPS}"
    assert said.startswith(f"{newest}: trace.jsonl is not the record that it was made with (SHA-256 ")
    assert f"the steps after {STEPS - 3} are done again" in said
    assert not newest.exists()
    assert (output / "trace.damaged.jsonl").read_bytes() == edited
    assert (output / "trace.jsonl").read_bytes() == b"".join(lines[:-3])
    assert mend_record(RunFolder(output)) == []
    (output / "trace.jsonl").write_bytes(b"".join(lines[:3]) + b"{\n" + b"".join(lines[3:]))
    *_, said = mend_record(RunFolder(output))  # a second time: what was kept the first time stays
    assert said.endswith("the damaged record is kept as trace.damaged-2.jsonl")
    assert (output / "trace.damaged.jsonl").read_bytes() == edited


def test_a_lost_head_is_repaired_and_a_newer_format_is_not(uninterrupted, tmp_path, capsys):
    output = tmp_path / "run"
    half_done(uninterrupted, output)
    whole = (uninterrupted / "trace.jsonl").read_bytes()
    newer = whole.replace(b'"format":1', b'"format":2', 1)
    (output / "trace.jsonl").write_bytes(newer)
    assert main(["--resume", "--repair", "--output", str(output), "--quiet"]) == 2
    assert "written by a newer rewardshape" in capsys.readouterr().err
    assert (output / "trace.jsonl").read_bytes() == newer
    (output / "trace.jsonl").write_bytes(whole[whole.index(b"\n") + 1 :])
    assert main(["--resume", "--repair", "--output", str(output), "--quiet"]) == 0
    assert (output / "trace.jsonl").read_bytes() == whole


def test_only_the_newest_checkpoints_stay(uninterrupted):
    kept = sorted(path.name for path in (uninterrupted / "checkpoints").iterdir())
    assert kept == sorted([f"checkpoint-{STEPS}", f"checkpoint-{STEPS - 3}"])


def test_probe_every_may_change_on_resume_and_the_policy_does_not(uninterrupted, tmp_path):
    half_done(uninterrupted, tmp_path / "run")
    assert main(["--resume", "--output", str(tmp_path / "run"), "--quiet", "--probe-every", "2"]) == 0
    whole, resumed = (read_trace(folder).responses for folder in (uninterrupted, tmp_path / "run"))
    assert set(resumed.query("split == 'probe'")["step"]) == {*range(STEPS - 2), STEPS - 2, STEPS}
    for step in (STEPS - 2, STEPS):
        a, b = (table[table["step"] == step]["logp_sum"].tolist() for table in (whole, resumed))
        assert a == b


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--learning-rate", "0.5"], "--learning-rate: cannot change on --resume"),
        (["--alpha", "0.5"], "--alpha: cannot change on --resume"),
    ],
)
def test_a_resumed_run_cannot_become_another(uninterrupted, tmp_path, capsys, flags, said):
    output = shutil.copytree(uninterrupted, tmp_path / "run")
    assert main(["--resume", "--output", str(output), *flags]) == 2
    assert said in capsys.readouterr().err
    assert (output / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()


def test_a_relative_path_is_looked_for_where_the_run_was_begun(uninterrupted, tmp_path, capsys, monkeypatch):
    shutil.copytree(uninterrupted, tmp_path / "run")
    command = json.loads((tmp_path / "run" / "command.json").read_text())
    command["settings"]["data"] = ["pairs.jsonl"]
    (tmp_path / "run" / "command.json").write_text(json.dumps(command))
    monkeypatch.chdir(tmp_path)
    assert main(["--resume", "--output", "run"]) == 2
    assert capsys.readouterr().err == (
        "error: pairs.jsonl: no such file; --resume looks for it from where the run was begun: go on from there\n"
    )


# --- a resumed run proves that it goes on with what it began with ---------------------------------------------------


@pytest.fixture(scope="module")
def own(checkpoint: str, tmp_path_factory: pytest.TempPathFactory, pairs_file: str) -> Path:
    """A folder with a model, pairs and a run of theirs that stopped after the checkpoint of step 2 of 4."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(checkpoint, folder / "model")
    rows = Path(pairs_file).read_text(encoding="utf-8").splitlines(keepends=True)[:60]
    (folder / "pairs.jsonl").write_text("".join(rows), encoding="utf-8")
    words = (
        "--steps 4 --checkpoint-every 2 --keep-checkpoints 2 --batch-size 4 --probe-pairs 6 --quiet".split()
    )
    assert (
        main(
            [
                str(folder / "model"),
                "--data",
                str(folder / "pairs.jsonl"),
                "--output",
                str(folder / "run"),
                *words,
            ]
        )
        == 0
    )
    run = folder / "run"
    shutil.rmtree(run / "checkpoints" / "checkpoint-4")
    manifest = run / "run.json"
    manifest.write_text(manifest.read_text().replace('"status": "done"', '"status": "running"'))
    return folder


@pytest.fixture
def refused(own: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What resuming says where it must be refused, with nothing written; then all is put back."""
    kept = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}

    def resume() -> str:
        before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
        capsys.readouterr()
        assert main(["--resume", "--output", str(own / "run"), "--quiet"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
        return line

    yield resume
    shutil.rmtree(own / "run")
    for path, content in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_other_data_are_refused(own, refused):
    rows = (own / "pairs.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (own / "pairs.jsonl").write_text("".join(rows[:-1]), encoding="utf-8")
    began = json.loads((own / "run" / "run.json").read_text())["data"]["fingerprint"]
    line = refused()
    assert f"the data changed since the run began (fingerprint {began[:12]}, now " in line


def test_other_weights_are_refused(own, refused):
    weights = load_file(own / "model" / "model.safetensors")
    name = next(iter(weights))
    weights[name].flatten()[0] += 1e-3
    save_file(weights, own / "model" / "model.safetensors", metadata={"format": "pt"})
    assert "the checkpoint changed since the run began" in refused()


def test_a_lost_manifest_and_the_command_of_a_sweep_in_the_folder_of_a_run_are_refused(
    uninterrupted, tmp_path
):
    shutil.copytree(uninterrupted, tmp_path / "run")
    require_its_runs(tmp_path / "run", [""])
    require_its_runs(tmp_path, ["run", "not begun"])
    with pytest.raises(
        InputError, match=r"holds the record of a single run, and its command\.json is that of a sweep"
    ):
        require_its_runs(tmp_path / "run", ["alpha=0", "alpha=0.25"])
    (tmp_path / "run" / "run.json").unlink()
    for home, names in ((tmp_path / "run", [""]), (tmp_path, ["run"])):
        with pytest.raises(
            InputError, match=r"run\.json: lost, and only it says what trace.jsonl beside it is"
        ):
            require_its_runs(home, names)


@pytest.mark.parametrize("lost", ["trace.jsonl", "checkpoints"])
@pytest.mark.parametrize("status", ["running", "done"])
def test_what_was_lost_is_said_and_the_rest_kept_until_repair_is_asked(
    uninterrupted, tmp_path, capsys, lost, status
):
    output = tmp_path / "run"
    half_done(uninterrupted, output, keep_last=True, status=status)
    path = output / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    before = {file: file.read_bytes() for file in output.rglob("*") if file.is_file()}
    whole = (lost, status) == ("checkpoints", "done")  # nothing is left to do
    assert main(["--resume", "--output", str(output), "--quiet"]) == (0 if whole else 2)
    if not whole:
        [line] = capsys.readouterr().err.splitlines()
        assert f"{path}: lost, and " in line
        assert {file: file.read_bytes() for file in output.rglob("*") if file.is_file()} == before
    assert main(["--resume", "--repair", "--output", str(output)]) == 0
    assert ("the run begins anew" in capsys.readouterr().err) is not whole
    assert (output / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()


def test_repair_does_not_pass_over_a_lost_manifest(uninterrupted, tmp_path, capsys):
    shutil.copytree(uninterrupted, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    assert main(["--resume", "--repair", "--output", str(tmp_path / "run"), "--quiet"]) == 2
    assert "run.json: lost, and only it says what" in capsys.readouterr().err


def test_edited_settings_are_refused(own, refused):
    command = own / "run" / "command.json"
    command.write_text(command.read_text().replace('"steps": 4', '"steps": 6'))
    assert "--steps is 6, and the run began with 4" in refused()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda lines: lines[:2] + lines[3:], "trace.jsonl:3: found step 2 where step 1 belongs"),
        (lambda lines: [*lines[:2], lines[2][:30] + b"\n", *lines[3:]], "trace.jsonl:3: not a record"),
        (lambda lines: lines[:2] + lines[1:], "trace.jsonl:3: found step 0 where a step after 0 belongs"),
        (lambda lines: lines[1:], "trace.jsonl:1: found format nothing, this version reads format 1"),
        (lambda lines: lines[:2], "trace.jsonl: ends before step 2"),
        (
            lambda lines: [lines[0].replace(b"pairs.jsonl:", b"other.jsonl:"), *lines[1:]],
            "its probe set is another one",
        ),
        (
            lambda lines: [*lines[:2], lines[2].replace(b'"loss":', b'"loss":1'), *lines[3:]],
            "checkpoint-2: trace.jsonl is not the record that it was made with (SHA-256 ",
        ),
    ],
    ids=[
        "a step is missing",
        "a line is torn",
        "a line is doubled",
        "no head",
        "too short",
        "other pairs",
        "a number",
    ],
)
def test_a_damaged_record_is_refused_with_its_line(own, refused, harm, said):
    trace = own / "run" / "trace.jsonl"
    trace.write_bytes(b"".join(harm(trace.read_bytes().splitlines(keepends=True))))
    assert said in refused()


def test_a_checkpoint_of_another_step_is_refused(own, refused, capsys):
    checkpoints = own / "run" / "checkpoints"
    (checkpoints / "checkpoint-2").rename(checkpoints / "checkpoint-1")
    assert main(["--resume", "--output", str(own / "run"), "--quiet"]) == 2
    assert "its checkpoint of step 1 says that it was made at step 2" in capsys.readouterr().err


def test_what_changes_rounding_is_a_note(own, capsys):
    manifest = own / "run" / "run.json"
    torch_now = json.loads(manifest.read_text())["versions"]["torch"]
    manifest.write_text(manifest.read_text().replace(f'"torch": "{torch_now}"', '"torch": "1.0.0"'))
    command = own / "run" / "command.json"
    command.write_text(command.read_text().replace('"quiet": true', '"quiet": false'))
    capsys.readouterr()
    assert main(["--resume", "--output", str(own / "run")]) == 0
    said = capsys.readouterr().err
    assert f"torch is {torch_now}, and the run began with 1.0.0: numbers may differ by rounding" in said


# --- what goes on is what began ---------------------------------------------------------------------------------------


def test_a_trained_policy_is_never_taken_for_the_reference(uninterrupted, tmp_path, capsys):
    """Its log-probs lost, a run goes on from no checkpoint: put back, or anew."""
    output = tmp_path / "run"
    half_done(uninterrupted, output)
    RunFolder(output).reference.unlink()
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert main(["--resume", "--output", str(output), "--quiet"]) == 2
    assert "reference.json: lost or of other pairs, and " in capsys.readouterr().err
    RunFolder(output).reference.write_text("{")
    assert main(["--resume", "--output", str(output), "--quiet"]) == 2
    assert "reference.json: cannot be read, the file was damaged" in capsys.readouterr().err
    RunFolder(output).reference.unlink()
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    for path in (RunFolder(output).checkpoints, RunFolder(output).trace):  # as the line says
        path.rename(tmp_path / path.name)
    assert main(["--resume", "--output", str(output), "--quiet"]) == 0
    assert (output / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()


def test_a_run_that_begins_anew_keeps_its_own_checkpoints(uninterrupted, tmp_path, monkeypatch):
    output, stayed = tmp_path / "run", []
    half_done(uninterrupted, output, keep_last=True)
    for step in (STEPS - 3, STEPS):
        flip(output / "checkpoints" / f"checkpoint-{step}" / "optimizer.pt")

    def watched(folder: Path, step: int, **keywords) -> None:
        keep_whole(folder, step, **keywords)
        stayed.append((folder / f"checkpoint-{step}").is_dir())

    monkeypatch.setattr("rewardshape.probe.training.keep_whole", watched)
    assert main(["--resume", "--output", str(output), "--quiet"]) == 0
    assert stayed == [True] * (STEPS // 3)


def test_a_record_copied_before_its_checkpoints_is_repaired(uninterrupted, tmp_path, capsys):
    output = tmp_path / "run"
    half_done(uninterrupted, output, keep_last=True)
    lines = (uninterrupted / "trace.jsonl").read_bytes().splitlines(keepends=True)
    (output / "trace.jsonl").write_bytes(b"".join(lines[:-2]))
    assert main(["--resume", "--output", str(output), "--quiet"]) == 2
    assert f"trace.jsonl: ends before step {STEPS}" in capsys.readouterr().err
    assert main(["--resume", "--repair", "--output", str(output)]) == 0
    said = capsys.readouterr().err
    assert f"trace.jsonl: ends before step {STEPS}, at which a checkpoint was made; the steps after" in said
    assert (output / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()


def test_a_run_is_not_gone_on_with_on_other_tokens(tmp_path):
    """Of the same file: another chat template, another limit."""
    now = {"data": {"fingerprint": "a", "tokens": "b"}, "model": {"fingerprint": "c"}}
    now |= {"run": dict.fromkeys(SETTINGS)}
    now |= {part: {} for part in ROUNDING}
    (tmp_path / "run.json").write_text(json.dumps(now), encoding="utf-8")
    files = RunFolder(tmp_path)
    assert check_manifest(files, now) == []
    with pytest.raises(InputError, match=r"tokens \(template, limits, tokenizer\) changed"):
        check_manifest(files, {**now, "data": {"fingerprint": "a", "tokens": "other"}})
