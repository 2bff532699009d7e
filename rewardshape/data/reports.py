"""What became of every row, column and token: the two reports of reading and of tokenisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardshape.data.forms import PLAIN
from rewardshape.data.prompts import Reading
from rewardshape.errors import printable
from rewardshape.numbers import counted


@dataclass
class ReadReport:
    """What reading did with every row: ``rows == pairs + joined + all dropped + bad_rows``.

    Attributes
    ----------
    sources : dict
        Rows found in each source.
    pairs : int
        Pairs kept.
    joined : int
        Rows that the row before them made a pair with.
    forms : dict
        Pairs kept that were read as each form.
    columns_read, columns_not_read : dict
        Every column of the rows that were understood, with the number of those rows.
    remarks : dict
        What was done to pairs that a reader should know, with the number of pairs kept.
    dropped : dict
        Reason to the pair_ids dropped for it.
    bad_rows : list of str
        The error line of each malformed row that was skipped.
    duplicates : int
        Pairs kept whose prompt and responses equal those of an earlier one.
    fingerprint : str
        SHA-256 of the prompts and responses kept, in order: the same for the same data in another form.
    """

    sources: dict[str, int] = field(default_factory=dict)
    pairs: int = 0
    joined: int = 0
    forms: dict[str, int] = field(default_factory=dict)
    columns_read: dict[str, int] = field(default_factory=dict)
    columns_not_read: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    bad_rows: list[str] = field(default_factory=list)
    duplicates: int = 0
    fingerprint: str = ""

    @property
    def rows(self) -> int:
        """Rows of all sources together."""
        return sum(self.sources.values())

    def count(self, reading: Reading) -> None:
        """Add a row that gave a pair."""
        _add(self.forms, [reading.form])
        _add(self.columns_read, reading.read)
        _add(self.columns_not_read, reading.not_read)
        _add(self.remarks, reading.remarks)

    def summary(self) -> str:
        """One line for people.

        >>> ReadReport({"a.jsonl": 3}, 2, dropped={"empty response": ["a.jsonl:2"]}).summary()
        '3 rows read, 2 pairs kept; 1 dropped: 1 empty response'
        """
        parts = [f"{counted(self.rows, 'row')} read, {counted(self.pairs, 'pair')} kept"]
        if self.joined:
            parts.append(f"{counted(self.joined, 'row')} joined to the row before")
        parts += dropped_parts(self.dropped)
        parts += bad_row_parts(self.bad_rows)
        if self.duplicates:
            parts.append(f"{counted(self.duplicates, 'pair')} kept that an earlier one equals")
        others = [
            f"{counted(number, 'row')} as {name}" for name, number in self.forms.items() if name != PLAIN.name
        ]
        if others:
            parts.append(f"read {', '.join(others)}")
        parts += [f"{remark} ({counted(number, 'pair')})" for remark, number in self.remarks.items()]
        if self.columns_not_read:
            parts.append(f"columns not read: {', '.join(map(printable, self.columns_not_read))}")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of long lists the first ten."""
        return {
            "sources": dict(self.sources),
            "rows": self.rows,
            "pairs": self.pairs,
            "joined": self.joined,
            "forms": dict(self.forms),
            "columns_read": dict(self.columns_read),
            "columns_not_read": dict(self.columns_not_read),
            "remarks": dict(self.remarks),
            "dropped": dropped_dict(self.dropped),
            "bad_rows": {"count": len(self.bad_rows), "first": self.bad_rows[:10]},
            "duplicates": self.duplicates,
            "fingerprint": self.fingerprint,
        }


