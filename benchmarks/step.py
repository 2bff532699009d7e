"""What a training step costs, beside TRL's trainers on the same pairs in the same run.

    python benchmarks/step.py                  every table below
    python benchmarks/step.py time memory      only these

`time` (seconds of forward, loss, backward and AdamW, interleaved, medians), `memory` (peak above weights and
optimiser state, one process each), `tokens` (real texts: how many of the processed tokens are needed), `logging`
(what recording costs), `objectives` (those that need more of a pair than two sums, beside DPO), `floor` (FLOP/s
against a large matrix product), `denormals` (a saturated loss).
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rewardshape.data import EncodedPair, encode_pairs, read_preferences
from rewardshape.probe.measure.logprobs import PlainReader, SharedPrefixReader
from rewardshape.probe.measure.probe_set import group_by_tokens
from rewardshape.probe.measure.projection import CPU_TILE_ELEMENTS
from rewardshape.theory import Responses, objective
from rewardshape.trace.format import TraceWriter

PAIRS_A_STEP = 4
ALPHAPO = objective("alphapo", alpha=0.25, beta=2.5, gamma_beta_ratio=0.1)


class Shape(NamedTuple):
    prompt: int
    response: int
    vocabulary: int
    width: int = 256

    def __str__(self) -> str:
        return f"({self.prompt}, {self.response}) of {self.vocabulary:,}"


SHAPES = [Shape(256, 128, 32_000), Shape(512, 64, 32_000), Shape(32, 96, 32_000), Shape(256, 128, 128_256)]
RATIOS = [
    "shared prefix / TRL CPO",
    "in processor time",
    "goal",
    "shared prefix / TRL fused head, processor time",
]
GOALS = [0.30, 0.17, 0.55, 0.15]


def llama(shape: Shape) -> LlamaForCausalLM:
    """Four layers in a Llama's proportions, heads of 64, random."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.width * 43 // 16,
            num_hidden_layers=4,
            num_attention_heads=shape.width // 64,
            max_position_embeddings=2048,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


# --- the contestants: each gives a function that computes the loss of the same pairs ------------------------------


def encoded_pairs(shape: Shape, number: int = PAIRS_A_STEP) -> list[EncodedPair]:
    generator = torch.Generator().manual_seed(1)

    def ids(length: int) -> list[int]:
        return torch.randint(3, shape.vocabulary, (length,), generator=generator).tolist()

    return [
        EncodedPair(
            f"random:{i}",
            [1, *ids(shape.prompt - 1)],
            {name: [*ids(shape.response - 1), 2] for name in ("chosen", "rejected")},
        )
        for i in range(number)
    ]


def ours(reader: Any, shape: Shape, model: Any) -> Callable[[], torch.Tensor]:
    batch = reader.collate(encoded_pairs(shape))
    num_tokens = torch.tensor(batch["lengths"]).view(-1, 2)

    def loss() -> torch.Tensor:
        logp_sum = reader.logps(model, batch).logp_sum.view(-1, 2)
        chosen, rejected = (Responses(logp_sum[:, side], num_tokens[:, side]) for side in (0, 1))
        return ALPHAPO.pair_loss(chosen, rejected).mean()

    return loss


def trl(kind: str, shape: Shape, model: Any) -> Callable[[], torch.Tensor]:
    """TRL's own trainer on the same pairs as text: its tokenisation, collation and loss, reference precomputed."""
    from trl import DPOConfig, DPOTrainer
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    settings, data = _of_trl(shape)
    if kind == "cpo":
        config = CPOConfig(loss_type="alphapo", alpha=0.25, beta=2.5, simpo_gamma=0.25, **settings)
        trainer = CPOTrainer(model, config, **data)
    else:
        trainer = DPOTrainer(
            model, args=DPOConfig(beta=0.1, precompute_ref_log_probs=True, **settings), **data
        )
    batch = next(iter(trainer.get_train_dataloader()))
    model.train()
    return lambda: trainer.compute_loss(model, dict(batch))


