"""The command: words, JSON, one figure, and its exit status; on other people's logs and on runs of ours."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rewardshape.diagnose import main, report
from rewardshape.plotting.diagnosis import plot_fall, plot_progress
from rewardshape.theory import objective
from rewardshape.trace import TraceWriter
from rewardshape.verdict import judge, judge_all

FIELDS = {
    "verdict", "onset_step", "depth_nats", "per_token", "beta", "reference_chosen_logp", "reference_free",
    "over_optimized", "best_step", "nonfinite_steps", "missing", "advice",
}  # fmt: skip


@pytest.fixture
def log(tmp_path):
    """A made trainer_state.json: β = 0.1, a reference at -100 and -120, chosen falls by 1 nat per evaluation."""
    history = [
        {"step": 100 * i, "eval_loss": 0.7 - 0.05 * i, "eval_rewards/accuracies": 0.75,
         "eval_rewards/chosen": -0.1 * i, "eval_rewards/rejected": -0.3 * i, "eval_rewards/margins": 0.2 * i,
         "eval_logps/chosen": -100.0 - i, "eval_logps/rejected": -120.0 - 3 * i}
        for i in range(1, 7)
    ]  # fmt: skip
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": history}))
    return path


def run_folder(folder, *, falls, name="dpo", **parameters):
    """A run of ours with two probe pairs whose chosen response moves by `falls` nats a step."""
    folder.mkdir(parents=True)
    goal = objective(name, **parameters)
    manifest = {"objective": {"name": name, "parameters": goal.parameters}, "run": {"seed": 0}}
    (folder / "run.json").write_text(json.dumps(manifest))
    reference = [-40.0, -60.0, -30.0, -50.0]
    probe_set = {
        "pair_id": ["a", "a", "b", "b"], "response": ["chosen", "rejected"] * 2, "num_tokens": [20, 20, 10, 10],
        "ref_logp_sum": reference if goal.needs_reference else [None] * 4,
    }  # fmt: skip
    with TraceWriter(folder, probe_set) as writer:
        for step in range(9):
            moved = [falls * step, -2.0 * step] * 2
            writer.append(
                step,
                metrics={"loss": 0.69 - 0.02 * step, "grad_norm": 1.0} if step else None,
                probe={"logp_sum": [level + change for level, change in zip(reference, moved, strict=True)]},
            )
    return folder


def test_json_holds_every_field_with_the_numbers_that_were_put_in(log, tmp_path, capsys):
    assert main([str(log), "--json", "--output", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= FIELDS
    assert found["verdict"] == "displaced"
    assert found["depth_nats"] == pytest.approx(6.0)
    assert found["onset_step"] == 100
    assert found["beta"] == pytest.approx(0.1)
    assert found["reference_chosen_logp"] == pytest.approx(-100.0)
    assert found["reference_free"] is False
    assert found["per_token"] is False
    assert found["over_optimized"] is False
    assert found["best_step"] == 600
    assert found["nonfinite_steps"] == []
    assert found["missing"] == ["grad_norm"]
    assert found["advice"]
    assert found["figure"] == str(tmp_path / "out" / "trainer_state.json.diagnosis.png")
    assert (tmp_path / "out" / "trainer_state.json.diagnosis.png").stat().st_size > 10_000


def test_words_say_what_since_when_how_deep_and_how_sure(log, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(log)]) == 0
    text = capsys.readouterr().out
    assert "DISPLACED: The chosen responses ended 6 nats below the reference" in text
    assert "The fall had begun by step 100" in text
    assert "β = 0.1" in text
    for title in ("What happened:", "How sure:", "Found:", "Cannot tell:", "What to try:"):
        assert title in text
    assert max(map(len, text.splitlines()[2:])) <= 100
    assert "Figure: trainer_state.json.diagnosis.png" in text
    assert (tmp_path / "trainer_state.json.diagnosis.png").exists()


def test_bad_input_is_one_line_and_status_2(tmp_path, capsys):
    garbage = tmp_path / "garbage.bin"
    garbage.write_bytes(bytes(range(256)) * 4)
    assert main([str(garbage)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "binary data" in error
    assert main([str(tmp_path / "none.json")]) == 2
    assert main([str(garbage), "--columns", "chosen"]) == 2
    assert main([str(garbage), "--beta", "-1"]) == 2


def test_one_bad_path_does_not_hide_the_others(log, tmp_path, capsys):
    assert main([str(tmp_path / "none.json"), str(log), "--json", "--output", str(tmp_path)]) == 2
    assert json.loads(capsys.readouterr().out)["verdict"] == "displaced"


def test_logs_of_one_name_have_a_figure_each(log, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(log, tmp_path / name / "trainer_state.json")
    paths = [f"{name}/trainer_state.json" for name in "ab"]
    assert main([*paths, paths[0], "--json"]) == 0
    figures = [found["figure"] for found in json.loads(capsys.readouterr().out)]
    assert figures[:2] == ["trainer_state.json.diagnosis.png", "b-trainer_state.json.diagnosis.png"]
    assert len(set(figures)) == 3
    assert all(Path(file).exists() for file in figures)


def test_named_columns_and_a_given_beta_give_nats(tmp_path, capsys):
    path = tmp_path / "mine.csv"
    path.write_text("it,r_good\n" + "".join(f"{i},{-0.2 * i}\n" for i in range(1, 13)))
    arguments = [
        "--columns",
        "step=it",
        "eval_reward_chosen=r_good",
        "--beta",
        "0.2",
        "--json",
        "--output",
        str(tmp_path),
    ]
    assert main([str(path), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["depth_nats"] == pytest.approx(12.0)
    assert found["beta"] == 0.2


def test_a_run_of_ours_is_judged_from_its_pairs(tmp_path):
    verdict = judge(run_folder(tmp_path / "run", falls=-0.5, beta=0.1))
    assert verdict.evidence.form == "rewardshape run"
    assert verdict.word == "displaced"
    assert verdict.to_dict()["depth_nats"] == pytest.approx((4.0 / 20 + 4.0 / 10) / 2)  # nats per token
    assert str(verdict.evidence.baseline) == "step 0"
    assert verdict.evidence.reference.chosen == pytest.approx((-40 / 20 - 30 / 10) / 2)
    assert verdict.evidence.reference.beta == 0.1
    assert verdict.evidence.missing == ()


def test_a_run_without_a_reference_is_judged_alike(tmp_path):
    verdict = judge(run_folder(tmp_path / "run", falls=-0.5, name="simpo", beta=2.0, gamma=0.5))
    assert verdict.evidence.reference.free is True
    assert verdict.evidence.chosen.value == pytest.approx(-(4.0 / 20 + 4.0 / 10) / 2)


def test_two_pairs_give_an_exact_number_and_no_interval_for_others(tmp_path):
    verdict = judge(run_folder(tmp_path / "run", falls=-0.5, beta=0.1))
    assert verdict.evidence.exact
    assert verdict.evidence.smallest_fall == pytest.approx(
        0.1 / 15
    )  # 0.1 nats a response, of 15 tokens on average
    assert "exact for these 2 pairs" in verdict.sentence
    assert "does not say how other pairs fared" in report(verdict)


def test_a_sweep_folder_gets_a_verdict_per_run(tmp_path, capsys):
    run_folder(tmp_path / "sweep" / "alpha=0", falls=0.5, name="alphapo", alpha=0.0, beta=0.5, gamma=0.5)
    run_folder(tmp_path / "sweep" / "alpha=0.25", falls=-0.5, name="alphapo", alpha=0.25, beta=0.5, gamma=0.5)
    assert main([str(tmp_path / "sweep"), "--json", "--output", str(tmp_path)]) == 0
    found = {run["name"]: run["verdict"] for run in json.loads(capsys.readouterr().out)}
    assert found == {"alpha=0": "not displaced", "alpha=0.25": "displaced"}


def test_every_real_log_gives_a_report_and_a_figure(real_log, tmp_path, capsys):
    logs = [path for path in real_log("").iterdir() if path.name != "README.md"]
    assert main([*map(str, logs), "--output", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*.png"))) == len(logs)
    assert "nan" not in capsys.readouterr().out.lower().replace("nan or infin", "")


def test_the_command_needs_neither_torch_nor_transformers():
    code = "import sys, rewardshape.diagnose; print(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


# --- figures -----------------------------------------------------------------------------------------------------


def test_the_fall_is_drawn_from_its_curve():
    curve = pd.DataFrame(
        {"step": [1, 2, 3], "chosen": [0.0, -1.0, -2.0], "smooth": [0.0, -1.0, -2.0], "rejected": -3.0}
    )
    ax = plot_fall(curve, unit="nats", baseline="the reference", limit=0.5, onset=2)
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["chosen"].get_ydata(), curve["chosen"])
    np.testing.assert_array_equal(lines["rejected"].get_ydata(), curve["rejected"])
    assert lines["fall begun by step 2"].get_xdata() == [2, 2]
    assert ax.get_ylabel() == "above the reference (nats)"


def test_loss_and_margin_are_drawn_by_split():
    table = pd.DataFrame(
        {
            "split": ["train", "eval", "train", "eval"],
            "step": [1, 1, 2, 2],
            "loss": [0.7, 0.69, 0.6, 0.65],
            "margin": [0.1] * 4,
        }
    )
    ax = plot_progress(table, best=2)
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["training loss"].get_ydata(), [0.7, 0.6])
    np.testing.assert_array_equal(lines["evaluation loss"].get_ydata(), [0.69, 0.65])
    assert len(plt.gcf().axes) == 2


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_reader_that_has_seen_enough_ends_it_quietly(log, tmp_path, flags):
    """What ``diagnose … | head -0`` does: nobody reads what is printed."""
    command = [sys.executable, "-m", "rewardshape.diagnose", str(log), "--output", str(tmp_path), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, "")


def test_a_report_is_one_text(log):
    (verdict,) = judge_all(log).values()
    assert report(verdict).startswith(
        "trainer_state.json  (Hugging Face trainer_state.json: 6 evaluation rows"
    )


# --- the guides --------------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[1] / "docs"


def blocks(language):
    """The code blocks of the two guides."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        block
        for guide in ("diagnose.md", "faq.md")
        for block in fence.findall((DOCS / guide).read_text("utf-8"))
    ]


