"""The report: one page, true to the trace, harmless whatever the data holds, and legible without its script."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from rewardshape.analysis import displacement_summary
from rewardshape.errors import InputError
from rewardshape.numbers import signed
from rewardshape.plotting.style import CHOSEN, FELL, GOLD, PROXY, REJECTED, ROSE, text_color
from rewardshape.report.page import render, unfinished, write_report
from rewardshape.trace import RunFolder, read_trace
from rewardshape.verdict import judge, judge_all


def data_of(text: str) -> dict:
    """What the page gives its script."""
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    )


def test_report_states_the_numbers_of_the_summary(write, tmp_path, page_of):
    folder = write(tmp_path / "run")
    page = page_of(write_report(folder).read_text(encoding="utf-8"))
    row = displacement_summary(read_trace(folder)).iloc[0]
    assert judge(folder).sentence in page.text
    for name in ("chosen_change", "rejected_change"):
        assert signed(row[name]) in page.text
        assert f"{signed(row[f'{name}_low'])} to {signed(row[f'{name}_high'])}" in page.text
    assert f"{row['accuracy']:.0%}" in page.text
    assert "python -m rewardshape.probe --alpha 0.25" in page.text
    assert [tag for tag, _ in page.elements].count("svg") == 4


def test_sweep_report_has_every_run_and_its_own_command(sweep, page_of):
    (sweep / "command.json").write_text(
        json.dumps({"command": "python -m rewardshape.probe --alpha -0.5 0 0.25"})
    )
    page = page_of(write_report(sweep).read_text(encoding="utf-8"))
    assert "All 3 runs: displaced." in page.text
    for name in ("α = −0.5", "α = 0", "α = 0.25"):
        assert name in page.text
    assert "python -m rewardshape.probe --alpha -0.5 0 0.25" in page.text
    assert [tag for tag, _ in page.elements].count("svg") == 6


def test_worst_pairs_come_first_with_their_texts_and_shaded_tokens(write, tmp_path, page_of):
    folder = write(tmp_path / "run")
    page = page_of(render(read_trace(folder)))
    moved = [attributes for tag, attributes in page.elements if tag == "b" and "title" in attributes]
    assert moved
    assert all(attributes["title"].startswith("−") for attributes in moved)  # every token of this run fell
    assert all(attributes["class"].startswith("f") for attributes in moved)
    order = re.findall(r"\d+\. (pairs\.jsonl:\d+)", page.text)
    sums = read_trace(folder).responses.query("split == 'probe' and response == 'chosen'")
    wide = sums.pivot(index="pair_id", columns="step", values="logp_sum")
    assert order == (wide[wide.columns.max()] - wide[0]).sort_values().index[: len(order)].tolist()


def test_a_hole_in_the_record_is_said_above_everything_and_the_rest_is_shown(write, tmp_path, page_of):
    folder = write(tmp_path / "run")
    file = folder / "trace.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], b"<b>torn\n", *lines[4:]]))
    page = page_of(write_report(folder).read_text(encoding="utf-8"))
    assert f"The record is damaged: {file}:4: not a record" in page.text
    assert page.text.index("The record is damaged") < page.text.index("Verdict")
    last = displacement_summary(read_trace(folder, repair=True)).iloc[0]
    assert last["step"] == len(lines) - 2
    assert signed(last["chosen_change"]) in page.text


def test_page_is_self_contained_and_runs_its_own_script_alone(sweep_page, page_of):
    text = sweep_page.read_text(encoding="utf-8")
    page = page_of(text)
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy
    assert "connect-src" not in policy  # nothing may be fetched
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "img")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "src", "xlink:href"):
                assert value.startswith("#")
    assert [a.get("type") for tag, a in page.elements if tag == "script"] == ["application/json", None]
    assert not re.search(
        r"innerHTML|insertAdjacent|document\.write|eval\(|fetch\(|https?://(?!www\.w3\.org/2000/svg)", script
    )
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "@import" not in style
    assert "url(" not in style
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_hostile_text_stays_text(write, tmp_path, page_of, bad_text):
    folder = write(tmp_path / "run<b onclick=x>&", hostile=True)
    text = write_report(folder).read_text(encoding="utf-8")
    page = page_of(text)
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "img" not in [tag for tag, _ in page.elements]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count(bad_text) >= 12  # facts, five pairs' ids, prompts and tokens, the command
    assert "run<b onclick=x>&" in page.text
    data = data_of(text)
    assert data["pairs"]["texts"][0]["prompt"] == f"1. Say it.{bad_text}"
    assert bad_text in data["pairs"]["texts"][0]["chosen"]


def test_every_run_has_one_section_with_its_verdict(sweep_page, sweep, write, tmp_path, page_of):
    for file in (sweep_page, write_report(write(tmp_path / "one"))):
        page, folder = page_of(file.read_text(encoding="utf-8")), file.parent
        shown = {a["data-run"]: a["data-verdict"] for tag, a in page.elements if tag == "section"}
        assert shown == {name: str(verdict.word) for name, verdict in judge_all(read_trace(folder)).items()}


def test_captions_name_only_what_is_drawn(sweep, write, tmp_path):
    """A caption's line styles, marks and bands are in its picture."""
    for folder in (sweep, write(tmp_path / "one")):
        text = write_report(folder).read_text(encoding="utf-8")
        figures = re.findall(r"<figure data-chart.*?>(.*?)<figcaption>(.*?)</figcaption>", text, re.DOTALL)
        assert len(figures) >= 4
        for svg, caption in figures:
            dashed = "stroke-dasharray" in svg
            bands = re.search(r"opacity: 0[.][012]", svg) is not None
            assert ("Dashed" in caption or "otted" in caption) <= dashed, caption
            assert ("Band" in caption) <= bands, caption
            assert ("Thin lines" in caption) <= ("stroke-opacity: 0.5" in svg), caption
            assert ("Diamonds" in caption) <= (
                "M 0 -" in svg or "M -0 2.12" in svg or "LineCollection" in svg
            ), caption


