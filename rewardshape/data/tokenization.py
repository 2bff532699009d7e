"""Pairs into tokens: exactly those of the joined text, cut where prompt ends and response begins.

Encoding a response alone gives other tokens than the tail of prompt + response (leading-space marks, merges,
an added BOS), so only joined texts are encoded. The prompt is the part on which the encoding of the prompt
alone and those of all joined texts agree; where a merge crosses the boundary it ends before the merged token,
and the pair is counted. The tokenizer is passed in; nothing here imports transformers.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rewardshape.data.preferences import Pair, Unusable, common_length, counted, dropped_dict, dropped_parts
from rewardshape.errors import InputError

BATCH = 512  # pairs given to the tokenizer at once


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of a prompt and of its responses; the model reads prompt_ids + a response."""

    pair_id: str
    prompt_ids: list[int]
    responses: dict[str, list[int]]


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
        Pairs whose prompt ends earlier than encoded alone, because the joined texts differ there.
    prompts_truncated, prompt_tokens_lost, responses_truncated, response_tokens_lost : int
        How many lost tokens to the limits, and how many tokens (an end token not appended counts).
    end_token : bool
        Whether responses end with the end token.
    """

    pairs_in: int = 0
    pairs: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)
    bad_rows: list[str] = field(default_factory=list)
    boundary_merges: int = 0
    prompts_truncated: int = 0
    prompt_tokens_lost: int = 0
    responses_truncated: int = 0
    response_tokens_lost: int = 0
    end_token: bool = True

    def count(self, merged: bool, prompt_lost: int, responses_lost: Sequence[int]) -> None:
        """Add a kept pair: whether a merge crossed its boundary, and the tokens it lost."""
        self.boundary_merges += merged
        self.prompts_truncated += prompt_lost > 0
        self.prompt_tokens_lost += prompt_lost
        self.responses_truncated += sum(lost > 0 for lost in responses_lost)
        self.response_tokens_lost += sum(responses_lost)

    def summary(self) -> str:
        """One line for people."""
        parts = [f"{counted(self.pairs, 'pair')} tokenised", *dropped_parts(self.dropped)]
        if self.bad_rows:
            parts.append(
                f"{counted(len(self.bad_rows), 'malformed row')} skipped (first: {self.bad_rows[0]})"
            )
        for noun, number, lost in (
            ("prompt", self.prompts_truncated, self.prompt_tokens_lost),
            ("response", self.responses_truncated, self.response_tokens_lost),
        ):
            if number:
                parts.append(f"{counted(number, noun)} truncated, {counted(lost, 'token')} lost")
        if self.boundary_merges:
            parts.append(f"{counted(self.boundary_merges, 'prompt')} cut short by a merge into the response")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of long lists the first ten."""
        return {
            **vars(self),
            "dropped": dropped_dict(self.dropped),
            "bad_rows": {"count": len(self.bad_rows), "first": self.bad_rows[:10]},
        }


