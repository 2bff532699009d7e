"""Records in lines of names and numbers: ``Step 5: Train loss 0.69, Val loss 0.68`` and its many kin.

So write torchtune (``Step 5 | loss:0.69 rewards/chosen:0.01``), verl (``step:5 - actor/dpo_loss:0.69``), mlx-lm,
OpenRLHF (numbers at the end of a progress bar) and NeMo-RL (a heading for each step, then one number a line).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rewardshape.logs.console import tells
from rewardshape.logs.kinds import is_sign
from rewardshape.logs.names import meaning
from rewardshape.logs.rows import Record

LONGEST_LINE = 20_000  # characters; what is longer is no line of a log
MOST_OTHER_TEXT = 0.5  # share of the letters of a line that stand outside its pairs
_PAIR = re.compile(
    r"([A-Za-z][A-Za-z_/.\- ]{0,60}?)\s{0,3}(?:[:=|]\s{0,9}|\s)\[?"
    r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?|[-+]?(?:nan|inf)\b)",
    re.IGNORECASE,
)
# A number whose name stands on the line above, and a name whose number stands on the next.
_HALVES = re.compile(r"^\s*[-+]?[\d.]+(?:[eE][-+]?\d+)?%?|[A-Za-z_/.\- ]{1,60}:?\s*$")
_BAR = re.compile(r"(\d+)/(\d+) \[")
_HEADING = re.compile(
    r"^\W*(?:global[ _]?)?(?P<what>step|iteration|iter|epoch)\W{0,4}(\d+)(?:\s?/\s?(\d+))?\W*$", re.IGNORECASE
)
_EPOCH_AND_STEP = re.compile(
    r"epoch\W{0,3}(\d+)/\d+\W{1,4}(\d+)/(\d+)[\])]?", re.IGNORECASE
)  # Epoch:[1/2](20/4292)
_TORCHTUNE = re.compile(r"^\s*\d+\|(\d+)\|(?=Loss)")
_MMENGINE = re.compile(r"Iter\((?:train|val)\)\s*\[\s*(\d+)/\s*\d+\]")
_OF_EPOCH = re.compile(r"of epoch (\d+)", re.IGNORECASE)
_AT_STEP = re.compile(r"global_step (\d+)")
_OF_EVALUATION = re.compile(r"\W*\b(?:eval|evaluation|validation|test)\b", re.IGNORECASE)
# What a launcher or Python's logging puts before a line: the rank, the time, the level and who speaks.
_BEFORE = re.compile(
    r"^\s*(?:\[?\(?(?:rank|worker|node|\w+ pid=)\W?\d+(?:, [^)]*)?[\])]?:?\s+"
    r"|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,\dZ]*\]?\s*"
    r"|\[?(?:DEBUG|INFO|WARNING)\b\]?:?\s*|-\s+)+"
)


def prose_records(lines: Iterable[str]) -> Iterator[Record]:
    """Records from lines of ``name number`` pairs.

    Lines that hold one pair each are gathered until a name or a heading comes again. A line that states its step goes
    on in the next ones where those hold other names and no step, as a paste does that was broken at some width. A
    progress bar that is drawn again with the numbers it showed before is one record, and none where a line that states
    its step has them too.
    """
    reader = _Reader()
    for line in lines:
        if len(line) <= LONGEST_LINE:
            yield from reader.read(_BEFORE.sub("", line))
    yield from reader.flush()


class _Reader:
    """Reads line by line, and remembers what stands above a line."""

    def __init__(self) -> None:
        self._heading = _Heading()
        self._gathered: Record = {}
        self._shown: Record = {}  # by the last line or bar that told anything
        self._with_step: frozenset[str] = frozenset()  # names on the last line that states its step
        self._trained = 0.0  # the count of the last bar that told of training
        self._early = 0.0  # 1 where a bar shows a step's numbers before it counts the step
        self._line = ""  # that states its step and may go on in the next one
        self._pairs: Record = {}
        self._place: Record = {}

    def read(self, line: str) -> list[Record]:
        """The records that a line completes."""
        if self._line and self._goes_on(line):
            self._line = f"{self._line} {line.strip()}"
            return []
        return [*self._whole_line(), *self._read(line)]

    def _goes_on(self, line: str) -> bool:
        """Whether the line above, which states its step, goes on in this one: it adds names and changes none."""
        place, rest = _place(line)
        own = {} if place else _pairs(rest)
        if place or own.keys() & self._pairs.keys() or any(map(_is_place, own)) or _HEADING.match(line):
            return False
        if not _is_a_line_of_numbers(_HALVES.sub("", rest)):
            return False
        both = _pairs(f"{self._line} {line.strip()}")
        if not self._pairs.items() < both.items() or any(map(_is_place, both.keys() - self._pairs.keys())):
            return False
        self._pairs = both
        return True

    def _whole_line(self) -> list[Record]:
        """The record of the line that states its step, now that it is over."""
        if not self._line:
            return []
        pairs, place = self._pairs, self._place
        self._line, self._pairs, self._place = "", {}, {}
        self._shown, self._with_step = pairs, frozenset(pairs) if not place else self._with_step
        return [place | pairs]

    def _read(self, line: str) -> list[Record]:
        if self._heading.is_one(line):
            return self.flush(self._heading.last)
        place, rest = _place(line)
        pairs = _pairs(rest)
        bar = _BAR.search(line)
        if bar and tells(pairs):
            self._early = self._early or float(bar.group(1) == "0")
            if _OF_EPOCH.search(line):
                place = {"step": place["step"] + self._early}
                self._trained = place["step"]
            elif _AT_STEP.search(line):
                place = {"step": _in_bars(place["step"], self._trained)}
        if not place and not _is_a_line_of_numbers(rest):
            return []
        if len(pairs) == 1 and not place:
            return self._gather(pairs)
        stated = any(meaning(name)[1] == "step" for name in pairs)
        again = pairs == self._shown or (not stated and pairs.keys() <= self._with_step)
        if not tells(pairs) or (bar and again):
            return []
        self._shown = pairs
        if stated:
            self._with_step = frozenset(pairs)
        if bar:
            return [pairs if stated else place | pairs]
        self._line, self._pairs, self._place = rest, pairs, {} if stated else place
        return []

    def _gather(self, pair: Record) -> list[Record]:
        done = self.flush() if set(pair) & set(self._gathered) else []
        self._gathered |= pair
        return done

    def flush(self, place: Record | None = None) -> list[Record]:
        """What was gathered, at a place or at the heading above; before it the line that states its step."""
        gathered, self._gathered = self._gathered, {}
        here = self._heading.here if place is None else place
        return [*self._whole_line(), *([here | gathered] if tells(gathered) else [])]


class _Heading:
    """A line that holds nothing but a step or an epoch, for the lines below it."""

    def __init__(self) -> None:
        self.here: Record = {}
        self.last: Record = {}
        self._epoch = 1

    def is_one(self, line: str) -> bool:
        """Whether a line is a heading; remembers its step."""
        found = _HEADING.match(line)
        if not found:
            return False
        count, total = int(found.group(2)[:15]), int((found.group(3) or "0")[:15])
        self.last = self.here
        if found["what"].lower() == "epoch":
            self._epoch = max(count, 1)
            self.here = {"epoch": float(count)}
        else:
            self.here = {"step": float((self._epoch - 1) * total + count)}
        return True


def _pairs(line: str) -> Record:
    """The pairs of a line whose name is understood; of the evaluation where it says so."""
    evaluated = bool(_OF_EVALUATION.match(line) or _OF_EVALUATION.search(_PAIR.sub(" ", line)))
    pairs: Record = {}
    for name, value in _PAIR.findall(line):
        name = name.strip()
        split, series = meaning(name)
        if series is not None or is_sign(name):
            of_set = evaluated and split is None and not _is_place(name)
            pairs[f"eval {name}" if of_set else name] = value
    return pairs


def _is_place(name: str) -> bool:
    """Whether a name tells where a record stands."""
    return meaning(name)[1] in ("step", "epoch", "examples")


def _is_a_line_of_numbers(line: str) -> bool:
    """Whether a line is little else than names and numbers: a sentence that mentions a loss is none."""
    letters = sum(map(str.isalpha, line))
    return sum(map(str.isalpha, _PAIR.sub("", line))) <= MOST_OTHER_TEXT * letters


def _in_bars(updates: float, trained: float) -> float:
    """Where an evaluation after so many updates stands among bars that count batches, several to an update."""
    return trained if updates and trained > updates and trained % updates == 0 else updates


def _place(line: str) -> tuple[Record, str]:
    """The step that a line tells by its form, and the line without it."""
    if found := _EPOCH_AND_STEP.search(line):
        nth, count, total = (int(number[:15]) for number in found.groups())
        return {"step": float((nth - 1) * total + count)}, line[: found.start()] + " " + line[found.end() :]
    if found := _MMENGINE.search(line):
        return {"step": float(found.group(1)[:15])}, line[found.end() :]
    if found := _TORCHTUNE.match(line):
        return {"step": float(found.group(1))}, line[found.end() :]
    if found := _AT_STEP.search(line.split("%|")[0]):
        return {"step": float(found.group(1))}, line[: found.start()] + line[found.end() :]
    if found := _BAR.search(line):
        count, total = (int(number[:15]) for number in found.groups())
        epoch = _OF_EPOCH.search(line)
        before = int(epoch.group(1)[:15]) * total if epoch else 0
        return {"step": float(before + count)}, line[found.end() :] if epoch else line
    return {}, line
