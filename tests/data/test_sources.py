"""The same rows from every kind of file, with ids that find them again; each unreadable source is one line."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import pandas as pd
import pytest

from rewardshape.data import read_preferences
from rewardshape.data.sources import labels
from rewardshape.errors import InputError

TEXTS = [
    {"prompt": "Größe?", "chosen": 'say "so", é', "rejected": "two\nlines"},
    {"prompt": "", "chosen": "null", "rejected": "7"},
    {"prompt": "🙂\u2028", "chosen": " a", "rejected": "\ta"},
]
CHATS = [
    {
        "prompt": [{"role": "user", "content": f"Say {n}."}],
        "chosen": [{"role": "assistant", "content": f"{n}"}],
        "rejected": [{"role": "assistant", "content": f"not {n}"}],
    }
    for n in range(3)
]


def jsonl(rows, end="\n"):
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def write_csv(path, rows, delimiter=","):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["chosen", "prompt", "rejected"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(
            {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows
        )


def write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def zstd(content):
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
        stream.flush()
    return bytes(sink.getvalue())


WRITERS = {
    "pairs.ndjson": lambda path, rows: path.write_bytes(jsonl(rows)),
    "pairs.tsv": lambda path, rows: write_csv(path, rows, delimiter="\t"),
    "pairs.jsonl.zst": lambda path, rows: path.write_bytes(zstd(jsonl(rows))),
    "pairs.csv.gz": lambda path, rows: (
        write_csv(path, rows) or path.write_bytes(gzip.compress(path.read_bytes()))
    ),
    "wrapped.json": lambda path, rows: path.write_text(json.dumps({"version": 2, "data": rows}, indent=1)),
    "viewer.json": lambda path, rows: path.write_text(
        json.dumps({"features": [], "rows": [{"row_idx": i, "row": row} for i, row in enumerate(rows)]})
    ),
    "pairs.jsonl": lambda path, rows: path.write_bytes(jsonl(rows)),
    "crlf.jsonl": lambda path, rows: path.write_bytes(jsonl(rows, end="\r\n")),
    "mark.jsonl": lambda path, rows: path.write_bytes(b"\xef\xbb\xbf" + jsonl(rows)),
    "torn.jsonl": lambda path, rows: path.write_bytes(jsonl(rows)[:-1]),  # no line break at the end
    "pairs.jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress(jsonl(rows))),
    "list.json": lambda path, rows: path.write_text(json.dumps(rows, indent=2), encoding="utf-8"),
    "mark.json": lambda path, rows: path.write_bytes(b"\xef\xbb\xbf" + json.dumps(rows).encode()),
    "lines.json": lambda path, rows: path.write_bytes(jsonl(rows)),
    "PAIRS.CSV": write_csv,
    "pairs.parquet": write_parquet,
}


@pytest.mark.parametrize("rows", [TEXTS, CHATS], ids=["texts", "messages"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_pairs(tmp_path, name, rows):
    WRITERS[name](tmp_path / name, rows)
    pairs, report = read_preferences(tmp_path / name)
    found = [{"prompt": pair.prompt, **pair.responses} for pair in pairs]
    assert found == rows
    assert report.sources == {name: 3}


@pytest.mark.parametrize("rows", [TEXTS, CHATS], ids=["texts", "messages"])
def test_pandas_files_are_read(tmp_path, rows):
    """Files as pandas itself writes them: JSON records, Parquet, and CSV with its index column."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "b.json", orient="records")
    frame.to_json(tmp_path / "columns.json")
    frame.to_parquet(tmp_path / "c.parquet")
    names = ["a.jsonl", "b.json", "columns.json", "c.parquet"]
    if rows is TEXTS:
        frame.to_csv(tmp_path / "d.csv")
        names.append("d.csv")
    for name in names:
        pairs, _ = read_preferences(tmp_path / name)
        assert [{"prompt": pair.prompt, **pair.responses} for pair in pairs] == rows


