"""Pairs into tokens: exactly those of the joined text, cut where prompt ends and response begins.

Encoding a response alone gives other tokens than the tail of prompt + response (leading-space marks, merges,
an added BOS), so only joined texts are encoded. The prompt is the part on which the encoding of the prompt
alone and those of prompt + chosen and prompt + rejected agree; where a merge crosses the boundary it ends before the
merged token, and the pair is counted. The tokenizer is passed in; nothing here imports transformers.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from rewardshape.data.messages import Unusable, common_length, shared_beginning
from rewardshape.data.preferences import Pair
from rewardshape.data.reports import EncodeReport
from rewardshape.data.templates import ChatTemplate, Joined, chat_template, concatenated
from rewardshape.errors import InputError

BATCH = 512  # pairs given to the tokenizer at once
SLACK = 64  # tokens that a text is longer than its limit where it is cut before tokenisation
TRAINED = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of a prompt and of its responses; the model reads prompt_ids + a response.

    `prompt_id` is that of the `Pair`: it names the prompt as the data has it, before it was cut. Where none is
    given it is made of the token ids. `scores` are the annotator's of chosen and rejected, where the data has any.
    """

    pair_id: str
    prompt_ids: list[int]
    responses: dict[str, list[int]]
    prompt_id: str = ""
    scores: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.prompt_id:
            name = hashlib.sha256(repr(self.prompt_ids).encode()).hexdigest()[:16]
            object.__setattr__(self, "prompt_id", name)


def encode_pairs(
    pairs: Sequence[Pair],
    tokenizer: Any,
    *,
    max_prompt_tokens: int | None,
    max_response_tokens: int | None,
    end_token: bool = True,
    chat_template: str | None = None,
    template_arguments: Mapping[str, Any] | None = None,
    template_opening: str = "response",
    vocabulary: int | None = None,
    skip_bad_rows: bool = False,
) -> tuple[list[EncodedPair], EncodeReport]:
    """Tokenise pairs as trainers do.

    Texts are encoded with the special tokens the tokenizer adds; rendered chats without, as their template
    writes them. A prompt over its limit keeps its end, and the tokens it opens with (its BOS); a response over
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
    template_arguments : mapping, optional
        Further arguments of the chat template, such as ``{"enable_thinking": False}``.
    template_opening : "response" or "prompt"
        Where tokens count that the template puts before the content of a response (an empty think block): with the
        response, as trainers have it, or with the prompt, so that only the content is measured and trained.
    vocabulary : int, optional
        How many token ids the model embeds; one beyond them is refused here, by name.
    skip_bad_rows : bool
        Count and skip a pair that the chat template refuses instead of stopping at it.

    Returns
    -------
    encoded : list of EncodedPair
    report : EncodeReport

    Raises
    ------
    InputError
        Limits below 1; messages without a chat template, or a template that fails or does not end; an argument that
        the template does not know; a tokenizer without end token, or with ids that the model does not embed; no pair
        left.

    Examples
    --------
    >>> encoded, report = encode_pairs(pairs, tokenizer, max_prompt_tokens=256, max_response_tokens=256)
    ... # doctest: +SKIP
    """
    pairs = list(pairs)
    rules = _Rules(tokenizer, max_prompt_tokens, max_response_tokens, end_token, template_opening)
    template = _template(pairs, tokenizer, chat_template, template_arguments)
    report, encoded = EncodeReport(pairs_in=len(pairs), end_token=end_token, opening_in=template_opening), []
    for start in range(0, len(pairs), BATCH):
        some = pairs[start : start + BATCH]
        texts = [_cut(text, rules, report) for text in _texts(some, template, report, skip_bad_rows)]
        for text, ids in zip(texts, _token_ids(texts, tokenizer, rules), strict=True):
            try:
                encoded.append(_encode(text, ids, rules, report))
            except Unusable as reason:
                report.dropped.setdefault(str(reason), []).append(text.pair_id)
    report.pairs = len(encoded)
    if not encoded:
        raise InputError(f"no pair left after tokenisation ({report.summary()})")
    if vocabulary is not None:
        _check_ids(encoded, vocabulary, tokenizer)
    return encoded, report


_template = chat_template  # `encode_pairs` has an argument of this name


