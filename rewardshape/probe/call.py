"""The probe as a Python call: the flags of the command line as keywords, and objects in place of files."""

from __future__ import annotations

import contextlib
import inspect
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from rewardshape.data.sources import is_table
from rewardshape.errors import InputError, needing
from rewardshape.probe.command import settled
from rewardshape.probe.process import quiet_imports
from rewardshape.probe.settings import SETTINGS, Setting

if TYPE_CHECKING:
    from rewardshape.notebook import ShownTrace

OF_THE_TERMINAL = ("json", "dry_run")
DEFAULT = {"alpha": 0.25, "objective": "alphapo"}


def run_probe(checkpoint: Any = None, data: Any = None, **settings: Any) -> ShownTrace:
    """Train on preference pairs, log every step, and read back the trace.

    The same as ``rewardshape probe CHECKPOINT --data FILE …``: the same settings, the same files, the same numbers. One
    difference: without CHECKPOINT the command sweeps over α, and this runs one α unless several are given.

    Parameters
    ----------
    checkpoint : path, hub id or (model, tokenizer), optional
        A causal language model; the embedded one where none is given. A model in memory is copied, not trained itself.
    data : path, list of paths, list of dict, DataFrame or datasets.Dataset, optional
        Preference pairs in any form that `rewardshape.data` reads.
    {parameters}

    Returns
    -------
    ShownTrace
        Of the run, or of all runs of a sweep: the tables, ``plot()`` and ``report()``. The folder it lies in is
        ``trace.folder``; the figures and the report are there too.

    Raises
    ------
    InputError
        A setting that does not exist (the nearest one is named) or a value that it cannot have; bad data; a checkpoint
        that cannot be used; a loss or gradient that is not finite.

    Examples
    --------
    >>> trace = run_probe("./my-model", "pairs.jsonl", alpha=[0, 0.25], steps=100)  # doctest: +SKIP
    """
    if refused := [name for name in OF_THE_TERMINAL if settings.get(name)]:
        raise InputError(
            f"{refused[0]}: is for the terminal, where `rewardshape probe` takes it; run_probe returns a trace"
        )
    if (
        checkpoint is None
        and not {"alpha", "objective", "preset"} & settings.keys()
        and not settings.get("resume")
    ):
        settings["alpha"] = DEFAULT["alpha"]
    with needing("probe", "run_probe"), quiet_imports():
        from rewardshape.notebook import shown
        from rewardshape.probe.run import run
        from rewardshape.probe.show import write_results
    table = data if data is not None and is_table(data) else None
    names = data if table is None else [f"{type(data).__name__} in memory"]
    with _checkpoint(checkpoint) as (name, folder):
        given = {"checkpoint": name, "data": names, **settings}
        chosen = settled({key: value for key, value in given.items() if value is not None})
        trace = run(chosen, checkpoint=folder, data=table)
    for line in write_results(trace).problems:
        warnings.warn(line, stacklevel=2)
    return shown(trace)


@contextlib.contextmanager
def _checkpoint(given: Any) -> Iterator[tuple[str | None, str | None]]:
    """What the settings call the checkpoint, and the folder that it lies in where that is another."""
    if given is None or isinstance(given, str | PathLike):
        yield None if given is None else fspath(given), None
        return
    if not isinstance(given, Sequence) or len(given) != 2:
        raise InputError(f"checkpoint: a {type(given).__name__}; give a path, a hub id or (model, tokenizer)")
    model, tokenizer = given
    if hasattr(model, "peft_config"):
        raise InputError("checkpoint: a model with adapters; give model.merge_and_unload(), or its folder")
    with tempfile.TemporaryDirectory(prefix="rewardshape-") as folder:
        for part, what in ((model, "model"), (tokenizer, "tokenizer")):
            if not hasattr(part, "save_pretrained"):
                raise InputError(f"checkpoint: {type(part).__name__} is no {what} of transformers")
            part.save_pretrained(folder)
        yield f"{type(model).__name__} in memory", folder


def _entry(setting: Setting) -> str:
    several = " or several" if setting.axis or setting.many else ""
    return f"{setting.name} : {setting.kind.__name__}{several}\n        {setting.help}"


def _documented() -> None:
    """Let signature and docstring list every setting, from the place that declares them."""
    others = {name: setting for name, setting in SETTINGS.items() if name not in ("data", *OF_THE_TERMINAL)}
    defaults = {
        **DEFAULT,
        **{name: setting.default for name, setting in others.items() if name not in DEFAULT},
    }
    keyword = inspect.Parameter.KEYWORD_ONLY
    positional = list(inspect.signature(run_probe).parameters.values())[:2]
    run_probe.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*positional, *(inspect.Parameter(name, keyword, default=value) for name, value in defaults.items())],
        return_annotation="ShownTrace",
    )
    listed = "\n    ".join(_entry(others[name]) for name in defaults)
    run_probe.__doc__ = (run_probe.__doc__ or "").replace("{parameters}", listed)


_documented()
