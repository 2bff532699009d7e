"""What the recipes share: a small model with a chat template, its pairs, and the comparison with the trainer's log."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from rewardshape import judge, read_trace
from rewardshape.data import embedded

PAIRS = 32
STEPS = 4
LEARNING_RATE = 1e-3
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def folder() -> Path:
    """The folder that the command names."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER")
    made = Path(sys.argv[1]).resolve()
    made.mkdir(parents=True)
    return made


def checkpoint(home: Path) -> Path:
    """The package's own small Llama, with a chat template."""
    place = home / "model"
    place.mkdir()
    for file in embedded.checkpoint_path().iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(place)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(place)
    return place


def pairs(home: Path) -> Path:
    """Pairs with the columns prompt, chosen, rejected: all are trained on at each step, and all are measured."""
    file = home / "pairs.jsonl"
    lines = embedded.pairs_path().read_text(encoding="utf-8").splitlines()[:PAIRS]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def compared(trainer: str, record: Path, logged: Iterable[Mapping[str, Any]]) -> None:
    """Hold the trace against what the trainer logged of the same pairs, and say what `diagnose` says.

    What a trainer logs of update k it computed before that update: our measurement at step k - 1.
    """
    responses = read_trace(record).responses
    probe = responses[responses["split"] == "probe"]
    ours = probe.pivot_table(index="step", columns="response", values="logp_sum", aggfunc="mean")
    print(f"{trainer} {version(trainer)}, transformers {version('transformers')}, torch {version('torch')}")
    print(
        "update   chosen, trainer's and ours   rejected, trainer's and ours   (mean sums of log-probs, nats)"
    )
    apart, seen = 0.0, 0
    for entry in logged:
        if "logps/chosen" not in entry or int(entry["step"]) - 1 not in ours.index:
            continue
        step = int(entry["step"])
        told = [float(entry[f"logps/{side}"]) for side in ("chosen", "rejected")]
        found = [float(ours.loc[step - 1, side]) for side in ("chosen", "rejected")]
        print(f"{step:6}   {told[0]:12.4f} {found[0]:12.4f}   {told[1]:15.4f} {found[1]:12.4f}")
        apart = max(apart, *(abs(one - other) for one, other in zip(told, found, strict=True)))
        seen += 1
    if not seen or apart > 0.01:
        sys.exit(
            f"the trainer's and our log-probs of the same pairs are up to {apart:.4f} nats apart ({seen} updates)"
        )
    print(f"at most {apart:.4f} nats apart\n{judge(record).sentence}")


def alike(trainer: str, loop: Path, row: Path, within: float = 0.01) -> None:
    """Hold two measurements of the same models against each other, response by response, within so many nats."""
    found = [read_trace(place).responses.query("split == 'probe'") for place in (loop, row)]
    keys = ["step", "pair_id", "response"]
    both = found[0].merge(found[1], on=keys, suffixes=("_loop", "_row"))
    apart = (both["logp_sum_loop"] - both["logp_sum_row"]).abs().max()
    print(f"{trainer} {version(trainer)}, transformers {version('transformers')}, torch {version('torch')}")
    print(f"{len(both)} log-probs at steps {sorted(set(both['step']))}, at most {apart:.5f} nats apart")
    if len(both) < len(found[0]) or not apart < within:
        sys.exit("these are not the same models")
    print(judge(row).sentence)
