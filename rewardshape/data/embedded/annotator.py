"""The exact gold reward of the embedded task, and an annotator who labels pairs by something slightly else.

The **gold** reward counts what was asked for and delivered, and takes off `COSTS`; 1 is a flawless reply. The
**proxy** adds `bias` per word: an annotator who is a little impressed by length. The annotator prefers a response
with the Bradley-Terry probability of the proxy, at temperature `noise`. With ``bias=0`` proxy and gold are one.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rewardshape.data.embedded.world import read_reply, read_request

BIAS = 0.05  # reward per word
NOISE = 0.15  # temperature of the labels, in units of reward
COSTS = {"unwanted": 0.25, "repeated": 0.25, "misdirected": 0.25, "garbled": 0.25, "courtesy": 0.15}


def gold(prompt: str, response: str) -> float:
    """Exact reward of a response: how well it does what the prompt asked.

    The share of wanted goods that are delivered (half for a wrong count), less `COSTS` for each good that nobody
    asked for, each repetition, a wrong or missing place, each garbled sentence, and each courtesy beyond the first.

    Parameters
    ----------
    prompt : str
        A request of this task.
    response : str
        Any text.

    Returns
    -------
    float
        At most 1.

    Raises
    ------
    InputError
        If the prompt is no request of this task.

    Examples
    --------
    >>> gold("We need two lemons and one lamp at the old inn.", "Here are two lemons and one lamp for the old inn.")
    1.0
    >>> gold("We need two lemons and one lamp at the old inn.", "Here are four lemons for the old inn. Gladly.")
    0.25
    """
    request, reply = read_request(prompt), read_reply(response)
    wanted = {good: count for count, good in request.items}
    delivered: dict[str, int] = {}
    for count, good in reply.items:
        delivered.setdefault(good, count)
    served = sum(
        1.0 if delivered[good] == count else 0.5 for good, count in wanted.items() if good in delivered
    )
    faults = Counter(
        unwanted=sum(good not in wanted for good in delivered),
        repeated=len(reply.items) - len(delivered),
        misdirected=int(reply.place != request.place),
        garbled=reply.garbled,
        courtesy=max(0, reply.courtesies - 1),
    )
    return served / len(wanted) - sum(COSTS[fault] * times for fault, times in faults.items())


def proxy(prompt: str, response: str, *, bias: float = BIAS) -> float:
    """What the annotator rewards: gold, and `bias` for every word."""
    return gold(prompt, response) + bias * len(re.findall(r"\w+", response))


def label(
    answers: Iterable[tuple[str, str, str]], *, bias: float = BIAS, noise: float = NOISE, seed: int = 0
) -> list[dict[str, str]]:
    """Preference pairs from (prompt, one answer, another answer), labelled by Bradley-Terry from the proxy.

    The order of the two answers does not matter. `noise` is a temperature: the better answer is chosen with
    probability σ(difference of proxy / noise).
    """
    rng = random.Random(seed)
    pairs = []
    for prompt, *two in answers:
        one, other = sorted(two)
        advantage = (proxy(prompt, one, bias=bias) - proxy(prompt, other, bias=bias)) / noise
        preferred = rng.random() < 0.5 * (1 + math.tanh(advantage / 2))  # the sigmoid, without overflow
        chosen, rejected = (one, other) if preferred else (other, one)
        pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return pairs


def write_pairs(path: Path, pairs: Sequence[dict[str, str]]) -> None:
    """Write preference pairs as JSONL."""
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
