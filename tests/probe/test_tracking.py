"""What trackers are told is what the trace says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rewardshape import read_trace


def test_tensorboard_shows_the_numbers_of_the_trace(probe: Callable[..., int], tmp_path: Path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "run"
    assert probe(folder, "--report-to", "tensorboard") == 0
    trace = read_trace(folder)
    events = event_accumulator.EventAccumulator(str(next(folder.rglob("events.out.*")).parent)).Reload()
    loss = {event.step: event.value for event in events.Scalars("train/loss")}
    assert loss == pytest.approx(trace.steps.query("step > 0").set_index("step")["loss"].to_dict(), rel=1e-5)
    rows = trace.responses.query("split == 'probe' and response == 'chosen'")
    means = (rows["logp_sum"] / rows["num_tokens"]).groupby(rows["step"]).mean()
    told = {event.step: event.value for event in events.Scalars("train/probe_chosen_logp_mean")}
    assert told == pytest.approx(means.to_dict(), rel=1e-5)
    assert any("trace" in tag for tag in events.Tags()["tensors"])
