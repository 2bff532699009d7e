"""What is drawn is what the tables say: the artists are read back."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color

from rewardshape.errors import InputError
from rewardshape.plotting.cause import (
    plot_correlations,
    plot_entanglement,
    plot_kernel,
    plot_overlap_map,
    plot_predicted_vs_measured,
    plot_similarity,
    plot_split,
)
from rewardshape.plotting.style import REJECTED


def labelled(ax, start):
    return next(item for item in ax.get_lines() if str(item.get_label()).startswith(start))


@pytest.fixture
def predicted(rng):
    sides, predictors = ("chosen", "rejected"), ("update", "descent")
    rows = [
        {"run": "r", "response": side, "predictor": name, "predicted": x, "measured": 1.1 * x}
        for side in sides
        for name in predictors
        for x in rng.normal(size=20)
    ]
    return pd.DataFrame(rows)


def test_predicted_stands_on_x_and_measured_on_y_with_the_diagonal(predicted):
    ax = plot_predicted_vs_measured(predicted, ax=plt.subplots()[1])
    points = labelled(ax, "rejected")
    rows = predicted.query("predictor == 'update' and response == 'rejected'")
    np.testing.assert_array_equal(points.get_xydata(), rows[["predicted", "measured"]])
    assert same_color(points.get_color(), REJECTED)
    diagonal = ax.get_lines()[-1].get_xydata()
    np.testing.assert_array_equal(diagonal[:, 0], diagonal[:, 1])
    assert "(nats)" in ax.get_xlabel()
    assert "(nats)" in ax.get_ylabel()


def test_quality_stands_in_the_legend(predicted):
    quality = pd.DataFrame(
        [
            {"predictor": "descent", "response": side, "level": "pair", "r_squared": r, "slope": 2.5}
            for side, r in (("chosen", -0.126), ("rejected", 0.5))
        ]
    )
    ax = plot_predicted_vs_measured(predicted, quality, plt.subplots()[1], predictor="descent")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["chosen: R² = −0.13, slope 2.50", "rejected: R² = 0.50, slope 2.50"]


def test_an_unknown_predictor_is_refused(predicted):
    with pytest.raises(InputError, match="choose update, descent"):
        plot_predicted_vs_measured(predicted, predictor="adam")


def test_correlations_are_drawn_with_their_intervals_set_by_set():
    table = pd.DataFrame(
        {
            "run": "r",
            "descriptor": ["edit_distance", "ches", "ches"],
            "label": ["edit distance", "CHES", "CHES"],
            "change": ["chosen_change", "chosen_change", "chosen_sum_change"],
            "rho": [0.3, -0.5, 0.9],
            "rho_low": [0.1, -0.7, 0.8],
            "rho_high": [0.5, -0.2, 1.0],
        }
    )
    ax = plot_correlations({"polite": table, "HH": table.assign(run="hh")}, plt.subplots()[1])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["edit distance", "CHES"]
    points, _, (bars,) = ax.containers[0]
    np.testing.assert_allclose(np.asarray(points.get_xdata(), float), [0.3, -0.5])
    spans = np.array([segment[:, 0] for segment in bars.get_segments()], dtype=float)
    np.testing.assert_allclose(spans, [[0.1, 0.5], [-0.7, -0.2]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["polite", "HH"]


def test_entanglement_sets_what_happened_against_the_condition():
    condition = pd.DataFrame(
        {
            "run": "r",
            "step": [0, 0, 0, 5],
            "weight_ratio": [1.0, 2.0, 0.5, 9.0],
            "overlap": [0.5, 3.0, 1.1, 9.0],
            "change": [0.1, -0.2, -0.3, -9.0],
            "fell": [False, True, True, True],
            "should_fall": [False, True, True, True],
        }
    )
    condition.loc[1, "should_fall"] = False  # 3/2 > 1 says it should: the table is drawn, not recomputed
    ax = plot_entanglement(condition, plt.subplots()[1])
    np.testing.assert_allclose(ax.get_lines()[0].get_xydata(), [[0.5, 0.1], [1.5, -0.2], [2.2, -0.3]])
    assert [text.get_text() for text in ax.texts] == ["2 of 3 as the condition says"]


def test_split_draws_measured_and_every_part():
    split = pd.DataFrame({"run": "r", "response": ["chosen"] * 3 + ["rejected"] * 3, "step": [0, 1, 2] * 2})
    for i, name in enumerate(("measured", "straight", "shape", "drift", "rest")):
        split[name] = i + 0.1 * np.arange(6)
    ax = plot_split(split, plt.subplots()[1])
    for name in ("straight", "shape", "drift", "rest"):
        np.testing.assert_array_equal(labelled(ax, name).get_ydata(), split[name][:3])
    np.testing.assert_array_equal(labelled(ax, "chosen, measured").get_ydata(), split["measured"][:3])


def test_similarity_has_one_colour_per_chosen_answer():
    answers = pd.DataFrame(
        {"chosen": [" she", " she", " big"], "overlap": [0.1, 0.9, 0.5], "change": [1.0, -1.0, 0.0]}
    )
    ax = plot_similarity(answers, plt.subplots()[1])
    np.testing.assert_array_equal(labelled(ax, "she").get_xydata(), [[0.1, 1.0], [0.9, -1.0]])
    assert not same_color(labelled(ax, "she").get_color(), labelled(ax, "big").get_color())


def test_several_runs_are_refused(predicted):
    with pytest.raises(InputError, match="holds 2"):
        plot_predicted_vs_measured(pd.concat([predicted, predicted.assign(run="other")]))


def test_the_map_of_overlaps_has_the_pair_that_fell_most_on_top():
    cosines = pd.DataFrame(
        {"run": "r", "step": [0, 0, 10, 10], "pair_id": ["a", "b"] * 2, "cosine": [0.1, 0.9, 0.2, 0.8],
         "chosen_change": [0.5, -0.5] * 2}
    )  # fmt: skip
    ax = plot_overlap_map(cosines)
    [mesh] = [one for one in ax.collections if one.get_array() is not None]
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(2, 2), [[0.9, 0.8], [0.1, 0.2]])
    low, high = ax.get_ylim()
    assert low > high  # the first row is the top one
    assert mesh.get_clim() == (-1, 1)


def test_the_kernel_map_has_chosen_before_rejected_in_one_order_of_pairs():
    texts = [(pair, side) for pair in "ab" for side in ("chosen", "rejected")]
    rows = [
        {"run": "r", "step": step, "pair_id": p, "response": r, "other_pair_id": q, "other_response": s,
         "cosine": step + 0.01 * i + 0.001 * j}
        for step in (0, 0.5)
        for i, (p, r) in enumerate(texts)
        for j, (q, s) in enumerate(texts)
    ]  # fmt: skip
    ax = plot_kernel(pd.DataFrame(rows))
    [mesh] = [one for one in ax.collections if one.get_array() is not None]
    assert not mesh.get_rasterized()
    order = [0, 2, 1, 3]  # a chosen, b chosen, a rejected, b rejected
    expected = [[0.5 + 0.01 * i + 0.001 * j for j in order] for i in order]
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(4, 4), expected)
    assert mesh.get_clim() == (-1, 1)
    low, high = ax.get_ylim()
    assert low > high  # the first row is the top one
    assert [text.get_text() for text in ax.get_xticklabels()] == ["chosen", "rejected"]
