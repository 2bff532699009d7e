"""Formulas as MathML, which browsers draw themselves: no script, no font, no network.

In docstrings ``.. math::`` blocks and ``:math:`` roles; in guides ``$$…$$`` and ``$…$``, and the subscripts and powers
of formulas that are written plainly there, as w_w or e^(−αs).
"""

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

CODE = re.compile(
    r"^( *)(```|~~~).*?^\1\2[^\n]*$|``.+?``|`[^`\n]+`|\]\([^)]*\)|<[A-Za-z/!][^>]*>", re.MULTILINE | re.DOTALL
)
DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
IN_LINE = re.compile(r"(?<![\\$\w])\$([^$\n]+)\$(?![\w$])")
POWER = re.compile(r"\be\^(?:\(([^()]*(?:\([^()]*\)[^()]*)*)\)|(−?\w+))")
SUBSCRIPT = re.compile(r"(?<![A-Za-z0-9_])([A-Za-zπρφσΔ])_(w|l|s|ref)\b")


class Formulas(griffe.Extension):
    """Rewrites ``.. math::`` blocks and ``:math:`` roles of every docstring before it is rendered."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            text = STARRED.sub(r"\\*", obj.docstring.value)
            obj.docstring.value = INLINE.sub(_inline, BLOCK.sub(_block, text))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A guide with its formulas set; code, links and tags stay as they are."""
    kept, parts = [found[0] for found in CODE.finditer(markdown)], CODE.split(markdown)
    prose = parts[:: 1 + CODE.groups]
    return "".join(_set(text) + code for text, code in zip(prose, [*kept, ""], strict=True))


def _set(prose: str) -> str:
    made: list[str] = []  # each formula once: what one pattern has set is not for the next

    def put(markup: str) -> str:
        made.append(markup)
        return f"\x02{len(made) - 1}\x03"

    prose = DISPLAYED.sub(
        lambda found: put(f"<div>{convert(found[1].strip(), display='block')}</div>"), prose
    )
    prose = IN_LINE.sub(lambda found: put(f"<span>{convert(found[1])}</span>"), prose)
    prose = POWER.sub(
        lambda found: put(f"<i>e</i><sup>{SUBSCRIPT.sub(_sub, found[1] or found[2])}</sup>"), prose
    )
    prose = SUBSCRIPT.sub(lambda found: put(_sub(found)), prose)
    return re.sub("\x02(\\d+)\x03", lambda found: made[int(found[1])], prose)


def _sub(found: re.Match[str]) -> str:
    return f"<i>{found[1]}</i><sub>{found[2]}</sub>"


def _block(found: re.Match[str]) -> str:
    tex = " ".join(textwrap.dedent(found[2]).split())
    mathml = convert(EQUATIONS % tex if "&" in tex else tex, display="block")
    return f"{found[1]}<div>{mathml}</div>\n"


def _inline(found: re.Match[str]) -> str:
    return convert(found[1])