def _of_trl(shape: Shape) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of any of TRL's trainers, and our pairs as its data set of texts."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    text = [
        {
            "prompt": _words(p.prompt_ids[1:]),
            **{name: " " + _words(ids[:-1]) for name, ids in p.responses.items()},
            "chosen_score": 2.0,
            "rejected_score": 1.0,
        }
        for p in encoded_pairs(shape)
    ]
    settings = dict(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=PAIRS_A_STEP,
        max_length=2048,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    return settings, dict(
        train_dataset=Dataset.from_list(text), processing_class=_word_tokenizer(shape.vocabulary)
    )


def fused_head(shape: Shape, model: Any) -> Callable[[], torch.Tensor]:
    """TRL's own head, which projects responses alone and in tiles, on rows of prompt and response; our loss on it."""
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model)
    pairs = encoded_pairs(shape)
    rows = [p.prompt_ids + p.responses[name] for name in ("chosen", "rejected") for p in pairs]
    ids, labels = torch.tensor(rows), torch.tensor(rows)
    labels[:, : shape.prompt] = -100
    num_tokens = torch.full((len(pairs),), shape.response)
    model.train()

    def loss() -> torch.Tensor:
        found = model(input_ids=ids, labels=labels, fused_lm_head=True, use_cache=False)
        chosen, rejected = (Responses(logp_sum, num_tokens) for logp_sum in found.log_probs.sum(1).chunk(2))
        return ALPHAPO.pair_loss(chosen, rejected).mean()

    return loss


def _words(ids: Sequence[int]) -> str:
    return " ".join(f"w{i}" for i in ids)


def _word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Token i is the word w{i}, so that a text is as many tokens as wanted."""
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, vocabulary)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


CONTESTANTS: dict[str, Callable[[Shape, Any], Callable[[], torch.Tensor]]] = {
    "TRL CPO": partial(trl, "cpo"),
    "TRL DPO": partial(trl, "dpo"),
    "TRL fused head": fused_head,
    "plain path": partial(ours, PlainReader()),
    "shared prefix": partial(ours, SharedPrefixReader()),
}


def stepper(name: str, shape: Shape) -> tuple[Callable[[], None], torch.optim.Optimizer]:
    """A whole step of a contestant, and its optimiser."""
    model = llama(shape)
    loss = CONTESTANTS[name](shape, model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, optimizer


# --- the tables ---------------------------------------------------------------------------------------------------


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n### {title}\n", *_lines([header, ["---"] * len(header), *rows]), sep="\n", flush=True)


def _lines(rows: Sequence[Sequence[object]]) -> list[str]:
    return [
        f"| {' | '.join(f'{cell:.3g}' if isinstance(cell, float) else str(cell) for cell in row)} |"
        for row in rows
    ]


def seconds(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median wall and processor seconds of each, in turn, after a round that is not counted."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for round_number in range(rounds + 1):
        for name, function in functions.items():
            wall, processor = time.perf_counter(), time.process_time()
            function()
            if round_number:
                spent[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {name: (median(w for w, _ in each), median(p for _, p in each)) for name, each in spent.items()}


def measure_time(rounds: int) -> None:
    """A step of every contestant at every shape. Processor time is told too: it hardly minds a busy machine."""
    rows = []
    for shape, goal in zip(SHAPES, GOALS, strict=True):
        spent = seconds({name: stepper(name, shape)[0] for name in CONTESTANTS}, rounds)
        wall, processor = zip(spent["TRL CPO"], spent["shared prefix"], strict=True)
        head = spent["shared prefix"][1] / spent["TRL fused head"][1]
        rows.append(
            [
                shape,
                *(each[0] for each in spent.values()),
                wall[1] / wall[0],
                processor[1] / processor[0],
                goal,
                head,
            ]
        )
    header = ["prompt, response, vocabulary", *(f"{name}, s" for name in CONTESTANTS)]
    table("Seconds of a step", [*header, *RATIOS], rows)


TOKEN_LEVEL = ("dpo", "ld_dpo", "sampo", "wpo", "odpo", "tdpo")


def measure_objectives(rounds: int) -> None:
    """A step with each objective, in turn on one model, against DPO's: of the probe's own trainer, and inside TRL's."""
    rows = []
    for shape in (Shape(64, 32, 8_000), Shape(64, 32, 2_000, 512)):
        model = llama(shape)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
        pairs = [replace(pair, scores=(2.0, 1.0)) for pair in encoded_pairs(shape)]
        for trainer, steps in (
            ("the probe's", {name: trained(name, model, optimizer, pairs) for name in TOKEN_LEVEL}),
            ("TRL's", {name: trained_by_trl(name, shape) for name in TOKEN_LEVEL}),
        ):
            spent = seconds(steps, rounds)
            ratios = (spent[name][1] / spent["dpo"][1] for name in TOKEN_LEVEL[1:])
            rows.append([f"{shape}, width {shape.width}", trainer, spent["dpo"][1], *ratios])
    header = [
        "prompt, response, vocabulary",
        "trainer",
        "dpo, processor s",
        *(f"{name} / dpo" for name in TOKEN_LEVEL[1:]),
    ]
    table("Objectives that need more than two sums", header, rows)


