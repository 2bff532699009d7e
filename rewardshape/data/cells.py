"""A row that is being read: its cells, which of them were taken, and the columns that a user named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardshape.data.messages import Text, said
from rewardshape.errors import InputError

Row = dict[str, Any]

SCORES = ("chosen_score", "rejected_score")
TARGETS = ("prompt", "chosen", "rejected", "system", "tools", *SCORES)
HOW_TO_NAME = "name the columns, as --columns prompt=… chosen=… rejected=…"


class MissingColumn(InputError):
    """A row without a column that every form it could have needs."""


class Cells:
    """A row that is being read.

    Parameters
    ----------
    row : dict
        As the file has it.
    columns : mapping, optional
        What ``--columns`` names: ``{"prompt": "instruction"}`` puts the column `instruction` in the place of `prompt`.

    Attributes
    ----------
    row : dict
        With the named columns in their places.
    read : set of str
        The columns that were taken out so far.
    within : list of str
        Parts of a cell, as ``input.seed``, that a form found in it and did not take.
    remarks : list of str
        What was done to the cells that a reader of the report should know.
    """

    def __init__(self, row: Row, columns: Mapping[str, str] | None = None):
        self.given, self.columns = row, columns or {}
        self.row = row
        self.read: set[str] = set()
        self.within: list[str] = []
        self.remarks: list[str] = []
        for target, name in self.columns.items():
            if name not in row:
                raise MissingColumn(f"no field '{name}', which --columns names as {target} ({self.names()})")
        if self.columns:
            others = {name: value for name, value in row.items() if name not in self.columns.values()}
            self.row = {**others, **{target: row[name] for target, name in self.columns.items()}}

    def not_read(self) -> list[str]:
        """The columns of the file that nothing was taken from."""
        read = {self.columns.get(name, name) for name in self.read}
        return [name for name in self.given if name not in read]

    def holds(self, name: str) -> bool:
        """Whether there is something in this column."""
        value = self.row.get(name)
        return value is not None and value != "" and value != []

    def value(self, name: str) -> Any:
        """The cell as it stands, None where there is none."""
        self.read.add(name)
        return self.row.get(name)

    def said(self, name: str) -> Text:
        """The text or messages of a cell that must be there."""
        if self.value(name) is None:
            raise MissingColumn(f"no field '{name}' ({self.names()})")
        text, encoded = said(self.row[name], name)
        if encoded and "messages decoded from JSON text" not in self.remarks:
            self.remarks.append("messages decoded from JSON text")
        return text

    def text(self, name: str) -> str:
        """The cell, which must be a text."""
        text = self.said(name)
        if not isinstance(text, str):
            raise InputError(f"field '{name}' holds messages where text belongs")
        return text

    def names(self) -> str:
        """What the row has, for an error."""
        return f"the row has {', '.join(map(str, self.given)) or 'no field'}"


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """``["prompt=instruction", "chosen=good"]`` as a mapping.

    Raises
    ------
    InputError
        A word without ``=``, a target that does not exist, or one that is named twice.
    """
    columns: dict[str, str] = {}
    for word in words:
        target, equals, name = word.partition("=")
        if not equals or not name or target not in TARGETS:
            raise InputError(f"--columns {word}: write TARGET=COLUMN, TARGET one of {', '.join(TARGETS)}")
        if target in columns:
            raise InputError(f"--columns {word}: {target} is named twice")
        columns[target] = name
    return columns
