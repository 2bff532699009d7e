"""Formulas of docstrings as MathML, which browsers draw themselves: no script, no font, no network."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

BLOCK = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*| *(?=\n\1 +\S)))*)", re.MULTILINE)
STARRED = re.compile(r"(?<=\w)\*(?=[\s.,;:)]|$)", re.MULTILINE)  # the Δ* of a formula is no emphasis
INLINE = re.compile(r":math:`([^`]+)`")
EQUATIONS = "\\begin{aligned}%s\\end{aligned}"


class Formulas(griffe.Extension):
    """Rewrites ``.. math::`` blocks and ``:math:`` roles of every docstring before it is rendered."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            text = STARRED.sub(r"\\*", obj.docstring.value)
            obj.docstring.value = INLINE.sub(_inline, BLOCK.sub(_block, text))


def _block(found: re.Match[str]) -> str:
    tex = " ".join(textwrap.dedent(found[2]).split())
    mathml = convert(EQUATIONS % tex if "&" in tex else tex, display="block")
    return f"{found[1]}<div>{mathml}</div>\n"


def _inline(found: re.Match[str]) -> str:
    return convert(found[1])