@pytest.fixture
def guide_folder(log, tmp_path, monkeypatch):
    """A folder with the files that the guides name."""
    monkeypatch.chdir(tmp_path)
    history = json.loads(log.read_text())["log_history"]
    Path("train.log").write_text("\n".join(map(str, history)))
    table = "| Step | Validation Loss | Rewards/chosen |\n|---|---|---|\n"
    rows = [f"| {row['step']} | {row['eval_loss']} | {row['eval_rewards/chosen']} |" for row in history]
    Path("README.md").write_text(table + "\n".join(rows))
    Path("mine.csv").write_text("iteration,lp_good,lp_good_held_out\n1,-50,-60\n2,-51,-61\n3,-52,-62\n")
    run_folder(Path("runs/my-model"), falls=-0.5, beta=0.1)


def test_every_command_of_the_guides_runs(guide_folder):
    written = [
        line for language in ("bash", "text") for block in blocks(language) for line in block.splitlines()
    ]
    begins = "python -m rewardshape.diagnose "
    commands = [line.removeprefix(begins) for line in written if line.startswith(begins)]
    assert len(commands) >= 8
    for command in commands:
        assert main(shlex.split(command)) == 0, command


def test_every_python_block_of_the_guides_runs(guide_folder, capsys):
    for block in blocks("python"):
        exec(compile(block, "guide", "exec"), {})
    assert "displaced" in capsys.readouterr().out


def test_every_figure_of_the_guide_is_there():
    for name in re.findall(r"\]\((figures/[\w-]+\.png)\)", (DOCS / "faq.md").read_text("utf-8")):
        assert (DOCS / name).stat().st_size > 10_000
