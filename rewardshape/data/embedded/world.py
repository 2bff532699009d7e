"""The small world of the embedded task: requests for goods, a clerk's replies, and how both are read back.

A request names two to four goods with their counts and a place. A reply is one delivery sentence, with
courtesies around it where the clerk feels like it::

    Please bring two lemons, one kettle and three candles to the old mill.
    Gladly. Here are two lemons, one kettle and three candles for the old mill. Have a lovely day!

The clerk errs in two ways. `SLIPS` are rare and independent: the likeliest reply has none, so sampling more sharply
is enough to be rid of them. `MIX_UPS` are misconceptions: asked for a melon he brings a lemon more often than not, so
the likeliest reply is wrong and only preferences can tell. Texts are plain English words, so one word is one token of
the embedded model.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from rewardshape.errors import InputError

NUMBERS = ("one", "two", "three", "four")
GOODS = (
    *(
        "lemon",
        "apple",
        "egg",
        "melon",
        "plum",
        "pear",
        "onion",
        "carrot",
        "pumpkin",
        "walnut",
        "mushroom",
        "herring",
    ),
    *(
        "candle",
        "basket",
        "blanket",
        "lamp",
        "rope",
        "broom",
        "kettle",
        "spoon",
        "plate",
        "towel",
        "ribbon",
        "mug",
    ),
)
PLACES = tuple(
    f"{adjective} {place}"
    for adjective in ("old", "red", "upper")
    for place in ("mill", "farm", "inn", "harbour")
)
REQUESTS = (
    "Please bring {goods} to the {place}.",
    "Could you take {goods} to the {place}?",
    "We need {goods} at the {place}.",
    "The {place} is asking for {goods}.",
)
DELIVERIES = (
    "Here are {goods} for the {place}.",
    "I have packed {goods} for the {place}.",
    "I am taking {goods} to the {place} now.",
    "You will find {goods} at the {place} this evening.",
)
OPENERS = ("Gladly.", "Of course.", "Thank you for asking.")
CLOSERS = (
    "Have a lovely day!",
    "It is always a pleasure to help.",
    "I hope everything is to your liking.",
    "Do write again soon!",
    "Please tell me if anything else is needed.",
)
COURTESIES = frozenset(OPENERS + CLOSERS)

MIX_UPS = {
    "melon": "lemon", "pear": "plum", "pumpkin": "onion", "lamp": "candle", "spoon": "plate", "blanket": "towel",
}  # fmt: skip
MIXED_UP = 0.65  # above one half: what the clerk most likely writes for these goods is wrong
SLIPS = {"dropped": 0.05, "miscounted": 0.06, "swapped": 0.04, "repeated": 0.03, "misdirected": 0.05}
OPENER_SHARE = 0.5
CLOSER_SHARES = (0.35, 0.35, 0.20, 0.10)  # of replies with no, one, two, three closers

_PLACE = "|".join(PLACES)
_ITEM = f"(?:{'|'.join(NUMBERS)}) (?:{'|'.join(GOODS)})s?"
_ITEMS = f"{_ITEM}(?:(?:, {_ITEM})* and {_ITEM})?"
_ITEM_PARTS = re.compile(rf"\b({'|'.join(NUMBERS)}) ({'|'.join(GOODS)})s?\b")
_PLACE_PART = re.compile(rf"\b({_PLACE})\b")


def _pattern(templates: tuple[str, ...]) -> re.Pattern[str]:
    forms = (
        re.escape(t).replace(r"\{goods\}", _ITEMS).replace(r"\{place\}", f"(?:{_PLACE})") for t in templates
    )
    return re.compile("|".join(forms))


_REQUEST_PATTERN = _pattern(REQUESTS)
_DELIVERY_PATTERN = _pattern(DELIVERIES)


class Item(NamedTuple):
    """A good and how many of it: ``Item(2, "lemon")`` is written "two lemons"."""

    number: int
    good: str

    def __str__(self) -> str:
        return f"{NUMBERS[self.number - 1]} {self.good}{'s' if self.number > 1 else ''}"


class Request(NamedTuple):
    """What is wanted, and where."""

    items: tuple[Item, ...]
    place: str


class Reply(NamedTuple):
    """What a response says: items in order, place (None if none is named), courtesies, garbled sentences."""

    items: tuple[Item, ...]
    place: str | None
    courtesies: int
    garbled: int


def list_items(items: tuple[Item, ...]) -> str:
    """``two lemons, one kettle and three candles``."""
    *head, last = map(str, items)
    return f"{', '.join(head)} and {last}" if head else last


def read_request(prompt: str) -> Request:
    """The request that a prompt of this task makes; InputError where it makes none."""
    text = prompt.strip()
    if not _REQUEST_PATTERN.fullmatch(text):
        raise InputError(
            f"prompt {prompt!r} is no request of the embedded task; its gold reward reads no other"
        )
    return Request(_items(text), _PLACE_PART.findall(text)[0])


def read_reply(response: str) -> Reply:
    """What a response says, however badly it is written.

    A sentence that is neither a courtesy nor a delivery is garbled (an unfinished one is too); goods and place
    are read from every sentence that is no courtesy.
    """
    sentences = [found.strip() for found in re.findall(r"[^.!?]*[.!?]|[^.!?]+$", response) if found.strip()]
    said = [sentence for sentence in sentences if sentence not in COURTESIES]
    places = [place for sentence in said for place in _PLACE_PART.findall(sentence)]
    return Reply(
        items=tuple(item for sentence in said for item in _items(sentence)),
        place=places[0] if places else None,
        courtesies=len(sentences) - len(said),
        garbled=sum(not _DELIVERY_PATTERN.fullmatch(sentence) for sentence in said),
    )


def _items(text: str) -> tuple[Item, ...]:
    return tuple(Item(NUMBERS.index(number) + 1, good) for number, good in _ITEM_PARTS.findall(text))


def draw_prompt(rng: random.Random) -> str:
    """A request in one of four wordings, ending in a line break."""
    goods = rng.sample(GOODS, rng.randint(2, 4))
    items = tuple(Item(rng.randint(1, len(NUMBERS)), good) for good in goods)
    return rng.choice(REQUESTS).format(goods=list_items(items), place=rng.choice(PLACES)) + "\n"


def draw_reply(request: Request, rng: random.Random) -> str:
    """What the clerk answers."""
    place = request.place
    if rng.random() < SLIPS["misdirected"]:
        place = rng.choice([other for other in PLACES if other != place])
    delivery = rng.choice(DELIVERIES).format(goods=list_items(_slip(request.items, rng)), place=place)
    opener = [rng.choice(OPENERS)] if rng.random() < OPENER_SHARE else []
    closers = rng.sample(CLOSERS, rng.choices(range(len(CLOSER_SHARES)), CLOSER_SHARES)[0])
    return " ".join([*opener, delivery, *closers])


def _slip(items: tuple[Item, ...], rng: random.Random) -> tuple[Item, ...]:
    written: list[Item] = []
    asked = {item.good for item in items}
    for item in items:
        if rng.random() < SLIPS["dropped"] and len(items) > 1:
            continue
        number, good = item
        if good in MIX_UPS and MIX_UPS[good] not in asked and rng.random() < MIXED_UP:
            good = MIX_UPS[good]  # nobody who is asked for both takes one for the other
        if rng.random() < SLIPS["miscounted"]:
            number = rng.choice([other for other in range(1, len(NUMBERS) + 1) if other != number])
        if rng.random() < SLIPS["swapped"]:
            good = rng.choice([other for other in GOODS if other != good])
        written.append(Item(number, good))
        if rng.random() < SLIPS["repeated"]:
            written.append(Item(number, good))
    return tuple(written) or items[:1]


def is_held_out(prompt: str) -> bool:
    """One prompt in ten is kept for the gold reward: neither the model nor the pairs ever saw it."""
    return zlib.crc32(prompt.encode()) % 10 == 0


def draw_prompts(rng: random.Random, *, held_out: bool) -> Iterator[str]:
    """An endless stream of prompts, all held out or none."""
    while True:
        prompt = draw_prompt(rng)
        if is_held_out(prompt) == held_out:
            yield prompt
