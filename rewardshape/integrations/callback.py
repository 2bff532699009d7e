"""The recorder as a callback of transformers' Trainer, and so of TRL's and of every trainer built on them.

>>> watch = ProbeCallback("probe.jsonl", every=10)  # doctest: +SKIP
>>> trainer = DPOTrainer(model, args=args, train_dataset=pairs, callbacks=[watch])  # doctest: +SKIP
>>> watch.attach(trainer)  # its numbers go to the trainer's trackers too  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from rewardshape.errors import InputError
from rewardshape.integrations.arguments import Stated, settled, trainers_margin
from rewardshape.integrations.models import inner_of, whole
from rewardshape.integrations.pairs import ReadPairs
from rewardshape.integrations.recorder import Recorder, Taken
from rewardshape.numbers import signed
from rewardshape.probe.distributed import here, on_main
from rewardshape.theory import Objective
from rewardshape.trace import RunFolder

LOGGED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
}  # a trainer's word -> ours


class ProbeCallback(TrainerCallback):
    """Measure a fixed probe set at step 0 and every K steps, and write our trace beside the run.

    A run that the trainer resumes goes on in the same trace, cut back to the checkpoint; the reference stays that of
    step 0. Another ``train()`` begins another trace, in ``rewardshape-2`` beside the first. A disk that takes no more
    ends the trace, with a warning, and not the training.

    Parameters
    ----------
    pairs : path, list of paths, list of dict, DataFrame, datasets.Dataset or list of EncodedPair
        The probe set, best pairs that are not trained on, in any form that `rewardshape.data` reads.
    objective : Objective, optional
        What the trainer optimises, where its arguments do not say: those of TRL's DPO, CPO (SimPO, AlphaPO), ORPO and
        KTO do. One that contradicts them is refused. Where it has a reference, that is the trainer's ``ref_model`` once
        attached, else the policy as it stands at step 0.
    every : int
        Steps between two measurements.
    folder : path, optional
        Where the trace is written; default ``rewardshape/`` below the trainer's output folder.
    columns : mapping, optional
        Which column is which where the form is not known: ``{"prompt": "instruction"}``.
    max_pairs : int
        Only so many pairs, from the start.
    max_prompt_tokens, max_response_tokens : int, optional
        Prompts keep their last, responses their first tokens; default half the model's context, at most 1024.
    sample_every : int, optional
        Also sample responses at measured steps that this divides: the KL of policy to reference.
    stop_below : float, optional
        Stop training once the mean chosen log-prob per token has fallen by more than this many nats per token.
    quiet : bool, optional
        Print no line a measurement; by default where the trainer shows a progress bar.

    Raises
    ------
    InputError
        When it is made: pairs that cannot be read. When the trainer is made: an objective that contradicts its
        arguments, pairs that make no tokens.
    """

    def __init__(
        self,
        pairs: Any,
        objective: Objective | None = None,
        *,
        every: int = 1,
        folder: str | PathLike[str] | None = None,
        columns: Mapping[str, str] | None = None,
        max_pairs: int = 64,
        max_prompt_tokens: int | None = None,
        max_response_tokens: int | None = None,
        sample_every: int | None = None,
        stop_below: float | None = None,
        quiet: bool | None = None,
    ):
        if every < 1:
            raise InputError(f"every={every}: must be at least 1")
        if stop_below is not None and stop_below <= 0:
            raise InputError(f"stop_below={stop_below}: must be positive, a fall in nats per token")
        if objective is not None and not isinstance(objective, Objective):
            raise InputError(f"objective: a {type(objective).__name__}; give rewardshape.objective(NAME, …)")
        self.pairs = ReadPairs(pairs, columns, max_pairs)
        self.objective = objective
        self.every = every
        self.folder = Path(folder) if folder is not None else None
        self.limits = max_prompt_tokens, max_response_tokens
        self.sample_every = sample_every
        self.stop_below = stop_below
        self.quiet = quiet
        self.recorder: Recorder | None = None
        self._trained: Objective | None = None
        self._announced: Objective | None = None  # of the trainer that is being made
        self._trainer: Trainer | None = None
        self._taken: Taken | None = None  # of a step, until the trainer has logged its loss
        self._metrics: dict[str, float] = {}
        self._logged = 0  # the last step at which the trainer logged its loss

    def attach(self, trainer: Trainer) -> ProbeCallback:
        """Join a trainer, and send every measurement to its trackers, whichever ``report_to`` names.

        transformers tells a callback nothing of the trainer that calls it: without this the numbers stand in
        ``log_history`` and in the trace only.
        """
        self._trainer = trainer
        if self not in trainer.callback_handler.callbacks:
            self._trained = None
            trainer.add_callback(self)  # where the new one may tell
        self._settle(trainer.args)
        return self

    def trains(self, objective: Objective) -> None:
        """Be told by the trainer itself what it trains, whatever its arguments say."""
        self._trained = objective

    def will_train(self, objective: Objective) -> None:
        """The same, by a trainer that is being made."""
        self._announced = objective

    # --- what the trainer calls -----------------------------------------------------------------------------------

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trained, self._announced = self._announced, None  # what another trainer told is past
        self._trainer = None
        self._settle(args)
        if kwargs.get("model") is not None and kwargs.get("processing_class") is not None:
            whole(kwargs["model"])
            self._encode(kwargs)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        before = self.recorder
        if before is not None:
            before.close("interrupted")  # unless on_train_end has closed it
        found = self._settle(args)
        self._encode(kwargs)
        assert found.objective is not None
        self._logged = state.global_step
        self._taken, self._metrics = None, {}
        begun = state.global_step > 0
        self.recorder = Recorder(
            kwargs["model"],
            tokenizer_of(kwargs),
            self.pairs,
            found.objective,
            on_main(lambda: self._folder_for(args, begun)),
            reference=self._reference(before, kwargs["model"]),
            max_prompt_tokens=self.limits[0],
            max_response_tokens=self.limits[1],
            sample_every=self.sample_every,
        )
        self.recorder.about |= described(args, state, kwargs, found, self._trainer)
        if begun:
            self._go_on(self.recorder, state)
            return
        taken = self.recorder.take(0)
        self.recorder.write(taken, {}, tokens=True)
        self._send(taken.told, state, control)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._flush(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.recorder is None or not self._is_due(state):
            return
        self._taken = self.recorder.take(state.global_step)
        told = self._taken.told
        quiet = not args.disable_tqdm if self.quiet is None else self.quiet
        if here().is_main and not quiet:
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                print(
                    f"step {state.global_step}: chosen {signed(told['probe_chosen_change'], 4)}, rejected "
                    f"{signed(told['probe_rejected_change'], 4)} nats per token since step 0",
                    flush=True,
                )
        if self.stop_below is not None and -told["probe_chosen_change"] > self.stop_below:
            control.should_training_stop = True
        self._send(told, state, control)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if not logs or "loss" not in logs or self.recorder is None:
            return
        self._metrics = self._logged_metrics(logs, self.recorder, state.global_step - self._logged)
        self._logged = state.global_step

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._flush(state.global_step, last=True)
        if self.recorder is not None:
            with self.recorder.going_without():
                self.recorder.close()

    # --- how ------------------------------------------------------------------------------------------------------

    def _settle(self, args: Any) -> Stated:
        if self._trained is None:
            return settled(self.objective, args)
        return Stated(self._trained, is_loss=True)

    def _encode(self, kwargs: Mapping[str, Any]) -> None:
        self.pairs.encode(tokenizer_of(kwargs), inner_of(kwargs["model"]).config, *self.limits)

    def _reference(self, before: Recorder | None, model: Any) -> torch.nn.Module | Recorder | None:
        """What the trainer compares with: its own reference model; of a second ``train()``, what the first had."""
        given = getattr(self._trainer, "ref_model", None)
        if given is not None:
            return given  # type: ignore[no-any-return]
        if before is None or not before.has_reference or inner_of(before.model) is not inner_of(model):
            return None
        return before

    def _folder_for(self, args: Any, begun: bool) -> Path:
        """The folder of this run: the newest that holds a trace to go on with, or the next without one."""
        base = self.folder or Path(args.output_dir) / "rewardshape"
        number, folder = 1, base
        while RunFolder(folder).trace.exists():
            number += 1
            newest, folder = folder, base.with_name(f"{base.name}-{number}")
        return newest if begun and number > 1 else folder

    def _send(self, told: dict[str, float], state: Any, control: Any) -> None:
        """To ``log_history``, and with the trainer to its trackers; what it logs itself is not touched."""
        if self._trainer is None:
            state.log_history.append({**told, "epoch": state.epoch, "step": state.global_step})
            return
        due = control.should_log  # which every log takes for done
        Trainer.log(self._trainer, dict(told))  # not TRL's, which would empty the means that it collects
        control.should_log = due

    def _is_due(self, state: Any) -> bool:
        return bool(state.global_step % self.every == 0 or state.global_step >= state.max_steps)

    def _go_on(self, recorder: Recorder, state: Any) -> None:
        """Go on in the record of a run that is resumed, whose last step a kill may have left out."""
        step = state.global_step
        recorder.go_on(step)
        assert recorder.last_step is not None
        if recorder.last_step == step:
            return
        logged = [entry for entry in state.log_history if "loss" in entry]
        metrics: dict[str, float] = {}
        if logged and logged[-1]["step"] == step:
            before = logged[-2]["step"] if len(logged) > 1 else 0
            metrics = self._logged_metrics(logged[-1], recorder, step - before)
        with recorder.going_without():
            if self._is_due(state):
                recorder.write(recorder.take(step), metrics)  # of the checkpoint's own weights
            elif metrics:
                recorder.write_metrics(step, metrics)

    def _logged_metrics(self, logs: Mapping[str, Any], recorder: Recorder, steps: int) -> dict[str, float]:
        """What a trainer logged of a step in our words, as means over so many steps."""
        metrics = {LOGGED[name]: float(value) for name, value in logs.items() if name in LOGGED}
        if "margin" in metrics and self._trained is None:
            margin = trainers_margin(recorder.objective, metrics.pop("margin"))
            metrics |= {} if margin is None else {"margin": margin}
        # Only losses and rewards are means; the learning rate and the gradient are this step's.
        return {**metrics, "mean_over_steps": steps}

    def _flush(self, step: int, last: bool = False) -> None:
        if self.recorder is not None:
            with self.recorder.going_without():
                if self._taken is not None:
                    self.recorder.write(self._taken, self._metrics, tokens=last)
                elif self._metrics:
                    self.recorder.write_metrics(step, self._metrics)
        self._taken, self._metrics = None, {}


def tokenizer_of(kwargs: Mapping[str, Any]) -> Any:
    """The tokenizer among what a trainer hands its callbacks; of a processor, the one in it."""
    found = kwargs.get("processing_class") or kwargs.get("tokenizer")
    if found is None:
        raise InputError("ProbeCallback: the trainer has no tokenizer; give it processing_class=tokenizer")
    return getattr(found, "tokenizer", found)


def described(
    args: Any, state: Any, kwargs: Mapping[str, Any], found: Stated, trainer: Trainer | None
) -> dict[str, Any]:
    """What the manifest says of the trainer and of how it trains."""
    dataset: Any = getattr(kwargs.get("train_dataloader"), "dataset", None)
    rows = len(dataset) if hasattr(dataset, "__len__") else None
    schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    return {
        "run": {
            "steps": state.max_steps,
            "batch_size": args.per_device_train_batch_size
            * args.gradient_accumulation_steps
            * here().processes,
            "learning_rate": args.learning_rate,
            "schedule": schedule,
            "warmup_ratio": args.get_warmup_steps(state.max_steps) / max(state.max_steps, 1),
            "max_grad_norm": args.max_grad_norm,
            "seed": args.seed,
        },
        "objective_is_loss": found.is_loss,
        "trainer": {
            "arguments": type(args).__name__,
            "class": None if trainer is None else type(trainer).__name__,
            "train_rows": rows,
            "output": re.sub(r"/+$", "", str(args.output_dir)),
            "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
            "logged_every": args.logging_steps,
        },
    }
