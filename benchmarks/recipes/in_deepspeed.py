"""DPO under DeepSpeed ZeRO-2, two processes on a CPU: python benchmarks/recipes/in_deepspeed.py FOLDER

docs/examples/zero3.yaml with stage 2, on DeepSpeed's CPU accelerator, gloo and float32. Must say what one process
says. Under stage 3 the callback refuses: its pieces of weights are not gathered for a forward pass outside the engine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import ground
import yaml

HERE = Path(__file__).resolve()


def trained(home: Path, output: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from rewardshape import ProbeCallback

    rows = load_dataset("json", data_files=str(home / "pairs.jsonl"), split="train")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    arguments = DPOConfig(
        output_dir=str(output),
        beta=0.1,
        max_steps=ground.STEPS,
        per_device_train_batch_size=ground.PAIRS // processes,
        learning_rate=ground.LEARNING_RATE,
        logging_steps=1,
        report_to=[],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        save_strategy="no",
    )
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(home / "model"),
        args=arguments,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(home / "model"),
    )
    ProbeCallback(home / "pairs.jsonl").attach(trainer)
    trainer.train()
    if trainer.is_world_process_zero():
        (output / "log.json").write_text(json.dumps(trainer.state.log_history))


def main() -> None:
    home = ground.folder()
    ground.checkpoint(home)
    ground.pairs(home)
    settings = yaml.safe_load((HERE.parents[2] / "docs" / "examples" / "zero3.yaml").read_text())
    settings |= {"mixed_precision": "no", "num_processes": 2, "use_cpu": True}
    settings["deepspeed_config"] |= {
        "zero_stage": 2,
        "zero3_init_flag": False,
        "zero3_save_16bit_model": False,
    }
    (home / "zero3.yaml").write_text(yaml.safe_dump(settings))
    launch = ["accelerate.commands.launch", "--config_file", str(home / "zero3.yaml")]
    cpu = {**os.environ, "DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "true"}
    for words, output in ((launch, home / "two"), ([], home / "one")):
        python = [sys.executable, *(["-m"] if words else []), *words, str(HERE)]
        subprocess.run([*python, str(home), str(output)], env=cpu if words else None, check=True)
    ground.alike("deepspeed", home / "one" / "rewardshape", home / "two" / "rewardshape")
    ground.compared(
        "deepspeed", home / "two" / "rewardshape", json.loads((home / "two" / "log.json").read_text())
    )


if __name__ == "__main__":
    trained(*map(Path, sys.argv[1:])) if len(sys.argv) == 3 else main()
