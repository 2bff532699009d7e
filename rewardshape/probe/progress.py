"""One progress line for long work: always the newest on a terminal, now and then one elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

from rewardshape.errors import printable
from rewardshape.numbers import number, signed
from rewardshape.terminal import columns_of

FEWEST = 3  # steps before the time left is told: the first ones are slow
FIRST = ("step", "chosen", "rejected")  # what a narrow terminal shows; the rest follows as there is room
NAME = 30  # characters of a run's name


def duration(seconds: float) -> str:
    """A time that lies ahead: hours, minutes and seconds up to two days, then days, then years.

    Examples
    --------
    >>> duration(3725), duration(5 * 86400.0), duration(1e9)
    ('1:02:05', '5 days', '32 years')
    """
    days = seconds / 86400
    if days < 2:
        return str(tqdm.format_interval(seconds))
    return f"{days:,.0f} days" if days < 2 * 365.25 else f"{days / 365.25:,.0f} years"


class Progress:
    """Progress over all steps of a command (of every run of a sweep), with the time left.

    Parameters
    ----------
    total : int
        Steps of all runs together.
    quiet : bool
        Say nothing.
    seconds_between_lines : float
        Where the output is no terminal: at most one line in this time.
    """

    def __init__(self, total: int, *, quiet: bool = False, seconds_between_lines: float = 10.0):
        self._terminal = sys.stderr.isatty()
        self._quiet = quiet
        self._between = seconds_between_lines
        self._last_line = 0.0
        self._bar = tqdm(
            total=total,
            disable=quiet or not self._terminal,
            bar_format="{desc}",
            ncols=columns_of(sys.stderr),
            nrows=20,  # on a terminal that says it has none, nothing would be shown
        )
        self._first_step = self._last_step = time.monotonic()
        self._tokens_per_second = 0.0
        self._done = self._fresh = 0
        self._total = total
        self._name = ""

    def say(self, text: str) -> None:
        """A line of its own, above the newest."""
        if not self._quiet:
            with self._optional():
                self._bar.write(text, file=sys.stderr) if self._terminal else print(
                    text, file=sys.stderr, flush=True
                )

    def skip(self, steps: int) -> None:
        """Steps that an earlier start of the same run has done."""
        self._done += steps

    def begin(self, name: str, doing: str) -> None:
        """A run begins: its name, and what is done before its first step, which may take a while."""
        self._name = printable(name)
        self._last_step = time.monotonic()
        self._show({"": doing}, due=True)

    def step(self, values: Mapping[str, Any], *, tokens: int, name: str = "") -> None:
        """One more step done; `values` are shown as they are, `tokens` it processed become tokens per second.

        Of several runs at a time, `name` says of which.
        """
        self._name = printable(name) or self._name
        self._done += 1
        self._fresh += 1
        now = time.monotonic()
        speed = tokens / max(now - self._last_step, 1e-9)
        self._tokens_per_second = speed if self._fresh == 1 else 0.9 * self._tokens_per_second + 0.1 * speed
        self._last_step = now
        if self._fresh == 1:
            self._first_step = now
        due = now - self._last_line >= self._between or self._done == self._total
        self._show({**values, "tokens/s": f"{self._tokens_per_second:,.0f}"}, due=due)

    def _left(self) -> str:
        """The time left, from the steps after the first."""
        if self._fresh < FEWEST:
            return ""
        pace = (self._last_step - self._first_step) / (self._fresh - 1)
        return f"{duration(pace * (self._total - self._done))} left"

    def _show(self, values: Mapping[str, Any], *, due: bool) -> None:
        if self._quiet:
            return
        with self._optional():
            if self._terminal:
                self._bar.set_description_str(line(self._name, values, self._left(), columns_of(sys.stderr)))
            elif due:
                self._last_line = self._last_step
                print(line(self._name, values, self._left()), file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _optional(self) -> Iterator[None]:
        """A closed pipe or a full log disk silences the progress; it does not end the training."""
        try:
            yield
        except (OSError, ValueError):  # the latter: a stream that was closed
            self._quiet = self._bar.disable = True

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        with self._optional():
            self._bar.close()


def line(name: str, values: Mapping[str, Any], left: str, width: int | None = None) -> str:
    """What there is to say of a step, the most wanted first, as much of it as `width` columns hold.

    Examples
    --------
    >>> line("alpha=0 (1/4)", {"step": "9/150", "chosen": -0.1, "rejected": -0.2, "loss": 2.0}, "01:27 left", 60)
    'alpha=0 (1/4)  step 9/150  chosen -0.1  rejected -0.2'
    """
    shown = {key: f"{key} {value}".strip() for key, value in values.items()}
    wanted = [shown[key] for key in FIRST if key in shown] + [left] * bool(left)
    wanted += [text for key, text in shown.items() if key not in FIRST]
    parts = [name] if width is None or len(name) <= NAME else [f"{name[: NAME - 1]}…"]
    for text in wanted:
        if width is not None and len("  ".join([*parts, text])) >= width:
            break
        parts.append(text)
    return "  ".join(parts)


def changes_shown(
    progress: Progress, steps: int, start: Callable[[], dict[str, float]]
) -> Callable[[int, dict[str, float], dict[str, float]], None]:
    """What to show after each step: the change of both log-probs since step 0, per token; margin and loss.

    Parameters
    ----------
    progress : Progress
    steps : int
        How many the run has.
    start : callable
        Gives the probe set's means at step 0 to a run that was not here then: a resumed one.
    """
    first: dict[str, float] = {}
    change = {"probe_chosen_logp_mean": "–", "probe_rejected_logp_mean": "–"}

    def show(step: int, metrics: dict[str, float], means: dict[str, float]) -> None:
        if not first:
            first.update(means if step == 0 else start())
        if step == 0:
            return
        for response, now in means.items():
            change[response] = signed(now - first[response])
        progress.step(
            {
                "step": f"{step}/{steps}",
                "chosen": change["probe_chosen_logp_mean"],
                "rejected": change["probe_rejected_logp_mean"],
                "margin": signed(metrics["margin"], 2),
                "loss": number(metrics["loss"]),
            },
            tokens=int(metrics["tokens"]),
        )

    return show
