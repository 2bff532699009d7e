"""The pairs of the probe set for the page: texts, tokens then and now, and how each pair moved in every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rewardshape.analysis.influence import probe_pair_influence
from rewardshape.analysis.panels import chosen_and_rejected
from rewardshape.numbers import moment, signed
from rewardshape.plotting.thinning import extremes
from rewardshape.trace import Run, RunFolder, Trace, read_probe_set
from rewardshape.trace.records import rows_of
from rewardshape.verdict.findings import Tables

MAX_PAIRS = 5  # shown without a script
MAX_TOKENS = 300  # of a response on the page
MAX_PROMPT = 1_200  # characters of a prompt on the page: its end, which the response answers
SHADES = 4
CURVE_NUMBERS = 120_000  # of all pairs' curves in all runs: half a megabyte
TOKEN_NUMBERS = 120_000  # of all tokens' log-probs, likewise
TEXT_SIZE = 400_000  # characters of all prompts and responses
SCALE = 1000  # changes are written in thousandths of a nat

Changes = dict[tuple[str, str], np.ndarray]
Places = dict[str, dict[str, int]]
"""Of each run the place of its pairs, by their ids, among those of all runs."""


def worst_pairs(tables: Tables) -> tuple[list[dict[str, Any]], float]:
    """The pairs that fell most, with the tokens of the deepest run, and the change at which the shading ends."""
    run = tables.deepest
    pairs = tables.pairs[tables.pairs["run"] == run]
    [shown_run] = [known for known in tables.trace.runs if known.name == run]
    texts = {pair["pair_id"]: pair for pair in read_probe_set(shown_run.folder)}
    worst = pairs[pairs["fallen"]].head(MAX_PAIRS)
    changes = token_changes(tables.trace, run, worst["pair_id"].tolist())
    scale = _scale(changes)
    shown = []
    for _, row in worst.iterrows():
        pair_id, text = row["pair_id"], texts.get(row["pair_id"], {})
        note = (
            f"chosen {signed(row['chosen_change'])} nats per token over {row['chosen_tokens']} tokens, rejected"
            f" {signed(row['rejected_change'])} over {row['rejected_tokens']}"
        )
        if "similarity" in row and np.isfinite(row["similarity"]):
            note += f"; {moment(row['edit_distance'])} token edits apart"
        responses = [
            _response(name, row, text["tokens"][name], changes.get((pair_id, name)), scale)
            for name in ("chosen", "rejected")
            if name in text.get("tokens", {})
        ]
        shown.append({"pair_id": pair_id, "note": note, "prompt": prompt_end(text), "responses": responses})
    return shown, scale


def _scale(changes: Changes) -> float:
    every = np.concatenate(list(changes.values())) if changes else np.zeros(0)
    known = every[np.isfinite(every)]
    return float(np.quantile(np.abs(known), 0.95)) if len(known) else 0.0


def token_changes(trace: Trace, run: str, pair_ids: list[str]) -> Changes:
    """Change of each token's log-prob between the first and the last step that recorded tokens, nats."""
    first, last = first_and_last_tokens(trace, run)
    wanted = set(pair_ids)
    return {key: last[key] - first[key] for key in first if key[0] in wanted and key in last}


def first_and_last_tokens(trace: Trace, run: str) -> tuple[Changes, Changes]:
    """Log-probs of every token at the first and at the last step that recorded them; both empty where one did."""
    tokens = trace.tokens
    if tokens.empty:
        return {}, {}
    tokens = tokens[(tokens["run"] == run) & tokens["response"].isin(["chosen", "rejected"])]
    steps = tokens["step"].unique()
    if len(steps) < 2:
        return {}, {}
    found = []
    for step in (steps.min(), steps.max()):
        rows = tokens[tokens["step"] == step].sort_values("position", kind="stable")
        groups = rows.groupby(["pair_id", "response"], sort=False)["logp"]
        found.append({(str(p), str(r)): logps.to_numpy(float) for (p, r), logps in groups})
    return found[0], found[1]


def _response(
    name: str, row: pd.Series, tokens: list[str], changes: np.ndarray | None, scale: float
) -> dict[str, Any]:
    shown = [{"text": str(text), "shade": "", "change": ""} for text in tokens[:MAX_TOKENS]]
    if changes is not None:
        for token, change in zip(shown, changes, strict=False):
            if np.isfinite(change):
                token |= {"shade": shade(change, scale), "change": f"{signed(change, 2)} nats"}
    return {
        "name": name,
        "note": f"{signed(row[f'{name}_sum_change'], 2)} nats in all",
        "tokens": shown,
        "left_out": max(len(tokens) - MAX_TOKENS, 0),
    }


def shade(change: float, scale: float) -> str:
    """The class of a token's shade: ``f1`` to ``f4`` where it fell, ``r1`` to ``r4`` where it rose."""
    level = min(int(abs(change) / scale * SHADES), SHADES) if scale > 0 else 0
    return f"{'f' if change < 0 else 'r'}{level}" if level else ""


