"""One progress line for long work: a bar on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm


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
            unit="step",
            disable=quiet or not self._terminal,
            bar_format="{desc} {percentage:3.0f}%|{bar:12}| {elapsed}<{remaining} {postfix}",
        )
        self._bar_start = self._last_step = time.monotonic()
        self._tokens_per_second = 0.0
        self._done = self._initial = 0
        self._total = total

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if not self._quiet:
            with self._optional():
                self._bar.write(text, file=sys.stderr) if self._terminal else print(
                    text, file=sys.stderr, flush=True
                )

    def skip(self, steps: int) -> None:
        """Steps that an earlier start of the same run has done."""
        self._done += steps
        self._initial += steps
        with self._optional():
            self._bar.update(steps)

    def step(self, name: str, values: dict[str, Any], *, tokens: int) -> None:
        """One more step done; `values` are shown as they are, `tokens` it processed become tokens per second."""
        self._done += 1
        now = time.monotonic()
        speed = tokens / max(now - self._last_step, 1e-9)
        self._tokens_per_second = speed if self._done == 1 else 0.9 * self._tokens_per_second + 0.1 * speed
        self._last_step = now
        shown = "  ".join(f"{key} {value}" for key, value in values.items())
        shown += f"  {self._tokens_per_second:,.0f} tokens/s"
        if self._quiet:
            return
        with self._optional():
            if self._terminal:
                self._bar.set_description_str(name, refresh=False)
                self._bar.set_postfix_str(shown, refresh=False)
                self._bar.update(1)
            elif now - self._last_line >= self._between or self._done == self._total:
                self._last_line = now
                fresh = self._done - self._initial
                left = (now - self._bar_start) / fresh * (self._total - self._done)
                print(f"{name}  {shown}  {tqdm.format_interval(left)} left", file=sys.stderr, flush=True)

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


def changes_shown(
    progress: Progress, name: str, start: Callable[[], dict[str, float]]
) -> Callable[[int, dict[str, float], dict[str, float]], None]:
    """What to show after each step: loss, margin, and the change of both log-probs since step 0, per token.

    Parameters
    ----------
    progress : Progress
    name : str
        Of the run.
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
            change[response] = f"{now - first[response]:+.3f}"
        progress.step(
            name,
            {
                "step": step,
                "loss": f"{metrics['loss']:.3f}",
                "margin": f"{metrics['margin']:+.2f}",
                "chosen": change["probe_chosen_logp_mean"],
                "rejected": change["probe_rejected_logp_mean"],
            },
            tokens=int(metrics["tokens"]),
        )

    return show
