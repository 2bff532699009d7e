"""The order in which pairs are trained on: shuffled, or from easy to hard as in Curri-DPO (arXiv:2403.07230)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rewardshape.data import EncodedPair
from rewardshape.probe.grid import PlannedRun
from rewardshape.probe.measure.probe_set import num_tokens, only_pair
from rewardshape.probe.measure.responses import scores
from rewardshape.probe.settings import BY_LENGTH, BY_MARGIN, SHUFFLED

LOOKED_AT = 100_000  # places that a plan looks at; a run without end cannot be gone through


@dataclass(frozen=True, slots=True)
class Item:
    """One place in the order of training: its position and the pair trained there."""

    position: int
    pair: EncodedPair


class TrainingOrder(Sequence[Item]):
    """The pairs in the order of training: whole epochs, cut at steps × batch size.

    Every epoch is freshly shuffled, or has the one order that is asked for. Pairs whose ids are in `without` are passed
    over, the others keep their order.
    """

    def __init__(
        self,
        pairs: Sequence[EncodedPair],
        *,
        steps: int,
        batch_size: int,
        seed: int,
        without: Iterable[str] = (),
        order: str = SHUFFLED,
    ):
        gone = set(without)
        self._pairs = [only_pair(pair) for pair in pairs]
        self._kept = np.array([pair.pair_id not in gone for pair in pairs])
        self._per_epoch = int(self._kept.sum())
        self._length, self._batch_size = steps * batch_size, batch_size
        self._seed = seed
        self._ranked = None if order == SHUFFLED else np.argsort(ranks(pairs, order), kind="stable")
        self._begin()

    @classmethod
    def of(
        cls, run: PlannedRun, pairs: Sequence[EncodedPair], *, without: Iterable[str] = ()
    ) -> TrainingOrder:
        """The order in which a run trains on these pairs."""
        training = run.settings.training
        return cls(
            pairs,
            steps=training.steps,
            batch_size=run.decided.batch_size,
            seed=training.seed,
            without=without,
            order=training.order,
        )

    def _begin(self) -> None:
        self._rng = np.random.default_rng(self._seed)
        self._epoch, self._order = -1, np.array([], dtype=int)

    def _of_epoch(self, number: int) -> np.ndarray:
        """The places of an epoch; only one is held, however many there are to come."""
        if number < self._epoch:
            self._begin()
        while self._epoch < number:
            drawn = self._rng.permutation(len(self._pairs)) if self._ranked is None else self._ranked
            self._epoch, self._order = self._epoch + 1, drawn[self._kept[drawn]]
        return self._order

    def __len__(self) -> int:
        return self._length

    def pairs(self) -> list[EncodedPair]:
        """Every pair that is trained on, once, in the order in which they first come."""
        return [self._pairs[place] for place in self._of_epoch(0)[: self._length].tolist()]

    def visited(self, first: int, last: int) -> list[EncodedPair]:
        """The pairs that updates `first` to `last`, counted from 1, train on, each once."""
        places = range((first - 1) * self._batch_size, min(last * self._batch_size, len(self)))
        return list({self[place].pair.pair_id: self[place].pair for place in places}.values())

    def counted(self, count: Callable[[EncodedPair], int], most: int) -> np.ndarray:
        """What `count` gives for the pair at each of the first `most` places; every pair is asked once."""
        left, places, epoch = min(most, self._length), [], 0
        while left > 0:
            places.append(self._of_epoch(epoch)[:left])
            left -= len(places[-1])
            epoch += 1
        return np.array([count(pair) for pair in self._pairs])[np.concatenate(places)]

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[place] for place in range(*position.indices(len(self)))]
        place = range(self._length)[position]
        epoch, within = divmod(place, self._per_epoch)
        return Item(place, self._pairs[self._of_epoch(epoch)[within]])


def ranks(pairs: Sequence[EncodedPair], order: str) -> np.ndarray:
    """How early each pair comes, smallest first: the largest difference of scores, the fewest tokens, or as given."""
    if order == BY_LENGTH:
        return np.array([num_tokens(only_pair(pair)) for pair in pairs])
    if order == BY_MARGIN:
        of = scores(f"--order {BY_MARGIN}", pairs)
        return (of["rejected"] - of["chosen"]).numpy()
    return np.arange(len(pairs))