class _Rules:
    """What holds for every pair: the limits, and the special tokens at either end of a text."""

    def __init__(
        self,
        tokenizer: Any,
        max_prompt: int | None,
        max_response: int | None,
        end_token: bool,
        opening_in: str,
    ):
        for flag, limit in (("--max-prompt-tokens", max_prompt), ("--max-response-tokens", max_response)):
            if limit is not None and limit < 1:
                raise InputError(f"{flag} {limit}: at least 1 token is needed")
        if end_token and tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no end token (eos_token); pass --no-end-token")
        if opening_in not in ("response", "prompt"):
            raise InputError(f"--template-opening {opening_in}: response or prompt")
        self.tokenizer = tokenizer
        self.max_prompt, self.max_response = max_prompt, max_response
        self.opening_in_prompt = opening_in == "prompt"
        self.bos: int | None = tokenizer.bos_token_id
        self.eos: int | None = tokenizer.eos_token_id if end_token else None
        self.opening, self.closing = _added_tokens(tokenizer)
        self.special_texts = tuple(
            str(token) for token in tokenizer.added_tokens_decoder.values() if token.special
        )

    @cached_property
    def longest_token(self) -> int:
        """Letters of the longest token, so that a text of n tokens has at most n times as many."""
        return max(map(len, self.tokenizer.get_vocab()))


def _added_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer itself puts before and after a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    return [], []


def token_digest(pairs: Iterable[EncodedPair]) -> str:
    """What tells whether the same prompts and responses are read again, in hexadecimal: of all token ids in order."""
    digest = hashlib.sha256()
    for pair in pairs:
        texts = {"prompt": pair.prompt_ids, **pair.responses}
        lengths = repr((pair.pair_id, [(name, len(ids)) for name, ids in texts.items()]))
        digest.update(lengths.encode("utf-8", "surrogatepass"))
        for ids in texts.values():
            digest.update(array("q", ids))
    return digest.hexdigest()


def _check_ids(encoded: Sequence[EncodedPair], vocabulary: int, tokenizer: Any) -> None:
    for pair in encoded:
        largest = max(max(ids) for ids in (pair.prompt_ids, *pair.responses.values()))
        if largest >= vocabulary:
            token = tokenizer.convert_ids_to_tokens(largest)
            raise InputError(
                f"{pair.pair_id}: token '{token}' has the id {largest}, but the model embeds ids below {vocabulary} "
                "only; tokenizer and model do not belong together, or tokens were added and the model not resized"
            )


def _texts(
    pairs: Iterable[Pair], template: ChatTemplate, report: EncodeReport, skip_bad_rows: bool
) -> Iterator[Joined]:
    has_template = bool(template.tokenizer.chat_template)
    for pair in pairs:
        report.text_pairs += has_template and not pair.is_chat
        try:
            yield template.joined(pair) if pair.is_chat else concatenated(pair)
        except InputError as problem:
            if not skip_bad_rows:
                raise InputError(f"{problem}; mend the row or pass --skip-bad-rows") from None
            report.bad_rows.append(str(problem))


def _cut(text: Joined, rules: _Rules, report: EncodeReport) -> Joined:
    """Texts far over their limits without what would be lost anyway: to tokenise 50 MB takes minutes."""
    longest = max(len(joined) for joined in text.joined.values())
    if rules.max_prompt is None or rules.max_response is None or longest < 100_000:
        return text
    prompt_room, response_room = (
        (limit + SLACK) * rules.longest_token for limit in (rules.max_prompt, rules.max_response)
    )
    end = len(shared_beginning(text.prompt, *text.joined.values()))
    start = max(0, end - prompt_room)
    stop = end + len(text.opening) + response_room
    if not start and longest <= stop:
        return text
    report.cut_before += 1
    first = rules.tokenizer.bos_token or ""
    bos = first if start and text.is_chat and text.prompt.startswith(first) else ""
    return text._replace(
        prompt=bos + text.prompt[start:],
        joined={name: bos + joined[start:stop] for name, joined in text.joined.items()},
    )


class _Ids(NamedTuple):
    """The token ids of the texts of a pair; `opened` of the prompt with the opening of the template."""

    prompt: list[int]
    opened: list[int]
    joined: dict[str, list[int]]


def _token_ids(texts: Sequence[Joined], tokenizer: Any, rules: _Rules) -> Iterator[_Ids]:
    chat_ids = _batch_ids([text for text in texts if text.is_chat], tokenizer, add_special_tokens=False)
    plain_ids = _batch_ids([text for text in texts if not text.is_chat], tokenizer, add_special_tokens=True)
    for text in texts:
        ids = chat_ids if text.is_chat else (_single_ends(one, rules) for one in plain_ids)
        prompt, opened = next(ids), next(ids) if text.opening else []
        yield _Ids(prompt, opened, {name: next(ids) for name in text.joined})


def _opened(text: Joined) -> list[str]:
    """The prompt with the opening, where there is one."""
    if not text.opening:
        return []
    return [shared_beginning(text.prompt, *(text.joined[name] for name in TRAINED)) + text.opening]


def _batch_ids(texts: Sequence[Joined], tokenizer: Any, *, add_special_tokens: bool) -> Iterator[list[int]]:
    flat = [one for text in texts for one in (text.prompt, *_opened(text), *text.joined.values())]
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


