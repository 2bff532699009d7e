"""The tables behind the pictures, the claims that docs/theory.md makes of them, ."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.figures.theory_tables import (
    displacement_by_alpha,
    gradient_by_alpha,
    phase_portrait,
    shape_curves,
    weight_map,
    zoo_curves,
)
from rewardshape.theory import Gram, alpha_sensitivity, displacement_at_margin, objective

ENTANGLED = Gram(1.0, 1.1, 1.5)


def test_threshold_of_the_docs_decides_whether_alpha_helps():
    a, b, c = ENTANGLED
    m = 0.1
    threshold = m * (a * c - b * b) / (2 * (b - a) * (a + c - 2 * b))
    assert threshold == pytest.approx(0.48, abs=0.005)
    fall = (a - b) / (a + c - 2 * b) * m - m / 2  # from the start to the mean of the scores where α = 0 stops
    for mean, sign in ((-0.9 * threshold, -1), (-1.1 * threshold, 1)):
        parts = alpha_sensitivity(ENTANGLED, mean - fall, mean - fall, margin=0.0, beta=1.0, gamma=m)
        assert np.sign(parts.shortening + parts.bending) == sign


def test_with_a_reference_a_positive_alpha_displaces_more():
    """Scores start at 0, where stopping has no advantage to give."""
    lost = displacement_at_margin(
        np.array([0.0, 0.25, 0.5]), ENTANGLED, 0.0, 0.0, margin=0.0, beta=1.0, gamma=0.2
    )
    assert np.all(np.diff(lost) < 0)
    a, b, c = ENTANGLED
    p, q, m = a - b, c - b, 0.2
    parts = alpha_sensitivity(ENTANGLED, 0.0, 0.0, margin=0.0, beta=1.0, gamma=m)
    of_docs = m**2 * (p**2 - 2 * p * q - b * (p + q)) / (2 * (p + q) ** 2)
    assert parts.shortening + parts.bending == pytest.approx(of_docs, rel=1e-12)


def test_displacement_vanishes_for_large_alpha_where_a_pair_starts_level():
    lost = displacement_at_margin(
        np.array([2.0, 4.0]), ENTANGLED, -2.0, -2.0, margin=0.0, beta=2.5, gamma=1.0
    )
    assert -0.01 < lost[0] < lost[1] < 0


def test_phase_portrait_ends_every_path_on_its_contour():
    portrait = phase_portrait()
    for alpha, here in portrait.groupby("alpha"):
        made = objective("alphapo", alpha=float(alpha), beta=2.5, gamma=1.0)
        stops = here[here.kind == "stop"]
        assert np.all(
            (np.abs(made.margin(stops.s_w.to_numpy(), stops.s_l.to_numpy())) < 1e-9) | (stops.line == 2)
        )
        contour = here[here.kind == "contour"].dropna(subset=["s_l"])
        np.testing.assert_allclose(
            made.margin(contour.s_w.to_numpy(), contour.s_l.to_numpy()), 0.0, atol=1e-12
        )


def test_tables_are_tidy_and_complete():
    assert shape_curves()["shape"].nunique() == 8
    assert weight_map(points=5).shape == (25, 4)
    assert gradient_by_alpha(points=11).groupby(["s_w", "s_l"]).size().tolist() == [11, 11, 11]
    assert zoo_curves(points=5).groupby("objective").size().eq(10).all()
    assert set(displacement_by_alpha(points=5)["at"]) == {"equal margin", "equal gap"}