def encode_pairs(
    pairs: Sequence[Pair],
    tokenizer: Any,
    *,
    max_prompt_tokens: int | None,
    max_response_tokens: int | None,
    end_token: bool = True,
    chat_template: str | None = None,
    skip_bad_rows: bool = False,
) -> tuple[list[EncodedPair], EncodeReport]:
    """Tokenise pairs as trainers do.

    Texts are encoded with the special tokens the tokenizer adds; rendered chats without, as their template
    writes them. A prompt over its limit keeps its end, and its BOS where it opens with one; a response over
    its limit keeps its start and has no end token.

    Parameters
    ----------
    pairs : sequence of Pair
    tokenizer : transformers tokenizer
        Fast tokenizers encode in batches on all cores.
    max_prompt_tokens, max_response_tokens : int or None
        Limits in tokens, the end token included; None sets none.
    end_token : bool
        Append the end token to every response that does not end in it already. A chat response that its
        template closes with a special token of its own is left as the template has it.
    chat_template : str, optional
        A Jinja template, or the path of a file that holds one; else the tokenizer's own is used.
    skip_bad_rows : bool
        Count and skip a pair that the chat template refuses instead of stopping at it.

    Returns
    -------
    encoded : list of EncodedPair
    report : EncodeReport

    Raises
    ------
    InputError
        Limits below 1; messages without a chat template, or a template that fails; a tokenizer without end
        token; no pair left.

    Examples
    --------
    >>> encoded, report = encode_pairs(pairs, tokenizer, max_prompt_tokens=256, max_response_tokens=256)
    ... # doctest: +SKIP
    """
    pairs = list(pairs)
    rules = _Rules(tokenizer, max_prompt_tokens, max_response_tokens, end_token)
    template = _chat_template(pairs, tokenizer, chat_template)
    report, encoded = EncodeReport(pairs_in=len(pairs), end_token=end_token), []
    for start in range(0, len(pairs), BATCH):
        texts = list(_texts(pairs[start : start + BATCH], tokenizer, template, report, skip_bad_rows))
        for text, ids in zip(texts, _token_ids(texts, tokenizer, rules), strict=True):
            try:
                encoded.append(_encode(text, ids, rules, report))
            except Unusable as reason:
                report.dropped.setdefault(str(reason), []).append(text.pair_id)
    report.pairs = len(encoded)
    if not encoded:
        raise InputError(f"no pair left after tokenisation ({report.summary()})")
    return encoded, report


class _Rules:
    """What holds for every pair: the limits, and the special tokens at either end of a text."""

    def __init__(self, tokenizer: Any, max_prompt: int | None, max_response: int | None, end_token: bool):
        for flag, limit in (("--max-prompt-tokens", max_prompt), ("--max-response-tokens", max_response)):
            if limit is not None and limit < 1:
                raise InputError(f"{flag} {limit}: at least 1 token is needed")
        if end_token and tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no end token (eos_token); pass --no-end-token")
        self.max_prompt, self.max_response = max_prompt, max_response
        self.bos: int | None = tokenizer.bos_token_id
        self.eos: int | None = tokenizer.eos_token_id if end_token else None
        self.opening, self.closing = _added_tokens(tokenizer)
        self.special_texts = tuple(
            str(token) for token in tokenizer.added_tokens_decoder.values() if token.special
        )


def _added_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer itself puts before and after a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    return [], []


class _Joined(NamedTuple):
    """The texts of a pair: the prompt alone, and the prompt with each response."""

    pair_id: str
    is_chat: bool
    prompt: str
    joined: dict[str, str]


def _texts(
    pairs: Iterable[Pair], tokenizer: Any, template: str | None, report: EncodeReport, skip_bad_rows: bool
) -> Iterator[_Joined]:
    for pair in pairs:
        try:
            yield _rendered(pair, tokenizer, template) if pair.is_chat else _concatenated(pair)
        except InputError as problem:
            if not skip_bad_rows:
                raise InputError(f"{problem}; mend the row or pass --skip-bad-rows") from None
            report.bad_rows.append(str(problem))


def _concatenated(pair: Pair) -> _Joined:
    joined = {name: f"{pair.prompt}{response}" for name, response in pair.responses.items()}
    return _Joined(pair.pair_id, False, str(pair.prompt), joined)


def _rendered(pair: Pair, tokenizer: Any, template: str | None) -> _Joined:
    def render(messages: Any, ask: bool) -> str:
        return tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=ask
        )

    try:
        prompt = render(pair.prompt, True)
        joined = {name: render([*pair.prompt, *response], False) for name, response in pair.responses.items()}
    except Exception as error:  # a template is a program of its own: it may raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{pair.pair_id}: the chat template refuses these messages ({reason})") from error
    return _Joined(pair.pair_id, True, prompt, joined)


