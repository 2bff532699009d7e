"""The recorder in loops that are not ours: its numbers are a plain log-softmax's, it goes on, it spoils nothing."""

from __future__ import annotations

import copy
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import rewardshape
from rewardshape import InputError, Recorder, judge, objective, read_trace
from rewardshape.integrations.models import inner_of
from rewardshape.report import write_report
from tests.integrations.small_run import probe_rows
from tests.processes import Python, ranks

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
DPO = objective("dpo", beta=0.1)
SIMPO = objective("simpo", beta=2.0, gamma=1.0)


def shake(model: torch.nn.Module, size: float = 0.02) -> None:
    """An update of some kind."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += size * weight.std() * torch.randn_like(weight)


def test_its_numbers_are_those_of_a_plain_log_softmax(model, tokenizer, rows, plain_logps, tmp_path):
    with Recorder(model, tokenizer, rows[:6], DPO, tmp_path / "run") as recorder:
        recorder.measure(0)
        shake(model)
        told = recorder.measure(5, metrics={"loss": 0.5})
        seen = plain_logps(model, tokenizer, rows[:6])
    recorded = probe_rows(tmp_path / "run")
    end, start = (recorded[recorded["step"] == step] for step in (5, 0))
    np.testing.assert_allclose(end["logp_sum"], seen, atol=2e-4)
    np.testing.assert_array_equal(end["ref_logp_sum"], start["logp_sum"])
    # what it tells, worked out here from the table alone
    per_token = (end["logp_sum"].to_numpy() - start["logp_sum"].to_numpy()) / end["num_tokens"].to_numpy()
    ratio = end["logp_sum"].to_numpy() - end["ref_logp_sum"].to_numpy()
    assert told["probe_chosen_change"] == pytest.approx(per_token[::2].mean(), abs=1e-7)
    assert told["probe_rejected_change"] == pytest.approx(per_token[1::2].mean(), abs=1e-7)
    assert told["probe_share_fallen"] == (per_token[::2] < 0).mean()
    assert told["probe_margin"] == pytest.approx(0.1 * (ratio[::2] - ratio[1::2]).mean(), abs=1e-7)
    assert read_trace(tmp_path / "run").steps["loss"].tolist()[1] == 0.5


def test_a_margin_has_gamma_subtracted(model, tokenizer, rows, tmp_path):
    recorder = Recorder(model, tokenizer, rows[:4], SIMPO, tmp_path / "run")
    told = recorder.measure(0)
    mean = probe_rows(tmp_path / "run")["logp_sum"] / probe_rows(tmp_path / "run")["num_tokens"]
    gap = (mean.to_numpy()[::2] - mean.to_numpy()[1::2]).mean()
    assert told["probe_margin"] == pytest.approx(2.0 * gap - 1.0, abs=1e-6)


def test_it_goes_on_after_a_kill_and_the_reference_stays_that_of_step_0(model, tokenizer, rows, tmp_path):
    begun = Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run")
    begun.measure(0)
    shake(model)
    at_one = begun.measure(1)
    begun.measure(2)
    begun._held.close()  # as the end of its process lets go of the folder
    with open(tmp_path / "run" / "trace.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 3, "pro')  # torn
    again = Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run")
    # the same weights, told against step 0 still; the record has ten digits
    assert again.measure(2) == pytest.approx(at_one, rel=1e-7, abs=1e-9)
    again.close()
    steps = probe_rows(tmp_path / "run")
    assert sorted(set(steps["step"])) == [0, 1, 2]
    assert not steps.duplicated(["step", "pair_id", "response"]).any()
    np.testing.assert_array_equal(
        steps[steps["step"] == 2]["ref_logp_sum"], steps[steps["step"] == 0]["logp_sum"]
    )


def test_what_would_mix_two_runs_is_refused(model, tokenizer, rows, tmp_path):
    with Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run") as recorder:
        recorder.measure(0)
        recorder.measure(3)
        with pytest.raises(InputError, match="step 3 was the last"):
            recorder.measure(3)
    with pytest.raises(InputError, match="holds a trace already"):
        Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run").measure(0)
    with pytest.raises(InputError, match="holds a run of dpo"):
        Recorder(model, tokenizer, rows[:4], SIMPO, tmp_path / "run").measure(4)
    with pytest.raises(InputError, match="probe set is another"):
        Recorder(model, tokenizer, rows[4:8], DPO, tmp_path / "run").measure(4)
    with pytest.raises(InputError, match="no record to go on with"):
        Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "new").measure(4)
    with pytest.raises(InputError, match=r"give rewardshape\.objective"):
        Recorder(model, tokenizer, rows[:4], "dpo", tmp_path / "new")  # type: ignore[arg-type]


def test_a_reference_of_its_own_and_that_of_an_earlier_run(model, tokenizer, rows, plain_logps, tmp_path):
    reference = copy.deepcopy(model)
    shake(model)
    first = Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "one", reference=reference)
    first.measure(0)
    stated = probe_rows(tmp_path / "one")["ref_logp_sum"]
    np.testing.assert_allclose(stated, plain_logps(reference, tokenizer, rows[:4]), atol=2e-4)
    Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "two", reference=first).measure(0)
    np.testing.assert_array_equal(probe_rows(tmp_path / "two")["ref_logp_sum"], stated)


def test_the_kl_of_samples_is_the_mean_log_ratio_and_0_at_the_start(model, tokenizer, rows, tmp_path):
    recorder = Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run", sample_every=2, samples=8)
    assert recorder.measure(0)["sample_kl"] == pytest.approx(0, abs=1e-5)
    shake(model, 0.3)
    assert "sample_kl" not in recorder.measure(1)
    told = recorder.measure(2)
    recorder.close()
    samples = read_trace(tmp_path / "run").samples
    last = samples[samples["step"] == 2]
    ratio = last["logp_sum"] - last["ref_logp_sum"]  # another estimate of the same, with more noise
    assert abs(told["sample_kl"] - ratio.mean()) < 4 * ratio.sem() + 0.05 * told["sample_kl"]
    assert told["sample_kl"] > 0.01
    with pytest.raises(InputError, match="the untouched model is gone"):
        Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run", sample_every=2).measure(3)


def test_adapters_and_compiled_models_are_measured_as_they_stand(
    model, tokenizer, rows, plain_logps, tmp_path
):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    adapted = get_peft_model(
        copy.deepcopy(model), LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.5)
    )
    recorder = Recorder(adapted, tokenizer, rows[:3], DPO, tmp_path / "lora", sample_every=1, samples=3)
    recorder.measure(0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted.train()
    assert recorder.measure(1)["sample_kl"] != 0
    found = probe_rows(tmp_path / "lora").query("step == 1")["logp_sum"]
    np.testing.assert_allclose(found, plain_logps(adapted, tokenizer, rows[:3]), atol=2e-4)
    compiled = torch.compile(model)  # compiles when it is first called, which ours does not
    assert inner_of(compiled) is model
    Recorder(compiled, tokenizer, rows[:3], DPO, tmp_path / "compiled").measure(0)
    found = probe_rows(tmp_path / "compiled")["logp_sum"]
    np.testing.assert_allclose(found, plain_logps(model, tokenizer, rows[:3]), atol=2e-4)


def test_verdict_report_and_manifest_are_those_of_any_run(model, tokenizer, rows, tmp_path):
    folder = tmp_path / "run"
    with Recorder(
        model, tokenizer, rows, SIMPO, folder, about={"learning_rate": 1e-3, "seed": 7}
    ) as recorder:
        recorder.measure(0)
        for step in (1, 2, 3):
            shake(model, 0.05)
            recorder.measure(step)
    assert str(judge(folder).word) in ("displaced", "collapsed")
    assert judge(folder).interval[1] < 0
    stated = read_trace(folder).settings
    assert stated["status"] == "done"
    assert stated["run"]["seed"] == 7
    assert stated["objective"]["name"] == "simpo"
    assert {"model", "data", "versions", "device"} <= stated.keys()
    assert stated["versions"]["transformers"]
    assert write_report(folder).is_file()


def test_an_exception_in_the_loop_is_recorded(model, tokenizer, rows, tmp_path):
    def loop() -> None:
        with Recorder(model, tokenizer, rows[:3], DPO, tmp_path / "run") as recorder:
            recorder.measure(0)
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        loop()
    stated = read_trace(tmp_path / "run").settings
    assert (stated["status"], stated["reason"]) == ("failed", "out of luck")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device of Linux without room")
def test_a_disk_without_room_ends_the_record_and_not_the_loop(model, tokenizer, rows, tmp_path):
    with Recorder(model, tokenizer, rows[:3], DPO, tmp_path / "run") as recorder:
        recorder.measure(0)
        recorder._writer._file = open("/dev/full", "a")
        with pytest.warns(UserWarning, match="No space left on device; the record ends here"):
            recorder.measure(1)
        assert recorder.measure(2)["probe_chosen_change"] == 0.0
    assert read_trace(tmp_path / "run").steps["step"].tolist() == [0]
    assert read_trace(tmp_path / "run").settings["status"] == "failed"


def test_it_stands_at_the_front_door():
    assert rewardshape.Recorder is Recorder


# --- the examples of the guide, as they are ------------------------------------------------------------------------


def run(*words: object) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plain_loop_records_and_goes_on_after_a_kill(checkpoint, pairs_file, tmp_path, scripted):
    loop = EXAMPLES / "plain_loop.py"
    scripted(loop, checkpoint, pairs_file, tmp_path / "whole", 4)
    saved = tmp_path / "killed" / "loop.pt"
    process = Python(loop, checkpoint, pairs_file, tmp_path / "killed", 400)
    process.until(saved.exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = torch.load(saved, weights_only=True)["step"]
    scripted(loop, checkpoint, pairs_file, tmp_path / "killed", max(4, done))
    whole, killed = (probe_rows(tmp_path / name / "rewardshape") for name in ("whole", "killed"))
    both = killed[killed["step"] <= 4]
    assert sorted(set(both["step"])) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(both["ref_logp_sum"], whole["ref_logp_sum"])
    np.testing.assert_allclose(both["logp_sum"], whole["logp_sum"], atol=1e-4)


def test_two_processes_with_a_sharded_model_record_what_one_records(
    checkpoint, pairs_file, rows, tokenizer, tmp_path
):
    said = ranks(2, EXAMPLES / "fsdp2_loop.py", checkpoint, pairs_file, tmp_path / "run")
    assert len(re.findall(r"^step \d", said, re.MULTILINE)) == 3
    recorded = probe_rows(tmp_path / "run")
    assert sorted(set(recorded["step"])) == [0, 1, 2, 3]
    assert read_trace(tmp_path / "run").settings["device"]["processes"] == 2
    assert read_trace(tmp_path / "run").settings["status"] == "done"
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    Recorder(model, tokenizer, rows[:16], SIMPO, tmp_path / "one").measure(0)
    alone = probe_rows(tmp_path / "one")["logp_sum"]
    np.testing.assert_allclose(recorded.query("step == 0")["logp_sum"], alone, atol=1e-4)
    assert (
        abs(recorded.query("step == 3")["logp_sum"].to_numpy() - alone.to_numpy()).max() > 0.1
    )  # it trained


def test_the_lightning_loop_records(checkpoint, pairs_file, tmp_path):
    if importlib.util.find_spec("pytorch_lightning") is None:
        compile((EXAMPLES / "lightning_loop.py").read_text(encoding="utf-8"), "lightning_loop.py", "exec")
        return  # no package of ours needs it: where it is not installed, there is nothing to run
    run(EXAMPLES / "lightning_loop.py", checkpoint, pairs_file, tmp_path)
    recorded = probe_rows(tmp_path / "rewardshape")
    assert sorted(set(recorded["step"])) == [0, 1, 2, 3, 4]


def test_steps_and_metrics_of_a_hand_written_loop_are_numbers_or_one_line(model, tokenizer, rows, tmp_path):
    with Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run") as recorder:
        recorder.measure(0)
        recorder.measure(1.0, metrics={"skipped": True, "loss": torch.tensor([0.5]), "norm": np.float32(2)})
        for step in (1.5, "2", None):
            with pytest.raises(InputError, match="whole number"):
                recorder.measure(step)
        for bad in ("warmup", [1e-4, 1e-5], torch.ones(2), 10**400):
            with pytest.raises(InputError, match="metrics: phase is"):
                recorder.measure(2, metrics={"phase": bad})
        recorder.measure(np.float64(2))
    steps = read_trace(tmp_path / "run").steps.set_index("step")
    assert steps.loc[1, ["skipped", "loss", "norm"]].tolist() == [1.0, 0.5, 2.0]
    assert steps.index.tolist() == [0, 1, 2]


def test_a_recorder_without_a_reference_of_these_pairs_is_none(model, tokenizer, rows, tmp_path):
    simpo = Recorder(model, tokenizer, rows[:4], SIMPO, tmp_path / "simpo")
    simpo.measure(0)
    other = Recorder(model, tokenizer, rows[4:8], DPO, tmp_path / "other")
    other.measure(0)
    for name, reference in (("a", simpo), ("b", other)):
        recorder = Recorder(model, tokenizer, rows[:4], DPO, tmp_path / name, reference=reference)
        with pytest.raises(InputError, match="no reference of these pairs"):
            recorder.measure(0)
    with pytest.raises(InputError, match="no model to sample beside"):
        Recorder(model, tokenizer, rows[4:8], DPO, tmp_path / "c", reference=other, sample_every=1)


def test_a_record_of_the_same_pairs_as_other_tokens_is_not_gone_on_with(model, tokenizer, rows, tmp_path):
    with Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run") as recorder:
        recorder.measure(0)
        recorder.measure(1)
    with Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run", max_prompt_tokens=3) as shorter:
        with pytest.raises(InputError, match="were other tokens"):
            shorter.measure(2)
    with Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run") as again:
        again.measure(2)
