"""What would change if: interventions tried one at a time, for a part of the steps, each set against another run.

An intervention is a record: some settings changed, and the intervention that it is compared with. Leaving out pairs by
what they are like is compared with leaving out as many at random; everything else with the run as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rewardshape.errors import InputError
from rewardshape.numbers import typed
from rewardshape.probe.drops import CRITERIA, RANDOM, Drop
from rewardshape.probe.settings import Settings, flag

SHARE_OF_STEPS = 1 / 3
SEEDS = 2  # one seed has no interval for other orders of the pairs
AS_IT_IS = "as-it-is"
DEFAULT_SHARE = 0.2  # of the pairs
DEFAULT_NLL = 0.1
OF_NOTHING = ("drop", "add_nll")  # settings without which a run is as it is


@dataclass(frozen=True)
class Intervention:
    """One thing that is changed.

    Attributes
    ----------
    name : str
        Unique among the interventions of a command.
    changes : mapping
        Settings by name, and the values they have here.
    flags : str
        The same as words of the command line.
    against : str
        Name of the intervention that it is compared with; empty for the run as it is.
    matched : bool
        Whether that leaves out as many pairs at random.
    """

    name: str
    changes: Mapping[str, Any]
    flags: str
    against: str
    matched: bool = False


def _changed(name: str, value: Any) -> Intervention:
    return Intervention(f"{name}={typed(value)}", {name: value}, f"{flag(name)} {typed(value)}", AS_IT_IS)


def base_of(settings: Settings) -> Settings:
    """The run as it is, for a part of its steps: the first value of every setting, nothing dropped or added."""
    steps = math.ceil(settings.training.steps * SHARE_OF_STEPS)
    plain: dict[str, Any] = {name: settings.value(name) for name in settings.sweep}
    plain |= dict.fromkeys(OF_NOTHING) | {"steps": steps, "what_if": False}
    if settings.checkpoint is None and settings.probing.sample_every is None:  # its gold costs little
        plain |= {"sample_every": steps, "best_of": 1}
    return settings.replace(**plain)


def interventions(
    settings: Settings, learning_rate: float, criteria: Iterable[str] = CRITERIA
) -> list[Intervention]:
    """What a command tries, the run as it is first.

    Parameters
    ----------
    settings : Settings
        Further values of a setting that may be swept are alternatives; without any, and without ``--drop`` and
        ``--add-nll``, the usual ones: every criterion to drop by, a likelihood term, half the learning rate.
    learning_rate : float
        Of the run as it is.
    criteria : iterable of str
        Those of `CRITERIA` that its objective has.

    Raises
    ------
    InputError
        Of several ``--steps``: every change is tried for the same.
    """
    if "steps" in settings.sweep:
        raise InputError("--steps: takes one value with --what-if, which tries every change for as many")
    asked: dict[str, list[Any]] = {
        name: list(values if name in OF_NOTHING else values[1:])
        for name, values in settings.sweep.items()
        if name != "seed"
    }
    for name in OF_NOTHING:
        value = settings.value(name)
        if value is not None and name not in asked:
            asked[name] = [value]
    if not asked:
        asked = {
            "drop": [str(Drop(criterion, DEFAULT_SHARE)) for criterion in criteria if criterion != RANDOM],
            "add_nll": [DEFAULT_NLL],
            "learning_rate": [learning_rate / 2],
        }
    drops = [Drop.read(text) for text in asked.pop("drop", [])]
    shares = dict.fromkeys(drop.share for drop in drops)
    at_random = {share: _changed("drop", str(Drop(RANDOM, share))) for share in shares}
    found = [Intervention(AS_IT_IS, {}, "", against="")]
    found += at_random.values()
    found += [
        replace(_changed("drop", str(drop)), against=at_random[drop.share].name, matched=True)
        for drop in drops
        if drop.criterion != RANDOM
    ]
    return found + [_changed(name, value) for name, values in asked.items() for value in values]
