"""The numbers of docs/theory.md, computed again."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from rewardshape.figures.theory_tables import softmax_against_fixed_gram
from rewardshape.theory import (
    Gram,
    break_even_score,
    displacement_at_margin,
    preset,
    remaining_pull,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")
NEAR = Gram(1.0, 1.1, 1.5)
ROWS = {
    "Mistral-7B-Instruct": "alphapo/mistral-7b-instruct",
    "Llama-3-8B-Instruct:": "alphapo/llama-3-8b-instruct",
    "ArmoRM": "alphapo/llama-3-8b-instruct-armorm",
    "Gemma": "alphapo/gemma-2-9b-instruct",
}


def stated_in(line: str) -> list[float]:
    """The numbers of a row of a table, after its name."""
    return [float(cell.replace("−", "-")) for cell in line.split("|")[2:-1]]


@pytest.mark.parametrize(("row", "name"), ROWS.items())
def test_break_even_scores_of_the_published_settings(row, name):
    [line] = [line for line in PAGE.splitlines() if line.startswith("|") and row in line]
    parameters = preset(name).objective.parameters
    options = {key: parameters[key] for key in ("beta", "gamma")}
    scores = break_even_score(parameters["alpha"], NEAR, margin=np.arange(4.0), **options)
    assert stated_in(line) == pytest.approx(scores, abs=0.005)


KINDS = {
    "its own answers, T = 1": "own, T = 1",
    "its own answers, T = 0.7": "own, T = 0.7",
    "answers of another small model": "small assistant",
    "answers of a larger model": "large assistant",
    "people's words": "people",
}


@pytest.mark.parametrize(("row", "kind"), KINDS.items())
def test_where_the_chat_models_text_lies(row, kind):
    with open(Path(__file__).resolve().parents[2] / "docs" / "text_scores.csv", encoding="utf-8") as file:
        scores = np.array([float(line["score"]) for line in csv.DictReader(file) if line["kind"] == kind])
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    tables = [stated_in(line) for line in lines if any(setting in line for setting in ROWS)]
    thresholds = tables[0][1], tables[0][3], min(min(line) for line in tables)
    middle, low, high = (
        f"{value:.2f}".replace("-", "−") for value in (np.median(scores), *np.quantile(scores, (0.1, 0.9)))
    )
    below = " | ".join(f"{(scores < score).sum()} of {len(scores)}" for score in thresholds)
    assert f"| {row} | {middle} ({low} to {high}) | {below} |" in PAGE
    for score in thresholds:
        assert f"below −{-score:.2f}" in PAGE
    more = len(scores) - int((scores < thresholds[1]).sum())
    if kind == "own, T = 0.7":
        assert f"less for {(scores < thresholds[0]).sum()} of 24" in PAGE
        assert f"*more* for {more} of 24" in PAGE


def test_pull_left_is_as_the_page_says():
    assert [round(100 * float(remaining_pull(z))) for z in (0.0, 1.0, 2.0, 3.0)] == [50, 27, 12, 5]


def test_where_alpha_displaces_more_and_where_less():
    for s, z, numbers in ((-0.5, 1, "−0.19 against −0.17"), (-0.5, 3, "−0.58 against −0.43"),
                          (-2.0, 1, "−0.13 against −0.17"), (-2.0, 3, "−0.38 against −0.43")):  # fmt: skip
        assert numbers in re.sub(r"\s+", " ", PAGE)
        stated = [float(x.replace("−", "-")) for x in numbers.split(" against ")]
        moved = displacement_at_margin(
            np.array([0.25, 0.0]), NEAR, s, s, margin=float(z), beta=2.5, gamma=0.25
        )
        assert stated == pytest.approx(moved, abs=0.005)


def test_thresholds_of_the_derivative():
    a, b, c = NEAR
    factor = (a * c - b * b) / (2 * (b - a) * (a + c - 2 * b))
    assert [round((z + 0.25) / 2.5 * factor, 2) for z in range(4)] == [0.48, 2.42, 4.35, 6.28]
    assert all(f"{value}" in PAGE for value in (0.48, 2.42, 4.35, 6.28))


@pytest.mark.parametrize(("overlap", "wrong", "reached", "helped"), [(0.9, 3, 23, 11), (0.6, 5, 24, 7)])
def test_a_fixed_gram_matrix_over_seeds(overlap, wrong, reached, helped):
    """24 random softmax models: who is wrong in sign, who ends below the prediction, whom α = 1 helps."""
    ends = []
    for seed in range(24):
        table = softmax_against_fixed_gram(alphas=(0.0, 1.0), overlap=overlap, seed=seed)
        moved = {}
        for alpha, run in table.groupby("alpha"):
            at = run[run.margin >= 0]
            if len(at):
                moved[alpha] = at.iloc[0][["s_w", "s_w_fixed"]] - run.iloc[0][["s_w", "s_w_fixed"]]
        start = table.iloc[0]
        if 0.0 in moved:
            ends.append((moved[0.0], moved.get(1.0), start.gram_wl > start.gram_ww))
    assert len(ends) == reached
    assert sum(np.sign(at_0.s_w) != np.sign(at_0.s_w_fixed) for at_0, _, _ in ends) == wrong
    assert all(at_0.s_w < at_0.s_w_fixed for at_0, _, _ in ends)
    entangled = [(at_0, at_1) for at_0, at_1, falls in ends if falls and at_1 is not None]
    assert len(entangled) == helped
    assert all(at_1.s_w > at_0.s_w for at_0, at_1 in entangled)
