"""The page of all objectives, written from their declarations: ``python docs/extensions/objectives_page.py``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from rewardshape.theory.links import Logistic
from rewardshape.theory.objectives import Listwise, Objective, Pairwise, Pointwise, Sum, objective
from rewardshape.theory.objectives.aliases import ALIASES
from rewardshape.theory.objectives.declaration import Declaration
from rewardshape.theory.objectives.zoo import ZOO

_HEADER = """---
hide: [toc]
---

# Objectives

Every objective is a score s of each response, a shape φ that makes its reward r = β·φ(s), the margin z =
r(y_w) − r(y_l) − γ, and a link ℓ. Its gradient is −w_w·∇s(y_w) + w_l·∇s(y_l). Where a loss takes each
response on its own, the link is applied to r_w and to −r_l. A reward is bounded if it is so for the scores
that occur: s ≤ 0 without a reference, any s with one. Formulas are those at the default parameters, which
stand further down.

Symbols: σ the logistic function; α the shape's own parameter; ε = `label_smoothing`; τ = `tau`; m = σ(z/τ);
ω and δ as the remark says; c = 1/(2β), the target of a squared link; λ the weight that is the objective's
own: `penalty` of dpop, `length_weight` of r_dpo, `tail` of ld_dpo, `rejected_factor` of dpo_shift; a and f
the weights of both directions of the logistic loss: 1 − ε and ε for cdpo, (1 − ε)/(1 − 2ε) and −ε/(1 − 2ε)
for robust_dpo, 1 and ½ for nca. [x] is 1 where x holds and 0 elsewhere.
"""

_WEIGHTS = """
## How hard each pulls and pushes
"""

_WRITTEN = """
Written by `python docs/extensions/objectives_page.py > docs/objectives.md`; a test keeps it so.
"""

_PARAMETERS = """
## Parameters, and whom we follow

"TRL" is the default or the paper index of TRL's DPOTrainer; "ours": no source that could be read states
a value. A target margin `gamma` may be given as `gamma_beta_ratio`: TRL's
`simpo_gamma` is γ itself, so AlphaPO's γ/β = 0.1 at β = 2.5 is `simpo_gamma=0.25` there.
"""

_LEFT_OUT = """
## What is left out, and why

* SparsePO (arXiv:2410.05102): its masks come from the activations of every layer of the reference, or from
  a model of their own that is trained along; neither is a function of what is measured here.
