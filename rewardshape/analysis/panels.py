"""The probe set of a trace as arrays, and what its objective makes of them: scores, margins, weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from rewardshape.analysis.resampling import where_known
from rewardshape.errors import InputError
from rewardshape.theory import Objective, Responses, objective
from rewardshape.trace import Run, Trace, read_probe_set

# Columns of a trace that hold sums over the tokens of a response, and what tables call each.
SUMS = {"logp_sum": "logp", "greedy_logp_sum": "greedy", "entropy_sum": "entropy"}
BY_SETTING = ["alpha", "seed", "run"]  # the order of runs in tables


class Panel(NamedTuple):
    """One response of one run's probe set as arrays: rows are steps, columns pairs."""

    run: Run
    response: str
    steps: np.ndarray
    pair_ids: list[str]
    prompt_ids: list[str]
    """Of each pair; the pair's own id where nothing tells its prompt."""
    prompt_codes: np.ndarray
    """The same as numbers, in the order of first appearance: equal where pairs share a prompt; shape (pairs,)."""
    num_tokens: np.ndarray
    ref_logp_sum: np.ndarray | None
    sums: dict[str, np.ndarray]
    """``logp_sum`` and, where measured, ``greedy_logp_sum`` and ``entropy_sum``: (steps, pairs), nats."""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What a pair is called and what it asks, which in another record may be another thing."""
        return list(zip(self.pair_ids, self.prompt_ids, strict=True))

    def change(self, name: str = "logp_sum", *, per_token: bool = True) -> np.ndarray:
        """Change since step 0 of every pair: (steps, pairs), nats per token or nats."""
        change = self.sums[name] - self.sums[name][0]
        return np.asarray(change / self.num_tokens if per_token else change)


def run_objective(run: Run) -> Objective:
    """The objective a run optimised, rebuilt from its manifest.

    Raises
    ------
    InputError
        If the manifest states none.
    """
    try:
        stated = run.manifest["objective"]
        with warnings.catch_warnings():  # what there is to warn of was said when the run began
            warnings.simplefilter("ignore", UserWarning)
            return objective(stated["name"], **stated["parameters"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{run.folder}: the manifest of run {run.name!r} states no objective") from error


def run_label(run: Run) -> dict[str, Any]:
    """Name, setting, α and seed of a run: the columns that open every table (α is NaN where there is none)."""
    return {"run": run.name, "setting": run.setting, "alpha": run.alpha, "seed": run.seed}


def settings_table(trace: Trace) -> pd.DataFrame:
    """What tells the runs apart, one row per run: ``run``, ``setting``, ``alpha``, ``seed``, and what else varies.

    Examples
    --------
    >>> curve.merge(settings_table(trace)[["run", "beta"]], on="run")      # doctest: +SKIP
    """
    return pd.DataFrame([{**run.values, **run_label(run)} for run in trace.runs])


def probe_panels(trace: Trace) -> list[Panel]:
    """Every response of every run's probe set as arrays, made once for a trace and not to be written to.

    Raises
    ------
    InputError
        If no run has probe rows at step 0, so that no change can be told.
    """
    if trace not in _MADE:
        _MADE[trace] = list(_panels(trace))
    return _MADE[trace]


_MADE: WeakKeyDictionary[Trace, list[Panel]] = WeakKeyDictionary()


def _panels(trace: Trace) -> Iterator[Panel]:
    probe = trace.responses[trace.responses["split"] == "probe"]
    begun = set(probe.loc[probe["step"] == 0, "run"])
    if not begun >= set(probe["run"]) or not begun:
        raise InputError(f"{trace.folder}: the trace holds no probe set at step 0, so no change can be told")
    measured = [c for c in SUMS if c in probe]
    for run in trace.runs:
        mine = probe[probe["run"] == run.name]
        prompts = _prompts(run, mine)
        order = (
            mine["pair_id"].unique().tolist()
        )  # of every response, whatever its rows' own: they are joined by it
        for response, rows in mine.groupby("response", sort=False):
            wide = rows.pivot(
                index="step", columns="pair_id", values=[*measured, "num_tokens", "ref_logp_sum"]
            )
            there = set(rows["pair_id"])
            pair_ids = [pair for pair in order if pair in there]
            if response in ("chosen", "rejected") and len(pair_ids) < len(order):
                lacking = next(pair for pair in order if pair not in there)
                raise InputError(
                    f"{run.folder}: pair {lacking} of the probe set has no {response!s} response"
                )
            reference = wide["ref_logp_sum"][pair_ids].to_numpy(float)[0]
            prompt_ids = [prompts.get(pair, pair) for pair in pair_ids]
            yield Panel(
                run=run,
                response=str(response),
                steps=wide.index.to_numpy(),
                pair_ids=pair_ids,
                prompt_ids=prompt_ids,
                prompt_codes=pd.factorize(np.array(prompt_ids, dtype=object))[0],
                num_tokens=wide["num_tokens"][pair_ids].to_numpy(float)[0],
                ref_logp_sum=None if np.isnan(reference).any() else reference,
                sums={
                    c: wide[c][pair_ids].to_numpy(float)
                    for c in measured
                    if c == "logp_sum" or wide[c].notna().to_numpy().any()
                },
            )


def _prompts(run: Run, rows: pd.DataFrame) -> dict[str, str]:
    """The prompt of each pair: as recorded, else by its text; empty where neither is known."""
    if "prompt_id" in rows and rows["prompt_id"].notna().any():
        known = rows[rows["prompt_id"].notna()]
        return dict(zip(known["pair_id"], known["prompt_id"], strict=True))
    return {pair["pair_id"]: pair["prompt"] for pair in read_probe_set(run.folder) if "prompt" in pair}


def chosen_and_rejected(trace: Trace) -> Iterator[tuple[Panel, Panel]]:
    """The chosen and the rejected panel of every run."""
    panels = {(panel.run.name, panel.response): panel for panel in probe_panels(trace)}
    for run in trace.runs:
        if (run.name, "chosen") in panels:
            yield panels[run.name, "chosen"], panels[run.name, "rejected"]


def logp_margins(chosen: Panel, rejected: Panel) -> np.ndarray:
    """Chosen minus rejected log-prob of every pair, nats per token: (steps, pairs)."""
    return np.asarray(
        chosen.sums["logp_sum"] / chosen.num_tokens - rejected.sums["logp_sum"] / rejected.num_tokens
    )


def scores(goal: Objective, panel: Panel) -> np.ndarray:
    """The score of every response under an objective: (steps, pairs)."""
    return np.asarray(goal.score(panel.sums["logp_sum"], panel.num_tokens, panel.ref_logp_sum))


def score_gaps(goal: Objective, chosen: Panel, rejected: Panel) -> np.ndarray:
    """Score of chosen minus score of rejected: (steps, pairs).

    By log-prob per token where the objective's own scores take more than a trace holds at every step.
    """
    if not goal.sums_suffice:
        return logp_margins(chosen, rejected)
    if goal.alone:
        return np.asarray(scores(goal, chosen) - scores(goal, rejected))
    of_chosen, of_rejected = _sides(step_by_step(goal, goal.pair_scores, chosen, rejected))
    return np.asarray(of_chosen - of_rejected)


def in_order(chosen: Panel, rejected: Panel) -> np.ndarray:
    """Whether the chosen response of every pair scores higher, 1, 0 or NaN where a score is: (steps, pairs).

    The mean over pairs is the accuracy.
    """
    gaps = score_gaps(run_objective(chosen.run), chosen, rejected)
    return where_known(gaps > 0, gaps)


def reward_margins(goal: Objective, chosen: Panel, rejected: Panel) -> np.ndarray:
    """Reward margin of every pair, γ included: (steps, pairs); NaN where summed log-probs do not tell it."""
    if not goal.sums_suffice:
        return np.full_like(chosen.sums["logp_sum"], np.nan)
    return step_by_step(goal, goal.pair_margin, chosen, rejected)


def pair_weights(chosen: Panel, rejected: Panel) -> tuple[np.ndarray, np.ndarray]:
    """The gradient weights (−∂L/∂s_w, ∂L/∂s_l) of every probe pair of one run: two arrays, (steps, pairs).

    NaN for an objective that needs more than summed log-probs, which the trace does not hold at every step.
    """
    goal = run_objective(chosen.run)
    if not goal.sums_suffice:
        unknown = np.full_like(chosen.sums["logp_sum"], np.nan)
        return unknown, unknown
    return _sides(step_by_step(goal, goal.pair_weights, chosen, rejected))


def _sides(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What an objective gives for chosen and rejected, (steps, 2, pairs), as two arrays."""
    chosen, rejected = np.moveaxis(values, 1, 0)
    return chosen, rejected


