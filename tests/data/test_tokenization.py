"""Prompt and response tokens are those of the joined text, whatever the tokenizer adds, marks or merges."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rewardshape.data import EncodedPair, Pair, encode_pairs, read_preferences
from rewardshape.data.tokenization import token_digest
from rewardshape.errors import InputError

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# No "#" among them: a response that opens with it never merges with its prompt.
WORDS = "Is it so? Yes, it is so. No, it is not so at all. abab baba aabb bbaa yes no"


def byte_level(*, before=(), after=(), **settings) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose merges may cross words, and with that the boundary of prompt and response."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<|turn|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    if before or after:
        ends = [(token, tokenizer.token_to_id(token)) for token in {*before, *after}]
        template = processors.TemplateProcessing(single=[*before, "$A", *after], special_tokens=ends)
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **({"bos_token": "<s>", "eos_token": "</s>"} | settings)
    )


BUILT = {
    "plain": byte_level(),
    "with BOS": byte_level(before=["<s>"]),
    "with BOS and EOS": byte_level(before=["<s>"], after=["</s>"]),
    "pad is eos": byte_level(before=["<s>"], pad_token="</s>"),
    "bos is eos": byte_level(bos_token="</s>"),
    "chat": byte_level(before=["<s>"], chat_template=CHAT),
}
BOS, EOS, TURN = (BUILT["plain"].convert_tokens_to_ids(token) for token in ("<s>", "</s>", "<|turn|>"))


@pytest.fixture(scope="session", params=["stories260K", "babyllama105"])
def real_tokenizer(inputs, request):
    return AutoTokenizer.from_pretrained(inputs / "checkpoints" / request.param)


def pair(prompt, chosen, rejected, **further):
    return Pair("a.jsonl:1", prompt, {"chosen": chosen, "rejected": rejected, **further})


def encode_one(tokenizer, *texts, max_prompt_tokens=None, max_response_tokens=None, **options):
    limits = {"max_prompt_tokens": max_prompt_tokens, "max_response_tokens": max_response_tokens}
    (encoded,), report = encode_pairs([pair(*texts)], tokenizer, **limits, **options)
    return encoded, report


def slow_split(prompt, chosen, rejected):
    """Token by token: the tokens on which all three agree, and what follows in the joined texts."""
    shared = []
    for a, b, c in zip(prompt, chosen, rejected, strict=False):
        if not a == b == c:
            break
        shared.append(a)
    return shared, chosen[len(shared) :], rejected[len(shared) :]


texts = st.text(
    st.one_of(st.sampled_from("ab sio.YN\n"), st.characters(exclude_categories=["Cs"])), max_size=12
)


@pytest.mark.parametrize("name", BUILT)
@settings(deadline=None)
@given(prompt=texts, chosen=texts, rejected=texts)
def test_prompt_and_response_are_the_tokens_of_the_joined_text(name, prompt, chosen, rejected):
    tokenizer = BUILT[name]
    added = {"with BOS and EOS": -1}.get(name)  # what it appends itself comes after the response
    alone, first, second = (
        tokenizer(text)["input_ids"][:added] for text in (prompt, prompt + chosen, prompt + rejected)
    )
    shared, first_response, second_response = slow_split(alone, first, second)
    try:
        encoded, report = encode_one(tokenizer, prompt, chosen, rejected, end_token=False)
    except InputError:
        assert not shared or not first_response or not second_response or first == second
        return
    assert encoded.prompt_ids == shared
    assert encoded.prompt_ids + encoded.responses["chosen"] == first
    assert encoded.prompt_ids + encoded.responses["rejected"] == second
    assert report.boundary_merges == (len(shared) < len(alone))
    whole = tokenizer.decode(encoded.prompt_ids + encoded.responses["chosen"], skip_special_tokens=True)
    assert whole == prompt + chosen


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=texts, chosen=texts, rejected=texts)
def test_real_tokenizers_split_the_joined_text(real_tokenizer, prompt, chosen, rejected):
    alone, first, second = (
        real_tokenizer(text)["input_ids"] for text in (prompt, prompt + chosen, prompt + rejected)
    )
    shared, first_response, second_response = slow_split(alone, first, second)
    try:
        encoded, report = encode_one(real_tokenizer, prompt, chosen, rejected, end_token=True)
    except InputError:
        assert not first_response or not second_response or first == second
        return
    assert encoded.prompt_ids == shared
    assert encoded.responses == {"chosen": [*first_response, 2], "rejected": [*second_response, 2]}
    assert report.boundary_merges == (len(shared) < len(alone))


@pytest.mark.parametrize(
    "name",
    [
        "llms_from_scratch_polite",
        "learning_dynamics_helpful_probe",
        "persona_openness",
    ],
)
def test_real_data_keeps_the_joined_tokens(inputs, real_tokenizer, name):
    pairs, _ = read_preferences(inputs / "data" / f"{name}.jsonl")
    encoded, report = encode_pairs(pairs, real_tokenizer, max_prompt_tokens=None, max_response_tokens=None)
    assert report.pairs_in == len(pairs) == report.pairs
    assert (report.prompt_tokens_lost, report.response_tokens_lost) == (0, 0)
    for given_pair, found in zip(pairs, encoded, strict=True):
        assert found.pair_id == given_pair.pair_id
        for response in ("chosen", "rejected"):
            joined = real_tokenizer(given_pair.prompt + given_pair.responses[response])["input_ids"]
            assert found.prompt_ids + found.responses[response] == [*joined, real_tokenizer.eos_token_id]


def test_a_merge_across_the_boundary_ends_the_prompt_before_it():
    tokenizer = BUILT["with BOS"]
    assert tokenizer.tokenize("abab") == ["abab"]  # the tokenizer does merge here
    encoded, report = encode_one(tokenizer, "Is it so? ab", "ab", "?")
    assert tokenizer.decode(encoded.prompt_ids) == "<s>Is it so? "
    assert tokenizer.decode(encoded.responses["chosen"]) == "abab</s>"
    assert tokenizer.decode(encoded.responses["rejected"]) == "ab?</s>"
    assert report.boundary_merges == 1
    assert "1 prompt cut short by a merge" in report.summary()


def test_the_leading_space_of_a_response_belongs_to_its_first_token(inputs):
    tokenizer = AutoTokenizer.from_pretrained(inputs / "checkpoints" / "stories260K")
    encoded, _ = encode_one(tokenizer, "Do you like it?", " Yes", " No")
    assert tokenizer.convert_ids_to_tokens(encoded.responses["chosen"])[0].startswith("▁")
    alone = tokenizer(" Yes")["input_ids"]
    assert (
        encoded.responses["chosen"] != [*alone, 2] != [*alone[1:], 2]
    )  # encoding it alone would double the mark


@pytest.mark.parametrize("name", BUILT)
def test_one_end_token_is_appended_and_none_is_doubled(name):
    tokenizer = BUILT[name]
    encoded, report = encode_one(tokenizer, "Is it so?", " Yes", " No</s>")
    assert [ids.count(EOS) for ids in encoded.responses.values()] == [1, 1]
    assert [ids[-1] for ids in encoded.responses.values()] == [EOS, EOS]
    assert EOS not in encoded.prompt_ids
    assert report.to_dict()["end_token"] is True

    encoded, report = encode_one(tokenizer, "Is it so?", " Yes", " No", end_token=False)
    assert all(EOS not in ids for ids in encoded.responses.values())
    assert report.to_dict()["end_token"] is False


def test_a_text_that_writes_its_own_bos_has_it_once():
    encoded, _ = encode_one(BUILT["with BOS"], "<s>Is it so?", "#Yes", "#No")
    assert encoded.prompt_ids == BUILT["with BOS"]("Is it so?")["input_ids"]
    assert encoded.prompt_ids.count(BOS) == 1


def test_an_empty_prompt_needs_a_bos_to_predict_from():
    encoded, _ = encode_one(BUILT["with BOS"], "", "Yes", "No")
    assert encoded.prompt_ids == [BOS]
    with pytest.raises(InputError, match=r"no pair left after tokenisation .*1 no prompt token"):
        encode_one(BUILT["plain"], "", "Yes", "No")


def test_a_tokenizer_without_end_token_needs_the_flag():
    tokenizer = byte_level(eos_token=None)
    with pytest.raises(InputError, match="--no-end-token"):
        encode_one(tokenizer, "a", "b", "c")
    assert encode_one(tokenizer, "a", "#b", "#c", end_token=False)[0].responses["chosen"]


# --- truncation ---


@pytest.mark.parametrize("limit", [1, 2, 5, 9, 10, 11, 100])
def test_a_prompt_keeps_its_end_and_its_bos_as_left_truncation_does(limit):
    tokenizer = byte_level(before=["<s>"], truncation_side="left")
    prompt = "one two three four five?"
    alone = tokenizer(prompt)["input_ids"]
    encoded, report = encode_one(tokenizer, prompt, "#Yes", "#No", max_prompt_tokens=limit)
    assert encoded.prompt_ids == tokenizer(prompt, truncation=True, max_length=limit)["input_ids"]
    assert report.prompt_tokens_lost == max(0, len(alone) - limit)
    assert report.prompts_truncated == (limit < len(alone))


def test_without_bos_a_prompt_keeps_its_end_only():
    tokenizer = BUILT["plain"]
    encoded, _ = encode_one(tokenizer, "one two three?", "#Yes", "#No", max_prompt_tokens=3)
    assert encoded.prompt_ids == tokenizer("one two three?")["input_ids"][-3:]


def test_a_truncated_response_keeps_its_start_and_has_no_end_token():
    tokenizer = BUILT["with BOS"]
    whole, _ = encode_one(tokenizer, "Is it so?", "#xyz", "#zyxzyx")
    lengths = {name: len(ids) for name, ids in whole.responses.items()}
    assert lengths == {"chosen": 5, "rejected": 8}
    cut, report = encode_one(tokenizer, "Is it so?", "#xyz", "#zyxzyx", max_response_tokens=4)
    assert cut.responses == {name: ids[:4] for name, ids in whole.responses.items()}
    assert all(EOS not in ids for ids in cut.responses.values())
    assert (report.responses_truncated, report.response_tokens_lost) == (2, 1 + 4)
    assert cut.prompt_ids == whole.prompt_ids
    fits, report = encode_one(tokenizer, "Is it so?", "#xyz", "#zyxzyx", max_response_tokens=5)
    assert fits.responses["chosen"][-1] == EOS
    assert report.summary() == "1 pair tokenised; 1 response truncated, 3 tokens lost"


def test_pairs_that_truncation_or_unknown_letters_make_equal_are_dropped(inputs):
    tokenizer = AutoTokenizer.from_pretrained(inputs / "checkpoints" / "babyllama105")
    pairs = [
        Pair("a:1", "Say it", {"chosen": " the same and on", "rejected": " the same and off"}),
        Pair("a:2", "Say it", {"chosen": " 日", "rejected": " 本"}),
        Pair("a:3", "Say it\n", {"chosen": "日", "rejected": "no"}),
        Pair("a:4", "Say it", {"chosen": " yes", "rejected": " no"}),
    ]
    encoded, report = encode_pairs(pairs, tokenizer, max_prompt_tokens=3, max_response_tokens=8)
    assert [found.pair_id for found in encoded] == ["a:4"]
    assert report.dropped == {
        "identical responses after truncation": ["a:1"],
        "identical response tokens": ["a:2"],
        "no response token": ["a:3"],  # a run of unknown letters is one token, and the prompt ends in it
    }
    assert (report.pairs_in, report.pairs, report.prompts_truncated) == (
        4,
        1,
        1,
    )  # dropped pairs lose no tokens
    json.dumps(report.to_dict())


@pytest.mark.parametrize("flag", ["--max-prompt-tokens", "--max-response-tokens"])
def test_limits_below_one_are_refused(flag):
    option = flag.removeprefix("--").replace("-", "_")
    with pytest.raises(InputError, match=f"{flag} 0: at least 1 token"):
        encode_one(BUILT["plain"], "a", "b", "c", **{option: 0})


# --- chats ---

ASKED = [{"role": "user", "content": "Is it so?"}]
YES, NO = ([{"role": "assistant", "content": text}] for text in ("Yes", "No"))


def test_a_chat_is_the_text_its_template_renders_with_one_bos():
    tokenizer = BUILT["chat"]
    encoded, report = encode_one(tokenizer, ASKED, YES, NO)
    assert tokenizer.decode(encoded.prompt_ids) == "<s><|user|>\nIs it so?</s>\n<|assistant|>\n"
    assert tokenizer.decode(encoded.responses["chosen"]) == "Yes</s>\n"
    assert encoded.prompt_ids.count(BOS) == 1
    for name, response in (("chosen", YES), ("rejected", NO)):
        whole = tokenizer.apply_chat_template(ASKED + response)["input_ids"]
        assert encoded.prompt_ids + encoded.responses[name] == whole
    assert report.boundary_merges == 0


@pytest.mark.parametrize(
    ("close", "end"),
    [("</s>", "</s>"), ("</s>\n", "</s>\n"), ("<|turn|>\n", "<|turn|>\n"), ("", "</s>"), ("\n", "\n</s>")],
)
def test_the_end_token_follows_a_chat_response_that_its_template_leaves_open(close, end):
    template = CHAT.replace("{{ eos_token }}\n", close)
    encoded, _ = encode_one(BUILT["chat"], ASKED, YES, NO, chat_template=template)
    assert BUILT["chat"].decode(encoded.responses["chosen"]) == "Yes" + end


def test_a_template_that_asks_otherwise_than_it_answers_ends_the_prompt_where_they_part():
    template = CHAT.replace("<|assistant|>\n{% endif %}", "<|assistant|>\n<think>{% endif %}")
    encoded, report = encode_one(BUILT["chat"], ASKED, YES, NO, chat_template=template)
    assert BUILT["chat"].decode(encoded.prompt_ids).endswith("<|assistant|>\n")
    assert BUILT["chat"].decode(encoded.responses["chosen"]) == "Yes</s>\n"
    assert (report.boundary_merges, report.prompts_rewritten) == (0, 1)
    assert "the prompt of 1 pair ends where the chat template writes it otherwise" in report.summary()


def test_a_template_comes_from_tokenizer_text_or_file(tmp_path):
    template = CHAT.replace("<|", "[").replace("|>", "]")
    (tmp_path / "chat.jinja").write_text(template, encoding="utf-8")
    own, _ = encode_one(BUILT["chat"], ASKED, YES, NO)
    by_text, _ = encode_one(BUILT["chat"], ASKED, YES, NO, chat_template=template)
    by_file, _ = encode_one(BUILT["chat"], ASKED, YES, NO, chat_template=str(tmp_path / "chat.jinja"))
    assert by_text == by_file != own
    with pytest.raises(
        InputError, match=r"--chat-template absent\.jinja: no such file, and not a Jinja template"
    ):
        encode_one(BUILT["chat"], ASKED, YES, NO, chat_template="absent.jinja")


def test_messages_without_a_template_name_the_flag():
    with pytest.raises(
        InputError, match=r"^a\.jsonl:1: chat messages, but the tokenizer has no chat template; .*--chat"
    ):
        encode_one(BUILT["plain"], ASKED, YES, NO)
    assert encode_one(BUILT["plain"], ASKED, YES, NO, chat_template=CHAT)[0].prompt_ids


def test_messages_that_a_template_refuses_stop_or_are_skipped():
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT
    )
    system = [{"role": "system", "content": "Be short."}, *ASKED]
    pairs = [
        Pair("a.jsonl:1", ASKED, {"chosen": YES, "rejected": NO}),
        Pair("a.jsonl:2", system, {"chosen": YES, "rejected": NO}),
    ]
    limits = {"max_prompt_tokens": None, "max_response_tokens": None, "chat_template": template}
    with pytest.raises(
        InputError, match=r"^a\.jsonl:2: the chat template refuses .*no system role.*--skip-bad-rows$"
    ):
        encode_pairs(pairs, BUILT["chat"], **limits)
    encoded, report = encode_pairs(pairs, BUILT["chat"], skip_bad_rows=True, **limits)
    assert [found.pair_id for found in encoded] == ["a.jsonl:1"]
    assert "1 malformed row skipped (first: a.jsonl:2: the chat template refuses" in report.summary()
    with pytest.raises(InputError, match="the chat template refuses") as caught:
        encode_pairs(pairs, BUILT["chat"], **{**limits, "chat_template": "{% for %}"})
    assert "\n" not in str(caught.value)


def test_a_real_chat_file_is_encoded_as_its_template_says(inputs, real_tokenizer):
    pairs, _ = read_preferences(inputs / "data" / "llama_factory_dpo_en_demo.jsonl")
    encoded, report = encode_pairs(
        pairs, real_tokenizer, max_prompt_tokens=None, max_response_tokens=None, chat_template=CHAT
    )
    assert report.pairs == 40
    for given_pair, found in zip(pairs, encoded, strict=True):
        for name, response in given_pair.responses.items():
            whole = real_tokenizer.apply_chat_template(given_pair.prompt + response, chat_template=CHAT)[
                "input_ids"
            ]
            assert found.prompt_ids + found.responses[name] == whole


def test_texts_and_chats_mix_and_keep_their_order():
    tokenizer = BUILT["chat"]
    chat, text = pair(ASKED, YES, NO), pair("Is it so?", " Yes", " No", third=" so")
    limits = {"max_prompt_tokens": 9, "max_response_tokens": 9}
    together, _ = encode_pairs([text, chat, text, chat, chat] * 300, tokenizer, **limits)
    alone = {id(one): encode_pairs([one], tokenizer, **limits)[0][0] for one in (chat, text)}
    assert together == [alone[id(one)] for one in [text, chat, text, chat, chat] * 300]
    assert list(together[0].responses) == ["chosen", "rejected", "third"]


# --- what is watched does not touch what is trained ---


def test_a_further_response_never_moves_the_boundary_of_the_trained_pair():
    tokenizer = BUILT["with BOS"]
    alone, _ = encode_one(tokenizer, "Is it so? ab", "#Yes", "#No")
    watched, report = encode_pairs(
        [pair("Is it so? ab", "#Yes", "#No", other="ab#", third=" so")],
        tokenizer,
        max_prompt_tokens=None,
        max_response_tokens=None,
    )
    assert tokenizer.tokenize("abab") == ["abab"]  # the tokenizer would merge the response with its prompt
    assert watched[0].prompt_ids == alone.prompt_ids
    assert {name: watched[0].responses[name] for name in ("chosen", "rejected")} == alone.responses
    assert tokenizer.decode(watched[0].prompt_ids + watched[0].responses["other"]) == "<s>Is it so? abab#</s>"
    assert list(watched[0].responses) == ["chosen", "rejected", "other", "third"]
    assert report.further_retokenised == 1
    assert report.boundary_merges == 0


@settings(deadline=None)
@given(prompt=texts, chosen=texts, rejected=texts, other=texts)
@pytest.mark.parametrize("name", ["plain", "with BOS"])
def test_watching_any_text_leaves_the_trained_tokens_as_they_are(name, prompt, chosen, rejected, other):
    tokenizer = BUILT[name]
    limits = {"max_prompt_tokens": None, "max_response_tokens": None}
    try:
        (alone,), _ = encode_pairs([pair(prompt, chosen, rejected)], tokenizer, **limits)
    except InputError:
        return
    try:
        (watched,), _ = encode_pairs([pair(prompt, chosen, rejected, other=other)], tokenizer, **limits)
    except InputError as error:  # what cannot be watched is dropped and counted, never shifted
        assert "no response token" in str(error) or "reaches into the prompt" in str(error)  # noqa: PT017
        return
    assert watched.prompt_ids == alone.prompt_ids
    assert {name: watched.responses[name] for name in alone.responses} == alone.responses
    whole = tokenizer.decode(watched.prompt_ids + watched.responses["other"], skip_special_tokens=True)
    assert whole == prompt + other


# --- ids of prompts, ids of tokens ---


def test_the_prompt_id_is_that_of_the_prompt_in_the_data():
    pairs = [
        Pair("a:1", "Is it so? Yes", {"chosen": "#a", "rejected": "#b"}),
        Pair("a:2", "Is it so? Yes", {"chosen": "#c", "rejected": "#d"}),
        Pair("a:3", "Was it so? Yes", {"chosen": "#c", "rejected": "#d"}),
    ]
    encoded, _ = encode_pairs(pairs, BUILT["plain"], max_prompt_tokens=1, max_response_tokens=None)
    assert [found.prompt_id for found in encoded] == [one.prompt_id for one in pairs]
    assert encoded[0].prompt_ids == encoded[2].prompt_ids  # cut, they are the same
    assert encoded[0].prompt_id == encoded[1].prompt_id != encoded[2].prompt_id
    import hashlib

    assert encoded[0].prompt_id == hashlib.sha256(b'"Is it so? Yes"').hexdigest()[:16]
    made = EncodedPair("x", [1, 2], {})
    assert (
        made.prompt_id
        == EncodedPair("y", [1, 2], {"chosen": [3]}).prompt_id
        != EncodedPair("x", [12], {}).prompt_id
    )


def test_an_id_that_the_model_does_not_embed_is_named():
    tokenizer = byte_level()
    tokenizer.add_tokens(["<new>"])
    limits = {"max_prompt_tokens": None, "max_response_tokens": None}
    pairs = [pair("Is it so?", "#Yes", "#<new>")]
    size = len(tokenizer)
    assert encode_pairs(pairs, tokenizer, vocabulary=size, **limits)
    with pytest.raises(
        InputError,
        match=rf"^a\.jsonl:1: token '<new>' has the id {size - 1}, but the model embeds ids below {size - 1} only",
    ):
        encode_pairs(pairs, tokenizer, vocabulary=size - 1, **limits)


# --- texts far over the limits ---


@pytest.mark.parametrize("name", ["plain", "with BOS", "chat"])
def test_texts_far_over_the_limits_keep_the_tokens_they_would_have(name):
    tokenizer = BUILT[name]
    texts = ["Is it so? yes no " * 20_000, "#Yes it is. " * 20_000, "#No, not. " * 20_000]
    if name == "chat":
        texts = [
            [{"role": role, "content": text}]
            for role, text in zip(("user", *["assistant"] * 2), texts, strict=True)
        ]
    found, report = encode_one(tokenizer, *texts, max_prompt_tokens=50, max_response_tokens=40)
    assert report.cut_before == 1
    assert "far over the limits were cut before tokenisation" in report.summary()
    whole, _ = encode_one(tokenizer, *texts)
    assert (
        found.prompt_ids
        == whole.prompt_ids[:1] * (whole.prompt_ids[0] == BOS)
        + whole.prompt_ids[-50 + (whole.prompt_ids[0] == BOS) :]
    )
    assert found.responses == {response: ids[:40] for response, ids in whole.responses.items()}


def test_50_megabytes_are_tokenised_in_seconds(inputs):
    import time

    tokenizer = AutoTokenizer.from_pretrained(inputs / "checkpoints" / "stories260K")
    start = time.process_time()
    encode_one(
        tokenizer,
        "once upon a time " * 3_000_000,
        " yes",
        " no",
        max_prompt_tokens=256,
        max_response_tokens=9,
    )
    assert time.process_time() - start < 5


def test_texts_beside_a_chat_template_are_counted():
    _, report = encode_one(BUILT["chat"], "Is it so?", " Yes", " No")
    assert report.text_pairs == 1
    assert (
        "1 pair of texts, joined as they stand: the tokenizer's chat template is not applied"
        in report.summary()
    )
    assert encode_one(BUILT["plain"], "Is it so?", " Yes", " No")[1].text_pairs == 0


# --- as trainers do ---


@pytest.mark.parametrize("kind", ["texts", "chats"])
def test_tokens_are_those_of_trl(inputs, tmp_path, kind):
    """TRL's DPOTrainer prepares the same rows to the same prompt, chosen and rejected tokens."""
    datasets = pytest.importorskip("datasets")
    trl = pytest.importorskip("trl")
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_level(before=["<s>"], pad_token="</s>", chat_template=CHAT)
    name = {"texts": "persona_openness", "chats": "llama_factory_dpo_en_demo"}[kind]
    pairs, _ = read_preferences(inputs / "data" / f"{name}.jsonl")
    pairs = pairs[:30]
    rows = [{"prompt": pair.prompt, **pair.responses} for pair in pairs]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    trainer = trl.DPOTrainer(
        model=str(tmp_path / "model"),
        args=trl.DPOConfig(
            output_dir=str(tmp_path), use_cpu=True, max_length=None, report_to="none", bf16=False
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    encoded, _ = encode_pairs(pairs, tokenizer, max_prompt_tokens=None, max_response_tokens=None)
    for theirs, ours in zip(trainer.train_dataset, encoded, strict=True):
        assert ours.prompt_ids == theirs["prompt_ids"]
        assert ours.responses == {"chosen": theirs["chosen_ids"], "rejected": theirs["rejected_ids"]}


@pytest.mark.parametrize("bos", ["<s>", None])
def test_a_prompt_that_is_cut_keeps_all_that_the_tokenizer_opens_with(bos):
    tokenizer = byte_level(before=["<|turn|>", "<s>"], bos_token=bos, truncation_side="left")
    prompt = "Is it so? " * 6
    [pair], _ = encode_pairs(
        [Pair("a:1", prompt, {"chosen": "#a", "rejected": "#b"})],
        tokenizer, max_prompt_tokens=5, max_response_tokens=None,
    )  # fmt: skip
    assert pair.prompt_ids == tokenizer(prompt, truncation=True, max_length=5)["input_ids"]
    assert pair.prompt_ids[:2] == [TURN, BOS]


def test_pairs_of_two_readings_that_are_called_alike_keep_their_own_scores():
    pairs = [
        Pair("data:1", prompt, {"chosen": "#a", "rejected": "#b"}, scores=scores)
        for prompt, scores in (("yes", (9.0, 1.0)), ("no", (5.0, 4.0)))
    ]
    encoded, _ = encode_pairs(pairs, BUILT["plain"], max_prompt_tokens=None, max_response_tokens=None)
    assert [pair.scores for pair in encoded] == [(9.0, 1.0), (5.0, 4.0)]


def test_the_digest_is_of_every_token_and_its_place():
    pair = EncodedPair("a", [1, 2], {"chosen": [3], "rejected": [4]})
    others = [
        EncodedPair("a", [1], {"chosen": [2, 3], "rejected": [4]}),
        EncodedPair("a", [1, 2], {"chosen": [4], "rejected": [3]}),
        EncodedPair("b", [1, 2], {"chosen": [3], "rejected": [4]}),
    ]
    assert token_digest([pair]) == token_digest([EncodedPair("a", [1, 2], {"chosen": [3], "rejected": [4]})])
    assert len({token_digest([one]) for one in (pair, *others)}) == 4
