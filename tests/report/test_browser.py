"""The page in a real browser: what a reader may ask of it, with a mouse, a keyboard and a phone."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rewardshape.report import data, page
from rewardshape.report.page import write_report
from rewardshape.theory import Alpha, objective
from rewardshape.theory.dynamics import Gram, integrated_path
from rewardshape.trace import RunFolder, TraceWriter, read_trace

SET = "const s = document.querySelector('{}'); s.value = '{}'; s.dispatchEvent(new Event('{}'));"
CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8").partition("\n")[2]
ROWS = "[...document.querySelectorAll('#pairs tbody tr[data-pair]')]"


def test_hover_says_the_values_of_every_line_at_that_step(tab, sweep, sweep_page):
    tab.open(sweep_page)
    x, y = tab.center('figure[data-chart="1"] .chart')
    tab.mouse("mouseMoved", x, y)
    tip = tab.run("document.querySelector('figure[data-chart=\"1\"] .tip').innerText")
    step = int(tip.split()[1])
    trace = read_trace(sweep)
    rows = trace.responses.query("split == 'probe' and response == 'chosen' and step in [0, @step]")
    for run in trace.runs:
        mean = rows[rows["run"] == run.name].groupby("step")["logp_sum"].mean() / 6
        assert f"{run.label} {mean[step] - mean[0]:.4g}".replace("-", "−") in " ".join(tip.split())
    assert tab.complaints() == []


def test_one_press_shows_a_setting_alone_in_all_panels_and_another_shows_all(tab, sweep_page):
    tab.open(sweep_page)
    tab.click('[data-chip="2"]')
    dim = "new Set([...document.querySelectorAll('.dim')].map(e => e.dataset.setting))"
    assert sorted(tab.run(f"[...{dim}]")) == ["0", "1"]
    assert tab.run("document.querySelectorAll('svg .dim').length") >= 6
    assert tab.run("document.querySelector('[data-chip=\"2\"]').getAttribute('aria-pressed')") == "true"
    tab.click('[data-chip="2"]')
    assert tab.run("document.querySelectorAll('.dim').length") == 0


def test_the_slider_moves_a_mark_in_every_panel_and_the_changes_of_the_pairs(tab, sweep, sweep_page):
    tab.open(sweep_page)
    tab.run("document.querySelector('.slider input').focus()")
    for _ in range(20):
        tab.key("ArrowLeft")
    step = int(tab.run("document.querySelector('#step').textContent"))
    assert step == 10
    assert tab.run("[...document.querySelectorAll('.rule')].filter(r => r.getAttribute('d')).length") >= 4
    trace = read_trace(sweep)
    shown = dict(tab.run(f"{ROWS}.map(r => [r.cells[0].innerText, r.cells[1].innerText])"))
    run = tab.run("document.querySelector('#pairs select').selectedOptions[0].textContent")
    name = next(one.name for one in trace.runs if one.label == run)
    rows = trace.run(name).responses.query("split == 'probe' and response == 'chosen'")
    wide = rows.pivot(index="pair_id", columns="step", values="logp_sum") / 6
    for pair, text in shown.items():
        assert float(text.replace("−", "-")) == pytest.approx(
            wide.loc[pair, step] - wide.loc[pair, 0], abs=1.1e-3
        )


def test_pairs_sort_filter_search_and_open_by_keyboard(tab, run_page):
    tab.open(run_page)
    numbers = f"{ROWS}.map(r => Number(r.cells[1].innerText.replace('−', '-')))"
    assert len(tab.run(numbers)) == 36
    assert tab.run(numbers) == sorted(tab.run(numbers))
    tab.click('[data-column="change"] button')
    assert tab.run(numbers) == sorted(tab.run(numbers), reverse=True)
    assert tab.run("document.querySelector('[data-column=change]').ariaSort") == "descending"
    tab.run("{" + SET.format("input[type=search]", "jsonl:7", "input") + "}")
    assert tab.run(f"{ROWS}.map(r => r.cells[0].innerText)") == ["pairs.jsonl:7"]
    tab.run("document.querySelector('#pairs tbody button').focus()")
    tab.key("Enter")
    assert tab.run("document.querySelectorAll('.detail .tokens').length") == 2
    tab.run("document.querySelector('.detail .tokens').focus()")
    tab.key("ArrowRight")
    said = tab.run("document.querySelector('.detail .said').textContent")
    assert said.startswith("“Yes”: ")
    assert "before (p = " in said
    assert tab.run("document.querySelectorAll('.detail .course path.chosen').length") == 1
    tab.run("{" + SET.format("#pairs select:last-of-type", "rose", "change") + "}")
    assert tab.run(f"{ROWS}.length") == 0
    assert tab.complaints() == []


def test_a_pair_names_the_training_pairs_that_pushed_it_down_and_opens_their_texts(tab, tmp_path):
    probe = {
        "pair_id": ["a", "a"],
        "response": ["chosen", "rejected"],
        "num_tokens": [2, 2],
        "ref_logp_sum": [None] * 2,
    }
    train = {"pair_id": ["x", "x", "y", "y"], "response": ["chosen", "rejected"] * 2, "num_tokens": [2] * 4,
             "logp_sum": [-1.0] * 4, "ref_logp_sum": [None] * 4}  # fmt: skip
    pushed = {"probe_pair_id": ["a", "a"], "pair_id": ["x", "y"], "influence": [-3.0, -1.0]}
    mean = {"pair_id": ["x", "y"], "influence": [-3.0, 2.0]}
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    with TraceWriter(folder.path, probe) as writer:
        writer.append(0, probe={"logp_sum": [-1.0, -2.0]}, influence=mean, influence_pairs=pushed)
        writer.append(1, metrics={"learning_rate": 0.1}, train=train, probe={"logp_sum": [-2.0, -4.0]})
    stated = {"name": "alphapo", "parameters": {"alpha": 0.0, "beta": 2.5, "gamma": 0.5}}
    folder.manifest.write_text(json.dumps({"objective": stated, "run": {"seed": 0}}), encoding="utf-8")
    texts = {"pair_id": "x", "prompt": "Who?", "responses": {"chosen": "<b>I</b>", "rejected": "You"}}
    folder.pushing.write_text(json.dumps(texts) + "\n", encoding="utf-8")
    tab.open(write_report(folder.path))
    tab.click("#pairs tbody button")
    said = tab.run("[...document.querySelectorAll('.pusher summary')].map(e => e.textContent)")
    assert said == ["x −0.1500"]  # η/B times the influence: 0.1 / 2 · −3
    assert "y −0.0500" in tab.run("document.querySelector('.detail').textContent")  # whose text was not kept
    tab.run("document.querySelector('.pusher summary').focus()")
    tab.key("Enter")
    opened = tab.run("[...document.querySelectorAll('.pusher[open] .text')].map(e => e.textContent)")
    assert opened == ["Who?", "<b>I</b>", "You"]
    assert tab.complaints() == []


def test_a_live_page_keeps_the_readers_place(tab, sweep_page):
    """The page refreshes itself; what was chosen is chosen again."""
    tab.open(sweep_page)
    tab.click('[data-chip="1"]')
    tab.run("document.querySelector('.slider input').focus()")
    tab.key("ArrowLeft")
    tab.click("#pairs tbody button")
    top = tab.run("scrollY")
    tab.ask("Page.reload")
    tab.wait(
        "document.documentElement.classList.contains('js') && document.querySelector('tr.open') !== null"
    )
    assert tab.run("document.querySelector('[data-chip=\"1\"]').getAttribute('aria-pressed')") == "true"
    assert tab.run("document.querySelector('#step').textContent") == "29"
    assert abs(tab.run("scrollY") - top) < 5
    tab.run("sessionStorage.clear()")


@pytest.mark.timeout(180)
def test_a_page_of_a_run_that_goes_on_refreshes_itself_but_not_under_the_readers_hands(
    tab, write, tmp_path, monkeypatch
):
    monkeypatch.setattr(page, "REFRESH", 1)
    folder = write(tmp_path / "run")
    whole = (folder / "trace.jsonl").read_text().splitlines(keepends=True)
    RunFolder(folder).set_status("running")

    def recorded(count):  # the head and this many steps
        (folder / "trace.jsonl").write_text("".join(whole[: count + 1]))
        return write_report(folder, live=True)

    tab.open(recorded(11))
    assert "as of step 10." in tab.run("document.body.innerText")
    tab.run("document.querySelector('#tools details').open = true")
    tab.run("document.querySelector('.controls input').value = 1")
    tab.run("document.querySelector('.controls input').dispatchEvent(new Event('input'))")
    tab.run("document.querySelector('.filters input').focus(); window.same = true")
    monkeypatch.setattr(data, "MAX_STEPS", 8)  # positions of the slider: fewer than steps, as in a long run
    recorded(16)
    time.sleep(1.6)  # it looks every half second whether one has gone by
    assert tab.run("window.same")  # the reader is typing
    tab.run("{" + SET.format(".slider input", "4", "input") + "}")
    tab.run("scrollTo(0, 700)")
    heading = "[...document.querySelectorAll('h2')].filter(h => h.getBoundingClientRect().top <= 0).pop()"
    tab.run("document.querySelector('.slider input').focus()")
    tab.wait("window.same === undefined && document.body.innerText.includes('as of step 15.')")
    assert tab.run("document.querySelector('#tools details').open")
    assert tab.run("document.querySelector('.controls input').value") == "1"
    assert tab.run("document.activeElement.matches('.slider input')")
    assert tab.run("document.querySelector('#step').textContent") == "4"
    below = tab.run(f"-{heading}.getBoundingClientRect().top")
    RunFolder(folder).set_status("done")
    recorded(31)
    tab.wait("!document.body.innerText.includes('as of step')")
    tab.wait(
        f"Math.abs(-{heading}.getBoundingClientRect().top - {below}) < 5"
    )  # though the lines on top are gone
    tab.run("window.same = true")
    time.sleep(1.6)
    assert tab.run("window.same")  # the run has ended: the page rests
    tab.run("sessionStorage.clear()")


def test_hostile_data_runs_nothing_and_is_shown_as_text(tab, write, tmp_path, bad_text):
    tab.open(write_report(write(tmp_path / "run", hostile=True)))
    tab.run("document.querySelector('#pairs tbody button').click()")
    assert tab.run("document.title") == "run · rewardshape"
    assert tab.run("document.querySelectorAll('img').length") == 0
    assert bad_text in tab.run("document.querySelector('.detail .prompt').textContent")
    assert tab.complaints() == []


def test_a_script_that_is_not_the_pages_own_is_refused(tab, sweep_page):
    file = sweep_page
    text = file.read_text(encoding="utf-8")
    file.write_text(
        text.replace("</body>", "<script>document.title = 'owned'</script></body>"), encoding="utf-8"
    )
    tab.open(file)
    assert tab.run("document.title") != "owned"
    assert any("Content Security Policy" in line for line in tab.complaints())


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out_in_both_themes(tab, sweep_page, dark):
    tab.open(sweep_page, dark=dark)
    tab.run("document.querySelector('#pairs tbody button').click()")
    tab.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert tab.run(f"({CONTRAST})('body *')") == []


def test_the_keyboard_alone_reaches_all_that_a_mouse_does(tab, sweep_page):
    tab.open(sweep_page)

    def tab_to(selector):
        for _ in range(60):
            tab.key("Tab")
            if tab.run(f"document.activeElement.matches({selector!r})"):
                return
        raise AssertionError(f"never reached: {selector}")

    tab_to("[data-chip='2']")
    tab.key("Enter")
    assert tab.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    tab_to(".slider input")
    tab.key("ArrowLeft")
    assert tab.run("document.querySelector('#step').textContent") == "29"
    tab_to("figure[data-chart]")
    tab.key("ArrowLeft")
    assert tab.run("document.activeElement.querySelector('.tip').innerText").startswith("step 28")
    tab_to("svg.portrait")
    before = tab.run("document.querySelector('.stage .said').textContent")
    tab.key("ArrowLeft")
    assert tab.run("document.querySelector('.stage .said').textContent") != before
    tab_to("#pairs tbody button")
    tab.key("Enter")
    tab_to(".detail .tokens")
    tab.key("ArrowRight")
    assert "now (p = " in tab.run("document.querySelector('.detail .said').textContent")


def test_everything_that_can_be_operated_has_a_name(tab, sweep_page):
    tab.open(sweep_page)
    tab.run("document.querySelector('#pairs tbody button').click()")
    nodes = tab.ask("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "combobox", "searchbox", "link", "application", "image"}
    found = [node for node in nodes if node.get("role", {}).get("value") in roles and not node["ignored"]]
    assert {node["role"]["value"] for node in found} >= {"button", "slider", "combobox", "searchbox", "image"}
    assert [node for node in found if not node.get("name", {}).get("value", "").strip()] == []


def test_a_finger_finds_the_log_prob_of_a_token(tab, run_page):
    tab.open(run_page, width=390, height=844)
    tab.ask("Emulation.setTouchEmulationEnabled", enabled=True)
    tab.run("document.querySelector('#pairs tbody button').click()")
    x, y = tab.center(".detail .tokens b")
    tab.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    tab.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    tab.wait("document.querySelector('.detail .said').textContent.startsWith('“Yes”')")
    tab.ask("Emulation.setTouchEmulationEnabled", enabled=False)


@pytest.mark.parametrize("width", [360, 390, 700, 1000, 1200, 1600])
def test_nothing_is_cut_off_at_any_width(tab, sweep_page, width):
    tab.open(sweep_page, width=width)
    tab.run("document.querySelector('#pairs tbody button').click()")
    tab.run("document.querySelector('#tools details').open = true")
    tab.wait("document.querySelector('#tools td') !== null")
    assert tab.run("document.documentElement.scrollWidth") <= width
    wide = (
        "[...document.querySelectorAll('table, td, th, svg, p, pre')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + e.className)"
    )
    assert tab.run(wide) == []
    assert (
        tab.run(
            "[...document.querySelectorAll('table.runs tbody tr')].map(r => [...r.cells].every(c => c.offsetWidth > 0))"
        )
        == [True] * 3
    )


@pytest.mark.parametrize("dark", [False, True])
def test_page_follows_the_colour_scheme(tab, sweep_page, tmp_path, dark):
    tab.open(sweep_page, dark=dark)
    brightness = np.asarray(Image.open(tab.picture(tmp_path / "page.png")).convert("L"))
    assert (np.median(brightness) < 60) == dark
    assert (np.abs(brightness.astype(int) - int(np.median(brightness))) > 100).mean() > 0.01


def test_page_prints_what_it_says_without_its_script(tab, sweep_page, tmp_path):
    tab.open(sweep_page, dark=True)
    content = tab.pdf(tmp_path / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 8
    tab.ask("Emulation.setEmulatedMedia", media="print", features=[])
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.run("getComputedStyle(document.querySelector('.still')).display") == "block"
    assert (
        tab.run("[...document.querySelectorAll('button')].filter(b => b.offsetParent !== null).length") == 0
    )
    assert (
        tab.run("getComputedStyle(document.querySelector('table.runs .swatch')).printColorAdjust") == "exact"
    )
    tab.ask("Emulation.setEmulatedMedia", media="")


def test_the_portrait_goes_where_the_theory_goes(tab, run_page):
    """The end of the path in the page's script against `integrated_path` of the package, where the margin is met."""
    tab.open(run_page)
    for alpha, b in ((0.0, 1.1), (0.5, 0.9), (-0.5, 1.2)):
        code = f"""(() => {{ const root = document.createElement('div'); document.body.append(root);
            phasePortrait(root, {{alpha: {alpha}, beta: 2.5, gamma: 0.5, b: {b}, c: 1.5, w: -1, l: -0.9, low: -3}}, []);
            const said = root.querySelector('.said').textContent; root.remove(); return said; }})()"""
        said = tab.run(code)
        gaps = np.linspace(-0.099, 0.6, 1400)
        s_w, s_l = integrated_path(Alpha(alpha), Gram(1.0, b, 1.5), -1.0, -0.9, gaps)
        met = objective("alphapo", alpha=alpha, beta=2.5, gamma=0.5).margin(s_w, s_l) >= 0
        end = s_w[met.argmax()]
        assert met.any()
        word = "falls" if end < -1 else "rises"
        moved = float(said.split(f"{word} by ")[1].split()[0])
        assert moved == pytest.approx(abs(float(end) + 1), abs=0.015)
        assert "until the margin is met" in said


