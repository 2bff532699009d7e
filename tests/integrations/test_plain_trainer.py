"""The callback in transformers' own trainer, without TRL: what it records is what a float64 log-softmax gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

from rewardshape import objective, read_trace
from rewardshape.data import embedded, encode_pairs, read_preferences
from rewardshape.integrations.trl import ProbeCallback

CHECKPOINT = str(embedded.checkpoint_path())
PAIRS = 4


class Witness(TrainerCallback):
    """Computes the same log-probs by its own means, and shares nothing with ours but the token ids."""

    def __init__(self, encoded: list[Any]):
        self.encoded = encoded
        self.seen: dict[int, list[float]] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen[0] = self.logps(kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen[state.global_step] = self.logps(kwargs["model"])

    @torch.no_grad()
    def logps(self, model: Any) -> list[float]:
        training = model.training
        model.eval()
        sums = []
        for pair in self.encoded:
            for answer in pair.responses.values():
                ids = torch.tensor([[*pair.prompt_ids, *answer]], device=model.device)
                logs = torch.log_softmax(model(ids).logits[0].double(), -1)
                first = len(pair.prompt_ids)
                sums.append(float(sum(logs[first - 1 + i, token] for i, token in enumerate(answer))))
        model.train(training)
        return sums


def test_the_callback_records_what_log_softmax_gives_and_needs_no_trl(tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    pairs = read_preferences(embedded.pairs_path())[0][:PAIRS]
    encoded, _ = encode_pairs(pairs, tokenizer, max_prompt_tokens=200, max_response_tokens=200)
    texts = [pair.prompt_ids + pair.responses["chosen"] for pair in encoded]
    rows = [{"input_ids": ids, "labels": ids} for ids in texts]
    witness = Witness(encoded)
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(CHECKPOINT),
        args=TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=3,
            per_device_train_batch_size=1,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[ProbeCallback(encoded, objective("simpo", beta=2.0, gamma=1.0)), witness],
    )
    trainer.train()
    table = read_trace(tmp_path / "rewardshape").responses
    for step, sums in witness.seen.items():
        recorded = table[(table["step"] == step) & (table["split"] == "probe")]["logp_sum"].to_numpy()
        np.testing.assert_allclose(recorded, sums, atol=2e-4)  # float32 forward passes over some 60 tokens
    assert sorted(witness.seen) == [0, 1, 2, 3]
    assert abs(np.subtract(witness.seen[3], witness.seen[0])).max() > 1e-2  # it did train
