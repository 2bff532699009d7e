"""The closed forms of the two-response dynamics, against integration, high precision and a model whose Gram moves."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from rewardshape.errors import InputError
from rewardshape.theory import (
    Alpha,
    ChiSquared,
    Gram,
    JensenShannon,
    LogOdds,
    chosen_falls,
    disentanglement_band,
    flow,
    gradient_magnitude,
    integrated_path,
    objective,
    path,
    point_at_margin,
    probability_gradient_ratio,
    stall_gap,
    turning_gap,
    weight_ratio,
)

GRAMS = {
    "chosen rises": Gram(2.0, 0.5, 1.5),
    "entangled, chosen falls": Gram(1.0, 1.1, 1.5),
    "rejected is the flatter": Gram(1.5, 1.1, 1.0),
    "opposed": Gram(1.0, -0.4, 0.7),
    "a = b": Gram(1.0, 1.0, 1.7),
    "c = b": Gram(1.7, 1.0, 1.0),
}
ALPHAS = [-1.5, -0.25, -1e-9, 0.0, 1e-9, 0.25, 1.5]


def integrated_flow(made, s_w, s_l, gram, times):
    """Gradient flow in time, by an ODE solver, sharing nothing with the closed forms but the weights."""
    step = lambda t, s: np.array(flow(made, s[0], s[1], gram))  # noqa: E731
    done = solve_ivp(step, (0, times[-1]), [s_w, s_l], method="DOP853", t_eval=times, rtol=1e-11, atol=1e-12)
    return done.y


@pytest.mark.parametrize("gram", GRAMS.values(), ids=GRAMS)
@pytest.mark.parametrize("alpha", ALPHAS)
class TestPathAgainstIntegratedFlow:
    def test_flow_stays_on_the_closed_path(self, alpha, gram):
        made = objective("alphapo", alpha=alpha, beta=1.0, gamma=0.0)
        for start in ((-1.0, -1.3), (-2.0, -1.2)):
            s_w, s_l = integrated_flow(made, *start, gram, np.linspace(0.1, 2, 5))
            ours_w, ours_l = path(alpha, gram, *start, s_w - s_l)
            np.testing.assert_allclose(ours_w, s_w, atol=2e-8)
            np.testing.assert_allclose(ours_l, s_l, atol=2e-8)

    def test_point_at_margin_is_where_integrated_flow_has_that_margin(self, alpha, gram):
        made = objective("alphapo", alpha=alpha, beta=1.3, gamma=0.4)
        s_w, s_l = integrated_flow(made, -1.0, -1.3, gram, np.linspace(0.1, 2, 5))
        margins = made.margin(s_w, s_l)
        ours_w, ours_l = point_at_margin(alpha, gram, -1.0, -1.3, margin=margins, beta=1.3, gamma=0.4)
        np.testing.assert_allclose(ours_w, s_w, atol=2e-8)
        np.testing.assert_allclose(ours_l, s_l, atol=2e-8)

    def test_closed_path_at_thirty_digits(self, alpha, gram):
        """Every case, a = b, c = b and α = 0 among them, to full accuracy: no switch between formulas."""
        a, b, c = map(mpmath.mpf, gram)
        start, gap = mpmath.mpf("0.2"), mpmath.mpf("0.45")
        with mpmath.workdps(30):

            def slope(delta):
                rho = mpmath.exp(-mpmath.mpf(alpha) * delta)
                return (a * rho - b) / ((a - b) * rho + (c - b))

            inner = stall_gap(alpha, gram).gap
            assume_no_stall = not (np.isfinite(inner) and 0.2 < inner < 0.45)
            if assume_no_stall:
                truth = mpmath.quad(slope, [start, gap])
                ours = path(alpha, gram, -1.0, -1.2, 0.45)[0] + 1.0
                assert float(abs(ours - truth)) <= 3e-16 * (1 + abs(float(truth)))


LINEAR_SHAPES = {
    "dpo": {"beta": 3.0},
    "slic": {"beta": 0.05},
    "gpo_exponential": {"beta": 0.5},
    "cdpo": {"label_smoothing": 0.05},
}


@pytest.mark.parametrize(("name", "parameters"), LINEAR_SHAPES.items())
def test_link_and_beta_set_the_speed_but_not_the_path(name, parameters):
    """All of these have φ(s) = s: four losses, one straight line."""
    gram = GRAMS["entangled, chosen falls"]
    s_w, s_l = integrated_flow(objective(name, **parameters), -1.0, -1.2, gram, np.array([0.5, 1.0]))
    straight = -1.0 + (1.0 - 1.1) / (1.0 + 1.5 - 2.2) * (s_w - s_l - 0.2)
    np.testing.assert_allclose(s_w, straight, atol=1e-9)


@pytest.mark.parametrize("shape", [JensenShannon(), ChiSquared(), LogOdds(), Alpha(0.5)], ids=str)
def test_integrated_path_of_any_shape_is_what_flow_follows(shape):
    from rewardshape.theory import Logistic, Pairwise
    from rewardshape.theory.scores import Score

    made = Pairwise(Score(False, True), shape, Logistic())
    gram = GRAMS["entangled, chosen falls"]
    s_w, s_l = integrated_flow(made, -1.0, -1.2, gram, np.array([0.5, 1.0, 2.0]))
    ours = integrated_path(shape, gram, -1.0, -1.2, s_w - s_l)
    np.testing.assert_allclose(ours, (s_w, s_l), atol=1e-8)


def test_integrated_path_of_alpha_is_the_closed_one():
    gaps = np.linspace(0.3, 3, 6)
    gram = GRAMS["chosen rises"]
    np.testing.assert_allclose(
        integrated_path(Alpha(0.7), gram, -1.0, -1.2, gaps), path(0.7, gram, -1.0, -1.2, gaps), atol=1e-10
    )


def test_integrated_path_says_where_it_stalls():
    gram = GRAMS["rejected is the flatter"]
    assert stall_gap(1.5, gram).gap == pytest.approx(np.log(0.4 / 0.1) / 1.5)
    with pytest.raises(InputError, match=r"stalls near a gap of 0\.92"):
        integrated_path(Alpha(1.5), gram, -1.0, -1.2, [2.0])


class TestReach:
    """`path` answers for the points that a pair comes to, and for no others."""

    def test_every_answer_is_a_point_of_the_integrated_flow_and_every_nan_is_never_reached(
        self, trajectory, random_pairs
    ):
        never = 0
        for alpha, gram, s_w, s_l in random_pairs(seed=5, count=60):
            for gap in (s_w - s_l + 0.4, s_w - s_l - 0.4):
                truth = trajectory(alpha, gram, s_w, s_l, lambda w, low, gap=gap: w - low - gap)
                ours = path(alpha, Gram(*gram), s_w, s_l, gap)
                if truth is None:
                    never += 1
                    assert np.isnan(ours).all(), (alpha, gram, s_w, s_l, gap)
                else:
                    np.testing.assert_allclose(ours, truth, rtol=1e-6, atol=1e-7)
        assert 40 < never < 90

    def test_a_gap_that_lies_behind_the_pair_is_not_reached(self):
        """The gap of this pair shrinks: both responses rise, the rejected one faster."""
        gram, start = Gram(1.317, 1.755, 2.353), (-2.6184, -0.5477)
        rise = flow(objective("alphapo", alpha=1.0, beta=2.5, gamma=0.25), *start, gram)
        assert rise[1] > rise[0] > 0
        assert np.isnan(path(1.0, gram, *start, -1.0)).all()
        with pytest.raises(InputError, match="does not grow"):
            integrated_path(Alpha(1.0), gram, *start, [-1.0])
        assert path(1.0, gram, *start, -2.5)[0] > start[0]


scores, overlaps = st.floats(-4, -0.05), st.floats(-0.95, 0.95)


@st.composite
def grams(draw):
    a, c = draw(st.floats(0.1, 4)), draw(st.floats(0.1, 4))
    return Gram(a, draw(overlaps) * np.sqrt(a * c), c)


@settings(max_examples=60, deadline=None)
@given(alpha=st.floats(-2, 2), gram=grams(), s_w=scores, s_l=scores)
def test_displacement_condition_is_the_sign_of_the_flow(alpha, gram, s_w, s_l):
    rise, _ = flow(objective("alphapo", alpha=alpha, gamma=0.0), s_w, s_l, gram)
    assume(abs(rise) > 1e-12)
    assert chosen_falls(Alpha(alpha), s_w, s_l, gram) == (rise < 0)


@settings(max_examples=60, deadline=None)
@given(gram=grams(), s_w=st.floats(-3, 3), s_l=st.floats(-3, 3))
def test_the_condition_holds_where_a_reward_turns_back(gram, s_w, s_l):
    """φ rises up to s = 1 and falls beyond it: either weight, or both, may point the other way."""
    made = objective("squared_po", beta=1.0)
    rise, _ = flow(made, s_w, s_l, gram)
    w_w, w_l = made.weights(s_w, s_l)
    assume(abs(rise) > 1e-12 and abs(w_l) > 1e-12)
    assert weight_ratio(made.shape, s_w, s_l) == pytest.approx(w_w / w_l, rel=1e-9)
    assert chosen_falls(made.shape, s_w, s_l, gram) == (rise < 0)


@settings(max_examples=60, deadline=None)
@given(
    size=st.floats(0.1, 2),
    sign=st.sampled_from([-1, 1]),
    turn=st.floats(-2, 2),
    a=st.floats(0.1, 4),
    middle=st.floats(-4, -2),
)
def test_chosen_response_turns_at_the_turning_gap(size, sign, turn, a, middle):
    alpha = sign * size
    b = a * np.exp(-alpha * turn)
    gram = Gram(a, b, 2 * b * b / a)
    assert turning_gap(alpha, gram) == pytest.approx(turn, abs=1e-12)
    made = objective("alphapo", alpha=alpha, gamma=0.0, beta=1e-3)  # nowhere saturated
    before, after = (flow(made, middle + d / 2, middle - d / 2, gram)[0] for d in (turn - 0.01, turn + 0.01))
    assert np.sign(before) == np.sign(alpha)
    assert np.sign(after) == -np.sign(alpha)


def test_no_turning_gap_without_overlap_or_without_alpha():
    assert np.isnan(turning_gap(0.5, Gram(1.0, -0.1, 1.0)))
    assert np.isnan(turning_gap(0.0, Gram(1.0, 0.5, 1.0)))
    assert turning_gap(np.array([0.25, -0.5]), Gram(1.0, 0.5, 1.0)) == pytest.approx(
        np.log(2) / np.array([0.25, -0.5])
    )


@settings(max_examples=60, deadline=None)
@given(
    gram=grams(),
    s_l=scores,
    start=st.floats(0, 1),
    further=st.floats(0.01, 2),
    low=st.floats(-1, 1),
    more=st.floats(0.01, 1),
)
def test_at_equal_gap_a_larger_alpha_never_leaves_the_chosen_response_higher(
    gram, s_l, start, further, low, more
):
    """∂(ds_w/dΔ)/∂ρ = (ac − b²)/f² ≥ 0, and ρ = e^(−αΔ) falls with α where Δ > 0."""
    s_w, gap = s_l + start, start + further
    ends = [path(alpha, gram, s_w, s_l, gap)[0] for alpha in (low, low + more)]
    for alpha in (low, low + more):  # where flow widens the gap all the way
        rho = np.exp(-alpha * np.linspace(start, gap, 20))
        assume(np.all((gram.ww - gram.wl) * rho + gram.ll - gram.wl > 1e-6))
    assert ends[1] <= ends[0] + 1e-12


def test_attracting_stall_lets_both_fall_while_the_margin_still_grows():
    gram = GRAMS["rejected is the flatter"]
    made = objective("alphapo", alpha=1.0, beta=1.0, gamma=0.0)
    s_w, s_l = integrated_flow(made, -1.0, -1.2, gram, np.array([1.0, 30.0, 60.0]))
    stall = stall_gap(1.0, gram)
    assert stall.attracts
    assert np.all(s_w - s_l < stall.gap)
    assert s_w[2] < s_w[1] < s_w[0]
    assert np.all(np.diff(made.margin(s_w, s_l)) > 0)
    assert np.isnan(path(1.0, gram, -1.0, -1.2, stall.gap + 0.1)[0])


def test_repelling_stall_lets_an_unordered_pair_drift_apart():
    gram = GRAMS["entangled, chosen falls"]
    stall = stall_gap(1.0, gram)
    assert not stall.attracts
    made = objective("alphapo", alpha=1.0, beta=1.0, gamma=0.0)
    wrong = -2.0 + stall.gap - 0.2, -2.0
    s_w, s_l = integrated_flow(made, *wrong, gram, np.array([0.5, 1.0]))
    assert s_w[1] - s_l[1] < s_w[0] - s_l[0] < stall.gap
    assert made.margin(s_w[1], s_l[1]) > made.margin(s_w[0], s_l[0])


@settings(max_examples=60, deadline=None)
@given(alpha=st.floats(-2, 2), gram=grams(), s_w=scores, s_l=scores)
def test_inside_the_band_the_chosen_rises_and_the_rejected_falls(alpha, gram, s_w, s_l):
    rise, fall = flow(objective("alphapo", alpha=alpha, gamma=0.0), s_w, s_l, gram)
    assume(abs(rise) > 1e-12 and abs(fall) > 1e-12)
    low, high = disentanglement_band(gram)
    assert (low < np.exp(-alpha * (s_w - s_l)) < high) == (rise > 0 > fall)


def test_the_middle_of_the_band_is_the_ratio_of_the_gradients_norms():
    low, high = disentanglement_band(Gram(1.0, 1.1, 1.5))
    assert np.sqrt(low * high) == pytest.approx(np.sqrt(1.5 / 1.0))
    assert disentanglement_band(Gram(1.0, -0.1, 1.0)) == (0.0, np.inf)


@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.0, 0.5])
def test_probability_gradients_against_finite_differences(alpha):
    """Of the loss of two probabilities: at α = −1 both are pushed alike, at α = 0 in the ratio π_w/π_l."""
    made = objective("alphapo", alpha=alpha, beta=1.0, gamma=0.0)
    p_w, p_l, h = 0.4, 0.05, 1e-7

    def loss(w, low):
        return made.loss(float(np.log(w)), float(np.log(low)))

    of_l = (loss(p_w, p_l + h) - loss(p_w, p_l - h)) / (2 * h)
    of_w = (loss(p_w + h, p_l) - loss(p_w - h, p_l)) / (2 * h)
    ratio = probability_gradient_ratio(Alpha(alpha), np.log(p_w), np.log(p_l))
    assert ratio == pytest.approx(abs(of_l / of_w), rel=1e-6)
    assert ratio == pytest.approx(8.0 ** (1 + alpha))


class TestLimitsInAlpha:
    """The content of AlphaPO's Theorem 3.1, for scores below 0."""

    gram = Gram(1.0, 0.3, 1.0)
    alphas = np.array([5.0, 20.0, 80.0])

    def magnitude(self, alphas, s_w, s_l):
        return gradient_magnitude(alphas, s_w, s_l, beta=2.5, gamma=0.25, gram=self.gram)

    @pytest.mark.parametrize(("s_w", "s_l"), [(-1.0, -1.4), (-1.4, -1.0)])
    def test_gradient_vanishes_as_alpha_falls(self, s_w, s_l):
        values = self.magnitude(-self.alphas, s_w, s_l)
        assert np.all(np.diff(values) < 0)
        assert values[-1] < 1e-30

    def test_gradient_vanishes_doubly_exponentially_for_an_ordered_pair_as_alpha_grows(self):
        values = self.magnitude(self.alphas, -1.0, -1.4)
        assert 0 < values[0] < 1e-100
        assert values[-1] == 0.0

    def test_gradient_grows_without_bound_for_an_unordered_pair_as_alpha_grows(self):
        values = self.magnitude(self.alphas, -1.4, -1.0)
        assert values[-1] > 1e40

    def test_gradient_is_not_monotone_in_alpha_for_an_ordered_pair(self):
        values = self.magnitude(np.linspace(-3, 5, 200), -1.0, -1.1)
        peak = values.argmax()
        assert 0 < peak < 199

    def test_magnitude_is_the_norm_of_the_gradient_in_parameters(self, rng):
        up, down = rng.normal(size=(2, 7))
        made = objective("alphapo", alpha=0.5, beta=2.5, gamma=0.25)
        w_w, w_l = made.weights(-1.0, -1.2)
        gram = Gram(up @ up, up @ down, down @ down)
        ours = gradient_magnitude(0.5, -1.0, -1.2, beta=2.5, gamma=0.25, gram=gram)
        assert ours == pytest.approx(np.linalg.norm(w_l * down - w_w * up), rel=1e-13)