def test_nothing_is_said_of_falling_where_nothing_fell(write, tmp_path, page_of):
    folder = write(tmp_path / "rose", fall=-0.2)
    text = write_report(folder).read_text(encoding="utf-8")
    page = page_of(text.split("<script", 1)[0])
    assert "pairs that fell most" not in page.text
    assert "The chosen response of no pair fell." in page.text
    assert not re.search(r"fell deep|the fall had begun|falling|margin cost|mass went", page.text)
    rows = re.findall(r"<h[23][^>]*>(.*?)</h[23]>\s*(<h[23]|</div>)", text)
    assert rows == []  # no heading without anything below it


def test_of_a_run_that_broke_it_is_not_said_that_no_pair_fell(write_run, tmp_path, page_of):
    fell = np.linspace(0, -5, 6)[:, None] * np.ones(8) - 20
    fell[-1] = np.nan
    folder = write_run(
        tmp_path / "run",
        {"chosen": fell, "rejected": fell - 1},
        num_tokens={"chosen": [5] * 8, "rejected": [5] * 8},
    )
    text = page_of(write_report(folder).read_text(encoding="utf-8")).text
    assert "The chosen response of no pair fell" not in text
    assert "are not numbers: which pairs had fallen by then is not known" in text


def test_light_and_dark_are_variables_and_no_filter(sweep_page):
    text = sweep_page.read_text(encoding="utf-8")
    assert "filter:" not in text
    svgs = re.findall(r"<svg role.*?</svg>", text, re.DOTALL)
    assert svgs
    for svg in svgs:
        assert "var(--ink)" in svg
        assert not re.search(r"#(?:0072b2|d55e00|000000|ffffff)\b", svg)
    assert sum("var(--setting-0)" in svg for svg in svgs) >= 3


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast_enough(sweep_page, dark):
    """WCAG 2.1, 1.4.3: at least 4.5 to 1, by the formula of relative luminance there."""
    text = sweep_page.read_text(encoding="utf-8")
    blocks = re.findall(r"--paper: .*?\}", text, re.DOTALL)
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[int(dark)]))

    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for behind in ("paper", "wash"):
        for name in ("ink", "quiet", "chosen", "rejected"):
            low, high = sorted(luminance(colors[key]) for key in (name, behind))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, behind)


