"""A 7B model on one GPU: speed, memory against the plan, and what logging costs. One command, one table.

    python benchmarks/gpu.py            a random 7B of Mistral's configuration, on the GPU
    python benchmarks/gpu.py tiny       the same code on a tiny model, on whatever there is

Two plans: full fine-tuning (bfloat16 weights, 8-bit AdamW with stochastic rounding, checkpointed layers) and LoRA of
rank 16. Texts of 2,048 tokens (prompt and response half each), every step recorded, 64 probe pairs measured after
every step. Each line is a process of its own. Nothing is downloaded: the model is made from its configuration, the
texts are random tokens.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, MistralConfig

from rewardshape.data import EncodedPair
from rewardshape.probe.grid import ModelFacts, PlannedRun, plan_run
from rewardshape.probe.measure.logprobs import SharedPrefixReader
from rewardshape.probe.measure.probe_set import TOKENS_PER_BATCH, ProbeSet, group_by_tokens, num_tokens
from rewardshape.probe.order import TrainingOrder
from rewardshape.probe.plan import memory
from rewardshape.probe.policy import DTYPES, made_ready
from rewardshape.probe.process import set_up
from rewardshape.probe.recorder import Measures, Recorder
from rewardshape.probe.settings import Settings
from rewardshape.probe.training import PairTrainer, training_arguments
from rewardshape.theory import objective

STEPS = 6  # the first two warm up
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16, from the vendor's data sheets
SIZES = {
    "7B": {
        "config": MistralConfig(attention_dropout=0.0, sliding_window=None),
        "text": 2048,
        "batch": 16,
        "micro": 2,
        "probe": 64,
    },
    "tiny": {
        "config": MistralConfig(
            vocab_size=2048,
            hidden_size=128,
            intermediate_size=448,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=None,
        ),
        "text": 64,
        "batch": 4,
        "micro": 2,
        "probe": 8,
    },
}
PLANS = {
    "full, bfloat16, 8-bit AdamW": {"precision": "bfloat16", "gradient_checkpointing": True},
    "LoRA 16, bfloat16": {"precision": "bfloat16", "gradient_checkpointing": True, "lora_rank": 16},
}
ALPHAPO = objective("alphapo", alpha=0.25, beta=2.5, gamma_beta_ratio=0.1)


def random_pairs(number: int, text: int, vocabulary: int) -> list[EncodedPair]:
    generator = torch.Generator().manual_seed(1)

    def ids() -> list[int]:
        return torch.randint(3, vocabulary, (text // 2,), generator=generator).tolist()

    return [
        EncodedPair(f"random:{i}", ids(), {"chosen": ids(), "rejected": ids()}) for i in range(1, number + 1)
    ]


def run_of(plan: str, size: dict[str, Any]) -> PlannedRun:
    settings = Settings().replace(
        **PLANS[plan],
        steps=STEPS,
        batch_size=size["batch"],
        micro_batch_size=size["micro"],
        schedule="constant",
        learning_rate=7e-7,
        checkpoint_every=STEPS,
    )
    return plan_run(settings, ModelFacts("random", size["config"], 0), ALPHAPO)


def model_flops(model: Any, config: Any, pairs: list[EncodedPair], *, backward: bool) -> float:
    """Of the model itself, nothing that is computed twice counted twice: 2 FLOPs a weight and token, and attention.

    A backward pass costs twice the forward pass; with frozen weights, once.
    """
    frozen = any(not weight.requires_grad for weight in model.parameters())
    passes = 1 + (0 if not backward else 1 if frozen else 2)
    embedding = config.vocab_size * config.hidden_size
    weights = sum(weight.numel() for weight in model.parameters()) - 2 * embedding
    tokens = num_tokens(*pairs)
    predicted = sum(len(ids) for pair in pairs for ids in pair.responses.values())
    attended = sum(
        len(pair.prompt_ids) ** 2 / 2 + sum(len(pair.prompt_ids) * n + n**2 / 2 for n in map(len, responses))
        for pair in pairs
        for responses in [pair.responses.values()]
    )
    width = config.num_attention_heads * config.head_dim
    return passes * (
        2 * weights * tokens + 2 * embedding * predicted + 4 * config.num_hidden_layers * width * attended
    )


def matmul_rate(device: torch.device) -> float:
    """FLOP/s of a large matrix product in bfloat16."""
    n = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(10):
        synchronize(device)
        began = time.perf_counter()
        a @ b
        synchronize(device)
        times.append(time.perf_counter() - began)
    return 2 * n**3 / median(times)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Timed(Recorder):
    """The run's own recorder, timed from the beginning of a step to the end of its record."""

    records = True

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.seconds: list[float] = []
        if self.records:
            super().on_train_begin(*args, **kwargs)

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        super().on_step_begin(*args, **kwargs)
        synchronize(self.trainer.args.device)
        self._start = time.perf_counter()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        if self.records:
            super().on_pre_optimizer_step(*args, **kwargs)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if self.records:
            super().on_step_end(*args, **kwargs)
        synchronize(self.trainer.args.device)
        self.seconds.append(time.perf_counter() - self._start)


class Bare(Timed):
    """Nothing recorded: what the optimisation alone costs."""

    records = False


