"""One run of a trace: what it is called, and what tells it apart from its sisters."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardshape.errors import printable
from rewardshape.numbers import parameter, typed
from rewardshape.trace.folder import RunFolder

# What a manifest's ``run`` part says that does not make it another setting: how an objective was given (its parameters
# stand under ``objective``), which repetition it is, what is measured, where it is written and what is said meanwhile.
NOT_A_SETTING = {
    "objective", "alpha", "beta", "gamma", "gamma_beta_ratio", "parameter", "preset", "add_nll",
    "seed", "seeds", "what_if",
    "probe_pairs", "probe_every", "probe_in_training", "probe_responses", "geometry_every",
    "destination_every", "influence_every", "sample_every", "sample_temperatures", "samples", "best_of", "gold",
    "gold_model", "output", "resume", "repair", "checkpoint_every", "keep_checkpoints", "jobs", "report_to", "live",
    "quiet", "json", "dry_run",
}  # fmt: skip


NAMES = ("objective", "run")  # values that say by themselves what they are


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes
    ----------
    name : str
        Name of its folder, in a sweep as the sweep has it; unique in a trace.
    setting : str
        The values that tell its setting from the others of the trace, ``"alpha=0.25, beta=2"``; the same for every
        seed. Where there is one setting only: its α, or the name of its objective.
    values : mapping
        The same values by name.
    alpha : float
        NaN where the objective has none.
    seed : int or None
    several_seeds : bool
        Whether the trace holds this setting with other seeds too.
    manifest : mapping
        ``run.json``.
    folder : Path
    """

    name: str
    setting: str
    values: Mapping[str, Any]
    alpha: float
    seed: int | None
    several_seeds: bool
    manifest: Mapping[str, Any]
    folder: Path

    @property
    def status(self) -> str:
        """How the run stands, in its manifest's word; ``killed`` where that is `running` and nobody works there."""
        return RunFolder(self.folder).status_of(self.manifest)

    @property
    def diverged(self) -> bool:
        """Whether it ended in a number that is not finite."""
        return self.manifest.get("status") == "diverged"

    @property
    def setting_label(self) -> str:
        """The setting for people, ``"α = 0.25, β = 2"``."""
        return ", ".join(
            str(value) if name in NAMES else parameter(name, value) for name, value in self.values.items()
        )

    @property
    def label(self) -> str:
        """The run for people: its setting, its seed where there are several, and that it diverged where it did."""
        label = f"{self.setting_label}, seed {self.seed}" if self.several_seeds else self.setting_label
        return f"{label} (diverged)" if self.diverged else label

    def _repr_html_(self) -> str:
        return as_html([self])


def as_html(runs: Sequence[Run]) -> str:
    """Runs as a small table for a notebook, all text escaped."""
    head = "<tr><th>run</th><th>setting</th><th>objective</th><th>seed</th><th>status</th></tr>"
    rows = []
    for run in runs:
        objective = run.manifest.get("objective", {}).get("name", "")
        cells = (run.name, run.setting_label, objective, run.seed, run.status)
        rows.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def runs_of(
    folders: Sequence[Path], names: Sequence[str], manifests: Sequence[Mapping[str, Any]]
) -> list[Run]:
    """The runs of a trace, their settings found by comparing the manifests; what is no text in a name is escaped."""
    names = [printable(name) for name in names]
    settings = [_setting(manifest) for manifest in manifests]
    varied = _varied(settings)
    values = [_values(setting, varied) for setting in settings]
    seeds = [manifest.get("run", {}).get("seed") for manifest in manifests]
    told = [(repr(mine), seed) for mine, seed in zip(values, seeds, strict=True)]
    if len(set(told)) < len(told):  # manifests that do not tell the runs apart: only their folders do
        values = [{"run": name} for name in names]
    texts = [", ".join(_text(name, value) for name, value in mine.items()) for mine in values]
    return [
        Run(
            name=name,
            setting=text,
            values=mine,
            alpha=_alpha(setting),
            seed=seed,
            several_seeds=texts.count(text) > 1,
            manifest=manifest,
            folder=folder,
        )
        for folder, name, manifest, setting, mine, text, seed in zip(
            folders, names, manifests, settings, values, texts, seeds, strict=True
        )
    ]


def _setting(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What makes this run another setting than a run that differs in it."""
    rest = {key: value for key, value in manifest.get("run", {}).items() if key not in NOT_A_SETTING}
    return {**stated_objective(manifest), **_flat(rest)}


def stated_objective(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Name and parameters of a run's objective, numbers and texts by one name each.

    A sum is named after its terms and has the parameters of the first, whose reward and margin are the sum's; each
    further term's weight and parameters follow under its name.

    Examples
    --------
    >>> terms = [{"weight": 1.0, "name": "dpo", "parameters": {"beta": 0.1}}, {"weight": 0.2, "name": "sft"}]
    >>> stated_objective({"objective": {"name": "sum", "parameters": {"terms": terms}}})
    {'objective': 'dpo + sft', 'beta': 0.1, 'sft_weight': 0.2}
    """
    stated = manifest.get("objective", {})
    parameters = dict(stated.get("parameters", {}))
    terms = parameters.pop("terms", None)
    if not isinstance(terms, list) or not terms or not all(_is_term(term) for term in terms):
        terms = [{"weight": 1.0, **stated, "parameters": parameters}]
    found = {"objective": " + ".join(str(term["name"]) for term in terms) if "name" in terms[0] else None}
    for place, term in enumerate(terms):
        mine = {"weight": term["weight"]} if place or term["weight"] != 1 else {}
        name = f"{term['name']}_" if place else ""
        found |= {f"{name}{key}": value for key, value in _flat(mine | term.get("parameters", {})).items()}
    return found


def _is_term(term: Any) -> bool:
    return isinstance(term, Mapping) and {"weight", "name"} <= term.keys()


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and texts: a list as one text, a named part as its name and, under it, what it holds."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {key if inner == "name" else f"{key}_{inner}": one for inner, one in _flat(value).items()}
        else:
            flat[key] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat


def _varied(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The values that tell settings apart: the objective, and what varies among the settings of one objective."""
    names = dict.fromkeys(setting["objective"] for setting in settings)
    varied = {"objective": None} if len(names) > 1 else {}
    for name in names:
        same = [setting for setting in settings if setting["objective"] == name]
        keys = dict.fromkeys(key for setting in same for key in setting)
        found = dict.fromkeys(key for key in keys if len({repr(setting.get(key)) for setting in same}) > 1)
        if {"beta", "gamma"} <= set(found) and _one_ratio(same):
            del found["gamma"]
        varied |= found
    return list(varied)


def _values(setting: Mapping[str, Any], varied: Sequence[str]) -> dict[str, Any]:
    mine = {key: setting[key] for key in varied if setting.get(key) is not None}
    if mine:
        return mine
    return {"alpha": setting["alpha"]} if "alpha" in setting else {"objective": setting.get("objective")}


def _one_ratio(settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether γ varies only because β does: one γ/β in all settings."""
    try:
        ratios = [setting["gamma"] / setting["beta"] for setting in settings]
    except (KeyError, TypeError, ZeroDivisionError):
        return False
    return bool(max(ratios) - min(ratios) <= 1e-9 * max(map(abs, ratios)))


def _text(name: str, value: Any) -> str:
    return str(value) if name in NAMES else f"{name}={typed(value)}"


def _alpha(setting: Mapping[str, Any]) -> float:
    alpha = setting.get("alpha")
    return float(alpha) if isinstance(alpha, int | float) else math.nan
