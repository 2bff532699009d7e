"""The pairs of a probe set: what happened to each, what it is like, and what falling pairs have in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.panels import chosen_and_rejected, logp_margins, run_label
from rewardshape.analysis.resampling import (
    MIN_TESTED,
    central,
    drawn_pairs,
    num_prompts,
    rank_correlations,
    where_known,
)
from rewardshape.trace import Run, Trace, read_probe_set


@dataclass(frozen=True)
class Descriptor:
    """One number that tells what a pair is like before training.

    Attributes
    ----------
    name : str
        Its column in `pairs_table`.
    label : str
        With its unit, for an axis.
    more : str
        What pairs with more of it are, after "pairs that are …".
    likeness : int
        1: more of it means two responses more alike; -1: less alike; 0: neither.
    """

    name: str
    label: str
    more: str
    likeness: int = 0


DESCRIPTORS = (
    Descriptor("chosen_tokens", "chosen response (tokens)", "longer in their chosen response"),
    Descriptor("rejected_tokens", "rejected response (tokens)", "longer in their rejected response"),
    Descriptor(
        "length_difference",
        "chosen − rejected length (tokens)",
        "longer in the chosen than in the rejected response",
    ),
    Descriptor("edit_distance", "edit distance, chosen to rejected (tokens)", "further apart in tokens", -1),
    Descriptor("similarity", "similarity of chosen and rejected", "more alike in their tokens", 1),
    Descriptor("ches", "CHES", "closer in hidden states (CHES)", 1),
    Descriptor(
        "ches_normalised", "length-normalised CHES", "closer in hidden states (length-normalised CHES)", 1
    ),
    Descriptor(
        "initial_logp_mean",
        "chosen log-prob at step 0 (nats per token)",
        "likelier in their chosen response at step 0",
    ),
    Descriptor(
        "initial_logp_margin", "log-prob margin at step 0 (nats per token)", "already in order at step 0"
    ),
)


PART_OF_THE_CHANGE = ("initial_logp_mean",)
SHUFFLES = 1999


def pairs_table(trace: Trace) -> pd.DataFrame:
    """Every probe pair with what happened to it and what it is like, most fallen first.

    Returns
    -------
    DataFrame
        One row per run and pair: ``pair_id``; what happened between step 0 and the last step:
        ``chosen_change``, ``rejected_change`` (nats per token), ``fallen`` (or <NA>), ``rank`` (1 fell most
        of its run), ``chosen_sum_change``, ``rejected_sum_change`` (nats); whose it is: ``setting``, ``alpha``,
        ``seed``, ``prompt`` (equal where pairs share one); what the pair
        was at step 0: ``chosen_tokens``, ``rejected_tokens``, ``length_difference`` (chosen minus
        rejected), ``initial_logp_mean`` (chosen, nats per token), ``initial_logp_margin``; where the texts
        were kept ``edit_distance`` (token Levenshtein between the two responses) and ``similarity`` (1
        minus the distance over the longer length); where geometry was measured its columns (``gram_ww``, …,
        ``ches``) at the first step that has them; last, where a printed table still shows it, ``run``.
    """
    tables = []
    for chosen, rejected in chosen_and_rejected(trace):
        end = chosen.change()[-1]
        table = pd.DataFrame(
            {
                "run": chosen.run.name,
                "pair_id": chosen.pair_ids,
                "chosen_change": end,
                "rejected_change": rejected.change()[-1],
                "fallen": pd.array(where_known(end < 0, end), dtype="boolean"),
                "chosen_sum_change": chosen.change(per_token=False)[-1],
                "rejected_sum_change": rejected.change(per_token=False)[-1],
                **run_label(chosen.run),
                "prompt": chosen.prompt_codes,
                "chosen_tokens": chosen.num_tokens.astype(int),
                "rejected_tokens": rejected.num_tokens.astype(int),
                "length_difference": (chosen.num_tokens - rejected.num_tokens).astype(int),
                "initial_logp_mean": (chosen.sums["logp_sum"] / chosen.num_tokens)[0],
                "initial_logp_margin": logp_margins(chosen, rejected)[0],
            }
        )
        for more in (_distances(chosen.run), _first_geometry(trace, chosen.run)):
            known = more.dropna(axis=1, how="all")
            table = table.merge(known, on="pair_id", how="left") if "pair_id" in known else table
        table = table.sort_values("chosen_change", ignore_index=True)
        table.insert(5, "rank", np.arange(1, len(table) + 1))
        tables.append(table)
    found = pd.concat(tables, ignore_index=True)
    return found[[*found.columns.drop("run"), "run"]]


def _distances(run: Run) -> pd.DataFrame:
    rows = []
    for pair in read_probe_set(run.folder):
        tokens = pair.get("tokens", {})
        if not {"chosen", "rejected"} <= tokens.keys():
            continue
        chosen, rejected = tokens["chosen"], tokens["rejected"]
        distance = edit_distance(chosen, rejected)
        rows.append((pair["pair_id"], distance, 1 - distance / max(len(chosen), len(rejected), 1)))
    return pd.DataFrame(rows, columns=["pair_id", "edit_distance", "similarity"])


def _first_geometry(trace: Trace, run: Run) -> pd.DataFrame:
    if trace.geometry.empty or "pair_id" not in trace.geometry:
        return pd.DataFrame({"pair_id": []}, dtype=object)
    rows = trace.geometry[trace.geometry["run"] == run.name]
    first: pd.DataFrame = rows[rows["step"] == rows["step"].min()].drop(columns=["run", "step"])
    return first


def edit_distance(first: list[Any], second: list[Any]) -> int:
    """Levenshtein distance between two token sequences: insertions, deletions and substitutions cost 1.

    Examples
    --------
    >>> edit_distance(["I", "am", "glad"], ["I", "was", "very", "glad"])
    2
    """
    codes = {token: code for code, token in enumerate(dict.fromkeys([*first, *second]))}
    columns = np.array([codes[token] for token in second], dtype=int)
    along = np.arange(len(second) + 1)
    row = along
    for count, token in enumerate(first, start=1):
        kept = np.minimum(row[1:] + 1, row[:-1] + (columns != codes[token]))
        # Insertions cost one each: the running minimum of (cost − position), with the position put back.
        row = np.minimum.accumulate(np.concatenate([[count], kept]) - along) + along
    return int(row[-1])


def pair_correlations(pairs: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """What falling pairs have in common: rank correlations with the change of the chosen response.

    Parameters
    ----------
    pairs : DataFrame
        As `pairs_table` returns it, of one run or several.

    Returns
    -------
    DataFrame
        One row per run, descriptor (with its ``label`` for people) and measure of change (``chosen_change`` in
        nats per token, ``chosen_sum_change`` in nats): ``rho`` (Spearman; negative: the larger the descriptor,
        the deeper the fall), its bootstrap interval ``rho_low``, ``rho_high`` (resampling prompts, each with its pairs)
        and ``num_pairs``. A descriptor that is the same for every pair is left out. Strongest first. What is beyond
        chance over all descriptors together tells `falling_pairs`.
    """
    rows = []
    for run, table in pairs.groupby("run", sort=False):
        for descriptor in (each for each in DESCRIPTORS if each.name in table):
            for change in ("chosen_change", "chosen_sum_change"):
                known = table.dropna(subset=[descriptor.name, change])
                first, second = known[descriptor.name].to_numpy(float), known[change].to_numpy(float)
                if len(known) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
                    continue
                prompts = known["prompt"].to_numpy() if "prompt" in known else None
                rho = rank_correlations(first, second, drawn_pairs(len(known), prompts, seed=seed))
                low = high = np.array(np.nan)
                if num_prompts(first, prompts) >= MIN_TESTED:
                    # of one pair alone there is no order
                    low, high = central(rho[1:][np.isfinite(rho[1:])])
                row = (descriptor.name, descriptor.label, change, rho[0], float(low), float(high), len(known))
                rows.append((run, *row))
    columns = ["run", "descriptor", "label", "change", "rho", "rho_low", "rho_high", "num_pairs"]
    found = pd.DataFrame(rows, columns=columns)
    found["strength"] = found["rho"].abs()
    return found.sort_values(["run", "strength"], ascending=[True, False], ignore_index=True).drop(
        columns="strength"
    )


@lru_cache(maxsize=4)
def _shuffles(count: int, seed: int) -> np.ndarray:
    """Orders of so many things, (shuffles, things)."""
    return np.random.default_rng(seed).permuted(np.tile(np.arange(count), (SHUFFLES, 1)), axis=1)


def falling_pairs(pairs: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Which descriptors go with the change of the chosen response beyond chance, taken together.

    The changes are shuffled over the pairs (over prompts, of which the pairs are averaged), and each rank correlation
    is set against the largest one over all descriptors in every shuffle (Westfall and Young's max-statistic), so that
    chance says something of a whole table in 5 % of runs. The log-prob at step 0 is left out: it is part of the change.

    Parameters
    ----------
    pairs : DataFrame
        As `pairs_table` returns it, of one run.

    Returns
    -------
    DataFrame
        One row per descriptor, strongest first: ``descriptor``, ``rho`` (Spearman; negative: the larger the
        descriptor, the deeper the fall), ``p_value`` (of the whole table) and ``told`` (at most 0.05).
    """
    asked = [d.name for d in DESCRIPTORS if d.name in pairs and d.name not in PART_OF_THE_CHANGE]
    known = [
        name for name in asked if pairs[name].notna().any()
    ]  # geometry may be measured in other runs alone
    table = pairs[[*known, "chosen_change", *(["prompt"] if "prompt" in pairs else [])]].dropna()
    if "prompt" in table:
        table = table.groupby("prompt").mean()
    known = [name for name in known if table[name].nunique() > 1]
    if len(table) < MIN_TESTED or not known or table["chosen_change"].nunique() < 2:
        return pd.DataFrame(columns=["descriptor", "rho", "p_value", "told"])
    ranks = stats.zscore(stats.rankdata(table[known].to_numpy(float), axis=0), axis=0)
    change = stats.zscore(stats.rankdata(table["chosen_change"].to_numpy(float)))
    largest = np.abs(change[_shuffles(len(table), seed)] @ ranks).max(axis=1) / len(table)
    rho = change @ ranks / len(table)
    p_value = (1 + (largest[:, None] >= np.abs(rho) - 1e-12).sum(axis=0)) / (1 + SHUFFLES)
    found = pd.DataFrame({"descriptor": known, "rho": rho, "p_value": p_value, "told": p_value <= 0.05})
    return found.sort_values("rho", key=np.abs, ascending=False, ignore_index=True)
