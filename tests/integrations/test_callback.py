"""The callback in real trainers: resumed, run twice, heard by trackers; no other number of theirs under our names."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from rewardshape import InputError, ProbeCallback, judge, objective, read_trace
from rewardshape.integrations.trl import shaped
from rewardshape.theory import compose
from tests.integrations.small_run import ARGUMENTS, probe_rows
from tests.processes import Python, lines_in

trl = pytest.importorskip("trl", reason="TRL is an extra: pip install 'rewardshape[trl]'")


@pytest.fixture
def made(checkpoint: str, rows: list[dict[str, str]], tmp_path: Path):
    """`made(TrainerClass, ConfigClass, callback, **options)`: a small trainer, not trained yet."""

    def make(trainer_class: Any, config_class: Any, callback: Any = None, **options: Any) -> Any:
        torch.manual_seed(0)
        settings = {
            "output_dir": str(tmp_path / "out"),
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "save_strategy": "no",
            **ARGUMENTS,
            **options,
        }
        return trainer_class(
            model=AutoModelForCausalLM.from_pretrained(checkpoint),
            args=config_class(**settings),
            train_dataset=Dataset.from_list(rows[8:]),
            processing_class=AutoTokenizer.from_pretrained(checkpoint),
            callbacks=[callback] if callback else None,
        )

    return make


# --- going on -------------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_records_what_it_would_have(checkpoint, pairs_file, tmp_path, scripted):
    script = Path(__file__).parent / "resumed_dpo.py"

    def words(name: str) -> list[str]:
        return [str(script), checkpoint, str(pairs_file), str(tmp_path / name)]

    scripted(*words("whole"))
    process, trace = Python(*words("killed"), "wait"), tmp_path / "killed" / "rewardshape" / "trace.jsonl"
    saved = (tmp_path / "killed").glob
    process.until(lambda: bool(list(saved("checkpoint-*/trainer_state.json"))) and lines_in(trace) > 4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_trace(trace.parent).steps["step"].max() < 8
    scripted(*words("killed"))
    whole, killed = (probe_rows(tmp_path / name / "rewardshape") for name in ("whole", "killed"))
    assert killed["step"].tolist() == whole["step"].tolist()
    np.testing.assert_array_equal(killed["ref_logp_sum"], whole["ref_logp_sum"])
    np.testing.assert_allclose(killed["logp_sum"], whole["logp_sum"], atol=1e-4)
    assert read_trace(trace.parent).settings["status"] == "done"
    assert not (tmp_path / "killed" / "rewardshape-2").exists()


def test_a_step_that_a_kill_left_unwritten_is_measured_again_from_its_checkpoint(made, rows, tmp_path):
    """The trainer saves a step's checkpoint before the record's line of it is on disk: a kill can fall between."""
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    made(trl.DPOTrainer, trl.DPOConfig, ProbeCallback(rows[:4]), **options).train()
    trace = tmp_path / "out" / "rewardshape" / "trace.jsonl"
    whole = trace.read_bytes().splitlines(keepends=True)
    trace.write_bytes(b"".join(whole[:3]) + whole[3][:50])  # the head, steps 0 and 1, step 2 torn
    again = made(trl.DPOTrainer, trl.DPOConfig, ProbeCallback(rows[:4]), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    found, expected = ([json.loads(line) for line in lines] for lines in (trace.open("rb"), whole))
    assert [record.get("step") for record in found] == [None, 0, 1, 2, 3, 4]
    assert found[3]["metrics"] == expected[3]["metrics"]
    np.testing.assert_allclose(found[3]["probe"]["logp_sum"], expected[3]["probe"]["logp_sum"], atol=1e-4)


class Interrupts(TrainerCallback):
    """What a notebook's stop button does, in the middle of a step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("anew", [True, False], ids=["a new trainer and callback", "the same callback"])
