"""A real small model and real pairs to probe: the embedded ones, and a command line that runs in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rewardshape.data import embedded
from rewardshape.probe.__main__ import main
from tests import drawing


@pytest.fixture(scope="session", autouse=True)
def _undrawn():
    with drawing.undrawn():
        yield


@pytest.fixture
def drawn():
    """For a test that looks at the pictures or the page of a command."""
    with drawing.drawn():
        yield


@pytest.fixture(scope="session")
def checkpoint() -> str:
    return str(embedded.checkpoint_path())


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first of the embedded pairs: a reference is measured on every pair, and no test trains for an epoch."""
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    lines = embedded.pairs_path().read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:160]), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="session")
def probe(checkpoint: str, pairs_file: str) -> Callable[..., int]:
    """Run the probe on the embedded model with these flags, small unless they say otherwise; the exit status."""
    small = {
        "--steps": "4",
        "--batch-size": "8",
        "--probe-pairs": "12",
        "--learning-rate": "1e-3",
        "--checkpoint-every": "100",  # one at the end
        "--alpha": "0.25",
    }

    def run(output: Path, *flags: str) -> int:
        without = {"--alpha"} if {"--objective", "--preset"} & set(flags) else set()
        given = {flag: value for flag, value in small.items() if flag not in {*flags, *without}}
        defaults = [word for pair in given.items() for word in pair]
        return main([checkpoint, "--data", pairs_file, "--output", str(output), "--quiet", *defaults, *flags])

    return run
