"""A file's text comes out as it was written, in pieces as in one, whatever its encoding; a terminal's codes do not."""

from __future__ import annotations

import gzip
import json

import pytest

from rewardshape.logs.source import PIECE, Source


def source(tmp_path, raw):
    path = tmp_path / "log"
    path.write_bytes(raw)
    return Source(path, "log")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_the_same_in_every_encoding(tmp_path, encoding):
    text = "β = 0.1\nloss 0,5 – 日本\n"
    found = source(tmp_path, text.encode(encoding))
    assert found.text == "".join(found.pieces()) == text
    assert found.first_line == "β = 0.1"
    assert not found.is_binary


def test_a_file_of_several_pieces_has_the_lines_of_its_text(tmp_path):
    """Letters of three bytes lie across the borders of the pieces."""
    text = "".join(f"{k} {'日' * (k % 7)}\n" for k in range(160_000))
    raw = text.encode()
    assert len(raw) > 2 * PIECE
    found = source(tmp_path, raw)
    pieces = list(found.pieces())
    assert len(pieces) > 2
    assert all(piece.endswith("\n") for piece in pieces)
    assert "".join(pieces) == text


def test_colours_and_returns_of_a_terminal_are_taken_out(tmp_path):
    raw = b"\x1b[31mloss\x1b[0m 0.5\r\x1b]0;title\x07loss 0.4\r\n"
    assert [line for line in source(tmp_path, raw).lines() if line] == ["loss 0.5", "loss 0.4"]


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_windows_line_ends_are_one_line_end_wherever_a_piece_ends(tmp_path, moved):
    """Lines of 8 bytes: with one or two more before them a piece ends before, between or behind the two letters."""
    raw = b"x" * moved + b"line 1\r\n" * (PIECE // 4)
    text = "".join(source(tmp_path, raw).pieces())
    assert text == raw.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (gzip.compress(b"loss 0.5", mtime=0), "this is a gzip file"),
        (b"PK\x03\x04", "this is a zip file"),
        (bytes(range(256)), "binary data (256 bytes)"),
        (
            b"\n  Once upon a time\n",
            "no loss, reward or log-probability in a text that begins 'Once upon a time'",
        ),
    ],
)
def test_what_a_file_looks_like_is_said(tmp_path, raw, seen):
    assert source(tmp_path, raw).seen() == seen


@pytest.mark.parametrize("value", [{"a": [1, 2]}, [{"b": None}]])
def test_a_file_of_one_json_value_gives_it_and_any_other_gives_none(tmp_path, value):
    text = json.dumps(value)
    assert source(tmp_path, b"\xef\xbb\xbf \n" + text.encode()).json == value
    assert source(tmp_path, text.encode() + b"\n" + text.encode()).json is None
    assert source(tmp_path, b"[" * 100_000).json is None
    assert source(tmp_path, b"3").json is None


def test_text_that_is_no_file_is_read_alike(tmp_path):
    given = Source(tmp_path / "nowhere", "cell 3", given="a\rb\n")
    assert list(given.lines())[:2] == ["a", "b"]
    assert given.first_line == "a"
