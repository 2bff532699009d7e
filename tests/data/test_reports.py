"""What became of every row and token: the counts add up, whatever was dropped."""

from __future__ import annotations

import json

from rewardshape.data import read_preferences
from rewardshape.data.reports import EncodeReport
from tests.data.test_preferences import row, write_jsonl


def test_report_is_plain_json_and_every_row_is_in_it(tmp_path):
    rows = [row(), row(chosen=""), {"prompt": 1}, *[row(chosen="x", rejected="x")] * 12]
    _, report = read_preferences(write_jsonl(tmp_path / "a.jsonl", rows), skip_bad_rows=True)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["sources"] == {"a.jsonl": 15}
    assert plain["dropped"]["identical responses"]["count"] == 12
    assert len(plain["dropped"]["identical responses"]["first"]) == 10
    assert plain["rows"] == 15 == plain["pairs"] + 1 + 12 + plain["bad_rows"]["count"]


def test_names_of_columns_cannot_write_to_the_terminal(tmp_path):
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "\x1b]0;x\x07": 1}
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    assert "\x1b" not in read_preferences(tmp_path / "a.jsonl")[1].summary()


def test_lost_tokens_are_counted_by_text_and_by_token():
    report = EncodeReport(pairs_in=3, pairs=2, dropped={"identical responses": ["a:3"]})
    report.count_lost(0, [0, 5])
    report.count_lost(7, [2, 1])
    assert (report.prompts_truncated, report.prompt_tokens_lost) == (1, 7)
    assert (report.responses_truncated, report.response_tokens_lost) == (3, 8)
    assert report.summary() == (
        "2 pairs tokenised; 1 dropped: 1 identical responses; "
        "1 prompt truncated, 7 tokens lost; 3 responses truncated, 8 tokens lost"
    )
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["pairs_in"] == plain["pairs"] + plain["dropped"]["identical responses"]["count"]
