"""DPO on a 4-bit model with LoRA adapters, measured by the callback: python qlora.py MODEL PAIRS FOLDER

bitsandbytes must be installed. Run on a CPU with bitsandbytes 0.50.2 and a random model of width 128, six steps; there
widths must be multiples of 64. Not run on a GPU. In the tests: adapters on weights that torchao holds in 8 bits.
"""

import sys

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import DPOConfig, DPOTrainer

from rewardshape import ProbeCallback

checkpoint, pairs, folder = sys.argv[1:]
rows = load_dataset("json", data_files=pairs, split="train")
model = AutoModelForCausalLM.from_pretrained(
    checkpoint,
    dtype=torch.bfloat16,
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    ),
)
watch = ProbeCallback(rows.select(range(64)), every=10)
trainer = DPOTrainer(
    model,
    args=DPOConfig(
        output_dir=folder,
        beta=0.1,
        learning_rate=1e-5,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=True,
    ),
    train_dataset=rows.select(range(64, len(rows))),
    processing_class=AutoTokenizer.from_pretrained(checkpoint),
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
)
watch.attach(trainer)
trainer.train()