def _encode(text: Joined, ids: _Ids, rules: _Rules, report: EncodeReport) -> EncodedPair:
    for key in text.passed_over:
        report.passed_over[key] = report.passed_over.get(key, 0) + 1
    if text.silent:
        raise Unusable("response of which the chat template writes nothing")
    boundary = min(common_length(ids.prompt, ids.joined[name]) for name in TRAINED)
    opened = min([len(ids.opened), *(common_length(ids.opened, ids.joined[name]) for name in TRAINED)])
    end = max(boundary, opened) if rules.opening_in_prompt else boundary
    prompt = ids.joined["chosen"][:end]
    if not prompt:
        raise Unusable("no prompt token")
    whole = {name: joined[end:] for name, joined in ids.joined.items() if joined[:end] == prompt}
    if not all(ids.joined[name][end:] for name in TRAINED):
        raise Unusable("no response token")
    retokenised = [name for name in ids.joined if name not in whole]
    whole |= {name: _from_the_boundary(text, name, prompt, ids, rules) for name in retokenised}
    whole = {name: whole[name] for name in text.joined}
    if not all(whole.values()):
        raise Unusable("no response token")
    if rules.eos is not None:
        whole = {name: _with_end(response, text, name, rules) for name, response in whole.items()}

    kept_prompt = _keep_end(prompt, rules)
    kept = {name: response[: rules.max_response] for name, response in whole.items()}
    if kept["chosen"] == kept["rejected"]:
        cut = kept["chosen"] != whole["chosen"] or kept["rejected"] != whole["rejected"]
        raise Unusable("identical responses after truncation" if cut else "identical response tokens")
    report.count_lost(len(prompt) - len(kept_prompt), [len(whole[name]) - len(kept[name]) for name in whole])
    _count_kept(text, opened - boundary, boundary < len(ids.prompt), bool(retokenised), report)
    return EncodedPair(text.pair_id, kept_prompt, kept, text.prompt_id, text.scores)


def _count_kept(text: Joined, opening: int, short: bool, retokenised: bool, report: EncodeReport) -> None:
    """What a reader of the report should know of a pair that was kept."""
    rewritten = not all(text.joined[name].startswith(text.prompt) for name in TRAINED)
    report.prompts_rewritten += short and rewritten
    report.boundary_merges += short and not rewritten
    report.further_retokenised += retokenised
    if opening > 0:
        report.opening = text.opening
        report.opening_pairs += 1
        report.opening_tokens += opening


def _from_the_boundary(text: Joined, name: str, prompt: list[int], ids: _Ids, rules: _Rules) -> list[int]:
    """The tokens of a further response after the prompt of the trained pair, where its own tokens reach into it.

    The rest of its text is encoded behind a letter that does not merge with it, and that letter is taken off again.
    What is watched must not move the boundary of what is trained.
    """
    tokenizer = rules.tokenizer
    if tokenizer.is_fast:
        marks = tokenizer(
            text.joined["chosen"],
            add_special_tokens=not text.is_chat,
            return_offsets_mapping=True,
            verbose=False,
        )
        shift = common_length(marks["input_ids"][::-1], ids.joined["chosen"][::-1])
        first = len(marks["input_ids"]) - shift + len(prompt) - (len(ids.joined["chosen"]) - shift)
        rest = text.joined[name][marks["offset_mapping"][first][0] :]
        for letter in ("\n", ":", "a"):
            alone, behind = (
                tokenizer(letters, add_special_tokens=False)["input_ids"]
                for letters in (letter, letter + rest)
            )
            found = behind[len(alone) :]
            same = tokenizer.decode(prompt + found) == tokenizer.decode(ids.joined[name])
            if behind[: len(alone)] == alone and same:
                return found
    raise Unusable("further response whose first token reaches into the prompt")


def _with_end(response: list[int], text: Joined, name: str, rules: _Rules) -> list[int]:
    closed = response[-1] == rules.eos
    if text.is_chat:  # a template may close a turn with a token of its own, and a line break after it
        closed = closed or text.joined[name].rstrip().endswith(rules.special_texts)
    return response if closed else [*response, rules.eos]  # type: ignore[list-item]


def _keep_end(prompt: list[int], rules: _Rules) -> list[int]:
    """The end of a prompt over the limit, after its opening: what a tokenizer that truncates on the left gives."""
    if rules.max_prompt is None or len(prompt) <= rules.max_prompt:
        return prompt
    opens = max(common_length(prompt, rules.opening), prompt[0] == rules.bos)
    opening = prompt[: min(opens, rules.max_prompt)]
    return opening + prompt[len(prompt) - rules.max_prompt + len(opening) :]
