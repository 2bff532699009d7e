"""A file for people to judge: it does not give away which answer is which, and what is read back is what they said."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import rewardshape
from rewardshape.data import embedded
from rewardshape.errors import InputError
from rewardshape.judgements import main, read_judgements, write_judgements
from rewardshape.trace import read_trace
from rewardshape.trace.folder import RunFolder

PROMPTS = 40


@pytest.fixture
def trace(write_run, tmp_path):
    samples = {
        step: {
            "prompt_id": [f"p{i}" for i in range(PROMPTS)] * 2,
            "temperature": [1.0] * PROMPTS + [0.0] * PROMPTS,
            "text": [f"{word} {i}, {how}" for how in ("sampled", "greedy") for i in range(PROMPTS)],
            "num_tokens": [tokens] * PROMPTS * 2,
            "logp_sum": [-3.0] * PROMPTS * 2,
            "ref_logp_sum": [-3.0] * PROMPTS * 2,
        }
        for step, word, tokens in ((0, "old", 4), (9, "new", 5))
    }
    sums = {name: np.full((2, 3), -4.0) for name in ("chosen", "rejected")}
    folder = write_run(
        tmp_path / "run",
        sums,
        num_tokens={name: np.full(3, 4) for name in sums},
        steps=[0, 9],
        samples=samples,
    )
    lines = "".join(f'{{"prompt_id": "p{i}", "prompt": "say {i}, \\"please\\""}}\n' for i in range(PROMPTS))
    RunFolder(folder).prompts.write_text(lines, encoding="utf-8")
    return read_trace(folder)


def rows_of(file):
    with file.open(encoding="utf-8", newline="") as given:
        return list(csv.DictReader(given))


def filled(file, judge):
    rows = rows_of(file)
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(row | {"better": judge(row)} for row in rows)
    return file


def test_every_prompt_is_asked_once_a_temperature_with_its_text_and_the_order_varies(trace, tmp_path):
    assert write_judgements(trace, tmp_path / "judge.csv") == 2 * PROMPTS
    rows = rows_of(tmp_path / "judge.csv")
    assert rows[3]["prompt"] == 'say 3, "please"'
    assert all({row["answer_1"][:3], row["answer_2"][:3]} == {"old", "new"} for row in rows)
    first = sum(row["answer_1"].startswith("new") for row in rows)
    assert PROMPTS / 2 < first < 3 * PROMPTS / 2  # neither side is always the new one


def test_no_answer_is_a_formula_to_a_spreadsheet(trace, tmp_path):
    trace.samples.loc[trace.samples["prompt_id"] == "p1", "text"] = "=cmd()"
    write_judgements(trace, tmp_path / "judge.csv")
    assert {row["answer_1"] for row in rows_of(tmp_path / "judge.csv") if row["prompt_id"] == "p1"} == {
        " =cmd()"
    }


def test_who_prefers_the_old_answers_is_understood_whatever_the_order(trace, tmp_path):
    write_judgements(trace, tmp_path / "judge.csv")
    file = filled(
        tmp_path / "judge.csv",
        lambda row: (
            ("1" if row["answer_1"].startswith("old") else "2") if row["temperature"] == "1.0" else "0"
        ),
    )
    sampled, greedy = read_judgements(trace, file)["run"]
    assert (sampled.temperature, sampled.win_rate, sampled.word) == (1.0, 0.0, "lost to worse answers")
    assert (greedy.temperature, greedy.win_rate, greedy.word) == (0.0, 0.5, "lost to equally good ones")
    assert (sampled.step, sampled.first_step, sampled.num_prompts) == (9, 0, PROMPTS)


def test_rows_left_empty_do_not_count(trace, tmp_path):
    write_judgements(trace, tmp_path / "judge.csv")
    file = filled(tmp_path / "judge.csv", lambda row: "0" if row["prompt_id"] in ("p1", "p2") else "")
    assert [one.num_prompts for one in read_judgements(trace, file)["run"]] == [2, 2]


def test_the_command_writes_then_reads_and_says_what_is_wrong(trace, tmp_path, capsys):
    file = tmp_path / "judge.csv"
    assert main([str(trace.folder), str(file)]) == 0
    assert capsys.readouterr().out.strip() == f"{file}: {2 * PROMPTS} comparisons to judge"
    assert main([str(trace.folder), str(file)]) == 2
    assert "nothing is judged yet" in capsys.readouterr().err
    filled(file, lambda row: "better" if row["prompt_id"] == "p4" else "0")
    assert main([str(trace.folder), str(file)]) == 2
    assert f"{file}:6: better is 'better'" in capsys.readouterr().err
    filled(file, lambda row: "0")
    assert main([str(trace.folder), str(file)]) == 0
    assert "lost to equally good ones" in capsys.readouterr().out


def test_a_file_that_is_there_is_not_written_over_nor_taken_for_another_runs(trace, tmp_path):
    write_judgements(trace, tmp_path / "judge.csv")
    with pytest.raises(InputError, match="exists already"):
        write_judgements(trace, tmp_path / "judge.csv")
    text = filled(tmp_path / "judge.csv", lambda row: "0").read_text(encoding="utf-8")
    (tmp_path / "other.csv").write_text(text.replace("run,1.0,p0", "other,1.0,p0", 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"other\.csv:2: no such comparison"):
        read_judgements(trace, tmp_path / "other.csv")


def test_a_file_in_a_folder_that_is_missing_is_one_line(trace, tmp_path, capsys):
    assert main([str(trace.folder), str(tmp_path / "missing" / "judge.csv")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "judge.csv" in line


def test_a_file_that_a_spreadsheet_saved_with_its_byte_order_mark_is_read(trace, tmp_path, capsys):
    sheet = tmp_path / "sheet.csv"
    assert main([str(trace.folder), str(sheet)]) == 0
    sheet.write_bytes(b"\xef\xbb\xbf" + sheet.read_bytes())
    capsys.readouterr()
    main([str(trace.folder), str(sheet)])
    assert "no column" not in capsys.readouterr().err


def test_a_file_that_a_spreadsheet_saved_in_the_way_of_another_country_is_read(trace, tmp_path):
    plain, theirs = tmp_path / "plain.csv", tmp_path / "theirs.csv"
    write_judgements(trace, plain)
    with plain.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["better"] = "120"[number % 3]
    for file, delimiter, shown in ((plain, ",", str), (theirs, ";", lambda word: f"{word},0")):
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, rows[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(
                {
                    **row,
                    "better": shown(row["better"]),
                    "temperature": row["temperature"].replace(".", shown("").strip("0") or "."),
                }
                for row in rows
            )
    assert read_judgements(trace, theirs) == read_judgements(trace, plain)


def test_a_real_run_shows_the_prompt_that_was_answered(tmp_path):
    """Prompts of the run's own probe set, and prompts drawn beside it."""
    options = {"steps": 1, "batch_size": 2, "probe_pairs": 4, "sample_every": 1, "best_of": 1, "quiet": True}
    for number in (3, 12):
        trace = rewardshape.run_probe(samples=number, output=tmp_path / str(number), **options)
        write_judgements(trace, tmp_path / f"{number}.csv")
        asked = {row["prompt"] for row in rows_of(tmp_path / f"{number}.csv")}
        assert asked == set(embedded.prompts()[:number])
