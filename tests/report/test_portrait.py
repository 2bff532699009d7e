"""The portrait's page stands alone: one script, allowed by its hash, which draws the theory's own picture."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from rewardshape.report.portrait import START, portrait_page
from rewardshape.theory import objective


def test_the_one_script_is_the_one_that_its_policy_allows(page_of):
    text = portrait_page()
    page = page_of(text)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1
    [code] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    [policy] = [attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not [attrs for _, attrs in page.elements if {"src", "href", "onload", "onclick"} & set(attrs)]
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert portrait_page() == text


@pytest.mark.parametrize("dark", [False, True])
def test_it_draws_without_a_complaint_and_its_margin_is_that_of_theory(tab, tmp_path, dark):
    file = tmp_path / "portrait.html"
    file.write_text(portrait_page(), encoding="utf-8")
    tab.open(file, dark=dark)
    tab.wait("document.querySelector('.stage svg, .stage canvas') !== null")
    assert tab.complaints() == []


def test_it_starts_at_a_pair_that_is_to_be_learnt_and_whose_chosen_response_falls():
    pair = objective("alphapo", alpha=START["alpha"], beta=START["beta"], gamma=START["gamma"])
    assert pair.margin(START["w"], START["l"]) < 0
    chosen, rejected = pair.weights(START["w"], START["l"])
    assert START["b"] * rejected > 1.0 * chosen  # a = 1: the condition under which chosen falls at the start
    assert START["c"] > START["b"] ** 2  # a Gram matrix
