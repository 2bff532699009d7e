"""The pairs on the page: every one, with what its tokens and its course were in the trace."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rewardshape.report.pairs import pair_data, pair_text, read_texts, shade, worst_pairs
from rewardshape.trace import read_trace
from rewardshape.verdict.findings import Tables


def test_shades_are_ordered_and_signed():
    assert [shade(change, 1.0) for change in (0.0, -0.3, -0.6, -5.0, 0.3, 1.0)] == [
        "",
        "f1",
        "f2",
        "f4",
        "r1",
        "r4",
    ]


def test_course_of_every_pair_is_its_change_since_step_0(sweep):
    trace = read_trace(sweep)
    data = pair_data(Tables(trace))
    assert [len(run["pairs"]) for run in data["runs"]] == [36, 36, 36]
    for run, shown in zip(trace.runs, data["runs"], strict=True):
        rows = trace.run(run.name).responses.query("split == 'probe' and response == 'rejected'")
        wide = rows.pivot(index="step", columns="pair_id", values="logp_sum") / 8
        for pair, course in zip(shown["pairs"], shown["rejected"], strict=True):
            of_pair = wide[data["ids"][pair]]
            expected = (of_pair - of_pair[0]).loc[shown["steps"]]
            np.testing.assert_allclose(np.array(course) / 1000, expected, atol=5.1e-4)
        assert {0, 30} <= set(shown["steps"])


def test_tokens_then_and_now_are_those_of_the_trace(write, tmp_path):
    trace = read_trace(write(tmp_path / "run"))
    data = pair_data(Tables(trace))
    tokens = trace.tokens
    for pair in (0, 7):
        rows = tokens[(tokens["pair_id"] == data["ids"][pair]) & (tokens["response"] == "chosen")]
        for step, shown in ((0, data["start"]), (30, data["tokens"][0])):
            logps = rows[rows["step"] == step].sort_values("position")["logp"]
            np.testing.assert_allclose(np.array(shown[pair][0]) / 1000, logps, atol=5.1e-4)
    assert data["texts"][0]["chosen"] == ["Yes", ",", " I", " do", "", "."]


def test_worst_pairs_are_those_that_fell_most(write, tmp_path):
    tables = Tables(read_trace(write(tmp_path / "run")))
    shown, scale = worst_pairs(tables)
    assert [pair["pair_id"] for pair in shown] == tables.pairs["pair_id"].head(5).tolist()
    tokens = tables.trace.tokens.pivot_table(
        index=["pair_id", "response", "position"], columns="step", values="logp"
    )
    change = (
        (tokens[30] - tokens[0]).unstack(["response", "position"]).loc[[pair["pair_id"] for pair in shown]]
    )
    assert scale == pytest.approx(np.nanquantile(np.abs(change.to_numpy()), 0.95))


def test_no_pair_fell_no_pair_is_shown_as_fallen(write, tmp_path):
    assert worst_pairs(Tables(read_trace(write(tmp_path / "run", fall=-0.2)))) == ([], 0.0)


def test_texts_of_pairs_are_read_cut_and_absent_where_none_were_kept(tmp_path):
    file = tmp_path / "pushing.jsonl"
    assert read_texts(file) == {}
    kept = {"pair_id": "a:1", "prompt": "p" * 5000, "responses": {"chosen": "<b>yes</b>", "rejected": "no"}}
    file.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    text = pair_text(read_texts(file)["a:1"])
    assert (text["chosen"], text["rejected"]) == ("<b>yes</b>", "no")
    assert len(text["prompt"]) < 1300
    assert pair_text(None) is None


def test_what_is_not_known_of_a_run_that_broke_is_no_zero(write_run, tmp_path):
    sums = {
        name: np.linspace(-20, -10, 40) + np.array([0, -1, np.nan])[:, None]
        for name in ("chosen", "rejected")
    }
    tokens = {step: [[level, level]] * 80 for step, level in ((0, -1.0), (2, None))}
    texts = [
        {
            "pair_id": f"pairs.jsonl:{i + 1}",
            "prompt": "",
            "responses": {},
            "tokens": {name: ["a", "b"] for name in sums},
        }
        for i in range(40)
    ]
    folder = write_run(
        tmp_path / "run", sums, num_tokens={name: np.full(40, 2) for name in sums}, tokens=tokens, texts=texts
    )
    data = pair_data(Tables(read_trace(folder)))
    assert [course[-1] for course in data["runs"][0]["chosen"]] == [None] * 40
    assert data["tokens"][0][0] == [[None, None]] * 2
    assert data["start"][0] == [[-1000, -1000]] * 2


def test_runs_of_other_checkpoints_keep_their_own_tokens_of_before(write, tmp_path):
    """The two of one checkpoint begin alike; the third, of another seed, does not."""
    for name, alpha, seed in (("a", 0.0, 0), ("b", 1.0, 0), ("c", 1.0, 1)):
        write(tmp_path / "sweep" / name, alpha=alpha, seed=seed)
    trace = read_trace(tmp_path / "sweep")
    data = pair_data(Tables(trace))
    for place, run in enumerate(trace.runs):
        tokens = trace.tokens[(trace.tokens["run"] == run.name) & (trace.tokens["step"] == 0)]
        rows = tokens[(tokens["pair_id"] == data["ids"][3]) & (tokens["response"] == "chosen")]
        shown = data["own_start"][place].get(3, data["start"][3])
        np.testing.assert_allclose(np.array(shown[0]) / 1000, rows["logp"], atol=5.1e-4)
    assert sorted(map(len, data["own_start"])) in ([0, 0, 36], [0, 36, 36])


def test_pairs_of_one_name_that_ask_other_things_are_other_pairs(write, tmp_path):
    write(tmp_path / "sweep" / "a", alpha=0.0)
    write(tmp_path / "sweep" / "b", alpha=1.0, fall=0.5, prompt="Do not say it.")
    trace = read_trace(tmp_path / "sweep")
    tables = Tables(trace)
    data = pair_data(tables)
    assert len(data["ids"]) == 72
    for number, (run, asked) in enumerate(zip(trace.runs, ("Say it.", "Do not say it."), strict=True)):
        shown = data["runs"][number]
        assert [data["texts"][place]["prompt"] for place in shown["pairs"]] == [
            f"{i + 1}. {asked}" for i in range(36)
        ]
        known = tables.pairs[tables.pairs["run"] == run.name].set_index("pair_id")
        for place in (shown["pairs"][0], shown["pairs"][20]):
            row = known.loc[data["ids"][place]]
            assert data["facts"]["initial_logp_mean"][place] == round(row["initial_logp_mean"], 3)
            course = shown["chosen"][shown["pairs"].index(place)]
            assert course[-1] == round(1000 * row["chosen_change"])
            assert place in data["tokens"][number]
            assert place not in data["tokens"][1 - number]
