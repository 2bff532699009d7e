"""A log as a file: its bytes, its text, and its text piece by piece, cleaned of what only a terminal needs."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rewardshape.errors import printable

PIECE = 1 << 20  # bytes of a piece of text
BINARY_SHARE = 0.02  # of control characters in what should be text
SECONDS_QUIET = 2.0  # a reading that takes longer shows how far it is
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_CONTROL = re.compile("[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\ufffd]")
MAGIC = {
    b"\x1f\x8b": "a gzip file",
    b"PK": "a zip file",
    b"PAR1": "a Parquet file",
    b":W&B": "a wandb binary file (give the files/output.log beside it, or export the run's history as CSV)",
    b"SQLite format 3\x00": "an SQLite database",
}


@dataclass(frozen=True)
class Source:
    """A file that may be a log.

    Attributes
    ----------
    path : Path
    name : str
        How the file is called to the user.
    given : str or None
        Text that is no file of its own, such as what a notebook printed.
    """

    path: Path
    name: str
    given: str | None = None

    @cached_property
    def head(self) -> bytes:
        """The first bytes."""
        if self.given is not None:
            return self.given[:PIECE].encode("utf-8", "replace")
        with self.path.open("rb") as file:
            return file.read(PIECE)

    @cached_property
    def encoding(self) -> str:
        """UTF-16 where a byte order mark says so, else UTF-8; what is not valid becomes a replacement character."""
        return "utf-16" if self.head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"

    @property
    def is_binary(self) -> bool:
        """Whether the first bytes are no text."""
        text = codecs.getincrementaldecoder(self.encoding)("replace").decode(self.head)
        return len(_CONTROL.findall(text)) > BINARY_SHARE * len(text)

    @cached_property
    def text(self) -> str:
        """The whole text as it is written."""
        if self.given is not None:
            return self.given
        return self.path.read_bytes().decode(self.encoding, "replace")

    @cached_property
    def json(self) -> Any:
        """The value of a text that is one JSON value, else None."""
        if self.head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"[") and self.encoding == "utf-8-sig":
            return None
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return None

    @cached_property
    def first_line(self) -> str:
        """The first line that is not empty."""
        text = codecs.getincrementaldecoder(self.encoding)("replace").decode(self.head)
        return next((line.strip() for line in text.splitlines() if line.strip()), "")

    def pieces(self) -> Iterator[str]:
        """The text in pieces that end with a line, without terminal codes, with ``\\n`` for ``\\r\\n`` and ``\\r``."""
        for piece in _by_line(self._decoded()):
            yield _ANSI.sub("", piece).replace("\r\n", "\n").replace("\r", "\n")

    def lines(self) -> Iterator[str]:
        """The lines of the text, without terminal codes."""
        for piece in self.pieces():
            yield from piece.split("\n")

    def _decoded(self) -> Iterator[str]:
        if self.given is not None:
            yield self.given
            return
        decoder = codecs.getincrementaldecoder(self.encoding)("replace")
        bar = tqdm(
            total=self.path.stat().st_size, unit="B", unit_scale=True, delay=SECONDS_QUIET, leave=False,
            mininterval=0.5, desc=f"reading {printable(self.name)}", file=sys.stderr,
        )  # fmt: skip
        with self.path.open("rb") as file, bar:
            while raw := file.read(PIECE):
                bar.update(len(raw))
                yield decoder.decode(raw)
            yield decoder.decode(b"", final=True)

    def seen(self) -> str:
        """What the file looks like, for a message."""
        for magic, kind in MAGIC.items():
            if self.head.startswith(magic):
                return f"this is {kind}"
        if self.is_binary:
            return f"binary data ({self.path.stat().st_size} bytes)"
        return f"no loss, reward or log-probability in a text that begins {self.first_line[:50]!r}"


def _by_line(parts: Iterator[str]) -> Iterator[str]:
    rest = ""
    for part in parts:
        text = rest + part
        # A return at the end may be the first half of a Windows line end
        end = max(text.rfind("\n"), text.rfind("\r", 0, len(text) - 1)) + 1
        if not end and len(text) < 2 * PIECE:  # a line longer than that is cut where it stands
            rest = text
            continue
        rest = text[end:] if end else ""
        yield text[:end] if end else text
    if rest:
        yield rest
