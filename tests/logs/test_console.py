"""Records between braces come back from what Python and JSON print, whatever stands between them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardshape.logs.console import console_rows, dict_records, parse, tells

NAMES = st.sampled_from(["rewards/chosen", "rewards/margins", "eval_loss", "grad_norm", "epoch"])
RECORDS = st.dictionaries(NAMES, st.floats(allow_nan=False, allow_infinity=False)).map(
    lambda record: {"loss": 0.5, **record}
)


@given(
    record=RECORDS,
    printed=st.sampled_from([str, json.dumps, lambda r: str({k: str(v) for k, v in r.items()})]),
)
def test_what_is_printed_comes_back(record, printed):
    """The outside truth is the dictionary that was printed, as Python, as JSON, or with its numbers quoted."""
    [found] = dict_records(["a warning {not: ours} ", printed(record), " and more\n"])
    assert {key: float(value) for key, value in found.record.items()} == record


@given(record=RECORDS, cut=st.integers(1, 200))
def test_a_record_in_two_pieces_is_one_record(record, cut):
    text = json.dumps(record) + "\n"
    assert [found.record for found in dict_records([text[:cut], text[cut:]])] == [record]


def test_other_dictionaries_are_no_records():
    assert list(dict_records(["{'input_ids': 3} {'train_runtime': 9.0} {} {'loss': 'high'}"])) == []
    assert tells({"loss": "0.5"})
    assert not tells({"epoch": 0.5})


@pytest.mark.parametrize(
    ("before", "place"),
    [
        ("eval after 960: ", {"examples": 960.0}),
        ("Step 12:\n", {"step": 12.0}),
        ("[rank0] 2026-02-03 10:00:00,123 INFO trainer.py:88 - step 30: ", {"step": 30.0}),
        ("global_step=30 | ", {"step": 30.0}),
        ("step 30 of 90 took 1.2 s: ", {}),
        ("two-step 30: ", {"step": 30.0}),
        (
            "at step 12 something happened that is no heading of a record below it, for it says too much:\n",
            {},
        ),
    ],
)
def test_a_record_takes_its_place_from_what_stands_before_it(before, place):
    [found] = dict_records([before + "{'loss': 0.5}"])
    assert found.record == {**place, "loss": 0.5}


def test_numbers_that_numpy_or_jax_wrap_are_read():
    rows, _ = console_rows(
        [
            "{'loss': np.float64(0.5), 'rewards/chosen': np.float32(-1e-3), 'grad_norm': Array(2.5, dtype=float32)}"
        ]
    )
    assert {name: list(column.values) for (_, name), column in rows.columns.items()} == {
        "loss": [0.5],
        "reward_chosen": [-1e-3],
        "grad_norm": [2.5],
    }


def test_what_two_processes_print_counts_once_and_what_stands_still_counts_each_time():
    placed = ["{'loss': 0.6, 'epoch': 0.1}\n"] * 2 + ["{'loss': 0.5, 'epoch': 0.2}\n"] * 2
    rows, _ = console_rows(placed)
    assert (len(rows), rows.repeated) == (2, 2)
    rows, _ = console_rows(["{'loss': 0.69, 'rewards/chosen': 0.0}\n"] * 3)
    assert (len(rows), rows.repeated) == (3, 0)


def test_a_step_of_the_record_s_own_is_kept():
    [found] = dict_records(["Step 12:\n{'loss': 0.5, 'step': 7}"])
    assert found.record == {"loss": 0.5, "step": 7}


def test_each_bar_is_known_by_its_total_where_it_last_stood():
    [found] = dict_records(["1/30 [00:01<1]\r 2/30 [00:02<1] 5/7 [00:00<0] {'loss': 0.5}"])
    assert dict(bar[::-1] for bar in found.bars) == {30: 2, 7: 5}


@pytest.mark.parametrize(
    ("text", "torn"), [("{'loss': 0.5", True), ("{'loss': 0.5}", False), ("{'a': 1", False)]
)
def test_a_record_that_is_cut_off_is_told(text, torn):
    assert console_rows(["{'loss': 0.6}\n", text])[1] is torn


def test_pairs_are_made_out_where_neither_reader_takes_the_text():
    assert parse("{'loss': tensor(0.5, device='cuda:0'), 'epoch': 0.1}")["epoch"] == "0.1"