def test_a_sweep_of_20_runs_with_256_pairs_loads_within_two_seconds(tab, write_run, tmp_path, rng):
    pairs, steps, length = 256, 40, 12
    tokens = {name: np.full(pairs, length) for name in ("chosen", "rejected")}
    words = {name: [" word"] * length for name in tokens}
    texts = [
        {"pair_id": f"pairs.jsonl:{i}", "prompt": "Say it.", "responses": {}, "tokens": words}
        for i in range(pairs)
    ]
    for k in range(20):
        sums = {name: -20 - rng.normal(0.1, 1, (steps, pairs)).cumsum(axis=0) for name in tokens}
        write_run(
            tmp_path / "many" / f"alpha={k}", sums, num_tokens=tokens, texts=texts,
            pair_ids=[text["pair_id"] for text in texts],
            objective={"name": "alphapo", "parameters": {"alpha": k / 10 - 1, "beta": 2.5, "gamma": 0.5}},
            tokens={step: rng.normal(-1, 1, (2 * pairs, length)).tolist() for step in (0, steps - 1)},
        )  # fmt: skip
    file = write_report(tmp_path / "many")
    assert file.stat().st_size < 20 * 1_500_000
    tab.ask("Performance.enable", timeDomain="threadTicks")  # seconds of processor, not of the clock
    times, tasks = [], []
    for _ in range(3):
        began = time.monotonic()
        tab.open(file)
        tab.wait("document.documentElement.classList.contains('js')")
        times.append(time.monotonic() - began)
        measured = {one["name"]: one["value"] for one in tab.ask("Performance.getMetrics")["metrics"]}
        tasks.append(measured["TaskDuration"])
    assert 0 < min(tasks) < 2
    assert min(times) < 10
    assert tab.run(f"{ROWS}.length") == 100
    assert json.loads(tab.run("JSON.stringify(document.querySelectorAll('[data-chip]').length)")) == 20