def test_after_an_interrupt_a_run_goes_on_in_the_same_process(anew, made, rows, tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    first = ProbeCallback(rows[:4], every=2)
    trainer = made(trl.DPOTrainer, trl.DPOConfig, first, **options)
    trainer.add_callback(Interrupts())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    again = ProbeCallback(rows[:4], every=2) if anew else first
    made(trl.DPOTrainer, trl.DPOConfig, again, **options).train(resume_from_checkpoint=True)
    trace = read_trace(tmp_path / "out" / "rewardshape")
    assert trace.steps["step"].tolist() == [0, 1, 2, 3, 4]
    assert trace.settings["status"] == "done"
    assert not (tmp_path / "out" / "rewardshape-2").exists()


def test_a_run_that_was_interrupted_stays_so_when_another_begins(made, rows, tmp_path):
    watch = ProbeCallback(rows[:4], every=2)
    trainer, stop = made(trl.DPOTrainer, trl.DPOConfig, watch, max_steps=4), Interrupts()
    trainer.add_callback(stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.remove_callback(stop)
    trainer.train()
    statuses = [
        read_trace(tmp_path / "out" / name).settings["status"] for name in ("rewardshape", "rewardshape-2")
    ]
    assert statuses == ["interrupted", "done"]


def test_what_one_trainer_told_does_not_hold_of_the_next(made, rows, tmp_path):
    watch = ProbeCallback(rows[:2])
    made(shaped(objective("simpo", beta=2.0, gamma=1.0)), trl.DPOConfig, watch, max_steps=1).train()
    made(trl.DPOTrainer, trl.DPOConfig, watch, max_steps=1).train()
    for goal in (shaped(objective("ipo", beta=0.1)), trl.DPOTrainer):
        trainer = made(goal, trl.DPOConfig, max_steps=1)
        watch.attach(trainer)
        trainer.train()
    names = [
        read_trace(tmp_path / "out" / name).settings["objective"]["name"]
        for name in ("rewardshape", "rewardshape-2", "rewardshape-3", "rewardshape-4")
    ]
    assert names == ["simpo", "dpo", "ipo", "dpo"]


class Fills(TrainerCallback):
    """Puts a disk without room in the place of a callback's record once a step is done."""

    def __init__(self, watch: ProbeCallback, step: int):
        self.watch, self.step = watch, step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.watch.recorder._writer._file = open("/dev/full", "a")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device of Linux without room")
def test_a_disk_without_room_ends_the_record_and_not_the_training(made, rows, tmp_path):
    watch = ProbeCallback(rows[:4])
    trainer = made(trl.DPOTrainer, trl.DPOConfig, watch, max_steps=5)
    watch.attach(trainer)
    trainer.add_callback(Fills(watch, 2))
    with pytest.warns(
        UserWarning, match="No space left on device; the record ends here, the training goes on"
    ):
        trainer.train()
    assert trainer.state.global_step == 5
    told = [entry["step"] for entry in trainer.state.log_history if "probe_margin" in entry]
    assert told == [0, 1, 2, 3, 4, 5]  # measured still, and heard by the trackers
    trace = read_trace(tmp_path / "out" / "rewardshape")
    assert trace.steps["step"].tolist() == [0, 1]
    assert trace.settings["status"] == "failed"
    assert "No space left" in trace.settings["reason"]


def test_whoever_stops_reading_does_not_end_the_training(made, rows, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    trainer = made(trl.DPOTrainer, trl.DPOConfig, ProbeCallback(rows[:2], quiet=False))
    trainer.remove_callback(PrinterCallback)  # transformers' own, which prints too
    with open(writer, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        trainer.train()
        monkeypatch.undo()
        with contextlib.suppress(BrokenPipeError):
            nobody.close()
    assert trainer.state.global_step == 2


def test_a_second_train_begins_a_second_trace_against_the_same_reference(made, rows, tmp_path):
    trainer = made(trl.DPOTrainer, trl.DPOConfig, ProbeCallback(rows[:4]))
    trainer.train()
    trainer.train()
    first, second = (probe_rows(tmp_path / "out" / name) for name in ("rewardshape", "rewardshape-2"))
    np.testing.assert_array_equal(second["ref_logp_sum"], first["ref_logp_sum"])  # DPO's is still the base
    begins = second[second["step"] == 0]["logp_sum"].to_numpy()
    np.testing.assert_allclose(begins, first[first["step"] == 2]["logp_sum"], atol=1e-5)


def test_the_reference_of_an_attached_trainer_is_its_own(made, rows, checkpoint, plain_logps, tmp_path):
    watch = ProbeCallback(rows[:3])
    trainer = made(trl.DPOTrainer, trl.DPOConfig, watch, max_steps=1)
    with torch.no_grad():
        for weight in trainer.ref_model.parameters() if trainer.ref_model is not None else ():
            weight *= 1.01
    watch.attach(trainer)
    trainer.train()
    reference = probe_rows(tmp_path / "out" / "rewardshape")["ref_logp_sum"][:6]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = trainer.ref_model or AutoModelForCausalLM.from_pretrained(checkpoint)
    np.testing.assert_allclose(reference, plain_logps(model, tokenizer, rows[:3]), atol=2e-4)


# --- what it takes, and when it refuses -----------------------------------------------------------------------------


def test_what_cannot_be_read_is_refused_when_the_callback_is_made(rows, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        ProbeCallback(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="columns"):
        ProbeCallback([{"question": "a", "good": "b", "bad": "c"}])
    with pytest.raises(InputError, match="no file given"):
        ProbeCallback([])
    with pytest.raises(InputError, match=r"give rewardshape\.objective"):
        ProbeCallback(rows, "dpo")
    ProbeCallback(
        [{"q": "a", "good": "b", "bad": "c"}], columns={"prompt": "q", "chosen": "good", "rejected": "bad"}
    )
    ProbeCallback(pd.DataFrame(rows))
    ProbeCallback(Dataset.from_list(rows))


def test_a_contradiction_is_refused_when_the_trainer_is_made(made, rows):
    with pytest.raises(InputError, match=r"dpo\(beta=0.5\), and DPOConfig trains dpo\(beta=0.1\)"):
        made(trl.DPOTrainer, trl.DPOConfig, ProbeCallback(rows[:2], objective("dpo", beta=0.5)))
    with pytest.raises(InputError, match="does not say what is optimised"):
        Trainer(
            model=torch.nn.Linear(1, 1),
            args=TrainingArguments(report_to=[], use_cpu=True),
            callbacks=[ProbeCallback(rows[:2])],
        )


# --- who hears of it ------------------------------------------------------------------------------------------------


def test_an_attached_callback_is_heard_by_the_trackers_and_changes_nothing_of_the_trainers_log(
    made, rows, tmp_path
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"max_steps": 5, "logging_steps": 2, "report_to": ["tensorboard"]}
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(tmp_path / "events")
    try:
        watch = ProbeCallback(rows[:4], every=2, sample_every=4)
        trainer = made(trl.DPOTrainer, trl.DPOConfig, watch, **options)
        assert watch.attach(trainer) is watch
        trainer.train()
    finally:
        del os.environ["TENSORBOARD_LOGGING_DIR"]
    [file] = (tmp_path / "events").rglob("events.out*")
    events = EventAccumulator(str(file))
    events.Reload()
    tag = next(name for name in events.Tags()["scalars"] if name.endswith("probe_chosen_logp_mean"))
    seen = {event.step: event.value for event in events.Scalars(tag)}
    table = probe_rows(tmp_path / "out" / "rewardshape").query("response == 'chosen'")
    mean = (table["logp_sum"] / table["num_tokens"]).groupby(table["step"]).mean()
    assert seen == pytest.approx(mean.to_dict(), abs=1e-6)
    assert sorted(seen) == [0, 2, 4, 5]
    tags = {name.rpartition("/")[2] for name in events.Tags()["scalars"]}
    assert {"probe_margin", "probe_share_fallen", "probe_accuracy", "sample_kl"} <= tags
    ours = [entry for entry in trainer.state.log_history if "probe_margin" in entry]
    assert [entry["step"] for entry in ours] == [0, 2, 4, 5]
    alone = made(trl.DPOTrainer, trl.DPOConfig, **{**options, "report_to": []})
    alone.train()
    assert own_log(trainer) == own_log(alone)


def own_log(trainer: Any) -> list[dict[str, Any]]:
    """What the trainer logs itself, but for the clock."""
    return [
        {key: value for key, value in entry.items() if not key.startswith("train_")}
        for entry in trainer.state.log_history
        if "probe_margin" not in entry
    ]


def test_without_attach_the_history_holds_the_numbers_still(made, rows):
    trainer = made(trl.DPOTrainer, trl.DPOConfig, ProbeCallback(rows[:4]))
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "probe_chosen_change" in entry] == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("bar", "quiet", "speaks"), [(True, None, False), (False, None, True), (False, True, False)]
)
def test_it_is_quiet_beside_a_progress_bar(bar, quiet, speaks, made, rows, capsys):
    made(
        trl.DPOTrainer, trl.DPOConfig, ProbeCallback(rows[:2], quiet=quiet), disable_tqdm=not bar, max_steps=1
    ).train()
    assert ("nats per token since step 0" in capsys.readouterr().out) == speaks


# --- the trainer's numbers under our names --------------------------------------------------------------------------


def test_the_margin_of_a_batch_has_gamma_subtracted(made, rows, checkpoint, plain_logps, tmp_path):
    """One batch of the first four pairs in one order or another: the margin of the untouched model, by hand."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    options = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 1.0, "max_steps": 1}
    made(CPOTrainer, CPOConfig, ProbeCallback(rows[8:]), per_device_train_batch_size=32, **options).train()
    trace = read_trace(tmp_path / "out" / "rewardshape")
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(checkpoint),
        AutoTokenizer.from_pretrained(checkpoint),
    )
    start = trace.responses.query("step == 0")
    mean = np.array(plain_logps(model, tokenizer, rows[8:])) / start["num_tokens"].to_numpy()
    by_hand = 2.0 * (mean[::2] - mean[1::2]).mean() - 1.0
    assert trace.steps["margin"].tolist()[1] == pytest.approx(by_hand, abs=1e-3)
    assert trace.settings["objective"] == {"name": "simpo", "parameters": {"beta": 2.0, "gamma": 1.0}}


def test_logged_means_are_stored_as_means_over_their_steps(made, rows, tmp_path):
    made(trl.DPOTrainer, trl.DPOConfig, ProbeCallback(rows[:2]), max_steps=6).train()
    made(trl.DPOTrainer, trl.DPOConfig, ProbeCallback(rows[:2]), max_steps=6, logging_steps=3).train()
    each, third = (read_trace(tmp_path / "out" / name).steps for name in ("rewardshape", "rewardshape-2"))
    assert each["mean_over_steps"].tolist()[1:] == [1] * 6
    logged = third[third["mean_over_steps"].notna()]
    assert logged["step"].tolist() == [3, 6]
    assert logged["mean_over_steps"].tolist() == [3, 3]
    means = each["loss"].to_numpy()[1:].reshape(2, 3).mean(axis=1)
    assert logged["loss"].tolist() == pytest.approx(means, abs=1e-6)


def test_a_log_between_two_measurements_is_kept(made, rows, tmp_path):
    made(trl.DPOTrainer, trl.DPOConfig, ProbeCallback(rows[:2], every=2), max_steps=4).train()
    trace = read_trace(tmp_path / "out" / "rewardshape")
    assert trace.steps["step"].tolist() == [0, 1, 2, 3, 4]
    assert trace.steps["loss"].notna().tolist() == [False, True, True, True, True]
    assert sorted(set(trace.responses["step"])) == [0, 2, 4]


def test_no_verdict_is_drawn_from_a_loss_that_is_not_the_trainers(made, rows, tmp_path):
    """KTO's loss is of single responses, with a reference point of other batches: ours on pairs only tells margins."""
    from trl.experimental.kto import KTOConfig, KTOTrainer

    made(KTOTrainer, KTOConfig, ProbeCallback(rows[:8]), max_steps=4, learning_rate=5e-3).train()
    folder = tmp_path / "out" / "rewardshape"
    assert read_trace(folder).settings["objective"]["name"] == "kto"
    told = judge(folder).to_dict()
    assert told["best_step"] is None
    assert "held-out loss" not in json.dumps(told)


def test_the_manifest_says_what_trained(made, rows, tmp_path):
    watch = ProbeCallback(rows[:2])
    trainer = made(trl.DPOTrainer, trl.DPOConfig, watch, max_steps=1, seed=11)
    watch.attach(trainer)
    trainer.train()
    stated = read_trace(tmp_path / "out" / "rewardshape").settings
    assert stated["trainer"]["class"] == "DPOTrainer"
    assert stated["trainer"]["arguments"] == "DPOConfig"
    assert stated["trainer"]["train_rows"] == 32
    assert stated["run"]["seed"] == 11
    assert stated["run"]["batch_size"] == 4
    assert stated["versions"]["trl"] == trl.__version__
    assert len(stated["model"]["fingerprint"]) == len(stated["data"]["fingerprint"]) == 64


# --- shaped ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "goal",
    [
        compose(score="log_ratio_mean", beta=2.0, shape={"name": "alpha", "alpha": 0.25}, gamma=0.5, sft=0.1),
        compose(score="logp_mean", beta=1.0, link="linear"),
        objective("dpo", beta=0.1) + 0.2 * objective("sft"),
    ],
    ids=["sft and shape", "no reference", "sum"],
)
def test_composed_objectives_train_in_trl_and_are_recorded(goal, made, rows, tmp_path):
    made(
        shaped(goal), trl.DPOConfig, ProbeCallback(rows[8:]), per_device_train_batch_size=32, max_steps=1
    ).train()
    trace = read_trace(tmp_path / "out" / "rewardshape")
    assert trace.settings["objective"]["name"] == goal.name
    # the batch is the probe set: the loss that was trained is the objective's on the untouched model's log-probs
    start = trace.responses.query("step == 0")
    from rewardshape.theory import Responses

    sides = [
        Responses(
            part["logp_sum"].to_numpy(), part["num_tokens"].to_numpy(float), part["logp_sum"].to_numpy()
        )
        for part in (start.query("response == 'chosen'"), start.query("response == 'rejected'"))
    ]
    assert trace.steps["loss"].tolist()[1] == pytest.approx(goal.pair_loss(*sides).mean(), abs=1e-3)
