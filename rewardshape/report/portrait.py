"""The phase portrait as a page of its own: the theory to play with, for the front page of the documentation."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

START = {"alpha": 0.25, "beta": 2.5, "gamma": 1.0, "b": 1.1, "c": 1.5, "w": -1.5, "l": -1.3, "low": -3.0}

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Phase portrait of a pair</title>
<style>
{style}
body {{ padding: 0.5rem; max-width: 56rem; }}
</style>
</head>
<body>
<div class="stage"><noscript>This picture needs its script.</noscript></div>
<script>{script}</script>
</body>
</html>
"""


def portrait_page() -> str:
    """The page as text: self-contained, its one script allowed by its hash."""
    templates = files("rewardshape").joinpath("templates")
    style, code = (
        templates.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "portrait.js")
    )
    start = ", ".join(f"{name}: {value}" for name, value in START.items())
    script = f'{code}phasePortrait(document.querySelector(".stage"), {{ {start} }}, []);\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    return PAGE.format(style=style, script=script, policy=policy)