def test_the_page_has_the_colours_of_every_figure():
    """Darkened or lightened as far as a text needs it on the page's paper and on the wash of its tables."""
    style = (files("rewardshape") / "templates" / "report.css").read_text(encoding="utf-8")
    for block in re.findall(r"--paper: .*?\}", style, re.DOTALL):
        stated = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for name, color in (("chosen", CHOSEN), ("rejected", REJECTED), ("gold", GOLD), ("proxy", PROXY)):
            assert stated[name] == text_color(color, stated["wash"])
    for name, color in (("fell", FELL), ("rose", ROSE)):  # backgrounds: as they are, behind the ink
        parts = " ".join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))
        assert re.findall(rf"--{name}: ([\d ]+)", style) == [parts]


def test_names_from_data_are_no_formulas_and_break_no_picture(write, tmp_path, page_of):
    for name, objective in (("x$\\frac$", "dpo"), ("_y</svg>", "simpo")):
        run = write(tmp_path / "sweep" / name.replace("/", "_"), name=objective)
        if objective == "dpo":
            manifest = json.loads((run / "run.json").read_text())
            manifest["objective"] = {"name": "simpo", "parameters": {"beta": 2.0, "gamma": 1.0}}
            (run / "run.json").write_text(json.dumps(manifest))
    page = page_of(write_report(tmp_path / "sweep").read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.elements].count("svg") >= 5
    assert "x$\\frac$" in page.text


def test_control_characters_and_half_surrogates_do_not_break_the_file(write, tmp_path):
    folder = write(tmp_path / "run", prompt="a\x00b\x1b[31m\ud800c\u202ed")
    text = write_report(folder).read_bytes().decode("utf-8")
    assert "a\ufffdb\ufffd[31m\ufffdc" in text


def test_a_long_run_with_long_texts_stays_under_a_megabyte_and_a_half(write_run, tmp_path, rng):
    steps, length = 1500, 2000
    tokens = {name: np.full(4, length) for name in ("chosen", "rejected")}
    walk = {name: -length * (1 + rng.normal(0, 0.01, (steps, 4)).cumsum(axis=0) ** 2) for name in tokens}
    words = {name: [" <word>"] * length for name in tokens}
    texts = [
        {
            "pair_id": f"pairs.jsonl:{i + 1}",
            "prompt": "long & <long> " * 5000,
            "responses": {},
            "tokens": words,
        }
        for i in range(4)
    ]
    moved = {step: [rng.normal(-1, 1, length).tolist() for _ in range(8)] for step in (0, steps - 1)}
    folder = write_run(tmp_path / "run", walk, num_tokens=tokens, texts=texts, tokens=moved)
    assert write_report(folder).stat().st_size < 1_500_000


def test_an_unfinished_run_says_so(write, tmp_path, page_of):
    folder = write(tmp_path / "run")
    manifest = json.loads((folder / "run.json").read_text())
    for told, said in (
        ({"status": "interrupted"}, "interrupted"),
        ({"status": "diverged", "reason": "step 31: the loss"}, "diverged: step 31: the loss"),
    ):
        (folder / "run.json").write_text(json.dumps(manifest | told))
        line = f"The run is not finished ({said}): what follows is as of step 30"
        assert line in page_of(render(read_trace(folder))).text
    (folder / "run.json").write_text(json.dumps(manifest | {"status": "running"}))
    (folder / ".lock").touch()  # which nobody holds
    said = "killed: no process of this machine is at work in its folder"
    assert f"The run is not finished ({said})" in page_of(render(read_trace(folder))).text
    assert not unfinished(read_trace(folder))  # nothing to wait for


