"""Pictures and page of the commands that tests run: most of a small run's time, and few tests look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rewardshape.figures.of_runs import draw_all
from rewardshape.report import write_report


@contextmanager
def _ending_with(draw: Callable[..., Any], write: Callable[..., Any]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rewardshape.probe.show.draw_all", draw)
        patch.setattr("rewardshape.probe.show.write_report", write)
        yield


def undrawn() -> Any:
    """Within it commands leave neither figures nor ``report.html``."""
    return _ending_with(lambda *_: [], lambda _: None)


def drawn() -> Any:
    """Within it they leave both, as they do everywhere but in tests."""
    return _ending_with(draw_all, write_report)