* DOVE (arXiv:2404.00530; authors' custom_dove_trainer.py): DPO on log-ratios of prompt and response
  together. For two responses to one prompt the prompt's part cancels and it is `dpo`; pairs of two prompts
  have no place in a preference pair.
* D²O (arXiv:2403.03419): only its abstract and other people's code could be read. With one response of the
  model's own in the place of the chosen one, that code's loss is `dpo_shift`.
* SPO with its degree term (arXiv:2409.17791) and gradient-gated DPO (arXiv:2605.02626): only their abstracts
  could be read, and these hold no formula.
* DisentangledPO's calibration (arXiv:2604.18239) rescales the two weights to a running ratio of gradient norms,
  which a loss does not know; the band itself is `rewardshape.theory.disentanglement_band`, and
  `--geometry-every` measures what it needs.
"""

_ALIASED = """
## Names of other trainers

`objective` takes them, and `from_config` a whole configuration of TRL, SimPO's repository, LLaMA-Factory,
OpenRLHF or Axolotl. Names not listed here (`ipo`, `orpo`, `simpo`, `aot`, `discopop`, …) are the same.
"""


_VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "alphapo": ({}, {"alpha": -0.25}),
    "fdpo": tuple({"divergence": name} for name in ("reverse_kl", "forward_kl", "alpha", "jensen_shannon")),
}
"""Objectives whose parameters change their shape: a row for each."""


def catalogue() -> list[dict[str, str]]:
    """One row for each objective of the registry: its composition, weights and source, as text."""
    return [_row(declared, changes) for declared in ZOO for changes in _VARIANTS.get(declared.name, ({},))]


def markdown() -> str:
    """The page docs/objectives.md."""
    rows = catalogue()
    parts = [_HEADER, _table(["name", "score s", "shape φ(s)", "link ℓ", "source"], rows)]
    parts += [_WEIGHTS, _table(["name", "w_w", "w_l", "bounded", "reference", "remark"], rows), _PARAMETERS]
    parts.append(_table(["objective", "parameter", "default", "is", "the default follows"], _parameters()))
    parts += [
        "\n## Notes\n",
        *(f"* `{declared.name}`: {declared.note}" for declared in ZOO if declared.note),
        "",
    ]
    parts += [_LEFT_OUT, _ALIASED, _table(["name elsewhere", "here"], _aliases())]
    return "\n".join([*parts, _WRITTEN])


def _parameters() -> list[dict[str, str]]:
    return [
        {
            "objective": f"`{declared.name}`",
            "parameter": f"`{name}`",
            "default": _default(name, parameter.default),
            "is": parameter.meaning,
            "the default follows": parameter.whom,
        }
        for declared in ZOO
        for name, parameter in declared.parameters.items()
    ]


def _default(name: str, default: Any) -> str:
    if default is None:
        return "none"
    return f"{default:g}·beta" if name == "gamma" else f"`{default!r}`"


def _aliases() -> list[dict[str, str]]:
    return [
        {"name elsewhere": f"`{name}`", "here": f"`{alias.objective}`"} for name, alias in ALIASES.items()
    ]


def _row(declared: Declaration, changes: dict[str, Any]) -> dict[str, str]:
    name = declared.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a table trains nothing
        made = objective(name, **changes)
    pulled, pushed = _weights(made)
    return {
        "name": f"`{name}`" + "".join(f" {key}={value}" for key, value in changes.items()),
        "score s": made.scorer.formula,
        "shape φ(s)": _joined(made, lambda term: term.shape.formula if hasattr(term, "shape") else "s"),
        "link ℓ": _joined(made, _links),
        "w_w": pulled,
        "w_l": pushed,
        "bounded": _bounded(made),
        "reference": "yes" if made.needs_reference else "no",
        "remark": made.remark,
        "source": declared.source,
    }


def _terms(made: Objective) -> list[tuple[float, Any]]:
    return list(made.terms) if isinstance(made, Sum) else [(1.0, made)]


def _joined(made: Objective, text: Any) -> str:
    return "; ".join(dict.fromkeys(text(term) for _, term in _terms(made)))


def _links(made: Any) -> str:
    if isinstance(made, Pairwise):
        return made.link.formula
    if isinstance(made, Pointwise):
        links = [_at(made.chosen_link.formula, "r_w")]
        if made.rejected_link is not None:
            links.append(_scaled(made.rejected_weight, _at(made.rejected_link.formula, "−r_l")))
        return " + ".join(links)
    return Logistic.formula


def _weights(made: Objective) -> tuple[str, str]:
    pulled, pushed = [], []
    for weight, term in _terms(made):
        up, down = _weights_of(term)
        converts = term.scorer.per_token and not made.scorer.per_token  # to the first term's summed score
        pulled += [_scaled(weight, up) + "/|y_w|" * converts] if up != "0" else []
        pushed += [_scaled(weight, down) + "/|y_l|" * converts] if down != "0" else []
    return " + ".join(pulled), " + ".join(pushed) or "0"


def _weights_of(made: Any) -> tuple[str, str]:
    if isinstance(made, Pairwise):
        return (
            _times(_product(made, made.link.pull, "s_w"), made.pulled_factor),
            _times(_product(made, made.link.pull, "s_l"), made.pushed_factor),
        )
    if isinstance(made, Pointwise):
        pulled = _product(made, _at(made.chosen_link.pull, "r_w"), "s_w")
        if made.rejected_link is None:
            return pulled, "0"
        pushed = _product(made, _at(made.rejected_link.pull, "−r_l"), "s_l")
        return pulled, _scaled(made.rejected_weight, pushed)
    if isinstance(made, Listwise):
        return f"β·{Logistic.pull}", f"β·{Logistic.pull}"
    raise TypeError(type(made))


def _times(product: str, factor: str) -> str:
    return f"{product}·{factor}" if factor else product


def _product(made: Any, pull: str, score: str) -> str:
    pull = f"({pull})" if pull.startswith("−") else pull
    factors = ["β"] if np.any(np.asarray(made.beta) != 1.0) else []
    slope = made.shape.slope_formula.replace("s", score)
    slope = f"({slope})" if slope.startswith("1/") else slope
    factors += [factor for factor in (pull, slope) if factor != "1"]
    return "·".join(factors) or "1"


def _at(formula: str, argument: str) -> str:
    """`formula` with `argument` in the place of z."""
    if argument.startswith("−"):
        formula = formula.replace("− z", f"+ {argument[1:]}").replace("−z", argument[1:])
    return formula.replace("z", argument)


def _scaled(weight: float, text: str) -> str:
    return text if weight == 1 else f"{weight:g}·[{text}]" if " + " in text else f"{weight:g}·{text}"


def _bounded(made: Objective) -> str:
    shape = getattr(_terms(made)[0][1], "shape", None)
    if shape is None:
        return "no"
    low, high = shape.bounds(reference=made.scorer.reference)
    ends = [word for word, end in (("below", low), ("above", high)) if np.isfinite(end)]
    return {0: "no", 1: ends[0] if ends else "", 2: "yes"}[len(ends)]


def _table(columns: list[str], rows: list[dict[str, str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    body = [line([row[column] for column in columns]) for row in rows]
    return "\n".join([line(columns), line(["---"] * len(columns)), *body]) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
