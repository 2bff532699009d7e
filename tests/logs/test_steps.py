"""A row's step is found wherever the text tells it, and what is counted is called by its name."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.logs import read_logs


def read(tmp_path, text):
    path = tmp_path / "log"
    path.write_text(text)
    (log,) = read_logs(path)
    return log


@pytest.mark.parametrize("quote", ["'{}'", '"{}"'])
def test_a_step_of_a_total_is_a_step_with_and_without_quotes(tmp_path, quote):
    rows = [
        f"{{'loss': 0.6, 'rewards/chosen': -0.1, 'epoch': 0.{k}, 'global_step/max_steps': {quote.format(f'{k}/94')}}}"
        for k in (5, 7)
    ]
    log = read(tmp_path, "\n".join(rows))
    assert (list(log.split("train").index), log.rows_are) == ([5, 7], "steps")


def test_steps_of_a_real_ms_swift_console_are_read(shared):
    logs = shared / "findings" / "inputs" / "logs"
    (log,) = read_logs(logs / "12-swift-console-steps.log")
    assert list(log.split("train").index) == [5, 10, 15]
    (log,) = read_logs(logs / "05c-undetermined-clear-and-steps.log")
    assert list(log.split("train").index) == [32, 33]


def test_a_line_that_is_a_step_stands_for_the_record_below_it(tmp_path):
    text = "".join(f"Step {k}\n{{'loss': 0.6, 'rewards/chosen': -0.1}}\n\n" for k in (500, 1000))
    assert list(read(tmp_path, text).split("train").index) == [500, 1000]


def test_epoch_and_step_of_a_total_are_a_step(tmp_path):
    line = "Epoch:[{e}/2]({k}/400) loss:0.6{k} rewards/chosen:-0.{k} lr:0.000001 epoch_Time:28.0min:\n"
    text = "".join(line.format(e=e, k=k) for e in (1, 2) for k in (100, 300))
    assert list(read(tmp_path, text).split("train").index) == [100, 300, 500, 700]


def test_rows_that_are_epochs_are_called_epochs(tmp_path):
    head = "| Epoch | Training Loss | Validation Loss | Rewards/chosen |\n|---|---|---|---|\n"
    log = read(tmp_path, head + "".join(f"| {e} | 0.6 | 0.7 | -{e} |\n" for e in (1, 2, 3)))
    assert (log.rows_are, log.counts) == ("epochs", "epoch")
    assert log.split("eval")["reward_chosen"].to_dict() == {1: -1.0, 2: -2.0, 3: -3.0}
    assert "counted in epochs" in " ".join(log.notes)


def test_parts_of_epochs_are_not_epochs(tmp_path):
    log = read(
        tmp_path, "\n".join(f"{{'loss': 0.6, 'rewards/chosen': -0.1, 'epoch': {e}}}" for e in (0.4, 0.8, 1.2))
    )
    assert log.rows_are == "rows"


def _record(step, total, **more):
    return str({"loss": 0.7 - step / 1000, "epoch": round(step / total, 2), **more})


def test_a_log_that_is_printed_twice_with_different_keys_has_the_steps_of_its_bars(tmp_path):
    lines = []
    for k in range(10, 201, 10):
        lines.append(f" {k // 2}%|#| {k}/200 [00:01<00:02]{_record(k, 200, **{'rewards/chosen': -k / 100})}")
        lines.append(_record(k, 200, **{"logps/chosen": -float(k)}))
    trained = read(tmp_path, "\n".join(lines)).split("train")
    assert list(trained.index) == list(range(10, 201, 10))
    assert trained["reward_chosen"].tolist() == [-k / 100 for k in range(10, 201, 10)]
    assert trained["logp_chosen"].tolist() == [-k for k in range(10, 201, 10)]


def test_bars_before_some_records_are_at_their_steps_and_no_step_is_beyond_the_total(tmp_path):
    """A bar before every third record: with that of the record before it, the rate would be too high."""
    lines = []
    for k in range(10, 201, 10):
        bar = f" {k // 2}%|#| {k}/200 [00:01<00:02]" if k % 30 == 0 else ""
        lines.append(bar + _record(k, 200, **{"rewards/chosen": -k / 100}))
    assert list(read(tmp_path, "\n".join(lines)).split("train").index) == list(range(10, 201, 10))


def test_two_runs_have_steps_by_their_own_bars(tmp_path):
    lines = []
    for total in (40, 90):
        for k in (10, 20, 30, 40):
            record = {"loss": 0.6, "rewards/chosen": -0.1, "epoch": round(k / total, 2)}
            lines.append(f" {k}%|#| {k}/{total} [00:01<00:02]{record}")
        lines.append(
            "{'train_runtime': 9.0, 'train_samples_per_second': 1.0, 'train_loss': 0.6, 'epoch': 1.0}"
        )
    path = tmp_path / "log"
    path.write_text("\n".join(lines))
    for log in read_logs(path):
        assert list(log.split("train").index) == [10, 20, 30, 40]


def test_rows_without_a_step_belong_to_the_step_before_them(tmp_path):
    lines = [f"Step {k}: loss=0.6{k} acc=50.00% margin=0.0{k} grad=5.4" for k in range(4)]
    log = read(
        tmp_path,
        "\n".join(
            [*lines, "--- Final Metrics ---", "DPO loss:      0.63", "Policy chosen log-p:   -1.93", ""]
        ),
    )
    trained = log.split("train")
    assert (list(trained.index), log.rows_are) == ([0, 1, 2, 3], "steps")
    assert trained["logp_chosen"].dropna().to_dict() == {3: -1.93}


def test_steps_that_begin_again_with_each_epoch_are_counted_on(tmp_path):
    lines = [
        f"Epoch {e} | Step {k} | loss 0.6{k} | margin 0.{e}{k}" for e in (1, 2, 3) for k in (0, 10, 20, 30)
    ]
    assert list(read(tmp_path, "\n".join(lines)).split("train").index) == list(range(0, 120, 10))
    lines = [f"Epoch {e} | Step {k} | loss 0.6{k} | margin 0.{e}{k}" for e in (1, 2) for k in (5, 10, 15)]
    assert list(read(tmp_path, "\n".join(lines)).split("train").index) == [5, 10, 15, 20, 25, 30]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "text",
    [
        "{'loss': 0.6, 'rewards/chosen': -0.1, 'epoch': 1e-320, 'step': 1.0}",
        "{'loss': 0.6, 'rewards/chosen': -0.1, 'epoch': 1e-320}\n1%|#| 1/9 [00:01<00:02, 1it/s]\n"
        "{'loss': 0.6, 'rewards/chosen': -0.1}",
    ],
)
def test_an_epoch_of_next_to_nothing_tells_no_rate(tmp_path, text):
    assert np.isfinite(read(tmp_path, text).split("train").index).all()
