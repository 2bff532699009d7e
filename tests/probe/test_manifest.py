"""A run's folder and its manifest, against what transformers and the installed packages say themselves."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.errors import InputError
from rewardshape.probe.command import parse
from rewardshape.probe.distributed import Place
from rewardshape.probe.grid import plan_runs
from rewardshape.probe.inputs import Inputs
from rewardshape.probe.manifest import (
    make_folder,
    manifest_of,
    require_objects,
    write_command,
    write_manifest,
)
from rewardshape.probe.measure.logprobs import PlainReader
from rewardshape.probe.settings import Settings


def test_a_new_folder_is_made_and_one_that_holds_something_is_kept(tmp_path: Path):
    wanted = Settings().replace(output=str(tmp_path / "a" / "b"))
    assert make_folder(wanted) == tmp_path / "a" / "b"
    assert make_folder(wanted).is_dir()  # empty: nothing is lost
    (tmp_path / "a" / "b" / ".lock").touch()
    assert make_folder(wanted) == tmp_path / "a" / "b"  # of a start that came to nothing
    (tmp_path / "a" / "b" / "mine").touch()
    with pytest.raises(InputError, match="exists already and is kept; choose another folder, or --resume"):
        make_folder(wanted)
    assert make_folder(wanted.replace(resume=True)) == tmp_path / "a" / "b"


def test_a_folder_that_cannot_be_made_says_why(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--output .*: cannot be made \(Not a directory\)"):
        make_folder(Settings().replace(output=str(tmp_path / "file" / "below")))


def test_unnamed_folders_are_numbered_and_none_is_taken_twice(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [make_folder(Settings()) for _ in range(3)]
    assert made == [Path("runs/embedded"), Path("runs/embedded-2"), Path("runs/embedded-3")]
    assert make_folder(Settings().replace(checkpoint="hub/name")) == Path("runs/name")
    assert make_folder(Settings().replace(checkpoint=".")) == Path("runs") / tmp_path.name


@pytest.fixture(scope="module")
def written(checkpoint: str, pairs_file: str, tmp_path_factory) -> tuple[dict, Path, Inputs]:
    folder = tmp_path_factory.mktemp("home") / "run"
    words = [checkpoint, "--data", pairs_file, "--alpha", "0.25", "--probe-pairs", "12", "--steps", "3"]
    settings = parse([*words, "--batch-size", "8", "--seed", "5"])
    grid = plan_runs(settings)
    inputs = Inputs(grid.runs[0], checkpoint)
    manifest = manifest_of(
        grid.runs[0],
        home=folder,
        model=grid.model,
        fingerprint="f",
        inputs=inputs,
        reader=PlainReader(),
        place=Place(0, 1, torch.device("cpu")),
    )
    write_manifest(folder, manifest, inputs.probe, inputs.tokenizer)
    write_command(folder, settings)
    return json.loads((folder / "run.json").read_text(encoding="utf-8")), folder, inputs


def test_the_manifest_says_of_the_model_what_transformers_says(written, checkpoint):
    manifest, _, _ = written
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(checkpoint),
        AutoTokenizer.from_pretrained(checkpoint),
    )
    stated = manifest["model"]
    assert stated["parameters"] == model.num_parameters()
    assert stated["architecture"] == [type(model).__name__]
    assert stated["special_tokens"]["eos"] == tokenizer.eos_token
    assert manifest["versions"]["torch"] == metadata.version("torch")
    assert manifest["device"]["threads"] == torch.get_num_threads()


def test_the_command_of_the_manifest_makes_the_same_settings(written):
    manifest, folder, _ = written
    words = shlex.split(manifest["command"])
    again = parse(words[words.index(manifest["model"]["checkpoint"]) :])
    assert {**again.as_dict(), "output": str(folder)} == manifest["run"]


def test_the_texts_of_the_probe_set_are_written_line_by_line(written):
    _, folder, inputs = written
    lines = (folder / "probe_set.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["pair_id"] for line in lines] == [pair.pair_id for pair in inputs.probe]


def test_what_was_given_as_an_object_is_recorded_and_no_name_is_taken_for_it(tmp_path):
    settings = Settings().replace(checkpoint="model in memory", data=["rows in memory"], alpha=0.25)
    resumed = settings.replace(resume=True, output=str(tmp_path))
    write_command(tmp_path, settings)
    require_objects(resumed, [])
    write_command(tmp_path, settings, in_memory=("data",))
    require_objects(resumed, ["data"])
    with pytest.raises(InputError, match="its data given as an object"):
        require_objects(resumed, ["checkpoint"])
