"""Measure displacement in any training loop: a fixed set of pairs, read beside the training, our trace on disk.

>>> recorder = Recorder(model, tokenizer, "probe.jsonl", objective("dpo", beta=0.1), "runs/mine")  # doctest: +SKIP
>>> recorder.measure(step)  # 0 before the first update, then after any  # doctest: +SKIP
>>> recorder.close()  # doctest: +SKIP

`rewardshape diagnose runs/mine`, the report and the figures then read it like a run of ours.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

import rewardshape
from rewardshape.data.tokenization import token_digest
from rewardshape.errors import InputError
from rewardshape.integrations.models import (
    borrowed,
    fingerprint,
    has_adapters,
    inner_of,
    is_in_shards,
    kind_of,
    uncompiled,
    whole,
)
from rewardshape.integrations.pairs import ReadPairs
from rewardshape.integrations.told import as_numbers, numbers_of, told, told_of_samples, whole_step
from rewardshape.probe import manifest
from rewardshape.probe.distributed import here, join, on_main
from rewardshape.probe.lock import taken_over
from rewardshape.probe.measure.logprobs import choose_reader
from rewardshape.probe.measure.probe_set import Measurement, ProbeSet, num_tokens
from rewardshape.probe.measure.sampling import Sampler
from rewardshape.probe.reference import untouched_model
from rewardshape.probe.resume import is_of
from rewardshape.probe.stopping import record_ending
from rewardshape.probe.training import call_inside
from rewardshape.theory import Objective
from rewardshape.trace import RunFolder, TraceWriter, write_json
from rewardshape.trace.folder import Status
from rewardshape.trace.records import MEND, read_records, rewind


@dataclass(frozen=True)
class Taken:
    """A measurement that is not written down yet.

    Attributes
    ----------
    step : int
    found : Measurement
    samples : dict or None
        The samples table, where samples were due.
    told : dict
        What `Recorder.measure` returns.
    seconds : float
        What it took.
    """

    step: int
    found: Measurement
    samples: dict[str, list[Any]] | None
    told: dict[str, float]
    seconds: float


ANOTHER = "give another folder"


class Recorder:
    """Measures fixed pairs under a model that somebody else trains, and writes our trace.

    Parameters
    ----------
    model : causal language model of transformers
        As the loop trains it: plain, with adapters (peft), in DDP, sharded by FSDP2, prepared by accelerate. Its mode
        and its weights are left as they are.
    tokenizer : transformers tokenizer
    pairs : path, list of paths, list of dict, DataFrame, datasets.Dataset or list of EncodedPair
        Preference pairs that are not trained on, in any form that `rewardshape.data` reads.
    objective : Objective
        What the loop optimises: `rewardshape.objective("dpo", beta=0.1)`. Margins and losses are told by it.
    folder : path
        Of the run. Where it holds the record of an earlier start with the same pairs and objective, a first measurement
        at a step beyond 0 goes on with it: what was recorded at this step and later is dropped, and the reference stays
        that of step 0.
    reference : model or Recorder, optional
        What an objective with a reference compares with, where that is not the model as it stands at step 0; or the
        recorder of an earlier run with the same pairs, whose reference is kept.
    columns : mapping, optional
        Which column is which where the form is not known: ``{"prompt": "instruction"}``.
    max_pairs : int or None
        Only so many pairs, from the start.
    max_prompt_tokens, max_response_tokens : int, optional
        Prompts keep their last, responses their first tokens; default half the model's context, at most 1024.
    sample_every : int, optional
        Also sample responses at step 0 and at every measured step that this divides: the KL of the model to the
        reference. Holds a copy of the model, unless it has adapters or `reference` is given.
    samples : int
        How many each time, over the prompts of the pairs.
    about : mapping, optional
        Further entries of the manifest's ``run`` part: learning_rate, seed, …
    encoding
        Further arguments of `rewardshape.data.encode_pairs`: ``chat_template``, ``end_token``, …

    Raises
    ------
    InputError
        Pairs that cannot be read or hold nothing; a model that is no causal one; a folder that holds another run.

    Examples
    --------
    >>> with Recorder(model, tokenizer, "probe.jsonl", objective("dpo", beta=0.1), "runs/mine") as recorder:
    ...     recorder.measure(0)
    ...     for step, batch in enumerate(batches, 1):
    ...         train_on(batch)
    ...         wandb.log(recorder.measure(step))  # doctest: +SKIP
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Any,
        pairs: Any,
        objective: Objective,
        folder: str | PathLike[str],
        *,
        reference: torch.nn.Module | Recorder | None = None,
        columns: Mapping[str, str] | None = None,
        max_pairs: int | None = 64,
        max_prompt_tokens: int | None = None,
        max_response_tokens: int | None = None,
        sample_every: int | None = None,
        samples: int = 64,
        about: Mapping[str, Any] | None = None,
        **encoding: Any,
    ):
        if not isinstance(objective, Objective):
            raise InputError(f"objective: a {type(objective).__name__}; give rewardshape.objective(NAME, …)")
        join()
        self.model: Any = whole(model)
        self.objective = objective
        self.files = RunFolder(Path(folder))
        self.about: dict[str, Any] = {"run": dict(about or {})}
        self.tokenizer = tokenizer
        self.read = pairs if isinstance(pairs, ReadPairs) else ReadPairs(pairs, columns, max_pairs)
        self.pairs = self.read.encode(
            tokenizer, inner_of(model).config, max_prompt_tokens, max_response_tokens, **encoding
        )
        with borrowed(model):
            self.reader, self.note = choose_reader(uncompiled(model), self.pairs)
        self.probe = ProbeSet(self.pairs, self.reader, next(model.parameters()).device)
        self.last_step: int | None = None
        """Of the newest measurement, also one of an earlier start that is gone on with."""
        self._kind = kind_of(inner_of(model))
        self._rows = self.probe.table(None)
        self._writer: TraceWriter | None = None
        self._held = contextlib.ExitStack()
        self._compared_with = reference
        self._start: list[float] = []
        self._reference: list[float] | None = None
        self._sample_every, self._samples = sample_every, samples
        self._sampler = self._made_sampler(max_response_tokens) if sample_every else None

    def measure(
        self, step: int, *, model: torch.nn.Module | None = None, metrics: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """Measure the pairs under the model as it stands and write it down. Every process of a loop must call it.

        Parameters
        ----------
        step : int
            Number of updates the model has had; the first measurement is that of step 0, before any.
        model : causal language model, optional
            Takes the place of the one before: the next of a row of checkpoints, of the same architecture.
        metrics : mapping, optional
            Further numbers of this step: loss, learning_rate, grad_norm, …

        Returns
        -------
        dict
            For progress and trackers: ``probe_chosen_logp_mean`` and ``probe_rejected_logp_mean`` (nats per token),
            their changes since step 0 (``probe_chosen_change``, …), ``probe_share_fallen`` (of the chosen responses),
            ``probe_margin`` (reward units, γ subtracted), ``probe_accuracy``; with samples ``sample_kl`` (nats).

        Raises
        ------
        InputError
            A step that is no whole number or not later than the last, a first one that is not 0 in a new folder, or a
            metric that is no number.

        Warns
        -----
        UserWarning
            Where the disk takes no more: the record ends there, measuring and training go on.
        """
        numbers = as_numbers(metrics or {})
        taken = self.take(whole_step(step), model)
        with self.going_without():
            self.write(taken, numbers, tokens=taken.step == 0)
        return taken.told

    def take(self, step: int, model: torch.nn.Module | None = None) -> Taken:
        """Measure, and leave the writing to `write`: where the numbers of a step come later."""
        began = time.perf_counter()
        if self.last_step is not None and step <= self.last_step:
            raise InputError(f"measure({step}): step {self.last_step} was the last; steps must grow")
        if self.last_step is None and step:
            self.go_on(step - 1)
        if model is not None:
            self._take_up(model)
        assert self.model is not None, "of a row of checkpoints, each is given"
        found = self._measured(self.model)
        if self.last_step is None:
            self._begin(found.columns["logp_sum"])
        self.last_step = step
        samples = None
        if self._sampler is not None and self._sample_every and step % self._sample_every == 0:
            several = -(-self._samples // len(self._sampler.prompts))
            with borrowed(self.model):
                samples = self._sampler.measure(inner_of(self.model), step, per_prompt=several)
        told = self._told(found.columns["logp_sum"], samples)
        return Taken(step, found, samples, told, time.perf_counter() - began)

    def write(self, taken: Taken, metrics: Mapping[str, float], *, tokens: bool = False) -> None:
        """Write a measurement down, with other numbers of its step; with the log-prob of every token if `tokens`."""
        if self._writer is not None:
            self._writer.append(
                taken.step,
                metrics=metrics,
                probe=taken.found.columns,
                samples=taken.samples,
                tokens=self.probe.tokens_to_show(taken.found.token_logps) if tokens else None,
                seconds=taken.seconds,
            )

    def write_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write numbers of a step at which the pairs are not measured."""
        if self._writer is not None:
            self._writer.append(step, metrics=metrics)

    @contextlib.contextmanager
    def going_without(self) -> Iterator[None]:
        """Within it a disk that takes no more ends the record, which is said, and not the training."""
        try:
            yield
        except OSError as error:
            reason = f"{self.files.path}: {error.strerror or error}"
            with contextlib.suppress(OSError):  # what could not be written could not be flushed either
                if self._writer is not None:
                    self._writer.close()
            self._writer = None
            record_ending(self.files, "failed", reason)
            warnings.warn(f"{reason}; the record ends here, the training goes on", stacklevel=3)

    def go_on(self, step: int) -> None:
        """Open the record of an earlier start in the folder; what it holds beyond `step` is dropped.

        Raises
        ------
        InputError
            No record there, or that of other pairs or another objective.
        """
        if not on_main(self.files.trace.is_file):
            raise InputError(
                f"{self.files.path}: holds no record to go on with after step {step}; the first measurement is that of "
                "step 0, before the first update (of saved checkpoints: rewardshape measure)"
            )
        at_hand = isinstance(self._compared_with, torch.nn.Module) or has_adapters(inner_of(self.model))
        if self._sampler is not None and not at_hand:
            raise InputError(
                "sample_every: the untouched model is gone when a run goes on; give it as reference, or leave "
                "sample_every out"
            )
        self._start, self._reference, last = on_main(lambda: self._recorded(step))
        self._open(lambda: self._cut_back(step), head=None)
        self.last_step = last

    def close(self, status: Status = "done", reason: str = "") -> None:
        """End the record; a later measurement opens it again."""
        try:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
                self.files.set_status(status, reason)
        finally:
            self._held.close()
            self.last_step = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, *_: Any) -> None:
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt):
            self.close("interrupted")
        else:
            self.close("failed", (str(error).splitlines() or [type(error).__name__])[0])

    def _take_up(self, model: torch.nn.Module) -> None:
        """The model in the place of the one before."""
        now = kind_of(inner_of(model))
        if now != self._kind:
            raise InputError(
                f"{inner_of(model).config._name_or_path}: a {now}, and the first model was a {self._kind}"
            )
        self.model = model

    # --- measuring ------------------------------------------------------------------------------------------------

    def _measured(self, model: torch.nn.Module) -> Measurement:
        inner, outer = inner_of(model), uncompiled(model)
        with borrowed(model):
            return self.probe.measure(lambda batch: call_inside(outer, inner, self.reader.logps, batch))

    def _made_sampler(self, max_tokens: int | None) -> Sampler:
        inner = inner_of(self.model)
        if is_in_shards(inner):
            raise InputError("sample_every: a sharded model cannot sample; leave it out")
        longest = max(len(ids) for pair in self.pairs for ids in pair.responses.values())
        given: Any = self._compared_with
        if isinstance(given, Recorder) and given._sampler is None and self.objective.needs_reference:
            raise InputError(
                "sample_every: the recorder given as reference kept no model to sample beside; give it "
                "sample_every too, or the model as reference"
            )
        is_model = isinstance(given, torch.nn.Module)
        theirs = given._sampler.reference if isinstance(given, Recorder) and given._sampler else None
        return Sampler(
            list({tuple(pair.prompt_ids): pair for pair in self.pairs}.values())[: self._samples],
            self.tokenizer,
            self.reader,
            reference=theirs or (lambda _: contextlib.nullcontext(given))
            if is_model or theirs
            else untouched_model(inner, adapters=has_adapters(inner)),
            gold=None,
            max_tokens=max_tokens or longest,
            seed=0,
        )

    @property
    def has_reference(self) -> bool:
        """Whether the pairs have been measured under a reference."""
        return self._reference is not None

    @property
    def num_tokens(self) -> int:
        """Tokens of the pairs, each prompt once: what a measurement reads."""
        return num_tokens(*self.pairs)

    def _told(self, sums: Sequence[float], samples: Mapping[str, list[Any]] | None) -> dict[str, float]:
        return told(self.objective, self._rows, sums, self._start, self._reference) | told_of_samples(samples)

    # --- the record -----------------------------------------------------------------------------------------------

    def _begin(self, logp_sums: list[float]) -> None:
        """Open a new record, whose step 0 has these log-probs."""
        if on_main(self.files.trace.is_file):
            raise InputError(f"{self.files.path}: holds a trace already, which is kept; give another folder")
        self._start, self._reference = logp_sums, self._found_reference(logp_sums)
        sums: list[Any] = [*self._reference] if self._reference else [None] * len(logp_sums)

        def described() -> None:
            manifest.write_manifest(self.files.path, self._described(), self.pairs, self.tokenizer)

        self._open(described, head={**self._rows, "ref_logp_sum": sums})

    def _found_reference(self, at_start: list[float]) -> list[float] | None:
        given = self._compared_with
        if not self.objective.needs_reference:
            return None
        if isinstance(given, Recorder):
            if given._reference is None or not is_of(given._rows, self._rows):
                raise InputError(
                    f"reference: the recorder of {given.files.path} has no reference of these pairs; give the model"
                )
            return given._reference
        return at_start if given is None else self._measured(given).columns["logp_sum"]

    def _open(self, prepare: Callable[[], object], head: dict[str, list[Any]] | None) -> None:
        def on_this_process() -> None:
            self.files.path.mkdir(parents=True, exist_ok=True)
            self._held.callback(taken_over(self.files.path, self).release)
            prepare()
            self.files.set_status("running")
            self._writer = TraceWriter(self.files.path, head)

        on_main(on_this_process)

    def _cut_back(self, step: int) -> None:
        rewind(self.files.path, step)
        goes_on = {name: value for name, value in self.about.items() if name != "run"}
        write_json(self.files.manifest, {**self.files.read_manifest(), **goes_on})

    def _recorded(self, step: int) -> tuple[list[float], list[float] | None, int]:
        """Of the record in the folder: log-probs at step 0 and under the reference, and its last step up to `step`."""
        recorded = self.files.read_manifest()
        stated = recorded.get("objective", {})
        if stated != manifest.stated(self.objective):
            raise InputError(
                f"{self.files.path}: holds a run of {stated.get('name')} with {stated.get('parameters')}, and this is "
                f"{self.objective.name} with {self.objective.parameters}; give another folder"
            )
        rows, records = read_records(self.files.trace)
        first = next(records, None)
        if first is None or first.step or "probe" not in first.tables:
            raise InputError(f"{self.files.trace}:2: no measurement of step 0 to go on from; {MEND}")
        if not is_of(rows, self._rows):
            raise InputError(
                f"{self.files.trace}:1: its probe set is another one than these pairs make; {ANOTHER}"
            )
        if recorded.get("data", {}).get("tokens", own := token_digest(self.pairs)) != own:
            raise InputError(f"{self.files.path}: its pairs were other tokens (template, limits); {ANOTHER}")
        reference = numbers_of(rows["ref_logp_sum"]) if self.objective.needs_reference else None
        kept = itertools.takewhile(lambda record: record.step <= step, records)
        last = max((record.step for record in kept), default=0)
        return numbers_of(first.tables["probe"]["logp_sum"]), reference, last

    def _described(self) -> dict[str, Any]:
        inner, about = inner_of(self.model), dict(self.about)
        return {
            "rewardshape": rewardshape.__version__,
            "status": "running",
            "run": {"objective": self.objective.name, **self.objective.parameters, **about.pop("run", {})},
            "objective": manifest.stated(self.objective),
            "model": {
                "checkpoint": inner.config._name_or_path,
                "fingerprint": fingerprint(inner),
                "architecture": inner.config.architectures,
                "parameters": sum(weight.numel() for weight in inner.parameters()),
                "special_tokens": manifest.special_tokens(self.tokenizer),
                "log_probs": self.reader.name,
            },
            "data": {**self.read.report, "tokens": token_digest(self.pairs), "probe_pairs": len(self.pairs)},
            **manifest.surroundings(here()),
            **about,
        }
