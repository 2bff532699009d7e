"""Checkpoints of a loop that is not ours: each is loaded once, measured as a plain log-softmax does, gone on with."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape import InputError, judge, read_trace
from rewardshape import measure as measure_module
from rewardshape.data import embedded
from rewardshape.measure import by_step, main, step_of
from tests import drawing
from tests.adapters import adapted
from tests.processes import Python, lines_in

STEPS = (2, 4, 10)  # of which names in the order of letters would put the last first


def logp(model: Any, tokenizer: Any, prompt: str, response: str) -> torch.Tensor:
    """The log-prob of a response by nothing but the tokenizer and log_softmax."""
    first = len(tokenizer(prompt)["input_ids"])
    ids = torch.tensor([[*tokenizer(prompt + response)["input_ids"], tokenizer.eos_token_id]])
    logps = model(ids).logits[0, :-1].double().log_softmax(-1).gather(-1, ids[0, 1:, None])
    return logps[first - 1 :].sum()


@pytest.fixture(scope="module", autouse=True)
def _undrawn():
    with drawing.undrawn():
        yield


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    lines = embedded.pairs_path().read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:60]]


@pytest.fixture(scope="module")
def base() -> str:
    return str(embedded.checkpoint_path())


@pytest.fixture(scope="module")
def loop(base: str, rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A loop that writes its checkpoints as one does, and what it knew of the first pairs each time."""
    folder = tmp_path_factory.mktemp("loop")
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    knew: dict[int, list[float]] = {}

    def know(step: int) -> None:
        with torch.no_grad():
            knew[step] = [
                logp(model, tokenizer, row["prompt"], row[side]).item()
                for row in rows[:10]
                for side in ("chosen", "rejected")
            ]

    know(0)
    for step in range(1, max(STEPS) + 1):
        loss = torch.stack(
            [
                -torch.nn.functional.logsigmoid(
                    logp(model, tokenizer, row["prompt"], row["chosen"])
                    - logp(model, tokenizer, row["prompt"], row["rejected"])
                )
                for row in rows[10 + 4 * step : 14 + 4 * step]
            ]
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in STEPS:
            model.save_pretrained(folder / f"checkpoint-{step}")
            tokenizer.save_pretrained(folder / f"checkpoint-{step}")
            know(step)
    (folder / "probe.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows[:10]), encoding="utf-8"
    )
    return {
        "folder": folder,
        "knew": knew,
        "row": [str(folder / f"checkpoint-{step}") for step in (10, 2, 4)],
    }


def words(loop: dict[str, Any], base: str, output: Path, *more: str) -> list[str]:
    data = ["--data", str(loop["folder"] / "probe.jsonl"), "--output", str(output), "--quiet"]
    return [base, *loop["row"], *data, "--objective", "dpo", "--beta", "0.1", *more]


@pytest.fixture(scope="module")
def measured(loop, base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("measured") / "run"
    with drawing.drawn():
        assert main(words(loop, base, folder)) == 0
    return folder


def test_every_number_is_what_the_loop_knew(loop, measured):
    rows = read_trace(measured).responses
    assert sorted(set(rows["step"])) == [0, *STEPS]
    for step, knew in loop["knew"].items():
        np.testing.assert_allclose(rows[rows["step"] == step]["logp_sum"], knew, atol=2e-4)
        np.testing.assert_allclose(rows[rows["step"] == step]["ref_logp_sum"], loop["knew"][0], atol=2e-4)


def test_verdict_report_figures_and_manifest_are_there(loop, measured, base):
    fell = np.mean(np.subtract(loop["knew"][10], loop["knew"][0])[::2] < 0)
    assert f"{fell:.0%} of the chosen responses fell" in judge(measured).evidence.facts
    assert (measured / "report.html").is_file()
    assert list((measured / "figures").glob("*.svg"))
    stated = read_trace(measured).settings
    assert stated["status"] == "done"
    assert stated["checkpoints"] == {
        "0": base,
        **{str(step): str(loop["folder"] / f"checkpoint-{step}") for step in STEPS},
    }
    assert stated["command"].startswith("python -m rewardshape.measure")


def test_each_checkpoint_is_loaded_once_and_those_that_are_recorded_not_again(
    loop, base, tmp_path, monkeypatch
):
    loaded: list[str] = []
    real = measure_module.load
    monkeypatch.setattr(
        measure_module, "load", lambda place, settings: loaded.append(place) or real(place, settings)
    )
    first = {**loop, "row": loop["row"][1:2]}
    assert main(words(first, base, tmp_path / "run")) == 0
    assert main(words(loop, base, tmp_path / "run", "--resume")) == 0  # with checkpoints that came since
    assert loaded == [base, *(str(loop["folder"] / f"checkpoint-{step}") for step in STEPS)]
    assert main(words(loop, base, tmp_path / "run", "--resume")) == 0
    assert len(loaded) == 4
    assert sorted(set(read_trace(tmp_path / "run").responses["step"])) == [0, *STEPS]


def test_killed_and_resumed_it_records_what_it_would_have(loop, base, measured, tmp_path):
    output = tmp_path / "run"
    process = Python("-m", "rewardshape.measure", *words(loop, base, output))
    process.until(lambda: lines_in(output / "trace.jsonl") >= 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(words(loop, base, output, "--resume")) == 0
    a, b = read_trace(output).responses, read_trace(measured).responses
    assert a.drop(columns="run").equals(b.drop(columns="run"))


def test_a_checkpoint_that_cannot_be_loaded_leaves_a_record_that_says_so_and_goes_on(
    loop, base, measured, tmp_path, capsys
):
    away = tmp_path / "checkpoint-10"
    broken = {
        **loop,
        "row": [str(loop["folder"] / "checkpoint-2"), str(loop["folder"] / "checkpoint-4"), str(away)],
    }
    shutil.copytree(loop["folder"] / "checkpoint-10", away)
    weights = away / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    assert main(words(broken, base, tmp_path / "run")) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(away) in line
    settings = read_trace(tmp_path / "run").settings
    assert settings["status"] == "failed"
    assert str(away) in settings["reason"]
    weights.write_bytes(whole)
    assert main(words(broken, base, tmp_path / "run", "--resume")) == 0
    trace = read_trace(tmp_path / "run")
    assert trace.settings["status"] == "done"
    a, b = trace.responses, read_trace(measured).responses
    assert a.drop(columns="run").equals(b.drop(columns="run"))


def test_what_would_mix_two_rows_is_refused(loop, base, measured, tmp_path, capsys):
    shutil.copytree(measured, tmp_path / "run")
    assert main(words(loop, base, tmp_path / "run")) == 2
    assert "exists already" in capsys.readouterr().err
    other = {**loop, "row": [loop["row"][0]]}
    assert main([*words(other, base, tmp_path / "run", "--resume"), "--at", "0", "2"]) == 2
    assert "step 2" in capsys.readouterr().err
    assert main([*words(loop, base, tmp_path / "run", "--resume"), "--beta", "0.5"]) == 2
    assert "was measured by dpo with {'beta': 0.1}" in capsys.readouterr().err
    elsewhere = [*words(loop, base, tmp_path / "run", "--resume"), "--data", str(embedded.pairs_path())]
    assert main(elsewhere) == 2
    assert "the pairs of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--objectiv", "dpo"], "the nearest is --objective"),
        (["--objective", "dpo", "simpo"], "takes one value here"),
        (["--at", "0"], "1 steps for 4 checkpoints"),
        (["--lora-rank", "4"], "no such flag"),
        (["--drop", "ties=0.2"], "no such flag"),
        (["--alpha", "0.25", "--beta", "2.5"], "--alpha: of which objective? give --objective"),
        (["--parameter", "label_smoothing=0.1"], "--parameter: of which objective?"),
    ],
)
def test_bad_input_is_one_line(more, said, loop, base, tmp_path, capsys):
    assert main([*words(loop, base, tmp_path / "run")[:-4], *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


def test_a_row_without_its_start_is_refused_and_adapters_bring_their_own(loop, base, rows, tmp_path, capsys):
    assert main([*words(loop, base, tmp_path / "none")[1:]]) == 2
    assert "put the model that training began with first" in capsys.readouterr().err
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = adapted(base, std=0.02)
    model.save_pretrained(tmp_path / "adapters" / "checkpoint-7")
    alone = {**loop, "row": [str(tmp_path / "adapters" / "checkpoint-7")]}
    assert main(words(alone, base, tmp_path / "run")[1:]) == 0
    found = read_trace(tmp_path / "run").responses
    assert sorted(set(found["step"])) == [0, 7]
    with torch.no_grad():
        expected = [
            logp(model, tokenizer, row["prompt"], row[side]).item()
            for row in rows[:10]
            for side in ("chosen", "rejected")
        ]
    np.testing.assert_allclose(found[found["step"] == 7]["logp_sum"], expected, atol=2e-4)


def test_checkpoints_of_weights_alone_are_read_with_the_first_ones_tokenizer(loop, base, tmp_path, capsys):
    bare = tmp_path / "checkpoint-2"
    shutil.copytree(loop["row"][1], bare, ignore=shutil.ignore_patterns("*token*", "vocab*", "merges*"))
    assert main(words({**loop, "row": [str(bare)]}, base, tmp_path / "run")) == 0
    found = read_trace(tmp_path / "run").responses
    np.testing.assert_allclose(found[found["step"] == 2]["logp_sum"], loop["knew"][2], atol=2e-4)
    (bare / "tokenizer.json").write_text("{")  # it left one, damaged: another is not taken in its place
    assert main(words({**loop, "row": [str(bare)]}, base, tmp_path / "damaged")) == 2
    assert f"{bare}: cannot load the tokenizer" in capsys.readouterr().err


def test_without_an_objective_no_verdict_is_drawn_from_losses(loop, base, tmp_path):
    output = tmp_path / "run"
    plain = words(loop, base, output)
    assert main(plain[: plain.index("--objective")]) == 0
    assert judge(output).to_dict()["best_step"] is None
    assert read_trace(output).settings["objective_is_loss"] is False


@pytest.mark.parametrize(
    ("place", "step"),
    [
        ("out/checkpoint-500", 500),
        ("out/checkpoint_best", None),
        ("./Qwen2.5-0.5B-Instruct", None),
        ("global_step_40/actor/huggingface", 40),
        ("ckpt/global_step40_hf", 40),
        ("results/step_100/policy/hf", 100),
        ("epoch_1", 1),
        ("out/epoch_2_step_1000", 1000),
        ("epoch=1-step=500.ckpt", 500),
        ("step_1_checkpoint-500", 500),
        ("iter_0002000", 2000),
        ("run7/final", None),
        ("saves/step-8000/", 8000),
    ],
)
def test_the_step_is_read_from_the_folder(place, step):
    assert step_of(place) == step


def test_rows_are_sorted_by_step_and_a_step_stands_once():
    assert [one.step for one in by_step(["base", "checkpoint-1000", "checkpoint-200"])] == [0, 200, 1000]
    with pytest.raises(InputError, match="both are of step 5"):
        by_step(["base", "a/checkpoint-5", "b/checkpoint-5"])
    with pytest.raises(InputError, match="says no step"):
        by_step(["base", "other"])
    assert [one.step for one in by_step(["base", "other"], [0, 9])] == [0, 9]