def _chat_template(pairs: Sequence[Pair], tokenizer: Any, chat_template: str | None) -> str | None:
    """The text of the template to use, None for the tokenizer's own."""
    if chat_template is None:
        chat = next((pair for pair in pairs if pair.is_chat), None)
        if chat is not None and not tokenizer.chat_template:
            raise InputError(
                f"{chat.pair_id}: chat messages, but the tokenizer has no chat template; "
                "give one with --chat-template"
            )
        return None
    if os.path.isfile(chat_template):
        try:
            return Path(chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--chat-template {chat_template}: cannot be read as UTF-8 text") from error
    if "{" not in chat_template:
        raise InputError(f"--chat-template {chat_template}: no such file, and not a Jinja template")
    return chat_template


class _Ids(NamedTuple):
    """The token ids of the texts of a pair."""

    prompt: list[int]
    joined: dict[str, list[int]]


def _token_ids(texts: Sequence[_Joined], tokenizer: Any, rules: _Rules) -> Iterator[_Ids]:
    chat_ids = _batch_ids([text for text in texts if text.is_chat], tokenizer, add_special_tokens=False)
    plain_ids = _batch_ids([text for text in texts if not text.is_chat], tokenizer, add_special_tokens=True)
    for text in texts:
        ids = chat_ids if text.is_chat else (_single_ends(one, rules) for one in plain_ids)
        yield _Ids(next(ids), {name: next(ids) for name in text.joined})


def _batch_ids(texts: Sequence[_Joined], tokenizer: Any, *, add_special_tokens: bool) -> Iterator[list[int]]:
    flat = [one for text in texts for one in (text.prompt, *text.joined.values())]
    if not flat:
        return iter(())
    encoding = tokenizer(
        flat,
        add_special_tokens=add_special_tokens,
        truncation=False,
        return_attention_mask=False,
        verbose=False,  # it would warn of texts over the model's limit: ours come after
    )
    return iter(encoding["input_ids"])


def _single_ends(ids: list[int], rules: _Rules) -> list[int]:
    """Without the closing tokens the tokenizer adds, nor an opening that the text itself already has."""
    ids = ids[: len(ids) - len(rules.closing)]
    opening = len(rules.opening)
    return ids[opening:] if opening and ids[opening : 2 * opening] == rules.opening else ids


def _encode(text: _Joined, ids: _Ids, rules: _Rules, report: EncodeReport) -> EncodedPair:
    boundary = min(common_length(ids.prompt, joined) for joined in ids.joined.values())
    prompt = ids.prompt[:boundary]
    if not prompt:
        raise Unusable("no prompt token")
    whole = {name: joined[boundary:] for name, joined in ids.joined.items()}
    if not all(whole.values()):
        raise Unusable("no response token")
    if rules.eos is not None:
        whole = {name: _with_end(response, text, name, rules) for name, response in whole.items()}

    kept_prompt = _keep_end(prompt, rules)
    kept = {name: response[: rules.max_response] for name, response in whole.items()}
    if kept["chosen"] == kept["rejected"]:
        cut = kept["chosen"] != whole["chosen"] or kept["rejected"] != whole["rejected"]
        raise Unusable("identical responses after truncation" if cut else "identical response tokens")
    report.count(
        merged=boundary < len(ids.prompt),
        prompt_lost=len(prompt) - len(kept_prompt),
        responses_lost=[len(whole[name]) - len(kept[name]) for name in whole],
    )
    return EncodedPair(text.pair_id, kept_prompt, kept)


def _with_end(response: list[int], text: _Joined, name: str, rules: _Rules) -> list[int]:
    closed = response[-1] == rules.eos
    if text.is_chat:  # a template may close a turn with a token of its own, and a line break after it
        closed = closed or text.joined[name].rstrip().endswith(rules.special_texts)
    return response if closed else [*response, rules.eos]  # type: ignore[list-item]


def _keep_end(prompt: list[int], rules: _Rules) -> list[int]:
    """The end of a prompt over the limit, after its BOS: what a tokenizer that truncates on the left gives."""
    if rules.max_prompt is None or len(prompt) <= rules.max_prompt:
        return prompt
    opening = prompt[:1] if prompt[0] == rules.bos else []
    return opening + prompt[len(prompt) - rules.max_prompt + len(opening) :]
