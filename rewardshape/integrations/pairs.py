"""The pairs that are measured beside somebody else's training: read at once, made tokens when the model is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardshape.data import EncodedPair, Pair, encode_pairs, read_preferences
from rewardshape.errors import InputError
from rewardshape.probe.grid import token_limits
from rewardshape.probe.policy import context_length


class ReadPairs:
    """The pairs to measure, read; their tokens come with the tokenizer.

    Parameters
    ----------
    pairs : path, list of paths, list of dict, DataFrame, datasets.Dataset or list of EncodedPair
        Preference pairs in any form that `rewardshape.data` reads.
    columns : mapping, optional
        Which column is which where the form is not known: ``{"prompt": "instruction"}``.
    max_pairs : int or None
        Only so many, from the start.
    reading
        Further arguments of `rewardshape.data.read_preferences`.
    """

    def __init__(
        self,
        pairs: Any,
        columns: Mapping[str, str] | None = None,
        max_pairs: int | None = None,
        **reading: Any,
    ):
        if max_pairs is not None and max_pairs < 1:
            raise InputError(f"max_pairs={max_pairs}: must be at least 1")
        self.encoded: list[EncodedPair] = []
        self.pairs: list[Pair] | None = None  # where tokens were given
        self._made_by: tuple[Any, dict[str, Any]] | None = None
        self.notes: list[str] = []
        self.report: dict[str, Any] = {"pairs": None}
        if isinstance(pairs, Sequence) and len(pairs) and isinstance(pairs[0], EncodedPair):
            self.encoded, self.report = list(pairs)[:max_pairs], {"pairs": len(pairs)}
            return
        read, report = read_preferences(pairs, columns=columns, **reading)
        self.pairs = read[:max_pairs]
        self.notes.append(report.summary())
        if len(self.pairs) < len(read):
            self.notes.append(f"the first {len(self.pairs):,} of {len(read):,} pairs are measured")
        self.report = {"read": report.to_dict(), "fingerprint": report.fingerprint}

    def encode(
        self,
        tokenizer: Any,
        config: Any,
        max_prompt_tokens: int | None,
        max_response_tokens: int | None,
        **rules: Any,
    ) -> list[EncodedPair]:
        """The pairs as tokens, made once by each rule; limits left out are half the model's context, at most 1024."""
        if self.pairs is None:
            return self.encoded
        prompt, response = token_limits(max_prompt_tokens, max_response_tokens, context_length(config))
        rules |= {
            "max_prompt_tokens": prompt,
            "max_response_tokens": response,
            "vocabulary": getattr(config.get_text_config(), "vocab_size", None),
        }
        if self._made_by != (tokenizer, rules):
            self.encoded, report = encode_pairs(self.pairs, tokenizer, **rules)
            self._made_by = tokenizer, rules
            self.notes.append(report.summary())
            self.report |= {"encoded": report.to_dict(), "end_token": rules.get("end_token", True)}
        return self.encoded