def measure(size_name: str, plan: str) -> dict[str, Any]:
    """Steps alone, steps recorded, steps recorded with the probe set measured; memory of the last."""
    size, run = SIZES[size_name], run_of(plan, SIZES[size_name])
    device, config = PartialState().device, size["config"]
    reader = SharedPrefixReader()
    train = random_pairs(STEPS * size["batch"], size["text"], config.vocab_size)
    probe_pairs = random_pairs(size["probe"], size["text"], config.vocab_size)
    group = group_by_tokens(probe_pairs, TOKENS_PER_BATCH)[0]
    predicted = memory(config, run, train[: size["micro"]], [probe_pairs[i] for i in group], device.type).peak
    with device:
        model = made_ready(
            AutoModelForCausalLM.from_config(config, dtype=DTYPES["bfloat16"]), run.settings.model
        )
    probe = ProbeSet(probe_pairs, reader, device)
    seconds, peaks = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, kind, every in (("bare", Bare, 1), ("recorded", Timed, STEPS), ("probed", Timed, 1)):
            arguments = training_arguments(run, Path(folder) / name)
            arguments.save_strategy = "no"
            trainer = PairTrainer(
                model,
                arguments,
                TrainingOrder(train, steps=STEPS, batch_size=size["batch"], seed=0),
                objective=ALPHAPO,
                reader=reader,
                keep_checkpoints=1,
            )
            (Path(folder) / name).mkdir(exist_ok=True)
            recorder = kind(
                trainer,
                Path(folder) / name,
                Measures(probe, every),
                reference=dict,
                stop=threading.Event(),
                on_step=lambda *_: None,
            )
            trainer.add_callback(recorder)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            trainer.train()
            recorder.close()
            seconds[name] = median(recorder.seconds[2:-1])  # the last step always measures the probe set
            peaks[name] = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
            del trainer.optimizer, trainer, recorder
            model.zero_grad()
    tokens = num_tokens(*train) / STEPS
    step_flops = model_flops(model, config, train, backward=True) / STEPS
    probe_flops = model_flops(model, config, probe_pairs, backward=False)
    return {
        "plan": plan,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds["bare"],
        "flops": step_flops / seconds["bare"],
        "recording": seconds["recorded"] / seconds["bare"] - 1,
        "probing": (seconds["probed"] - seconds["recorded"]) / seconds["bare"],
        "probing_due": probe_flops / step_flops,
        "peak": peaks["probed"],
        "predicted": predicted,
    }


def measure_trl(size_name: str, plan: str) -> dict[str, Any]:
    """TRL's CPO trainer with the same weights, optimiser and texts: prompt and response in every row."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    size, run = SIZES[size_name], run_of(plan, SIZES[size_name])
    device, config = PartialState().device, size["config"]
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(config.vocab_size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="w0", bos_token="w1", eos_token="w2", pad_token="w0"
    )
    pairs = random_pairs(STEPS * size["batch"], size["text"], config.vocab_size)

    def text(ids: list[int]) -> str:
        return " ".join(f"w{i}" for i in ids)

    rows = [
        {"prompt": text(p.prompt_ids[1:]), **{n: " " + text(ids[:-1]) for n, ids in p.responses.items()}}
        for p in pairs
    ]
    with device:
        model = made_ready(
            AutoModelForCausalLM.from_config(config, dtype=DTYPES["bfloat16"]), run.settings.model
        )

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            synchronize(device)
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronize(device)
            self.seconds.append(time.perf_counter() - self.start)

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        ours = training_arguments(run, Path(folder))
        trainer = CPOTrainer(
            model=model,
            args=CPOConfig(
                output_dir=folder,
                max_steps=STEPS,
                per_device_train_batch_size=size["micro"],
                gradient_accumulation_steps=size["batch"] // size["micro"],
                learning_rate=7e-7,
                optim=ours.optim,
                optim_args=ours.optim_args,
                max_length=size["text"],
                loss_type="simpo",
                cpo_alpha=0.0,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=device.type == "cpu",
                gradient_checkpointing=False,  # the model brings it along
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        trainer.train()
    seconds = median(clock.seconds[2:])
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"plan": plan, "seconds": seconds, "peak": peak}


def apart(kind: str, size: str, plan: str) -> dict[str, Any] | None:
    """One measurement in a process of its own; None where it failed, which is then said."""
    done = subprocess.run([sys.executable, __file__, size, kind, plan], capture_output=True, text=True)
    if done.returncode:
        print(f"{kind}, {plan}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def gigabytes(size: float | None) -> str:
    return "" if size is None else f"{size / 1e9:.1f}"


def main(size: str) -> None:
    device = PartialState().device
    if size == "7B" and device.type != "cuda":
        sys.exit("no GPU here; `python benchmarks/gpu.py tiny` goes through the same code")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    rate = matmul_rate(device)
    peak = next((flops for chip, flops in PEAK_FLOPS.items() if chip in name), rate)
    print(
        f"{name}: a large bfloat16 product runs at {rate / 1e12:.2f} TFLOP/s; MFU is of {peak / 1e12:.2f}\n"
    )
    columns = ["plan", "s/step", "tokens/s", "MFU", "peak GB", "--dry-run GB", "recording", "64 probe pairs"]
    columns += ["due", "TRL CPO s/step", "TRL peak GB"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for plan in PLANS:
        ours, trl = apart("ours", size, plan), apart("trl", size, plan)
        if ours is None:
            continue
        cells = [
            plan,
            f"{ours['seconds']['bare']:.3f}",
            f"{ours['tokens_per_second']:,.0f}",
            f"{ours['flops'] / peak:.0%}",
            gigabytes(ours["peak"]),
            gigabytes(ours["predicted"]),
            f"{ours['recording']:+.1%}",
            f"{ours['probing']:+.1%}",
            f"{ours['probing_due']:+.1%}",
            "" if trl is None else f"{trl['seconds']:.3f}",
            "" if trl is None else gigabytes(trl["peak"]),
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    size, *rest = [*sys.argv[1:], *(["7B"] if len(sys.argv) == 1 else [])]
    if rest:
        kind, plan = rest
        with set_up():
            print(json.dumps({"ours": measure, "trl": measure_trl}[kind](size, plan)))
    else:
        main(size)
