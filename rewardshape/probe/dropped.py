"""The pairs that a run leaves out: chosen on the untouched model when it begins, recorded, and read back on resume."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from rewardshape.probe.beginning import Beginning
from rewardshape.probe.distributed import here, on_main
from rewardshape.probe.drops import Drop, left_out
from rewardshape.probe.grid import PlannedRun
from rewardshape.probe.measure.dropping import drop_scores
from rewardshape.probe.measure.logprobs import Reader
from rewardshape.probe.measure.probe_set import only_pair
from rewardshape.trace.folder import read_json, write_json


def dropped_pairs(
    file: Path,
    planned: PlannedRun,
    policy: PreTrainedModel,
    beginning: Beginning,
    reader: Reader,
) -> list[str]:
    """The ids of the pairs that the run leaves out.

    Parameters
    ----------
    file : Path
        Where they are recorded: ``criterion``, ``share`` and ``pairs``.
    planned : PlannedRun
    policy : PreTrainedModel
        Still untouched.
    beginning : Beginning
        What the runs of its seed begin with.
    reader : Reader
    """
    text = planned.settings.data.drop
    if text is None:
        return []
    kept = on_main(lambda: read_json(file, {"pairs": list}) if file.is_file() else None)
    if kept is not None:
        return list(kept["pairs"])
    drop, pairs = Drop.read(text), [only_pair(pair) for pair in beginning.inputs.train]
    scores = drop_scores(
        drop.criterion,
        pairs,
        policy,
        reader,
        objective=planned.objective,
        reference=lambda score: beginning.reference.logps(reader, score, here().device),
        seed=planned.settings.training.seed,
    )
    gone = left_out([pair.pair_id for pair in pairs], scores, drop)

    def record() -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"criterion": drop.criterion, "share": drop.share, "pairs": gone})

    on_main(record)
    return gone
