"""Our measures and our objectives inside other people's trainers."""

from rewardshape.errors import needing

with needing("probe", "rewardshape.integrations"):  # said once for the whole room, in one line
    import accelerate as accelerate
    import torch as torch
    import transformers as transformers
