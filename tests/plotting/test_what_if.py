"""What every change of a what-if did, read back from the artists."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rewardshape.plotting import plot_what_if


@pytest.fixture
def table():
    rows = pd.DataFrame(
        {"flags": ["--drop random=0.2", "--drop ches=0.2", "--add-nll 0.1"], "matched": [False, True, False],
         "chosen": [0.01, 0.03, -0.02], "accuracy": [0.0, 0.1, -0.1], "gold": np.nan}
    )  # fmt: skip
    for name in ("chosen", "accuracy", "gold"):
        rows[f"{name}_low"], rows[f"{name}_high"] = rows[name] - 0.02, rows[name] + 0.05
    return rows


def test_every_change_has_a_row_with_its_interval_and_the_sign_of_what_it_is_set_against(table):
    chosen, accuracy = plot_what_if(table)  # gold was not measured
    table = table.iloc[[0, 2, 1]].reset_index(drop=True)  # what is set against the run as it is comes first
    assert [text.get_text() for text in chosen.get_yticklabels()] == table["flags"].tolist()
    for ax, name in ((chosen, "chosen"), (accuracy, "accuracy")):
        found = {}
        for bars in ax.containers:
            points, _, [lines] = bars.lines
            for (x, y), (low, high) in zip(points.get_xydata(), lines.get_segments(), strict=True):
                found[round(y)] = (x, low[0], high[0], points.get_marker())
        for place, row in table.iterrows():
            marker = "D" if row["matched"] else "o"
            assert found[place][:3] == pytest.approx((row[name], row[f"{name}_low"], row[f"{name}_high"]))
            assert found[place][3] == marker
    low, high = chosen.get_ylim()
    assert low > high  # the first row is the top one
    legend = [text.get_text() for text in chosen.figure.legends[0].get_texts()]
    assert legend == ["against the run as it is", "against as many pairs dropped at random"]