def prompt_end(text: dict[str, Any]) -> str:
    """The end of a prompt, which the response answers."""
    prompt = str(text.get("prompt", ""))
    return prompt if len(prompt) <= MAX_PROMPT else f"… {prompt[-MAX_PROMPT:]}"


# For the script


def places_of(trace: Trace) -> tuple[list[str], Places]:
    """The ids of the pairs of all runs, and the places of each run's own: one called the same that asks another thing
    is another pair.
    """
    known: dict[tuple[str, str], int] = {}
    places = {
        chosen.run.name: {pair[0]: known.setdefault(pair, len(known)) for pair in chosen.pairs}
        for chosen, _ in chosen_and_rejected(trace)
    }
    return [pair_id for pair_id, _ in known], {run.name: places.get(run.name, {}) for run in trace.runs}


def pair_data(tables: Tables) -> dict[str, Any]:
    """Every pair for the script: texts, then for each run the course of both responses and their tokens then and now.

    Changes are whole thousandths of a nat per token since step 0, log-probs of tokens whole thousandths of a nat; what
    would make the page too large is left out, the tokens of the runs that fell least first.
    """
    trace = tables.trace
    both = {chosen.run.name: (chosen, rejected) for chosen, rejected in chosen_and_rejected(trace)}
    pair_ids, places = places_of(trace)
    per_run = max(CURVE_NUMBERS // max(len(both), 1) // (2 * len(pair_ids)), 2)
    runs: list[dict[str, Any]] = []
    for run in trace.runs:
        if run.name not in both:
            runs.append({"steps": [], "pairs": []})
            continue
        chosen, rejected = both[run.name]
        changes = chosen.change(), rejected.change()
        means = np.stack([change.mean(axis=1) for change in changes], axis=1)
        rows = extremes(means, max((per_run - 2) // 4, 1))
        runs.append(
            {
                "steps": [int(step) for step in chosen.steps[rows]],
                "pairs": list(places[run.name].values()),
                "chosen": _thousandths(changes[0][rows].T),
                "rejected": _thousandths(changes[1][rows].T),
            }
        )
    known = _texts(trace.runs, places)
    tokens, start, own_start = _tokens(tables, places)
    return {
        "ids": pair_ids,
        "texts": [known.get(place) for place in range(len(pair_ids))],
        "facts": _facts(tables, places),
        "runs": runs,
        "tokens": tokens,
        "start": start,
        "own_start": own_start,
        "gained": _gained(trace, places),
        **_pushed(trace, places),
    }


MAX_PUSHED = 3  # training pairs named for each pair
PUSHED_SIZE = 300_000  # characters of their texts


def _pushed(trace: Trace, places: Places) -> dict[str, Any]:
    """Which training pairs pushed the chosen response of each pair down most.

    ``pushed``: [place, nats per token] of a few, for each run; ``pushers``: those training pairs, with their texts as
    far as there is room.
    """
    if trace.influence_pairs.empty:
        return {"pushed": None, "pushers": []}
    table = probe_pair_influence(trace)
    table = table[table["influence"] < 0].groupby(["run", "probe_pair_id"], sort=False).head(MAX_PUSHED)
    number = {pair: i for i, pair in enumerate(table["pair_id"].unique())}
    texts: dict[str, dict[str, str] | None] = {}
    left = PUSHED_SIZE
    for run in trace.runs:
        for pair, text in read_texts(RunFolder(run.folder).pushing).items():
            if pair in number and pair not in texts and (said := pair_text(text)) is not None:
                left -= sum(map(len, said.values()))
                if left >= 0:
                    texts[pair] = said
    found = []
    for run in trace.runs:
        mine, place = table[table["run"] == run.name], places[run.name]
        of_run: dict[int, list[list[float]]] = {}
        for probe_pair, pair, influence in zip(
            mine["probe_pair_id"], mine["pair_id"], mine["influence"], strict=True
        ):
            if probe_pair in place:
                of_run.setdefault(place[probe_pair], []).append([number[pair], round(float(influence), 5)])
        found.append(of_run)
    return {"pushed": found, "pushers": [{"id": pair, "text": texts.get(pair)} for pair in number]}


MAX_GAINED = 4  # tokens named for each pair


def _gained(trace: Trace, places: Places) -> list[dict[int, list[list[Any]]]] | None:
    """The tokens that gained most at the positions of each chosen response, [token, probability], for each run."""
    moved = trace.destination_tokens
    if moved.empty:
        return None
    moved = moved[(moved["response"] == "chosen") & (moved["change"] > 0)]
    found = []
    for run in trace.runs:
        mine, place = moved[moved["run"] == run.name], places[run.name]
        last = mine[mine["step"] == mine["step"].max()].sort_values("change", ascending=False, kind="stable")
        tops: dict[int, list[list[Any]]] = {}
        for pair, token, change in zip(last["pair_id"], last["token"], last["change"], strict=True):
            of_pair = tops.setdefault(place[pair], []) if pair in place else []
            if len(of_pair) < MAX_GAINED:
                of_pair.append([str(token), round(float(change), 3)])
        found.append(tops)
    return found


def _thousandths(values: np.ndarray) -> list[list[int | None]]:
    """Whole thousandths, None of what is not finite."""
    whole = np.rint(np.nan_to_num(values, posinf=0.0, neginf=0.0) * SCALE).astype(int).astype(object)
    whole[~np.isfinite(values)] = None
    found: list[list[int | None]] = whole.tolist()
    return found


def _texts(runs: list[Run], places: Places) -> dict[int, dict[str, Any]]:
    """Prompt and tokens of every pair by its place, as far as the page has room."""
    found: dict[int, dict[str, Any]] = {}
    left = TEXT_SIZE
    for run in runs:
        for pair in read_probe_set(run.folder):
            place = places[run.name].get(pair["pair_id"])
            if place is None or place in found:
                continue
            tokens = {
                name: [str(token) for token in pair.get("tokens", {}).get(name, [])]
                for name in ("chosen", "rejected")
            }
            shown = {name: words[:MAX_TOKENS] for name, words in tokens.items()}
            text: dict[str, Any] = {"prompt": prompt_end(pair), **shown}
            text["more"] = {name: len(words) - len(shown[name]) for name, words in tokens.items()}
            left -= len(text["prompt"]) + sum(map(len, shown["chosen"])) + sum(map(len, shown["rejected"]))
            if left < 0:
                return found
            found[place] = text
    return found


FACTS = ("chosen_tokens", "rejected_tokens", "similarity", "initial_logp_mean", "ches_normalised")


def _facts(tables: Tables, places: Places) -> dict[str, list[float | None]]:
    """What each pair was like at step 0, in the order of their places."""
    table = tables.pairs
    where = [places[run][pair] for run, pair in zip(table["run"], table["pair_id"], strict=True)]
    first = table.assign(place=where).drop_duplicates("place").sort_values("place")
    return {
        name: [None if pd.isna(value) else round(float(value), 3) for value in first[name]]
        for name in FACTS
        if name in first
    }


Tokens = dict[int, list[list[int | None]]]
"""Of a pair the log-probs of the tokens of chosen and of rejected, thousandths of a nat."""


def _tokens(tables: Tables, places: Places) -> tuple[list[Tokens | None], Tokens, list[Tokens]]:
    """Log-probs of the tokens: at the last step for each run (or null), and at the first step that recorded them.

    The latter of the first run that has a pair, and for each run of the pairs where it differs: other checkpoints.
    """
    trace, left = tables.trace, TOKEN_NUMBERS
    depth = tables.summary.set_index("run")["chosen_change"]
    ordered = sorted(trace.runs, key=lambda run: (run.name != tables.deepest, depth.get(run.name, 0.0)))
    last_of: dict[str, Tokens] = {}
    start: Tokens = {}
    own: dict[str, Tokens] = {}
    for run in ordered:
        first, last = first_and_last_tokens(trace, run.name)
        place = places[run.name]
        mine = _by_pair(first, place)
        lacking = {pair: then for pair, then in mine.items() if pair not in start}
        other = {pair: then for pair, then in mine.items() if start.get(pair, then) != then}
        size = sum(min(len(v), MAX_TOKENS) for v in last.values()) * (2 if lacking or other else 1)
        if not last or size > left:
            continue
        left -= size
        start |= lacking
        own[run.name] = other
        last_of[run.name] = _by_pair(last, place)
    return [last_of.get(run.name) for run in trace.runs], start, [own.get(run.name, {}) for run in trace.runs]


def _by_pair(logps: Changes, place: dict[str, int]) -> Tokens:
    pairs = dict.fromkeys(pair for pair, _ in logps if pair in place)
    none = np.zeros(0)
    return {
        place[pair]: [
            _thousandths(logps.get((pair, name), none)[None, :MAX_TOKENS])[0]
            for name in ("chosen", "rejected")
        ]
        for pair in pairs
    }


def read_texts(file: Path) -> dict[str, dict[str, Any]]:
    """The texts of pairs that a run kept, by pair id; empty where it kept none."""
    return {str(row["pair_id"]): row for row in rows_of(file) if "pair_id" in row}


def pair_text(text: dict[str, Any] | None) -> dict[str, str] | None:
    """Prompt, chosen and rejected of a pair, cut to what a page holds."""
    if text is None:
        return None
    cut = {name: str(said)[:MAX_PROMPT] for name, said in text.get("responses", {}).items()}
    return {"prompt": prompt_end(text), "chosen": cut.get("chosen", ""), "rejected": cut.get("rejected", "")}
