"""Whatever a file holds, it is read or refused in one line, soon, and nothing in it reaches a terminal unescaped.

``REWARDSHAPE_FUZZ=10000 pytest tests/logs/test_hostile.py`` (or ``python benchmarks/fuzz.py 10000 logs``) searches
that many examples at random; without it a small fixed set is tried.
"""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardshape.errors import InputError
from rewardshape.logs import read_logs
from tests.fuzzing import FUZZ

KEYS = st.sampled_from(
    ["loss", "eval_loss", "rewards/chosen", "rewards/rejected", "eval_rewards/chosen", "rewards/margins",
     "logps/chosen", "rewards/accuracies", "epoch", "step",
     "global_step/max_steps", "train_runtime", "run_name", "reward_std", "β", ""]
)  # fmt: skip
NUMBERS = st.one_of(
    st.floats(), st.integers(-5, 500), st.sampled_from([10**400, 1e308, -0.0, 1e-320, 2**53 + 1]),
)  # fmt: skip
STRANGE = st.sampled_from(
    ["nan", "inf", "NaN", "", "1,5", "1.234,5", "12/94", "−3", "85%", "1 ± 2", "tensor(0.5)", "\x1b[31m0.5\x1b[0m",
     "[1, 2]", "\u202e1.0", "\ud800", "None", "٣", "1_0", "0x10", "1e999", "{", "}", "|", "\x00"]
)  # fmt: skip
RECORDS = st.dictionaries(
    st.one_of(KEYS, st.text(max_size=5)), st.one_of(NUMBERS, STRANGE, st.none(), st.booleans()), max_size=7
)
LINES = st.one_of(
    RECORDS.map(str),
    RECORDS.map(json.dumps),
    RECORDS.map(lambda record: " ".join(f"{key}: {value}" for key, value in record.items())),
    RECORDS.map(lambda record: "| " + " | ".join(map(str, record)) + " |\n|---|---|"),
    RECORDS.map(lambda record: "| " + " | ".join(map(str, record.values())) + " |"),
    RECORDS.map(lambda record: ",".join(map(str, record))),
    RECORDS.map(lambda record: ",".join(map(str, record.values()))),
    st.builds("{0}%|###| {0}/{1} [00:01<00:02, 1it/s]".format, st.integers(0, 10**20), st.integers(0, 99)),
    st.builds("=== Step {0}/{1} ===".format, st.integers(0, 10**20), st.integers(0, 99)),
    st.sampled_from(
        ["# \x1b]0;title\x07caption", "- Loss: 0.5", "following results on the evaluation set:", "beta: 0.1", "\x1b[2J",
         '{"log_history": [', "{'loss': 0.5, 'rewar", "eval after 10: {", "Epoch:[1/2](3/4) loss:0.5"]
    ),
    st.text(max_size=20),
)  # fmt: skip
TEXTS = st.builds(
    lambda lines, end: end.join(lines),
    st.lists(LINES, max_size=12),
    st.sampled_from(["\n", "\r", "\r\n", ""]),
)


def _is_one_line(error):
    assert str(error).isprintable()
    return []


def _read_or_refuse(path):
    try:
        logs = read_logs(path)
    except InputError as error:
        return _is_one_line(error)
    for log in logs:
        shown = [log.name, log.form, *log.notes, *log.signs, *map(str, log.settings.values())]
        assert all(text.isprintable() for text in [*shown, *log.nonfinite["series"]])
        numbers = log.table.drop(columns="split").to_numpy(float)
        assert not np.isinf(numbers).any()
        assert log.table["step"].notna().all()
        assert not log.table.duplicated(["split", "step"]).any()
        assert log.kind == "preference"
    return logs


@FUZZ
@given(text=TEXTS)
def test_any_text_is_read_or_refused_in_one_line(tmp_path, text):
    path = tmp_path / "log"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    _read_or_refuse(path)


@FUZZ
@given(data=st.data())
def test_a_damaged_log_is_read_or_refused_in_one_line(tmp_path, data):
    rows = [
        {"loss": 0.69 - 0.01 * k, "rewards/chosen": -0.1 * k, "epoch": 0.1 * k, "step": k} for k in range(6)
    ]
    forms = [json.dumps({"log_history": rows}), "\n".join(map(str, rows)), "\n".join(map(json.dumps, rows)),
             "step,loss,rewards/chosen\n1,0.5,-1\n2,0.4,-2\n"]  # fmt: skip
    raw = bytearray(data.draw(st.sampled_from(forms)).encode())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(raw)))
        cut = data.draw(st.integers(0, 5))
        raw[at : at + cut] = data.draw(st.binary(max_size=4))
    path = tmp_path / "log"
    path.write_bytes(bytes(raw))
    _read_or_refuse(path)


ESCAPE = "\x1b[2J\x1b]0;owned\x07"
HEAD = "\n| Step | Loss | Rewards/chosen |\n|---|---|---|\n"
ROW = {"step": 1, "loss": 0.5, "rewards/chosen": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        f"# {ESCAPE}{HEAD}| 1 | 0.5 | 1 |\n\n# b{HEAD}| 1 | 0.5 | 2 |\n",
        json.dumps([ROW | {"run_name": ESCAPE + str(k), "step": step} for k in (1, 2) for step in (1, 2)]),
        json.dumps({"log_history": [ROW | {ESCAPE: float("nan")}] * 2}),
        json.dumps({"log_history": [ROW | {f"eval_{ESCAPE}_loss": 0.5, "eval_b_loss": 0.5}]}),
        json.dumps([{"step": 1, "loss": 1.5, f"precision_{ESCAPE}": 0.5, "f1": 1.0}]),
        ESCAPE + "nothing here",
    ],
    ids=["caption", "run", "series", "evaluation-set", "kind", "head"],
)  # fmt: skip
def test_terminal_codes_of_a_log_are_escaped(tmp_path, text):
    path = tmp_path / f"a{ESCAPE.replace('/', '')}.md"
    path.write_text(text)
    _read_or_refuse(path)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 5_000_000,
        "{" * 2_000_000,
        "[" * 2_000_000,
        "{'loss': " * 200_000,
        "| " * 1_000_000,
        "loss " * 500_000,
        "\r".join(f" {k % 100}%|#| {k}/90000 [00:01<00:02]" for k in range(90_000)),
        "-" * 2_000_000,
        ",".join(["loss"] * 100_000) + "\n1,2\n",
    ],
    ids=["letters", "braces", "brackets", "open-records", "bars", "names", "progress", "rule", "columns"],
)
def test_a_long_line_is_answered_soon(tmp_path, text):
    path = tmp_path / "log"
    path.write_text(text)
    begin = time.process_time()
    with pytest.raises(InputError):
        read_logs(path)
    assert time.process_time() - begin < 10


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss,rewards/chosen,loss\n1,0.5,0.1,0.6\n")
    with pytest.raises(InputError, match=r"log\.csv:1: the column 'loss' stands there 2 times"):
        read_logs(path)