def test_an_arrow_key_on_a_path_says_the_place_of_that_step_and_no_step_of_an_axis(tab, sweep, sweep_page):
    tab.open(sweep_page)
    chart = next(
        i for i, one in enumerate(tab.run("JSON.parse(document.getElementById('data').textContent).charts"))
        if one.get("name") == "path"
    )  # fmt: skip
    tab.run(f"document.querySelector('figure[data-chart=\"{chart}\"]').focus()")
    tab.key("ArrowLeft")
    tip = " ".join(
        tab.run(f"document.querySelector('figure[data-chart=\"{chart}\"] .tip').innerText").split()
    )
    assert tip.startswith("step 29 ")
    trace = read_trace(sweep)
    probe = trace.responses.query("split == 'probe' and step == 29 and response == 'chosen'")
    for run in trace.runs:
        chosen = probe.loc[probe["run"] == run.name, "logp_sum"].mean() / 6
        shown = re.search(rf"{re.escape(run.label)} (\S+) across ", tip)[1]
        assert float(shown.replace("−", "-")) == pytest.approx(chosen, rel=6e-3)
    tab.run("sessionStorage.clear()")


def test_a_run_that_ended_early_has_no_value_beyond_its_end(tab, write, tmp_path):
    for name, alpha in (("a", -0.5), ("b", 0.0), ("c", 0.25)):
        write(tmp_path / "sweep" / name, alpha=alpha)
    file = tmp_path / "sweep" / "a" / "trace.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:7]), encoding="utf-8")  # the head, and steps 0 to 5
    tab.open(write_report(tmp_path / "sweep"))
    x, y = tab.center('figure[data-chart="1"] .chart')
    tab.mouse("mouseMoved", x, y)
    tip = tab.run("document.querySelector('figure[data-chart=\"1\"] .tip').innerText")
    step = int(tip.split()[1])
    assert step > 10
    assert "α = −0.5" not in tip
    assert "α = 0.25" in tip
    x, y = tab.center('figure[data-chart="1"] .chart .over .rule')
    rows = (
        read_trace(tmp_path / "sweep").run("b").responses.query("split == 'probe' and response == 'chosen'")
    )
    mean = rows.groupby("step")["logp_sum"].mean() / 6
    assert f"{mean[step] - mean[0]:.4g}".replace("-", "−") in tip
    tab.run("sessionStorage.clear()")