def test_a_report_without_texts_or_tokens_still_ranks_the_pairs(write, tmp_path, page_of):
    folder = write(tmp_path / "run")
    (folder / "probe_set.jsonl").unlink()
    assert re.search(r"1\. pairs\.jsonl:\d+", page_of(render(read_trace(folder))).text)


def test_a_folder_without_trace_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no trace\.jsonl"):
        write_report(tmp_path)


def test_one_prompt_has_no_interval_and_no_caption_speaks_of_a_band(write, tmp_path, page_of):
    """Intervals are over prompts; where there is one, none can be given."""
    for alpha in (0.0, 0.5):
        write(tmp_path / "sweep" / f"{alpha}", alpha=alpha, one_prompt=True)
    for folder in (tmp_path / "sweep", tmp_path / "sweep" / "0.0"):
        text = write_report(folder).read_text(encoding="utf-8")
        shown = page_of(text.split("<script", 1)[0]).text
        assert "nan" not in shown
        assert "no interval" in shown
        captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
        assert [c for c in captions if "Band" in c and "Accuracy" not in c] == []


def test_page_written_twice_is_the_same_bytes_whatever_the_hash_seed(sweep):
    """Here and in a fresh process with another seed, since that of Python's string hashes is drawn when it starts."""
    here = write_report(sweep).read_bytes()
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    code = f"from rewardshape.report import write_report; write_report({str(sweep)!r}); print(hash('seed of this'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) != hash("seed of this")
    assert (sweep / "report.html").read_bytes() == here


def test_sweep_sets_settings_side_by_side_at_equal_margin(sweep, sweep_page, page_of):
    """The sweep falls further with α at the same pace of the margin's growth: −0.5 must come out on top."""
    page = page_of(sweep_page.read_text(encoding="utf-8"))
    assert "At equal margin α = −0.5 keeps the chosen responses above α = 0.25: by +" in page.text


def test_sweeps_over_seeds_judge_over_seeds(write, tmp_path, page_of):
    for alpha, fall in ((0.0, 0.2), (1.0, 0.3)):
        for seed in range(3):
            write(tmp_path / f"alpha={alpha:g}-seed={seed}", fall=fall, alpha=alpha, seed=seed)
    page = page_of(write_report(tmp_path).read_text(encoding="utf-8"))
    text = page.text.split("{", 1)[0] + page.text
    assert "over 3 seeds" in text
    assert "Thin lines: single seeds." in text


def test_whether_answers_got_worse_stands_beside_the_verdict(write_run, tmp_path):
    """The line of the page is that of the verdict, with its false alarms; without gold there is none."""
    from rewardshape import judge, read_trace
    from rewardshape.report import write_report

    rng = np.random.default_rng(0)
    sums = {name: np.linspace(-10, -12, 3)[:, None] - np.arange(12) for name in ("chosen", "rejected")}
    tokens = {name: np.full(12, 10) for name in sums}
    for graded in (True, False):
        samples = {
            step: {
                "prompt_id": [f"p{i}" for i in range(40)],
                "text": ["a"] * 40,
                "num_tokens": [4] * 40,
                "logp_sum": [-3.0] * 40,
                "ref_logp_sum": [-3.0] * 40,
                "gold": (rng.normal(size=40) - step).tolist() if graded else [None] * 40,
            }
            for step in (0, 2)
        }
        folder = write_run(tmp_path / f"run-{graded}", sums, num_tokens=tokens, samples=samples)
        page = write_report(folder).read_text(encoding="utf-8")
        lines = judge(read_trace(folder)).answers
        assert len(lines) == graded
        assert page.count('class="answers"') == graded
        if graded:
            assert "lost to worse answers" in lines[0]
            assert lines[0][1:] in page
            assert "4 to 7 in 100" in page


