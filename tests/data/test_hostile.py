"""Whatever a file of pairs holds, it is read or refused in one line; what is read is what was written."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardshape.data import read_preferences
from tests.fuzzing import FUZZ, STRANGE, attempted, damaged

GOOD = [
    {"prompt": f"p{i}", "chosen": f"good {i}\n", "rejected": 'bad, "quoted"', "score_chosen": 1.5}
    for i in range(4)
]
CHAT = {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
CHAT["rejected"] = [CHAT["chosen"][0], {"role": "assistant", "content": "b"}]
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), STRANGE, st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "content", "from", "value", "text"]), inner, max_size=3
    ),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(
    ["prompt", "chosen", "rejected", "messages", "conversations", "question", "label", "score_chosen", "completion",
     "instruction", "input", "response_0", "better", "tools", "β", ""]
)  # fmt: skip
ROWS = st.lists(st.dictionaries(KEYS, VALUES, max_size=5) | st.sampled_from([*GOOD, CHAT]), max_size=5)


def as_csv(rows: list[dict[str, object]]) -> bytes:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names)  # it quotes either half of its own line end
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


WRITTEN = {
    ".jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    ".json": lambda rows: json.dumps(rows).encode(),
    ".csv": as_csv,
}


def read_or_refused(path) -> None:
    for skip in (False, True):
        read, said = attempted(read_preferences, path, skip_bad_rows=skip)
        if said:
            assert path.name in said
            assert said.isprintable()
        else:
            pairs, report = read
            assert pairs
            assert len(report.summary()) < 3000


@given(rows=ROWS, form=st.sampled_from(sorted(WRITTEN)))
@FUZZ
def test_any_rows_are_read_or_refused_in_one_line(tmp_path, rows, form):
    path = tmp_path / f"pairs{form}"
    path.write_bytes(WRITTEN[form](rows))
    read_or_refused(path)


@given(data=st.data(), form=st.sampled_from(sorted(WRITTEN)))
@FUZZ
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, data, form):
    path = tmp_path / f"pairs{form}"
    path.write_bytes(data.draw(damaged(WRITTEN[form]([*GOOD, CHAT] if form != ".csv" else GOOD))))
    read_or_refused(path)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)


@pytest.mark.parametrize("form", sorted(WRITTEN))
@given(
    texts=st.lists(st.tuples(TEXT, TEXT, TEXT).filter(lambda row: row[1] != row[2]), min_size=1, max_size=4)
)
@FUZZ
def test_what_is_read_is_what_was_written(tmp_path_factory, form, texts):
    path = tmp_path_factory.mktemp("written") / f"pairs{form}"
    path.write_bytes(
        WRITTEN[form]([dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in texts])
    )
    read, said = attempted(read_preferences, path)
    if said:  # rows that the rules of the data refuse, as responses alike but for white space
        assert path.name in said
        return
    found = {(pair.prompt, pair.responses["chosen"], pair.responses["rejected"]) for pair in read[0]}
    assert found <= set(texts)