def test_an_integrated_path_starts_where_the_pair_is():
    """The first gap is s_w − s_l as it was written, which float64 need not subtract to the same number."""
    gram, s_w = Gram(1.0, 1.1, 1.5), -0.7
    for gap in (0.1, 0.3, 0.7):
        for s_l in (s_w - gap, float(np.nextafter(s_w - gap, 0.0))):
            ends, others = integrated_path(Alpha(0.5), gram, s_w, s_l, np.array([gap + 0.2, gap, gap + 0.2]))
            assert ends[1] == pytest.approx(s_w, abs=1e-12)
            assert others[1] == pytest.approx(s_l, abs=1e-12)
            assert ends[0] == ends[2] == pytest.approx(path(0.5, gram, s_w, s_l, gap + 0.2)[0], abs=1e-8)
    ends, others = integrated_path(Alpha(0.5), gram, s_w, s_w - 0.3, 0.3)
    assert (ends[0], others[0]) == pytest.approx((s_w, s_w - 0.3))


def test_a_gap_behind_the_start_is_refused():
    with pytest.raises(
        InputError, match=r"a gap of 0\.1 lies behind the start of the pair, whose gap is 0\.3"
    ):
        integrated_path(Alpha(0.5), Gram(1.0, 1.1, 1.5), -0.7, -1.0, [0.1, 0.5])


def test_the_gradient_of_a_pair_out_of_order_is_infinite_beyond_float64_and_not_unknown():
    numbers = {"beta": 2.5, "gamma": 0.5, "gram": (1.0, 0.5, 1.0)}
    with pytest.warns(RuntimeWarning, match="beyond float64"):
        assert gradient_magnitude(1000.0, -1.4, -1.0, **numbers) == np.inf
    assert np.isfinite(gradient_magnitude(100.0, -1.4, -1.0, **numbers))