def test_a_live_page_keeps_rows_beyond_the_first_and_the_token(tab, write_run, tmp_path):
    pairs = 150
    names = ("chosen", "rejected")
    fall = np.linspace(0, 2, pairs) * np.arange(3.0)[:, None]
    sums = {name: np.linspace(-20, -10, pairs) - fall for name in names}
    words = {name: ["a", "b"] for name in sums}
    texts = [
        {"pair_id": f"pairs.jsonl:{i + 1}", "prompt": "", "responses": {}, "tokens": words}
        for i in range(pairs)
    ]
    tokens = {step: [[-1.0 - step] * 2] * (2 * pairs) for step in (0, 2)}
    folder = write_run(
        tmp_path / "run",
        sums,
        num_tokens={name: np.full(pairs, 2) for name in sums},
        texts=texts,
        tokens=tokens,
    )
    tab.open(write_report(folder))
    tab.click("#pairs tbody tr:last-child button")
    tab.click(f"{'#pairs tbody tr[data-pair]'}:nth-last-child(1) button")
    tab.click("tr.open .tokens b:nth-child(2)")
    said = tab.run("document.querySelector('.detail .said').textContent")
    tab.run("document.querySelector('#pairs select').focus()")
    tab.ask("Page.reload")
    tab.wait(
        "document.documentElement.classList.contains('js') && document.querySelector('tr.open') !== null"
    )
    assert tab.run(f"{ROWS}.length") == pairs
    assert tab.run("document.querySelector('.detail .said').textContent") == said != ""
    assert tab.run("document.activeElement.getAttribute('aria-label')") == "Which pairs"
    tab.run("sessionStorage.clear()")
