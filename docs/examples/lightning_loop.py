"""SimPO in Lightning, with a Recorder in a callback of its own: python lightning_loop.py MODEL PAIRS FOLDER"""

import json
import sys
from pathlib import Path

import pytorch_lightning as lightning
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape import Recorder, objective

checkpoint, pairs, folder = sys.argv[1:4]
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
rows = [json.loads(line) for line in Path(pairs).read_text(encoding="utf-8").splitlines()]


class SimPO(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint)

    def logp_mean(self, prompt, response):
        before = tokenizer(prompt)["input_ids"]
        ids = torch.tensor([tokenizer(prompt + response)["input_ids"] + [tokenizer.eos_token_id]])
        ids = ids.to(self.device)
        logps = self.model(ids).logits[0, :-1].log_softmax(-1)
        return logps.gather(-1, ids[0, 1:, None])[len(before) - 1 :].mean()

    def training_step(self, row, _):
        margin = self.logp_mean(row["prompt"], row["chosen"]) - self.logp_mean(row["prompt"], row["rejected"])
        return -torch.nn.functional.logsigmoid(2.0 * margin - 1.0)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.model.parameters(), lr=1e-3)


class Watch(lightning.Callback):
    def on_train_start(self, trainer, module):
        goal = objective("simpo", beta=2.0, gamma=1.0)
        self.recorder = Recorder(module.model, tokenizer, rows[:16], goal, Path(folder) / "rewardshape")
        if trainer.global_step == 0:
            self.recorder.measure(0)

    def on_train_batch_end(self, trainer, module, outputs, *_):
        told = self.recorder.measure(trainer.global_step, metrics={"loss": outputs["loss"].item()})
        module.log_dict(told)

    def on_train_end(self, trainer, module):
        self.recorder.close()


trainer = lightning.Trainer(
    max_steps=4,
    callbacks=[Watch()],
    accelerator="auto",
    devices=1,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(SimPO(), torch.utils.data.DataLoader(rows[16:], batch_size=None))