def test_python_lists_in_csv_cells_are_not_taken_for_text(tmp_path):
    import pandas as pd

    pd.DataFrame(CHATS).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(
        InputError, match=r"a\.csv:2: field 'chosen' looks like a message list but is not JSON"
    ):
        read_preferences(tmp_path / "a.csv")


def test_saved_datasets_are_read(tmp_path):
    import datasets

    table = datasets.Dataset.from_list(CHATS)
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "two")
    for folder in ("one", "two/test"):
        pairs, _ = read_preferences(tmp_path / folder)
        assert [{"prompt": pair.prompt, **pair.responses} for pair in pairs] == CHATS
    assert read_preferences(tmp_path / "one")[0][2].pair_id == "one:3"
    with pytest.raises(InputError, match=r"two: has the splits train, test; name one, as .*two/train$"):
        read_preferences(tmp_path / "two")
    next((tmp_path / "one").glob("*.arrow")).unlink()
    with pytest.raises(InputError, match="cannot be read as a saved dataset"):
        read_preferences(tmp_path / "one")


def test_a_hub_dataset_is_read_by_split(tmp_path, monkeypatch):
    """Offline, from the library's cache, laid out as a download leaves it."""
    import datasets
    from datasets.arrow_writer import ArrowWriter

    table = datasets.Dataset.from_list(CHATS)
    folder = tmp_path / "owner___pairs" / "default" / "0.0.0" / ("0" * 40)
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        with ArrowWriter(path=str(folder / f"pairs-{split}.arrow"), features=table.features) as writer:
            for row in table:
                writer.write(row)
            writer.finalize()
    datasets.DatasetInfo(
        features=table.features,
        dataset_name="pairs",
        config_name="default",
        builder_name="parquet",
        version="0.0.0",
        splits=datasets.SplitDict(
            {
                name: datasets.SplitInfo(name, num_examples=3, dataset_name="pairs")
                for name in ("train", "test")
            }
        ),
    ).write_to_directory(str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    pairs, report = read_preferences("owner/pairs:test")
    assert [{"prompt": pair.prompt, **pair.responses} for pair in pairs] == CHATS
    assert pairs[0].pair_id == "owner/pairs:test:1"
    assert report.sources == {"owner/pairs:test": 3}
    with pytest.raises(
        InputError, match=r"^owner/pairs: has the splits train, test; name one, as owner/pairs:train$"
    ):
        read_preferences("owner/pairs")
    for absent in ("owner/absent", "owner/pairs:absent"):
        with pytest.raises(InputError, match=f"^{absent}: no such file, and no such dataset could be loaded"):
            read_preferences(absent)


def test_ids_are_lines_of_the_file_blank_lines_and_line_breaks_in_cells_included(tmp_path):
    rows = jsonl(TEXTS).splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_bytes(b"\n" + rows[0] + b"  \r\n" + rows[2])
    (tmp_path / "a.csv").write_text(
        'prompt,chosen,rejected\na,"b\nb",c\n\nd,e,f\n', encoding="utf-8", newline=""
    )
    pairs, _ = read_preferences([tmp_path / "a.jsonl", tmp_path / "a.csv"])
    assert [pair.pair_id for pair in pairs] == ["a.jsonl:2", "a.jsonl:4", "a.csv:2", "a.csv:5"]


def test_files_of_one_name_keep_apart(tmp_path):
    for folder in ("x/en", "x/de", "y/en"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.jsonl").write_bytes(jsonl(TEXTS[:1]))
    (tmp_path / "b.jsonl").write_bytes(jsonl(TEXTS[:1]))
    paths = [tmp_path / name for name in ("x/en/a.jsonl", "x/de/a.jsonl", "y/en/a.jsonl", "b.jsonl")]
    pairs, report = read_preferences(paths)
    assert [pair.pair_id for pair in pairs] == [
        "x/en/a.jsonl:1",
        "de/a.jsonl:1",
        "y/en/a.jsonl:1",
        "b.jsonl:1",
    ]
    assert list(report.sources.values()) == [1, 1, 1, 1]


def test_relative_paths_and_hub_ids_keep_apart(tmp_path, monkeypatch):
    (tmp_path / "owner").mkdir()
    for name in ("a.jsonl", "owner/a.jsonl"):
        (tmp_path / name).write_bytes(jsonl(TEXTS))
    monkeypatch.chdir(tmp_path)
    found = labels(["a.jsonl", "owner/a.jsonl", "owner/pairs"])
    assert len(set(found.values())) == 3
    assert found["owner/a.jsonl"] == "owner/a.jsonl"
    assert found["owner/pairs"] == "owner/pairs"


def test_one_file_given_twice_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXTS))
    os.symlink(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    for paths in (
        ["a.jsonl", "a.jsonl"],
        ["a.jsonl", "b.jsonl"],
        ["owner/x", "owner/x"],
        ["c.jsonl", "x/../c.jsonl"],
    ):
        with pytest.raises(InputError, match="given twice"):
            read_preferences([tmp_path / path if "." in path else path for path in paths])
    with pytest.raises(InputError, match="no file given"):
        read_preferences([])


GOOD = jsonl(TEXTS[:1])
BROKEN = {  # file name: (content, what the one line must say after the path)
    "line7.jsonl": (GOOD * 6 + b'{"prompt": "a" "chosen": "b"}\n', r":7: not JSON: .* \(column 16\)"),
    "list.jsonl": (GOOD + b'["a"]\n', ":2: a list where a row"),
    "number.jsonl": (b"7\n", ":1: a number where a row"),
    "nan.jsonl": (
        GOOD + b'{"prompt": NaN, "chosen": "a", "rejected": "b"}',
        ":2: field 'prompt' holds a number",
    ),
    "latin.jsonl": (GOOD * 2 + b'{"prompt": "\xe9"}', r":3: not UTF-8 \(byte 0xe9 at byte 13\)"),
    "utf16.jsonl": (GOOD.decode().encode("utf-16"), ":1: UTF-16 text; save the file as UTF-8"),
    "digits.jsonl": (b'{"prompt": ' + b"9" * 5000 + b"}", ":1: not JSON that can be read"),
    "deep.jsonl": (b"[" * 200_000, ":1: not JSON that can be read"),
    "line3.json": (b'[{"prompt": "a"},\n\n{"prompt": b}]', r":3: not JSON: Expecting value \(column 12\)"),
    "object.json": (
        b'{\n"prompt": "a"\n}',
        r":1: no field 'chosen' \(the row has prompt\); name the columns",
    ),
    "item.json": (b'[{"prompt":"a","chosen":"b","rejected":"c"}, 7]', ":2: a number where a row"),
    "latin.json": (b'["\xe9"]', ": not JSON that can be read: not UTF-8"),
    "utf16.json": ("[]".encode("utf-16"), ":1: UTF-16 text"),
    "cells.csv": (b"prompt,chosen,rejected\na,b,c\na,b,c,d\n", ":3: 4 cells, but the head line has 3 names"),
    "short.csv": (
        b"prompt,chosen,rejected\na,b\n",
        r":2: no field 'rejected' \(the row has prompt, chosen\)",
    ),
    "names.csv": (
        b"question,good,bad\na,b,c\n",
        r":2: no field 'chosen' \(the row has question, good, bad\)",
    ),
    "quote.csv": (b'prompt,chosen,rejected\na,"b,c\n', ":2: not CSV"),
    "latin.csv": (b"prompt,chosen,rejected\na,\xe9,c\n", ":2: not UTF-8"),
    "empty.jsonl": (b"", ": empty, no rows in it"),
    "blank.jsonl": (b"\n \n", ": empty, no rows in it"),
    "empty.json": (b"[]", ": empty, no rows in it"),
    "void.json": (b"", ": empty, no rows in it"),
    "head.csv": (b"prompt,chosen,rejected\n", ": empty, no rows in it"),
    "empty.csv": (b"", ": empty, no rows in it"),
    "text.parquet": (GOOD, ": not a Parquet file"),
    "empty.parquet": (b"", ": not a Parquet file"),
    "plain.jsonl.gz": (GOOD, r": cannot be read \(Not a gzipped file"),
    "short.jsonl.gz": (gzip.compress(GOOD * 1000)[:-20], r": cannot be read \("),
    "torn.jsonl.gz": (gzip.compress(os.urandom(4000))[:20] + b"x" * 4000, r": cannot be read \("),
    "pairs.txt": (GOOD, r": unknown kind of file; give \.jsonl, \.ndjson, \.json, \.csv, \.tsv, \.parquet"),
    "pairs.gz": (GOOD, ": unknown kind of file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, name):
    content, problem = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem) as caught:
        read_preferences(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_plain_folder_a_pipe_and_a_locked_file_are_one_line(tmp_path):
    (tmp_path / "locked.jsonl").write_bytes(GOOD)
    (tmp_path / "locked.jsonl").chmod(0)
    cases = {
        tmp_path / "absent.jsonl": "no such file$",
        tmp_path / ("long" * 1000): r"cannot be read \(File name too long\)$",
        tmp_path: "a folder; give the data files in it",
        tmp_path / "pipe": "a pipe or a device, which cannot be read again; save it as a file$",
    }
    os.mkfifo(tmp_path / "pipe")
    if os.geteuid() != 0:  # root may read everything
        cases[tmp_path / "locked.jsonl"] = r"cannot be read \(Permission denied\)"
    for path, problem in cases.items():
        with pytest.raises(InputError, match=problem) as caught:
            read_preferences(path)
        assert "\n" not in str(caught.value)
    for name in ("data/absent.jsonl", "absent.parquet", "absent", "a/b/c"):
        with pytest.raises(InputError, match=f"^{name}: no such file$"):
            read_preferences(name)


def test_unparsable_rows_are_skipped_where_asked(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(GOOD + b"{\n7\n\xff\n" + GOOD)
    (tmp_path / "a.csv").write_bytes(b"prompt,chosen,rejected\na,b,c,d\na,b,c\n")
    pairs, report = read_preferences([tmp_path / "a.jsonl", tmp_path / "a.csv"], skip_bad_rows=True)
    assert [pair.pair_id for pair in pairs] == ["a.jsonl:1", "a.jsonl:5", "a.csv:3"]
    where = [line.removeprefix(str(tmp_path)).split(": ")[0] for line in report.bad_rows]
    assert where == ["/a.jsonl:2", "/a.jsonl:3", "/a.jsonl:4", "/a.csv:2"]
    assert report.summary().startswith("7 rows read, 3 pairs kept; 4 malformed rows skipped (first: ")


@pytest.mark.parametrize("rows", [TEXTS, CHATS], ids=["texts", "messages"])
def test_rows_in_memory_are_read(tmp_path, rows):
    import datasets
    import pandas as pd

    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    tables = {
        "list": rows,
        "dataset": datasets.Dataset.from_list(rows),
        "frame": pd.DataFrame(rows),
        "frame with numpy arrays": pd.read_parquet(tmp_path / "a.parquet"),
        "generator": (row for row in rows),
    }
    for name, table in tables.items():
        pairs, report = read_preferences(table)
        assert [{"prompt": pair.prompt, **pair.responses} for pair in pairs] == rows, name
        assert pairs[0].pair_id == "data:1"
        assert report.sources == {"data": 3}


def test_cells_missing_from_a_frame_are_missing(tmp_path):
    import pandas as pd

    frame = pd.DataFrame([{**TEXTS[0], "system": None}, {**TEXTS[2], "rejected": float("nan")}])
    with pytest.raises(InputError, match=r"^data:2: no field 'rejected'"):
        read_preferences(frame)
    assert read_preferences(frame, skip_bad_rows=True)[0][0].prompt == "Größe?"


def test_what_is_no_table_is_one_line():
    import datasets

    table = datasets.Dataset.from_list(TEXTS)
    with pytest.raises(InputError, match="data: has the splits train, test; give one of them"):
        read_preferences(datasets.DatasetDict({"train": table, "test": table}))
    with pytest.raises(InputError, match="data: a number where paths or a table of rows belong"):
        read_preferences(7)
    with pytest.raises(InputError, match="data:2: a number where a row"):
        read_preferences([TEXTS[0], 7])
    with pytest.raises(InputError, match="no file given"):
        read_preferences([])


def test_a_name_given_twice_is_refused_wherever_it_hides_a_value(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,chosen,chosen,rejected\na,b,c,d\n")
    with pytest.raises(InputError, match=r"a\.csv:1: column 'chosen' stands twice in the head line"):
        read_preferences(tmp_path / "a.csv")
    twice = '{"prompt": "a", "chosen": "b", "chosen": "c", "rejected": "d"}'
    for name, content in (("a.jsonl", twice), ("a.json", f"[{twice}]")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=rf"{name}.*: key chosen stands twice in one object"):
            read_preferences(tmp_path / name)


def test_a_name_that_is_no_utf8_gives_ids_that_can_be_written(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.jsonl"
    with open(path, "wb") as file:
        file.write(GOOD)
    pairs, report = read_preferences(os.fsdecode(path))
    assert pairs[0].pair_id == r"\udcff.jsonl:1"
    json.dumps([pairs[0].pair_id, report.to_dict()], ensure_ascii=False).encode()
    with open(path, "wb") as file:
        file.write(b"{")
    with pytest.raises(InputError) as caught:
        read_preferences(os.fsdecode(path))
    str(caught.value).encode()


def test_a_name_beyond_what_a_disk_allows_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(File name too long\)$"):
        read_preferences(tmp_path / ("x" * 256 + ".jsonl"))


def test_a_line_of_50_megabytes_is_read_in_seconds(tmp_path):
    import time

    row = {"prompt": "a b " * 12_500_000, "chosen": "c", "rejected": "d"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    start = time.process_time()
    pairs, _ = read_preferences(tmp_path / "a.jsonl")
    assert len(pairs[0].prompt) == 50_000_000
    assert time.process_time() - start < 8


def test_long_cells_are_read(tmp_path):
    write_csv(tmp_path / "a.csv", [{"prompt": "a" * 300_000, "chosen": "b", "rejected": "c"}])
    assert len(read_preferences(tmp_path / "a.csv")[0][0].prompt) == 300_000


def test_reading_needs_no_torch_and_no_table_library_for_text_files(tmp_path):
    import subprocess
    import sys

    (tmp_path / "a.jsonl").write_bytes(GOOD)
    code = (
        "import sys; from rewardshape.data import read_preferences; read_preferences('a.jsonl');"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"


def test_one_object_that_is_a_row_is_no_table_of_its_inner_list(tmp_path):
    row = {
        "context": [{"role": "user", "content": "Is the sky blue?"}],
        "response1": "Yes", "response2": "No", "overall_preference": -2,
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(row), encoding="utf-8")
    [pair], _ = read_preferences(tmp_path / "a.json")
    assert pair.responses["chosen"][0]["content"] == "Yes"


def test_lines_whose_first_is_broken_are_still_lines(tmp_path):
    row = json.dumps({"prompt": "Is it?", "chosen": "Yes", "rejected": "No"})
    (tmp_path / "a.json").write_text(f'{{"prompt": \n{row}\n{row}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.json:1: not JSON"):
        read_preferences(tmp_path / "a.json")
    pairs, report = read_preferences(tmp_path / "a.json", skip_bad_rows=True)
    assert (len(pairs), len(report.bad_rows)) == (2, 1)


def test_a_dict_of_columns_and_a_column_twice_are_told():
    with pytest.raises(InputError, match="a dict of columns; give its rows"):
        read_preferences({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]})
    table = pd.DataFrame([["a", "b", "c", "d"]], columns=["prompt", "chosen", "rejected", "chosen"])
    with pytest.raises(InputError, match="column 'chosen' stands twice"):
        read_preferences(table)


def test_files_that_are_called_alike_once_escaped_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a\tb.jsonl", r"a\tb.jsonl"):
        Path(name).write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"two files are called .*rename one"):
        read_preferences(["a\tb.jsonl", r"a\tb.jsonl"])
