"""What the runs of one seed begin with: the pairs, the weights and the untouched model's log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rewardshape.probe.grid import Grid
from rewardshape.probe.inputs import Inputs
from rewardshape.probe.policy import load_policy
from rewardshape.probe.reference import Reference
from rewardshape.probe.resume import fingerprint_of


@dataclass(frozen=True)
class Beginning:
    """What the runs of one seed have in common.

    Attributes
    ----------
    inputs : Inputs
        Pairs to train on and the probe set.
    fingerprint : str
        Of the untouched weights.
    reference : Reference
        Log-probs under them.
    """

    inputs: Inputs
    fingerprint: str
    reference: Reference


def beginnings_of(
    grid: Grid, inputs: Inputs, fingerprints: dict[str, str], file: Path
) -> dict[int, Beginning]:
    """What the runs of each seed begin with, by seed.

    One reading of the pairs and one measurement of the reference do for all seeds, except in the embedded task, whose
    seeds have labels and models of their own.

    Parameters
    ----------
    grid : Grid
    inputs : Inputs
        Of the first run.
    fingerprints : dict
        By checkpoint, of the weights that are loaded already; the others are added.
    file : Path
        Where log-probs of the untouched models are kept.
    """
    reference, found = Reference(inputs.pairs, file), dict[int, Beginning]()
    for planned in grid.runs:
        seed = planned.settings.training.seed
        if seed in found:
            continue
        mine = inputs.of(planned) if found else inputs
        if planned.checkpoint not in fingerprints:
            other = load_policy(planned.checkpoint, planned.settings.model)
            fingerprints[planned.checkpoint] = fingerprint_of(other)
        same = mine.pairs is inputs.pairs
        fingerprint = fingerprints[planned.checkpoint]
        found[seed] = Beginning(mine, fingerprint, reference if same else Reference(mine.pairs, file))
    return found
