"""The shapes in signatures and records are those of what runs: the measuring modules with every call checked."""

from __future__ import annotations

from pathlib import Path

from tests.processes import Python

# In a process of its own, and anew: what is checked is decided when a module is imported.
CHECKED = """
import inspect, sys, typing

for name in [name for name in sys.modules if name.startswith("rewardshape")]:
    del sys.modules[name]

import torch
from beartype import beartype
from jaxtyping import TypeCheckError, install_import_hook, jaxtyped

ROOMS = "rewardshape.probe.measure", "rewardshape.probe.training"
install_import_hook(list(ROOMS), "beartype.beartype")

from tests import drawing
from rewardshape.probe.__main__ import main
from rewardshape.probe.measure import destination, geometry, influence, logprobs, projection, sampling

# The hook checks functions and dataclasses; a named tuple is made by a function that is not in its file.
for module in [module for name, module in sys.modules.items() if name.startswith(ROOMS)]:
    for kind in vars(module).values():
        if inspect.isclass(kind) and hasattr(kind, "_fields") and kind.__module__ == module.__name__:
            kind.__new__.__annotations__ = typing.get_type_hints(kind)
            kind.__new__ = jaxtyped(typechecker=beartype)(kind.__new__)


def refused(function, *arguments):
    try:
        function(*arguments)
    except TypeCheckError as error:
        return str(error)
    raise SystemExit(f"{function} took a wrong shape")
"""
WRONG_SHAPES = """
hidden, weight, targets = torch.zeros(3, 4), torch.zeros(5, 4), torch.tensor([0, 1, 2])
assert projection.project(hidden, weight, targets).logps.shape == (3,)
assert "'weight'" in refused(projection.project, hidden, torch.zeros(5, 6), targets)
assert "'targets'" in refused(projection.project, hidden, weight, targets[:2])
assert "'targets'" in refused(projection.project, hidden, weight, targets.float())
three, four = torch.zeros(3), torch.zeros(4)
assert "'greedy_logps'" in refused(projection.TokenLogps, three, four, three, three)
assert "'logps'" in refused(destination.Seen, hidden, four)
assert "tokens=3" in refused(logprobs.ResponseLogps, three, four, three, three, [3])
"""
READERS = """
from transformers import AutoConfig, AutoModelForCausalLM

from rewardshape.data import EncodedPair
from rewardshape.probe.measure.probe_set import ProbeSet
from rewardshape.theory import objective

config = AutoConfig.for_model(
    "llama", vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, pad_token_id=0, eos_token_id=2,
)
pairs = [
    EncodedPair("a", [5, 6, 7], {"chosen": [10, 11, 12, 2], "rejected": [10, 13, 2]}),
    EncodedPair("b", [8], {"chosen": [20, 21], "rejected": [22, 21, 23, 2]}),
]
for reader in (logprobs.PlainReader(), logprobs.SharedPrefixReader()):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    weights = list(model.parameters())
    probe = ProbeSet(pairs, reader, torch.device("cpu"))
    score = lambda batch: reader.logps(model, batch)

    follow = destination.Destination(probe, end_token=2, decode=str)
    follow.begin(model, score)
    gradient = influence.chosen_gradient(weights, probe, score)
    optimizer = torch.optim.AdamW(weights)
    direction = influence.preconditioned(optimizer, weights, gradient)
    simpo = objective("simpo", beta=2.0, gamma=0.5)
    assert influence.influences(weights, direction, gradient, probe, score, simpo).shape == (2,)
    with influence.moved(weights, direction, 1e-3):
        probe.measure(follow.watch(model, score))
    assert follow.tables()[0]["response"] == ["chosen", "rejected"] * 2
"""
RUN = """
with drawing.undrawn():  # the page's modules are new, too
    sys.exit(main(sys.argv[1:]))
"""


def test_what_runs_keeps_the_shapes_it_states_and_refuses_others(
    checkpoint: str, pairs_file: str, tmp_path: Path
):
    """Both readers, destination and influence; then a run, for the trainer, the geometry and the samples."""
    data = tmp_path / "pairs.jsonl"
    data.write_text(
        "\n".join(Path(pairs_file).read_text(encoding="utf-8").splitlines()[:16]), encoding="utf-8"
    )
    sizes = ("--steps", "1", "--batch-size", "4", "--probe-pairs", "2", "--samples", "2", "--best-of", "1")
    every = (f"--{what}-every=1" for what in ("geometry", "destination", "influence", "sample"))
    flags = ("--data", str(data), "--output", str(tmp_path / "run"), "--objective", "dpo", "--beta", "0.1")
    process = Python("-c", CHECKED + WRONG_SHAPES + READERS + RUN, checkpoint, *flags, *sizes, *every)
    assert process.wait() == 0, process.said[-4000:]
