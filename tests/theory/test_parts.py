"""Shapes and links as data, and that a part of one's own whose formulas do not fit is found."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from rewardshape.errors import InputError
from rewardshape.theory import Alpha, Hinge, Link, Logistic, Shape
from rewardshape.theory.links import Clipped
from rewardshape.theory.parts import check_link, check_shape, part_of, spelled


class Wrong(Shape):
    def compute_reward(self, xp, s):
        return s**3

    def compute_slope(self, xp, s):
        return 2 * s**2


class Falls(Shape):
    def compute_reward(self, xp, s):
        return -s

    def compute_slope(self, xp, s):
        return 0.0 * s - 1.0


class Breaks(Shape):
    def compute_reward(self, xp, s):
        return xp.log(1 + s)

    def compute_slope(self, xp, s):
        return 1 / (1 + s)


class Half(Shape):
    def compute_reward(self, xp, s):
        return s


class NumpyOnly(Shape):
    def compute_reward(self, xp, s):
        return np.tanh(np.asarray(s, dtype=object).astype(float))

    def compute_slope(self, xp, s):
        return 1 - np.tanh(s) ** 2


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Wrong(), r"Wrong.compute_slope is .* it is not its derivative"),
        (Falls(), r"Falls: its slope at s = -20 is -1, but it claims to be increasing"),
        (Breaks(), r"Breaks.compute_reward is not finite at s = -20"),
        (Half(), r"Half must define compute_slope"),
        (NumpyOnly(), r"use the functions of xp instead of numpy's"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_shape_whose_formulas_do_not_fit_is_refused_in_one_line(shape, message):
    with pytest.raises(InputError, match=message) as refusal:
        check_shape(shape, reference=False)
    assert "\n" not in str(refusal.value)


class Doubled(Link):
    """The exponential loss with a slope twice as steep, or as it is."""

    def __init__(self, factor):
        self.factor = factor

    def compute_loss(self, xp, z):
        return xp.exp(-z)

    def compute_slope(self, xp, z):
        return -self.factor * xp.exp(-z)


def test_a_link_is_checked_against_its_difference_quotient():
    check_link(Doubled(1.0))
    steep = f"{-2 * math.exp(19.9):.6g}"  # at the first point of the grid that has two neighbours
    with pytest.raises(InputError, match=rf"{re.escape(steep)} at z = -19.9, .* it is not its derivative"):
        check_link(Doubled(2.0))


@pytest.mark.parametrize(
    ("base", "given", "message"),
    [
        (Shape, "chi", r"unknown shape 'chi'; the nearest valid names are: chi_squared"),
        (Shape, 3, r"shape: give a Shape"),
        (Shape, {"name": "alpha"}, r"shape 'alpha': .*missing 1 required positional argument"),
        (Link, "logit", r"unknown link 'logit'; .* logistic"),
    ],
)
def test_what_names_no_part_is_refused(base, given, message):
    with pytest.raises(InputError, match=message):
        part_of(base, given)


@pytest.mark.parametrize("part", [Alpha(0.25), Hinge(), Clipped(Logistic(), 3.0)], ids=str)
def test_a_part_is_made_again_from_its_spelling(part):
    base = Shape if isinstance(part, Shape) else Link
    assert part_of(base, json.loads(json.dumps(spelled(part)))) == part
    assert part_of(base, part) is part
