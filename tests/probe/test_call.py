"""The three ways to start a probe mean the same: the command line, `run`, `run_probe`; and objects stand for files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import rewardshape
from rewardshape import InputError, read_trace, run_probe
from rewardshape.data import embedded
from rewardshape.probe.__main__ import main
from rewardshape.probe.command import parse
from rewardshape.probe.run import run
from rewardshape.probe.settings import SETTINGS, Settings
from rewardshape.trace.folder import RunFolder

SMALL: dict[str, Any] = {
    "steps": 2, "batch_size": 4, "probe_pairs": 6, "learning_rate": 1e-3, "quiet": True,
}  # fmt: skip
WORDS = "--steps 2 --batch-size 4 --probe-pairs 6 --learning-rate 1e-3 --quiet".split()


def manifest(folder: Path) -> dict[str, Any]:
    """``run.json``, but for where it lies."""
    found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    found["run"].pop("output")
    return found


def with_a_third(pairs_file: str, folder: Path) -> str:
    """The pairs with one more response."""
    file = folder / "pairs.jsonl"
    each = map(json.loads, Path(pairs_file).read_text(encoding="utf-8").splitlines())
    file.write_text(
        "".join(json.dumps(row | {"rejected_too": row["rejected"]}) + "\n" for row in each), encoding="utf-8"
    )
    return str(file)


@pytest.mark.parametrize(
    ("words", "keywords", "runs"),
    [
        ([], {}, [""]),
        (
            ["--alpha", "0", "1", "--schedule", "linear"],
            {"alpha": [0, 1], "schedule": "linear"},
            ["alpha=0", "alpha=1"],
        ),
        (
            [
                "--objective",
                "dpo",
                "--beta",
                "0.1",
                "--drop",
                "length=0.2",
                "--add-nll",
                "0.1",
                "--no-end-token",
                "--probe-responses",
                "rejected_too",
                "--sample-every",
                "2",
                "--samples",
                "4",
                "--best-of",
                "1",
            ],
            {
                "objective": "dpo",
                "beta": 0.1,
                "drop": "length=0.2",
                "add_nll": 0.1,
                "no_end_token": True,
                "probe_responses": ["rejected_too"],
                "sample_every": 2,
                "samples": 4,
                "best_of": 1,
            },
            [""],
        ),
    ],
    ids=["nothing", "a sweep", "settings of every kind"],
)
def test_the_same_words_make_the_same_run(words, keywords, runs, checkpoint, pairs_file, tmp_path):
    pairs_file = with_a_third(pairs_file, tmp_path)
    run_probe(checkpoint, pairs_file, output=tmp_path / "call", **SMALL, **keywords)
    settings = Settings().replace(
        checkpoint=checkpoint, data=pairs_file, output=tmp_path / "run", **SMALL, **keywords
    )
    run(settings)
    command = [checkpoint, "--data", pairs_file, *WORDS, *words]
    assert main([*command, "--output", str(tmp_path / "command")]) == 0
    for name in runs:
        assert manifest(tmp_path / "call" / name) == manifest(tmp_path / "run" / name)
        assert manifest(tmp_path / "run" / name) == manifest(tmp_path / "command" / name)
        traces = [(tmp_path / way / name / "trace.jsonl").read_bytes() for way in ("call", "run", "command")]
        assert traces[0] == traces[1] == traces[2]


def test_every_flag_is_a_keyword_with_its_default():
    parameters = inspect.signature(run_probe).parameters
    assert set(parameters) == {"checkpoint", "data", *SETTINGS} - {"json", "dry_run"}
    assert (parameters["alpha"].default, parameters["objective"].default) == (0.25, "alphapo")
    others = set(parameters) - {"checkpoint", "data", "alpha", "objective"}
    assert all(parameters[name].default == SETTINGS[name].default for name in others)
    assert all(f"    {name} : " in (run_probe.__doc__ or "") for name in parameters if name != "data")


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"bacth_size": 3}, "no setting 'bacth_size'; the nearest is 'batch_size'"),
        ({"dry_run": True}, "dry_run: is for the terminal"),
        ({"steps": "many"}, "--steps 'many': must be a whole number"),
        ({"checkpoint": 3}, "checkpoint: a int; give a path, a hub id or (model, tokenizer)"),
        ({"checkpoint": ("a", "b")}, "checkpoint: str is no model of transformers"),
        ({"checkpoint": embedded.checkpoint_path(), "data": 3}, "data: a number where paths or a table"),
        ({"checkpoint": embedded.checkpoint_path(), "data": {"train": []}}, "data: has the splits train"),
        ({"checkpoint": embedded.checkpoint_path(), "data": [{"prompt": "a"}, 3]}, "data:1: "),
    ],
)
def test_a_mistake_is_one_line(keywords, said):
    with pytest.raises(InputError) as refusal:
        run_probe(**keywords)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def rows(pairs_file: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(pairs_file).read_text(encoding="utf-8").splitlines()][:40]


def a_file(rows: list[dict[str, str]], folder: Path) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def a_dataset(rows: list[dict[str, str]], _: Path) -> Any:
    return pytest.importorskip("datasets").Dataset.from_list(rows)


FORMS: dict[str, Callable[[list[dict[str, str]], Path], Any]] = {
    "list of files": lambda rows, folder: [a_file(rows, folder)],
    "list of dict": lambda rows, _: rows,
    "DataFrame": lambda rows, _: pd.DataFrame(rows),
    "Dataset": a_dataset,
}


@pytest.fixture(scope="module")
def from_file(checkpoint: str, pairs_file: str, tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("from_file")
    run(
        parse(
            [checkpoint, "--data", a_file(rows(pairs_file), folder), *WORDS, "--output", str(folder / "run")]
        )
    )
    return folder / "run"


def record(folder: Path) -> bytes:
    """The trace, but for what the file is called that a pair is from."""
    return (folder / "trace.jsonl").read_bytes().replace(b"rows.jsonl:", b"data:")


@pytest.mark.parametrize("form", FORMS)
def test_data_in_memory_are_those_of_the_file(form, checkpoint, pairs_file, from_file, tmp_path):
    data = FORMS[form](rows(pairs_file), tmp_path)
    trace = run_probe(checkpoint, data, output=tmp_path / "run", **SMALL)
    assert record(trace.folder) == record(from_file)
    assert trace.settings["data"]["fingerprint"] == read_trace(from_file).settings["data"]["fingerprint"]


def test_a_bad_row_in_memory_is_named_by_its_number(checkpoint, pairs_file, tmp_path):
    data = [*rows(pairs_file), {"prompt": "a", "chosen": "b"}]
    with pytest.raises(InputError, match=r"^data:41: .*'rejected'"):
        run_probe(checkpoint, data, output=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


def test_a_model_in_memory_is_that_of_the_folder_and_stays_as_it_was(
    checkpoint, pairs_file, from_file, tmp_path, drawn
):
    model = AutoModelForCausalLM.from_pretrained(checkpoint).train()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    trace = run_probe((model, tokenizer), rows(pairs_file), output=tmp_path / "run", **SMALL)
    assert record(trace.folder) == record(from_file)
    assert trace.settings["model"]["checkpoint"] == "LlamaForCausalLM in memory"
    assert model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert {"report.html", "figures"} <= {path.name for path in trace.folder.iterdir()}
    with pytest.raises(InputError, match="started from Python"):
        run(parse(["--resume", "--output", str(trace.folder)]))


def test_it_is_in_the_front_window():
    assert rewardshape.run_probe is run_probe


def test_what_was_stopped_goes_on_by_its_folder_alone(tmp_path):
    """Another α than the usual one is that of the command, and none is asked for again."""
    settings = {**SMALL, "alpha": 1.0, "output": tmp_path / "run"}
    whole = run_probe(**settings)
    RunFolder(tmp_path / "run").set_status("interrupted")
    again = run_probe(output=tmp_path / "run", resume=True, quiet=True)
    assert again.responses.equals(whole.responses)
    assert manifest(tmp_path / "run")["objective"]["parameters"]["alpha"] == 1.0
