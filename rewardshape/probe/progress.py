"""One progress line for long work: a bar on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
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
            self._bar.write(text, file=sys.stderr) if self._terminal else print(
                text, file=sys.stderr, flush=True
            )

    def skip(self, steps: int) -> None:
        """Steps that an earlier start of the same run has done."""
        self._done += steps
        self._initial += steps
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
        if self._terminal:
            self._bar.set_description_str(name, refresh=False)
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(1)
            return
        if not self._quiet and (now - self._last_line >= self._between or self._done == self._total):
            self._last_line = now
            fresh = self._done - self._initial
            left = (now - self._bar_start) / fresh * (self._total - self._done)
            print(f"{name}  {shown}  {tqdm.format_interval(left)} left", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