@pytest.mark.parametrize(("prompts", "steps"), [(8, (0,)), (1, (0, 2))], ids=["one step", "one prompt"])
def test_a_page_of_few_samples_speaks_of_no_chosen_step(write_run, tmp_path, prompts, steps):
    rng = np.random.default_rng(0)
    samples = {
        step: {
            "prompt_id": [f"p{i % prompts}" for i in range(8)],
            "text": ["a"] * 8,
            "num_tokens": [4] * 8,
            "logp_sum": [-3.0] * 8,
            "ref_logp_sum": rng.normal(-3, 0.1, 8).tolist(),
            "gold": rng.normal(size=8).tolist(),
        }
        for step in steps
    }
    sums = {name: np.linspace(-10, -12, 3)[:, None] - np.arange(12) for name in ("chosen", "rejected")}
    tokens = {name: np.full(12, 10) for name in sums}
    page = write_report(write_run(tmp_path / "run", sums, num_tokens=tokens, samples=samples))
    text = page.read_text(encoding="utf-8")
    assert "Gold reward of the samples" in text
    assert ("Ring: the last step." in text) == (len(steps) > 1)
    assert "Diamond" not in text
    assert "Band: ± 2 standard errors" not in text


def test_a_run_that_broke_has_dashes_for_what_is_not_known(write_run, tmp_path, page_of):
    sums = {
        name: np.linspace(-20, -10, 40) + np.array([0, -1, np.nan])[:, None]
        for name in ("chosen", "rejected")
    }
    tokens = {name: np.full(40, 10) for name in sums}
    page = write_report(write_run(tmp_path / "run", sums, num_tokens=tokens)).read_text(encoding="utf-8")
    shown = page_of(page.split("<script", 1)[0]).text
    assert "nan" not in shown
    assert re.findall(r'class="[a-z]*"><dt>([a-z, ]+)</dt><dd>–', page) == [
        "chosen, change", "rejected, change", "chosen responses fallen", "accuracy", "margin"
    ]  # fmt: skip


def test_a_run_without_any_number_has_a_page_alone_and_in_a_sweep(write_run, tmp_path, page_of):
    tokens = {name: np.full(40, 10) for name in ("chosen", "rejected")}
    for place, ends in (("0", [np.nan, np.nan]), ("1", [0, -1])):
        sums = {name: np.linspace(-20, -10, 40) + np.array(ends)[:, None] for name in tokens}
        write_run(tmp_path / "sweep" / place, sums, num_tokens=tokens, run={"seed": 0, "steps": int(place)})
    for folder in (tmp_path / "sweep" / "0", tmp_path / "sweep"):
        page = write_report(folder).read_text(encoding="utf-8")
        assert "nan" not in page_of(page.split("<script", 1)[0]).text


def test_flags_in_advice_are_code_and_everything_else_is_text():
    from rewardshape.report.page import _flags

    assert _flags("repeat it: --seeds 5, <b>") == "repeat it: <code>--seeds</code> 5, &lt;b&gt;"


def test_a_what_if_stands_with_its_table_and_the_paired_difference_comes_first(sweep, page_of):
    kept = Path(__file__).parents[2] / "figures" / "runs" / "embedded" / "what-if" / "what-if.csv"
    RunFolder(sweep).what_if.write_bytes(kept.read_bytes())
    text = write_report(sweep).read_text(encoding="utf-8")
    course, changes = text.split('id="course"')[1].split('id="tried"')
    first = re.findall(r"<figcaption>(.*?)</figcaption>", course)[0]
    assert first.startswith("How far the chosen responses of each setting stand above")
    [caption] = re.findall(r"<figcaption>(.*?)</figcaption>", changes)
    assert caption.startswith("What each change did")
    places = [int(a["data-chart"]) for tag, a in page_of(text).elements if "data-chart" in a]
    assert places == list(range(len(data_of(text)["charts"])))
