"""The report: one page, true to the trace, harmless whatever the data holds, and legible where it is read."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from rewardshape.analysis import displacement_summary
from rewardshape.errors import InputError
from rewardshape.numbers import signed
from rewardshape.report.page import _shade, render, write_report
from rewardshape.trace import read_trace
from rewardshape.verdict import judge
from rewardshape.verdict.findings import findings

PAIRS, STEPS = 24, 31
HOSTILE = (
    """<script>document.title='owned'</script>"><img src=x onerror="document.title='owned'">"""
    "</style>&amp;{{ 7*7 }}"
)
TOKENS = {"chosen": np.full(PAIRS, 6), "rejected": np.full(PAIRS, 8)}


def write(
    write_run, folder, *, fall=0.3, alpha=0.25, seed=0, hostile=False, prompt="Say it.", name="alphapo"
):
    """A run whose chosen responses fall by about `fall` nats per token, and the rejected twice as far."""
    rng = np.random.default_rng(seed)
    pace = rng.uniform(0.6, 1.4, PAIRS)
    course = np.linspace(0, 1, STEPS)[:, None]
    sums = {
        "chosen": -rng.uniform(5, 7, PAIRS) - 6 * fall * course * pace,
        "rejected": -rng.uniform(7, 9, PAIRS) - 8 * (2 * fall + 0.1) * course * pace,
    }
    bad = HOSTILE if hostile else ""
    words = {"chosen": ["Yes", ",", " I", " do", f"{bad}", "."], "rejected": [*"No, not "]}
    texts = [
        {
            "pair_id": f"pairs{bad}.jsonl:{i + 1}",
            "prompt": prompt + bad,
            "responses": {response: "".join(tokens) for response, tokens in words.items()},
            "tokens": words,
        }
        for i in range(PAIRS)
    ]
    tokens = {
        step: [
            [sums[name][step, i] / len(words[name])] * len(words[name])
            for i in range(PAIRS)
            for name in words
        ]
        for step in (0, STEPS - 1)
    }
    parameters = {"alpha": alpha, "beta": 2.5, "gamma": 0.5} if name == "alphapo" else {"beta": 0.1}
    return write_run(
        folder,
        sums,
        num_tokens=TOKENS,
        pair_ids=[text["pair_id"] for text in texts],
        objective={"name": name, "parameters": parameters},
        texts=texts,
        tokens=tokens,
        run={"seed": seed, "learning_rate": 1e-4, "data": [f"data/{bad}.jsonl"]},
        model={"checkpoint": f"models/tiny{bad}"},
        command=f"python -m rewardshape.probe --alpha {alpha} {bad}",
    )


@pytest.fixture
def sweep(write_run, tmp_path):
    for alpha, fall in ((-0.5, 0.1), (0.0, 0.2), (0.25, 0.3)):
        write(write_run, tmp_path / "sweep" / f"alpha={alpha:g}", fall=fall, alpha=alpha)
    return tmp_path / "sweep"


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text outside them."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_report_states_the_numbers_of_the_summary(write_run, tmp_path):
    folder = write(write_run, tmp_path / "run")
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    row = displacement_summary(read_trace(folder)).iloc[0]
    assert judge(folder).sentence in page.text
    for name in ("chosen_change", "rejected_change"):
        assert signed(row[name]) in page.text
        assert f"{signed(row[f'{name}_low'])} to {signed(row[f'{name}_high'])}" in page.text
    assert f"{row['accuracy']:.0%}" in page.text
    assert "python -m rewardshape.probe --alpha 0.25" in page.text
    assert [tag for tag, _ in page.elements].count("svg") == 3


def test_sweep_report_has_every_run_and_its_own_command(sweep):
    (sweep / "command.json").write_text(
        json.dumps({"command": "python -m rewardshape.probe --alpha -0.5 0 0.25"})
    )
    page = Page(write_report(sweep).read_text(encoding="utf-8"))
    assert "All 3 runs: displaced." in page.text
    for name in ("α = −0.5", "α = 0", "α = 0.25"):
        assert name in page.text
    assert "python -m rewardshape.probe --alpha -0.5 0 0.25" in page.text
    assert [tag for tag, _ in page.elements].count("svg") == 6