BLOCK = 4_000_000  # numbers that an objective is given at once: some tens of MB


def step_by_step(goal: Objective, function: Callable[..., Any], chosen: Panel, rejected: Panel) -> np.ndarray:
    """What `function` of an objective gives for the pairs of each step: (steps, …, pairs).

    An objective that couples the pairs of a batch, here the probe set, is asked step by step; any other is given many
    steps at once.
    """
    steps, pairs = chosen.sums["logp_sum"].shape
    size = 1 if goal.coupled else max(1, BLOCK // pairs)
    return np.concatenate(
        [_of_steps(function, chosen, rejected, slice(i, i + size)) for i in range(0, steps, size)]
    )


def _of_steps(function: Callable[..., Any], chosen: Panel, rejected: Panel, steps: slice) -> np.ndarray:
    sums = [panel.sums["logp_sum"][steps] for panel in (chosen, rejected)]
    if len(sums[0]) == 1:  # one batch, as training sees it
        given = [
            Responses(s[0], p.num_tokens, p.ref_logp_sum)
            for s, p in zip(sums, (chosen, rejected), strict=True)
        ]
        return np.asarray(function(*given))[None]
    given = [
        Responses(s, np.broadcast_to(p.num_tokens, s.shape), _broadcast(p.ref_logp_sum, s.shape))
        for s, p in zip(sums, (chosen, rejected), strict=True)
    ]
    return np.moveaxis(np.asarray(function(*given)), -2, 0)


def _broadcast(values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    return None if values is None else np.broadcast_to(values, shape)
