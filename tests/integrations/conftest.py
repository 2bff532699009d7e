"""A real small model, its pairs, and a way to its log-probs that shares no code with ours."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.data import embedded


@pytest.fixture(scope="session")
def checkpoint() -> str:
    return str(embedded.checkpoint_path())


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`scripted(script, *words)`: what ``python script words`` does, in this process, which has torch already."""

    def run(script: object, *words: object) -> None:
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
        monkeypatch.syspath_prepend(str(Path(str(script)).parent))
        runpy.run_path(str(script), run_name="__main__")

    return run


@pytest.fixture(scope="session")
def tokenizer(checkpoint: str) -> Any:
    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture
def model(checkpoint: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint)


@pytest.fixture(scope="session")
def rows() -> list[dict[str, str]]:
    lines = embedded.pairs_path().read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:40]]


@pytest.fixture(scope="session")
def pairs_file(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def plain_logps() -> Callable[..., list[float]]:
    """`plain_logps(model, tokenizer, rows)`: the log-prob of each response, chosen before rejected, in float64."""
    return _plain_logps


@torch.no_grad()
def _plain_logps(model: Any, tokenizer: Any, rows: list[dict[str, str]]) -> list[float]:
    was = model.training
    model.eval()
    sums = []
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        for side in ("chosen", "rejected"):
            ids = [*tokenizer(row["prompt"] + row[side])["input_ids"], tokenizer.eos_token_id]
            logps = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            sums.append(sum(logps[place - 1, ids[place]].item() for place in range(len(prompt), len(ids))))
    model.train(was)
    return sums