def test_worst_pairs_come_first_with_their_texts_and_shaded_tokens(write_run, tmp_path):
    folder = write(write_run, tmp_path / "run")
    page = Page(render(read_trace(folder)))
    moved = [attributes for tag, attributes in page.elements if tag == "b" and "title" in attributes]
    assert moved
    assert all(attributes["title"].startswith("−") for attributes in moved)  # every token of this run fell
    assert all(attributes["class"].startswith("f") for attributes in moved)
    order = re.findall(r"\d+\. (pairs\.jsonl:\d+)", page.text)
    sums = read_trace(folder).responses.query("split == 'probe' and response == 'chosen'")
    wide = sums.pivot(index="pair_id", columns="step", values="logp_sum")
    assert order == (wide[STEPS - 1] - wide[0]).sort_values().index[: len(order)].tolist()


def test_shades_are_ordered_and_signed():
    assert [_shade(change, 1.0) for change in (0.0, -0.3, -0.6, -5.0, 0.3, 1.0)] == [
        "",
        "f1",
        "f2",
        "f4",
        "r1",
        "r4",
    ]


def test_page_is_self_contained_and_runs_nothing(sweep):
    text = write_report(sweep).read_text(encoding="utf-8")
    page = Page(text)
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form", "img")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "src", "xlink:href"):
                assert value.startswith("#")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "@import" not in style
    assert "url(" not in style
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_hostile_text_stays_text(write_run, tmp_path):
    folder = write(write_run, tmp_path / "run<b onclick=x>&", hostile=True)
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "script" not in [tag for tag, _ in page.elements]
    assert "img" not in [tag for tag, _ in page.elements]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count(HOSTILE) >= 12  # facts, five pairs' ids, prompts and tokens, the command
    assert "run<b onclick=x>&" in page.text


def test_names_from_data_are_no_formulas_and_break_no_picture(write_run, tmp_path):
    for name, objective in (("x$\\frac$", "dpo"), ("_y</svg>", "simpo")):
        run = write(write_run, tmp_path / "sweep" / name.replace("/", "_"), name=objective)
        if objective == "dpo":
            manifest = json.loads((run / "run.json").read_text())
            manifest["objective"] = {"name": "simpo", "parameters": {"beta": 2.0, "gamma": 1.0}}
            (run / "run.json").write_text(json.dumps(manifest))
    page = Page(write_report(tmp_path / "sweep").read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.elements].count("svg") >= 5
    assert "x$\\frac$" in page.text


def test_control_characters_and_half_surrogates_do_not_break_the_file(write_run, tmp_path):
    folder = write(write_run, tmp_path / "run", prompt="a\x00b\x1b[31m\ud800c\u202ed")
    text = write_report(folder).read_bytes().decode("utf-8")
    assert "a\ufffdb\ufffd[31m\ufffdc" in text


def test_a_long_run_with_long_texts_stays_under_three_megabytes(write_run, tmp_path, rng):
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
    assert write_report(folder).stat().st_size < 3_000_000


def test_an_unfinished_run_says_so(write_run, tmp_path):
    folder = write(write_run, tmp_path / "run")
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(manifest | {"status": "interrupted"}))
    assert (
        "The run is not finished (interrupted): what follows is as of step 30"
        in Page(render(read_trace(folder))).text
    )


def test_a_report_without_texts_or_tokens_still_ranks_the_pairs(write_run, tmp_path):
    folder = write(write_run, tmp_path / "run")
    (folder / "probe_set.jsonl").unlink()
    assert re.search(r"1\. pairs\.jsonl:\d+", Page(render(read_trace(folder))).text)


def test_a_folder_without_trace_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no trace\.jsonl"):
        write_report(tmp_path)


def test_what_the_pairs_cannot_tell_is_undetermined_with_the_pairs_it_would_take(write_run, tmp_path, rng):
    still = {
        name: -10 + np.concatenate([np.zeros((1, PAIRS)), rng.normal(0, 1, (3, PAIRS))]) for name in TOKENS
    }
    still["chosen"][1:] -= still["chosen"][1:].mean(axis=1, keepdims=True) + 10.01
    found = findings(read_trace(write_run(tmp_path / "run", still, num_tokens=TOKENS)))
    assert "could hide in the scatter" in found.headline
    assert "probe pairs a fall that matters would be seen four times in five" in found.advice[0]


def test_a_rise_that_was_given_back_is_told(write_run, tmp_path):
    course = -10 + 6 * np.interp(np.arange(21), [0, 8, 20], [0, 0.4, 0.05])[:, None]
    sums = {"chosen": course + np.zeros(PAIRS), "rejected": -10 - np.arange(21)[:, None] + np.zeros(PAIRS)}
    found = findings(read_trace(write_run(tmp_path / "run", sums, num_tokens=TOKENS)))
    assert "risen to 0.4 nats per token above step 0 at step 8, and lost 0.35 of it since" in found.sentence
    assert "checkpoint of step 8" in found.advice[0]