def trained_by_trl(name: str, shape: Shape) -> Callable[[], None]:
    """A whole step of TRL's `DPOTrainer` with this objective; the reference is run at every step."""
    from trl import DPOConfig

    from rewardshape.integrations.trl import shaped

    settings, data = _of_trl(shape)
    model, reference = llama(shape), llama(shape)
    trainer = shaped(objective(name))(model, reference, args=DPOConfig(**settings), **data)
    batch = next(iter(trainer.get_train_dataloader()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    model.train()

    def step() -> None:
        trainer.compute_loss(model, dict(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def trained(
    name: str, model: Any, optimizer: torch.optim.Optimizer, pairs: list[EncodedPair]
) -> Callable[[], None]:
    """A whole step of `PairTrainer` on these pairs."""
    from transformers import TrainingArguments

    from rewardshape.probe.order import TrainingOrder
    from rewardshape.probe.training import PairTrainer

    arguments = TrainingArguments(output_dir=tempfile.mkdtemp(), use_cpu=True, report_to=[], bf16=False)
    order = TrainingOrder(pairs, steps=1, batch_size=len(pairs), seed=0)
    trainer = PairTrainer(
        model, arguments, order, objective=objective(name), reader=SharedPrefixReader(), keep_checkpoints=1
    )
    trainer.reference = {pair.pair_id: dict.fromkeys(pair.responses, -900.0) for pair in pairs}
    trainer.keep_reference(model, pairs)

    def step() -> None:
        trainer.measured = []
        trainer.compute_loss(model, trainer.data_collator(order[:])).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure_memory() -> None:
    """Peak above weights and optimiser state, each contestant in a process of its own."""
    rows = []
    for shape, goal in ((SHAPES[0], 0.40), (SHAPES[3], 0.20)):
        peaks = [
            float(
                subprocess.check_output([sys.executable, __file__, "--peak", name, *map(str, shape)]).split()[
                    -1
                ]
            )
            for name in CONTESTANTS
        ]
        rows.append([shape, *(f"{peak:,.0f}" for peak in peaks), peaks[-1] / peaks[0], goal])
    header = ["prompt, response, vocabulary", *(f"{name}, MB" for name in CONTESTANTS)]
    table("Peak memory of a step", [*header, "shared prefix / TRL CPO", "goal"], rows)


def peak_megabytes(name: str, shape: Shape) -> float:
    """Linux tells a process its highest resident size since it last asked to forget it."""
    step, optimizer = stepper(name, shape)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes the optimiser's state
    optimizer.zero_grad()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    step()
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1000


def measure_tokens() -> None:
    """Real texts in batches of 16: tokens that had to be read, over tokens that were."""
    shared = Path(__file__).resolve().parents[2] / "shared"
    if not shared.is_dir():
        print("\ntokens: the shared data is not beside the project", file=sys.stderr)
        return
    tokenizer = AutoTokenizer.from_pretrained(shared / "checkpoints/stories260K")
    template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
    rows = []
    for name in ("hh_rlhf_harmless_base_test", "llama_factory_dpo_en_demo"):
        pairs, _ = read_preferences([shared / f"data/{name}.jsonl"], skip_bad_rows=True)
        limits = dict(max_prompt_tokens=2048, max_response_tokens=2048, chat_template=template)
        encoded, _ = encode_pairs(pairs, tokenizer, **limits, skip_bad_rows=True)
        groups = [encoded[start : start + 16] for start in range(0, len(encoded), 16)]
        needed = sum(len(p.prompt_ids) + sum(len(ids) - 1 for ids in p.responses.values()) for p in encoded)
        read = [
            sum(reader.collate(g)["input_ids"].numel() for g in groups)
            for reader in (PlainReader(), SharedPrefixReader())
        ]
        alone = sum(len(p.prompt_ids) + len(ids) for p in encoded for ids in p.responses.values())
        shares = [needed / number for number in read] + [1 - alone / read[0], (alone - needed) / read[0]]
        counts = [f"{number:,}" for number in (needed, *read)]
        rows.append([name, *counts, *(f"{share:.1%}" for share in shares)])
    header = "texts|needed|plain reads|shared prefix reads|plain: needed|shared prefix: needed|plain: padding"
    table("Tokens", [*header.split("|"), "plain: prompts again"], rows)


class Work(NamedTuple):
    """Floating-point operations that no way of computing can do without."""

    forward: float
    step: float
    done: float

    @classmethod
    def of(cls, model: Any, pairs: Sequence[EncodedPair]) -> Work:
        config = model.config
        body = sum(p.numel() for layer in model.model.layers for p in layer.parameters())
        rows = predicted = attended = 0
        for pair in pairs:
            prompt = len(pair.prompt_ids)
            read = [len(ids) - 1 for ids in pair.responses.values()]
            rows += prompt + sum(read)
            predicted += sum(map(len, pair.responses.values()))
            attended += prompt**2 // 2 + sum(n * prompt + n**2 // 2 for n in read)
        attention = 4 * attended * config.hidden_size * config.num_hidden_layers
        projection = 2 * predicted * config.hidden_size * config.vocab_size
        forward = 2 * body * rows + attention + projection
        return cls(forward, 3 * forward, 3 * forward + projection)


def measure_floor(rounds: int) -> None:
    """FLOP/s of the step at width 1,024 over those of a large matrix product between the steps."""
    shape = Shape(256, 128, 32_000, 1024)
    step, optimizer = stepper("shared prefix", shape)
    del optimizer
    a, b = torch.randn(2, 2048, 2048).unbind()
    spent = seconds({"step": step, "product": lambda: [a @ b for _ in range(20)]}, rounds)
    work = Work.of(llama(shape), encoded_pairs(shape))
    peak = 20 * 2 * 2048**3 / spent["product"][0]
    rates = [flops / spent["step"][0] for flops in (work.step, work.done)]
    table(
        "How near the floor, width 1,024",
        [
            "matrix product, GFLOP/s",
            "step, GFLOP/s that must be done",
            "GFLOP/s done",
            "must be done / product",
        ],
        [[f"{peak / 1e9:.0f}", *(f"{rate / 1e9:.0f}" for rate in rates), f"{rates[0] / peak:.2f}"]],
    )


def measure_logging(rounds: int) -> None:
    """Recording the training batch: its extra numbers and its line on disk. The probe set: time against work."""
    shape = SHAPES[0]
    model, reader = llama(shape), SharedPrefixReader()
    batch = reader.collate(encoded_pairs(shape))
    with torch.no_grad():
        logps = reader.logps(model, batch)
    names = [(f"random:{i}", name) for i in range(PAIRS_A_STEP) for name in ("chosen", "rejected")]
    writer = TraceWriter(Path(tempfile.mkdtemp()))

    def write() -> None:
        ids, responses = map(list, zip(*names, strict=True))
        values = {"logp_sum": logps.logp_sum.tolist(), "num_tokens": logps.lengths}
        writer.append(1, train={"pair_id": ids, "response": responses, **values}, metrics={"loss": 0.5})

    tokens = sum(batch["lengths"])
    tile = torch.randn(tokens, max(512, CPU_TILE_ELEMENTS // tokens))
    shares = torch.ones_like(tile)
    tiles = -(-shape.vocabulary // tile.shape[1])

    def entropies() -> None:
        for _ in range(tiles):
            tile.mul_(shares).sum(-1)

    probe_pairs = encoded_pairs(shape, 64)
    groups = group_by_tokens(probe_pairs, 2048)
    probe = [reader.collate([probe_pairs[i] for i in group]) for group in groups]

    def evaluate() -> None:
        with torch.no_grad():
            for part in probe:
                reader.logps(model, part)

    step, _ = stepper("shared prefix", shape)
    spent = {
        name: wall
        for name, (wall, _) in seconds(
            {"step": step, "write": write, "entropies": entropies, "probe": evaluate}, rounds
        ).items()
    }
    writer.close()
    share = (spent["write"] + spent["entropies"]) / spent["step"]
    table(
        f"Recording the training batch at every step, {shape}",
        ["step, ms", "writing, ms", "entropies, ms", "share of the step", "goal"],
        [[*(f"{spent[name] * 1e3:.1f}" for name in ("step", "write", "entropies")), f"{share:.2%}", "2%"]],
    )
    predicted = Work.of(model, probe_pairs).forward / (
        Work.of(model, encoded_pairs(shape)).done / spent["step"]
    )
    table(
        "A probe set of 64 pairs after a step",
        ["seconds", "predicted from its FLOPs and the step's FLOP/s", "ratio", "goal"],
        [[spent["probe"], predicted, spent["probe"] / predicted, 1.1]],
    )


def measure_denormals() -> None:
    """A backward pass whose loss is saturated (margin 95: slopes of 1e-42), with and without flush-to-zero."""
    rows = []
    for flush in (False, True):
        command = [sys.executable, __file__, "--saturated", str(int(flush))]
        plain, saturated = map(float, subprocess.check_output(command).split()[-2:])
        rows.append(["on" if flush else "off", plain, saturated, saturated / plain])
    table("Denormals", ["flush-to-zero", "backward, s", "saturated, s", "ratio"], rows)


def saturated_seconds(flush: bool) -> tuple[float, float]:
    torch.set_flush_denormal(flush)
    model, reader = llama(SHAPES[0]), SharedPrefixReader()
    batch = reader.collate(encoded_pairs(SHAPES[0]))

    def backward(margin: float) -> float:
        logp_sum = reader.logps(model, batch).logp_sum.view(-1, 2)
        loss = torch.nn.functional.softplus(-(logp_sum[:, 0] - logp_sum[:, 1]) / 100 - margin).mean()
        start = time.process_time()
        loss.backward()
        return time.process_time() - start

    spent = [(backward(0.0), backward(95.0)) for _ in range(4)][1:]
    return median(plain for plain, _ in spent), median(saturated for _, saturated in spent)


TABLES = ("time", "memory", "tokens", "logging", "objectives", "floor", "denormals")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"one of {', '.join(TABLES)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=5, help="steps of each contestant that count")
    parser.add_argument("--peak", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--saturated", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - set(TABLES):
        parser.error(f"unknown table {', '.join(sorted(unknown))}; known are {', '.join(TABLES)}")
    if arguments.peak:
        print(peak_megabytes(arguments.peak[0], Shape(*map(int, arguments.peak[1:]))))
        return
    if arguments.saturated is not None:
        print(*saturated_seconds(bool(arguments.saturated)))
        return
    wanted = arguments.tables or TABLES
    warnings.simplefilter("ignore")
    torch.set_flush_denormal(True)
    runs: dict[str, Callable[[], None]] = {
        "time": partial(measure_time, arguments.rounds),
        "memory": measure_memory,
        "tokens": measure_tokens,
        "logging": partial(measure_logging, arguments.rounds),
        "objectives": partial(measure_objectives, arguments.rounds),
        "floor": partial(measure_floor, arguments.rounds),
        "denormals": measure_denormals,
    }
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {PAIRS_A_STEP} pairs a step, float32"
    )
    for name in TABLES:
        if name in wanted:
            runs[name]()


if __name__ == "__main__":
    main()
