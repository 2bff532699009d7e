"""What every change of a what-if did, read back from the artists."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rewardshape.plotting import plot_what_if
from rewardshape.plotting.what_if import DODGE


@pytest.fixture
def table():
    """Three changes; chosen at two margins, of the last one only at the first."""
    changes = [
        ("--drop random=0.2", False, 0.01),
        ("--drop ches=0.2", True, 0.03),
        ("--add-nll 0.1", False, -0.02),
    ]
    rows = [
        {"intervention": flags, "flags": flags, "matched": matched, "measure": measure, "margin_gain": margin,
         "difference": far * value}
        for flags, matched, value in changes
        for measure, margin, far in (("chosen", 0.1, 1), ("chosen", 0.2, 2), ("accuracy", np.nan, 3))
        if (flags, margin) != ("--add-nll 0.1", 0.2)
    ]  # fmt: skip
    found = pd.DataFrame(rows)
    return found.assign(
        difference_low=found["difference"] - 0.02, difference_high=found["difference"] + 0.05, left_out=np.nan
    )


def test_every_change_has_a_row_with_its_intervals_and_the_sign_of_what_it_is_set_against(table):
    chosen, accuracy = plot_what_if(table)  # gold was not measured
    places = ["--drop random=0.2", "--add-nll 0.1", "--drop ches=0.2"]  # against the run as it is comes first
    assert [text.get_text() for text in chosen.get_yticklabels()] == places
    for ax, name in ((chosen, "chosen"), (accuracy, "accuracy")):
        found = {}
        for bars in ax.containers:
            points, _, [lines] = bars.lines
            for (x, y), (low, high) in zip(points.get_xydata(), lines.get_segments(), strict=True):
                mark = (points.get_marker(), points.get_alpha() == 1)
                found[places[round(y)], round(y - round(y), 3)] = (x, low[0], high[0], *mark)
        mine = table[table["measure"] == name]
        assert len(found) == len(mine)
        for row in mine.to_dict("records"):
            offset = {0.1: -DODGE, 0.2: DODGE}.get(row["margin_gain"], 0.0)
            got = found[row["flags"], offset]
            ends = (row["difference"], row["difference_low"], row["difference_high"])
            assert got[:3] == pytest.approx(ends)
            assert got[3] == ("D" if row["matched"] else "o")
            assert got[4] == (offset != -DODGE)  # smaller margins are fainter
    low, high = chosen.get_ylim()
    assert low > high  # the first row is the top one
    legend = [text.get_text() for text in chosen.figure.legends[0].get_texts()]
    assert legend == ["against the run as it is", "against as many pairs dropped at random"]
