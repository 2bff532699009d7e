"""Is `--dry-run` right? ``python benchmarks/memory.py CHAT-MODEL [--shared ../shared]``: a CPU's peak beside the plan.

Every row is planned and then run for thirty steps, each in a process of its own with one thread; the peak is what the
system says that the process held at most. `benchmarks/chat_model.py` makes the chat model's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from chat_phenomena import POLITE, PROMPT_TOKENS, RESPONSE_TOKENS, as_chat

STEPS = ("--steps", "30", "--probe-every", "10", "--seed", "0")
SHORT = ("--max-prompt-tokens", str(PROMPT_TOKENS), "--max-response-tokens", str(RESPONSE_TOKENS))
MIXED = ("--precision", "mixed")
ROWS = {
    "chat model, float32, 8 polite, 16 probe pairs": ("polite", "8", "16"),
    "the same, mixed, 8 probe pairs": ("polite", "8", "8", *MIXED),
    "LoRA 8, 4 polite, 8": ("polite", "4", "8", "--lora-rank", "8"),
    "float32, 2 of HH, 4": ("hh", "2", "4"),
    "mixed, 8 polite in the chat template, 64": ("chat", "8", "64", *MIXED, *SHORT),
    "the same, float32": ("chat", "8", "64", *SHORT),
    "a Llama of 0.9 M, 64 polite, 64": ("small", "64", "64"),
}


def measured(command: list[str]) -> int:
    """The most bytes that a process held."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="the folder that benchmarks/chat_model.py made")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    options = parser.parse_args()
    polite = options.shared / "data" / f"{POLITE}.jsonl"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = {
            "polite": (options.model, polite),
            "hh": (options.model, options.shared / "data" / "hh_rlhf_harmless_base_test.jsonl"),
            "chat": (options.model, as_chat(polite, folder)),
            "small": (options.shared / "checkpoints" / "babyllama105", polite),
        }
        for number, (row, (place, batch, pairs, *flags)) in enumerate(ROWS.items()):
            model, data = places[place]
            sizes = ["--batch-size", batch, "--probe-pairs", pairs]
            words = [str(model), "--data", str(data), *sizes, *flags, *STEPS]
            probe = [sys.executable, "-m", "rewardshape.probe", *words]
            plan = subprocess.run([*probe, "--dry-run", "--json"], check=True, capture_output=True, text=True)
            planned = json.loads(plan.stdout)["plans"]["as asked"]["peak"]
            peak = measured([*probe, "--quiet", "--output", str(folder / str(number))])
            print(
                f"| {row} | {planned / 1e9:.2f} | {peak / 1e9:.2f} | {planned / peak - 1:+.0%} |", flush=True
            )


if __name__ == "__main__":
    main()
