"""Text on a page is text: it ends no element, holds no control character, and comes out as it went in."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from rewardshape.report.text import as_json, printable

TEXTS = st.text() | st.sampled_from(
    ["</script><script>x", "<!--", "\x00\x1b\x7f", "\ud800", "&lt;", "\\u003c", "\u2028"]
)


class Script(HTMLParser):
    """The content of the one script element, as a browser delimits it."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.content = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.content += data


@settings(max_examples=40)
@given(st.lists(TEXTS | st.integers() | st.none(), max_size=4))
def test_any_content_comes_out_of_its_element_as_it_went_in(content):
    page = Script(f'<script type="application/json">{as_json(content)}</script>')
    assert page.tags == ["script"]
    assert json.loads(page.content) == [printable(value) for value in content]
    page.content.encode("utf-8")


def test_text_that_is_already_escaped_is_left():
    assert printable(Markup("<b>\x00</b>")) == "<b>\x00</b>"
    assert printable("a\x00b") == "a\ufffdb"
    assert printable(3) == 3


def test_what_looks_like_an_escape_in_the_data_is_text():
    for text in ("\\u001b", "\\\\u001b", "a\\u0000\x1b"):
        assert json.loads(as_json([text])) == [printable(text)]
