"""Pictures of where the probability went draw what their tables hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rewardshape.errors import InputError
from rewardshape.plotting.destination import GROUP_LABELS, plot_destination, plot_moved_tokens


@pytest.fixture
def curve():
    rng = np.random.default_rng(0)
    rows = [
        {"run": "a", "step": step, "response": response, "group": group, "mass": rng.random() * step}
        for step in (0, 5, 10)
        for response in ("chosen", "rejected")
        for group in GROUP_LABELS
    ]
    return pd.DataFrame(rows)


def test_bands_are_stacked_to_all_that_moved(curve):
    for ax, response in zip(plot_destination(curve), ("chosen", "rejected"), strict=True):
        total = curve[curve["response"] == response].groupby("step")["mass"].sum()
        tops = [path.vertices[:, 1].max() for band in ax.collections for path in band.get_paths()]
        assert max(tops) == pytest.approx(total.max())
        assert len(ax.collections) == len(GROUP_LABELS)
        assert ax.get_title() == response


def test_the_legend_names_every_group(curve):
    legend = plot_destination(curve)[-1].get_legend()
    assert {text.get_text() for text in legend.get_texts()} == set(GROUP_LABELS.values())


def test_tokens_are_drawn_with_their_changes_and_spaces_are_seen():
    tokens = pd.DataFrame(
        {"run": "a", "response": "chosen", "token": [" yes", "$x", "\n"], "change": [0.5, 0.1, -0.4]}
    )
    ax = plot_moved_tokens(tokens)
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.1, -0.4]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["␣yes", r"\$x", "⏎"]


def test_several_runs_are_refused(curve):
    both = pd.concat([curve, curve.assign(run="b")])
    with pytest.raises(InputError, match="shows one run"):
        plot_destination(both)
