"""The head of a page names all that its runs were made of."""

from __future__ import annotations

from rewardshape.report.facts import facts_of
from rewardshape.trace import read_trace


def test_every_checkpoint_and_file_of_a_sweep_is_named_once(write_run, tmp_path):
    import numpy as np

    sums = {name: np.full((2, 3), -9.0) for name in ("chosen", "rejected")}
    for name, model in (("a", "models/small"), ("b", "models/large"), ("c", "models/small")):
        run = {"seed": ord(name), "data": [f"data/{name}.jsonl"], "learning_rate": 1e-5}
        write_run(
            tmp_path / name, sums, num_tokens={side: np.full(3, 5) for side in sums},
            run=run, model={"checkpoint": model},
        )  # fmt: skip
    facts = facts_of(read_trace(tmp_path))
    assert "model small, large" in facts
    assert "data a.jsonl, b.jsonl, c.jsonl" in facts
    assert "3 runs" in facts
