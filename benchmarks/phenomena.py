"""Published phenomena of preference tuning, looked for with the probe: ``python benchmarks/phenomena.py NAME…``.

Each function makes its runs in a folder, prints its table and draws its figure. ``docs/phenomena.md`` says what was
seen. The checkpoints and data stand beside the project in ``../shared`` (or wherever ``--shared`` says).
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from scipy import stats
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.analysis import (
    condition_agreement,
    displacement_curve,
    displacement_summary,
    fall_condition,
    pair_correlations,
    pairs_table,
)
from rewardshape.analysis.displacement import probe_panels
from rewardshape.plotting.cause import plot_correlations, plot_entanglement, plot_similarity
from rewardshape.plotting.displacement import plot_responses
from rewardshape.plotting.style import COLUMN_WIDTH, style
from rewardshape.probe.command import parse
from rewardshape.probe.run import run
from rewardshape.trace import Trace, read_trace

SIMPO = ("--alpha", "0", "--beta", "2.5", "--gamma", "0.25")
RELATED = (
    "chosen_initial", "chosen_selfr", "chosen_gptsemantic", "chosen_gptformat", "reject_gptsemantic",
    "reject_gptformat", "irr_train", "irr_test", "irr_hum", "random_permute", "random_nonhum",
)  # fmt: skip
ANSWERS = ("she", "her", "his", "said")  # words that the model itself is likely to go on with
RIVALS = ("he", "the", "they", "to", "Lily", "mom", "it", "with")
RATE = "3e-6"  # of the steps on one pair alone: small enough for first order


def probe(folder: Path, checkpoint: Path, data: Path, *flags: str) -> Trace:
    """Run `python -m rewardshape.probe CHECKPOINT --data DATA …`, unless the folder holds that run already.

    These checkpoints never saw an end token in training: its log-prob is arbitrary and its movement would drown
    that of the words.
    """
    command = [
        str(checkpoint),
        "--data",
        str(data),
        "--no-end-token",
        "--quiet",
        "--output",
        str(folder),
        *flags,
    ]
    if not (folder / "run.json").is_file():
        print("python -m rewardshape.probe", *command)
        run(parse(command))
    return read_trace(folder)


def no_over_never(shared: Path, folder: Path) -> plt.Figure:
    """How far a one-token answer falls as the rejected answer resembles it. One short run per couple of answers."""
    checkpoint = shared / "checkpoints" / "stories260K"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    output = AutoModelForCausalLM.from_pretrained(checkpoint).get_output_embeddings().weight.detach().numpy()
    unit = output / np.linalg.norm(output, axis=1, keepdims=True)
    token = {word: tokenizer.convert_tokens_to_ids(f"▁{word}") for word in {*ANSWERS, *RIVALS}}
    questions = (shared / "data" / "persona_openness.jsonl").read_text(encoding="utf-8").splitlines()[:16]
    folder = folder / "answers"
    folder.mkdir(exist_ok=True)
    rows = []
    for chosen, rejected in itertools.product(ANSWERS, RIVALS):
        data = folder / f"{chosen}-over-{rejected}.jsonl"
        pairs = [
            {"prompt": json.loads(line)["prompt"], "chosen": f" {chosen}", "rejected": f" {rejected}"}
            for line in questions
        ]
        data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
        trace = probe(
            data.with_suffix(""), checkpoint, data, *SIMPO, "--probe-in-training", "--probe-pairs", "16",
            "--batch-size", "16", "--steps", "5", "--learning-rate", "1e-4", "--schedule", "constant",
            "--warmup-ratio", "0", "--geometry-every", "5", "--probe-every", "5", "--checkpoint-every", "5",
        )  # fmt: skip
        start = trace.geometry.query("step == 0")
        [summary] = displacement_summary(trace).to_dict("records")
        rows.append(
            {
                "chosen": chosen,
                "rejected": rejected,
                "cosine": float(unit[token[chosen]] @ unit[token[rejected]]),
                "overlap": float((start["gram_wl"] / start["gram_ww"]).mean()),
                "change": summary["chosen_change"],
                "rejected_change": summary["rejected_change"],
            }
        )
    answers = pd.DataFrame(rows)
    answers.to_csv(folder / "answers.csv", index=False)
    print(answers.round(3).to_string())
    within = answers[["cosine", "overlap", "change"]]
    within = within - within.groupby(answers["chosen"]).transform("mean")
    for name in ("overlap", "cosine"):
        for scope, table in (("all couples", answers), ("within a chosen answer", within)):
            both = table[name].to_numpy(), table["change"].to_numpy()
            resampled = stats.bootstrap(
                both, _spearman, paired=True, vectorized=False, method="percentile", rng=0
            )
            low, high = resampled.confidence_interval
            print(f"{name} with change, {scope}: rho = {_spearman(*both):.2f} [{low:.2f}, {high:.2f}]")
    figure, axes = plt.subplots(1, 2, figsize=(2 * COLUMN_WIDTH, 2.6), layout="constrained", sharey=True)
    plot_similarity(answers, axes[0], x="overlap")
    plot_similarity(answers, axes[1], x="cosine").legend().remove()
    axes[1].set_ylabel("")
    return figure


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    return float(stats.spearmanr(first, second).statistic)


def ches(shared: Path, folder: Path) -> plt.Figure:
    """Does CHES tell which chosen responses fall, on near-identical pairs and on HH?"""
    found = {}
    for name, file in (
        ("polite/impolite", "llms_from_scratch_polite"),
        ("HH harmless", "hh_rlhf_harmless_base_test"),
    ):
        trace = probe(folder / file, *_stories(shared, file), *SIMPO, *_PAIRS)
        found[name] = pair_correlations(pairs_table(trace))
        print(name, displacement_summary(trace).round(3).iloc[0].to_dict())
        print(found[name].query("change == 'chosen_change'").drop(columns="run").round(3).to_string())
    _kept(found, folder / "ches.csv")
    figure, ax = plt.subplots(figsize=(1.7 * COLUMN_WIDTH, 3), layout="constrained")
    plot_correlations(found, ax)
    return figure


def squeezing(shared: Path, folder: Path) -> plt.Figure:
    """Where the mass goes: twelve kinds of response and the greedy one, over training."""
    trace = probe(
        folder / "helpful", *_stories(shared, "learning_dynamics_helpful_probe"), *SIMPO, "--skip-bad-rows",
        "--max-prompt-tokens", "192", "--max-response-tokens", "128", "--probe-pairs", "48", "--probe-every", "5",
        "--steps", "60", "--batch-size", "16", "--learning-rate", "1e-4", "--probe-responses", *RELATED,
    )  # fmt: skip
    curve = displacement_curve(trace)
    last = curve[curve["step"] == curve["step"].max()]
    print(
        last[["response", "logp_mean_change", "logp_mean_change_low", "logp_mean_change_high"]]
        .round(3)
        .to_string()
    )
    print(last[["response", "greedy_mean_change", "entropy_mean_change"]].round(3).to_string())
    figure, ax = plt.subplots(figsize=(1.5 * COLUMN_WIDTH, 3.4), layout="constrained")
    plot_responses(curve, ax)
    return figure


def entanglement(shared: Path, folder: Path) -> plt.Figure:
    """Does b/a > w_w/w_l tell which pairs fall: each pair trained alone for a step, and in batches among others?"""
    file = "llms_from_scratch_polite"
    together = probe(folder / file, *_stories(shared, file), *SIMPO, *_PAIRS)
    data = folder / "sixty-four.jsonl"
    lines = (shared / "data" / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()[:64]
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    alone = probe(
        folder / "alone", shared / "checkpoints" / "stories260K", data, "--alpha", "0.5", *SIMPO[2:],
        "--probe-in-training", "--probe-pairs", "64", "--batch-size", "1", "--steps", "64", "--optimizer", "sgd",
        "--learning-rate", RATE,
        "--schedule", "constant", "--warmup-ratio", "0", "--max-grad-norm", "1e9", "--geometry-every", "64",
        "--checkpoint-every", "64",
    )  # fmt: skip
    tables = {
        "each pair trained alone, one SGD step": _own_step(alone),
        "in batches, 60 steps of AdamW": fall_condition(together),
    }
    first = {name: condition[condition["step"] == 0] for name, condition in tables.items()}
    _kept(first, folder / "entanglement.csv")
    figure, axes = plt.subplots(1, 2, figsize=(2 * COLUMN_WIDTH, 2.8), layout="constrained")
    for ax, (name, condition) in zip(axes, first.items(), strict=True):
        print(name, condition_agreement(condition).round(3).iloc[0].to_dict())
        plot_entanglement(condition, ax).set_title(name, pad=16)
    return figure


def _kept(tables: dict[str, pd.DataFrame], file: Path) -> None:
    """What a figure is drawn from, beside it."""
    pd.concat(tables, names=["set"]).reset_index("set").to_csv(file, index=False, float_format="%.6g")


def _own_step(trace: Trace) -> pd.DataFrame:
    """The condition at step 0, with each pair's change in the one step whose batch it was.

    Pairs that the loss has switched off are left out: theory has them move by less than float32 tells.
    """
    start = trace.geometry.query("step == 0").set_index("pair_id")
    drive = start["weight_chosen"] * start["gram_ww"] - start["weight_rejected"] * start["gram_wl"]
    moves = float(RATE) * drive.abs() > 1e-5
    print(f"{moves.sum()} of {len(moves)} pairs move; the others are switched off")
    condition = fall_condition(trace).query("step == 0").set_index("pair_id")
    trained = trace.responses.query("split == 'train' and response == 'chosen'").set_index("pair_id")["step"]
    [chosen] = [panel for panel in probe_panels(trace) if panel.response == "chosen"]
    change = np.diff(chosen.change(), axis=0)
    own = pd.Series({pair: change[trained[pair] - 1, i] for i, pair in enumerate(chosen.pair_ids)})
    print(
        f"correlation of first-order and measured change: {np.corrcoef(drive[moves], own[moves])[0, 1]:.4f}"
    )
    return condition.assign(change=own, fell=own < 0)[moves].reset_index()


_PAIRS = (
    "--skip-bad-rows", "--max-prompt-tokens", "256", "--max-response-tokens", "128", "--probe-pairs", "128",
    "--batch-size", "16", "--steps", "60", "--learning-rate", "3e-4", "--geometry-every", "60",
)  # fmt: skip


def _stories(shared: Path, file: str) -> tuple[Path, Path]:
    return shared / "checkpoints" / "stories260K", shared / "data" / f"{file}.jsonl"


PHENOMENA = {f.__name__.replace("_", "-"): f for f in (no_over_never, ches, squeezing, entanglement)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", default=list(PHENOMENA), metavar="NAME", help=", ".join(PHENOMENA)
    )
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--output", type=Path, default=Path("runs/phenomena"))
    options = parser.parse_args()
    for name in options.names:
        options.output.mkdir(parents=True, exist_ok=True)
        with style():
            figure = PHENOMENA[name](options.shared, options.output)
            figure.savefig(options.output / f"{name}.png", dpi=200)
        print(f"{options.output / name}.png")


if __name__ == "__main__":
    main()