def test_a_fall_that_came_back_is_the_headline(write_run, tmp_path, rng):
    noise = rng.normal(0, 0.3, PAIRS) * (np.arange(21) > 0)[:, None]
    noise -= noise.mean(axis=1, keepdims=True)
    course = -10 + 6 * np.interp(np.arange(21), [0, 8, 20], [0, -0.4, 0])[:, None]
    sums = {"chosen": course + noise, "rejected": -10 - 0.1 * np.arange(21)[:, None] + np.zeros(PAIRS)}
    found = findings(read_trace(write_run(tmp_path / "run", sums, num_tokens=TOKENS)))
    assert "fell 0.4 nats per token below step 0 (at step 8) and came back" in found.headline


def test_best_alpha_at_the_edge_of_a_sweep_asks_to_go_on(sweep):
    found = findings(read_trace(sweep))
    assert "At equal margin" in found.sentence
    assert "α = −0.5 paid least" in found.advice[0] or "No setting stands out" in found.advice[0]


def test_sweeps_over_seeds_judge_over_seeds(write_run, tmp_path):
    for alpha, fall in ((0.0, 0.2), (1.0, 0.9)):
        for seed in range(3):
            write(write_run, tmp_path / f"alpha={alpha:g}-seed={seed}", fall=fall, alpha=alpha, seed=seed)
    found = findings(read_trace(tmp_path))
    assert "over 3 seeds" in found.sentence
    assert not any("--seeds" in line for line in found.advice)


# In a real browser

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


@pytest.fixture
def browse(tmp_path):
    if BROWSER is None:
        pytest.skip("no Chromium is installed here, so pages cannot be opened")

    def run(*flags: str) -> str:
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        done = subprocess.run(
            [BROWSER, *FLAGS, profile, *flags], capture_output=True, timeout=120, check=True
        )
        return done.stdout.decode("utf-8")

    return run


def test_browser_runs_nothing_from_hostile_data(browse, write_run, tmp_path):
    file = write_report(write(write_run, tmp_path / "run", hostile=True))
    seen = Page(browse("--dump-dom", file.as_uri()))
    assert "owned" not in seen.text.split("rewardshape")[0].replace(HOSTILE, "")
    assert "script" not in [tag for tag, _ in seen.elements]
    assert seen.text.count(HOSTILE) >= 12


def test_page_fits_a_phone(browse, sweep, tmp_path):
    """Nothing but tables in their own scroller is wider than a phone of 360 pixels."""
    file = write_report(sweep)
    probe = tmp_path / "phone.html"
    probe.write_text(
        f"""<iframe src="{file.as_uri()}" width=360 height=700 onload="
        document.title = this.contentDocument.documentElement.scrollWidth"></iframe>"""
    )
    seen = browse(
        "--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", probe.as_uri()
    )
    assert int(re.search(r"<title>(\d+)</title>", seen)[1]) <= 360


@pytest.mark.parametrize(("scheme", "dark"), [("1", False), ("0", True)])
def test_page_follows_the_colour_scheme(browse, write_run, tmp_path, scheme, dark):
    file, picture = write_report(write(write_run, tmp_path / "run")), tmp_path / "page.png"
    browse(
        f"--blink-settings=preferredColorScheme={scheme}",
        "--window-size=900,1200",
        f"--screenshot={picture}",
        file.as_uri(),
    )
    brightness = np.asarray(Image.open(picture).convert("L"))
    assert (np.median(brightness) < 60) == dark
    ink = np.abs(brightness.astype(int) - int(np.median(brightness))) > 100
    assert ink.mean() > 0.01  # there is something to read, in either scheme


def test_page_prints(browse, sweep, tmp_path):
    file, pdf = write_report(sweep), tmp_path / "page.pdf"
    browse("--no-pdf-header-footer", f"--print-to-pdf={pdf}", file.as_uri())
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 8


# The same bytes


def test_page_written_twice_is_the_same_bytes_whatever_the_hash_seed(sweep):
    """In fresh processes, since the seed of Python's string hashes is drawn when it starts."""
    code = f"from rewardshape.report import write_report; write_report({str(sweep)!r})"
    pages = set()
    for seed in ("0", "1", "random"):
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        pages.add((sweep / "report.html").read_bytes())
    assert len(pages) == 1