@dataclass
class EncodeReport:
    """What tokenisation did: ``pairs_in == pairs + all dropped``.

    Attributes
    ----------
    pairs_in, pairs : int
        Pairs given and pairs kept.
    dropped : dict
        Reason to the pair_ids dropped for it.
    bad_rows : list of str
        The error line of each pair that the chat template refused and that was skipped.
    boundary_merges : int
        Pairs whose prompt ends earlier than encoded alone, because a token reaches across its end.
    prompts_rewritten : int
        Pairs whose prompt ends earlier because the chat template writes it otherwise once it is answered.
    prompts_truncated, prompt_tokens_lost, responses_truncated, response_tokens_lost : int
        How many lost tokens to the limits, and how many tokens (an end token not appended counts).
    cut_before : int
        Pairs with a text so far over its limit that it was cut before it was tokenised; what they lost by that is
        not in the counts.
    further_retokenised : int
        Pairs with a further response whose first token would reach into the prompt of the trained pair: the response
        is tokenised from where that prompt ends.
    opening : str
        What the chat template puts before the content of a response (an empty think block).
    opening_pairs, opening_tokens : int
        In how many pairs, and the tokens of it in one response of each.
    opening_in : "response" or "prompt"
        Where those tokens are counted.
    passed_over : dict
        Keys of messages, and ``tools``, that the chat template does not write, with the number of pairs.
    text_pairs : int
        Pairs of texts, joined without the tokenizer's chat template although it has one.
    end_token : bool
        Whether responses end with the end token.
    """

    pairs_in: int = 0
    pairs: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)
    bad_rows: list[str] = field(default_factory=list)
    boundary_merges: int = 0
    prompts_rewritten: int = 0
    prompts_truncated: int = 0
    prompt_tokens_lost: int = 0
    responses_truncated: int = 0
    response_tokens_lost: int = 0
    cut_before: int = 0
    further_retokenised: int = 0
    opening: str = ""
    opening_pairs: int = 0
    opening_tokens: int = 0
    opening_in: str = "response"
    passed_over: dict[str, int] = field(default_factory=dict)
    text_pairs: int = 0
    end_token: bool = True

    def count_lost(self, prompt_lost: int, responses_lost: Sequence[int]) -> None:
        """Add the tokens that a kept pair lost to the limits."""
        self.prompts_truncated += prompt_lost > 0
        self.prompt_tokens_lost += prompt_lost
        self.responses_truncated += sum(lost > 0 for lost in responses_lost)
        self.response_tokens_lost += sum(responses_lost)

    def summary(self) -> str:
        """One line for people."""
        parts = [f"{counted(self.pairs, 'pair')} tokenised", *dropped_parts(self.dropped)]
        parts += bad_row_parts(self.bad_rows)
        for noun, number, lost in (
            ("prompt", self.prompts_truncated, self.prompt_tokens_lost),
            ("response", self.responses_truncated, self.response_tokens_lost),
        ):
            if number:
                parts.append(f"{counted(number, noun)} truncated, {counted(lost, 'token')} lost")
        return "; ".join([*parts, *self._remarks()])

    def _remarks(self) -> Iterator[str]:
        if self.cut_before:
            yield (
                f"texts of {counted(self.cut_before, 'pair')} far over the limits were cut before tokenisation, "
                "what they lost is not counted"
            )
        if self.boundary_merges:
            yield f"{counted(self.boundary_merges, 'prompt')} cut short by a merge into the response"
        if self.prompts_rewritten:
            yield (
                f"the prompt of {counted(self.prompts_rewritten, 'pair')} ends where the chat template writes it "
                "otherwise once it is answered"
            )
        if self.further_retokenised:
            yield (
                f"a further response of {counted(self.further_retokenised, 'pair')} tokenised from where the prompt "
                "of chosen and rejected ends"
            )
        if self.opening_pairs:
            yield (
                f"in {counted(self.opening_pairs, 'pair')} the chat template opens each response with "
                f"'{printable(self.opening)}' ({counted(self.opening_tokens, 'token')} in all), "
                f"counted as {self.opening_in}"
            )
        for key, number in self.passed_over.items():
            yield f"the chat template passes over {printable(key)} of {counted(number, 'pair')}"
        if self.text_pairs:
            yield (
                f"{counted(self.text_pairs, 'pair')} of texts, joined as they stand: the tokenizer's chat template is "
                "not applied to them"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of long lists the first ten."""
        return {
            **vars(self),
            "dropped": dropped_dict(self.dropped),
            "bad_rows": {"count": len(self.bad_rows), "first": self.bad_rows[:10]},
        }


def _add(counts: dict[str, int], names: Iterable[str]) -> None:
    for name in names:
        counts[name] = counts.get(name, 0) + 1


def dropped_parts(dropped: dict[str, list[str]]) -> list[str]:
    """``["4 dropped: 2 empty response, 2 identical responses"]``, or nothing where nothing was dropped."""
    if not dropped:
        return []
    reasons = ", ".join(f"{len(ids):,} {reason}" for reason, ids in dropped.items())
    return [f"{sum(map(len, dropped.values())):,} dropped: {reasons}"]


def bad_row_parts(bad_rows: list[str]) -> list[str]:
    """``["2 malformed rows skipped (first: …)"]``, or nothing where there was none."""
    return [f"{counted(len(bad_rows), 'malformed row')} skipped (first: {bad_rows[0]})"] if bad_rows else []


def dropped_dict(dropped: dict[str, list[str]]) -> dict[str, Any]:
    """For JSON: of every reason how many pairs were dropped, and the first ten."""
    return {reason: {"count": len(ids), "first": ids[:10]} for reason, ids in dropped.items()}
