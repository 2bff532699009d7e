"""The probe runner: train on preference pairs and log every step. The only room that loads transformers."""

import logging

for noisy in ("torchao", "torch.utils._pytree"):  # they warn of kernels we do not use, while being imported
    logging.getLogger(noisy).setLevel(logging.ERROR)
