"""The registry: ``objective("alphapo", alpha=0.25)`` by the name its paper gave it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rewardshape.errors import InputError
from rewardshape.theory._arrays import callers_level
from rewardshape.theory._check import nearest, number
from rewardshape.theory.links import (
    Clipped,
    Exponential,
    Flipped,
    Hinge,
    Linear,
    Link,
    Logistic,
    LogRatioModulated,
    ReverseKL,
    Sigmoid,
    Smoothed,
    Squared,
)
from rewardshape.theory.listwise import Listwise
from rewardshape.theory.objectives import (
    DivergenceShift,
    FixedShift,
    LengthDesensitized,
    LengthMargin,
    Objective,
    Pairwise,
    Penalized,
    Pointwise,
    ProbabilityWeighted,
    RewardShift,
    Sorted,
    SortedMargin,
    Sum,
    sum_of,
)
from rewardshape.theory.scores import Score
from rewardshape.theory.shapes import Alpha, ChiSquared, JensenShannon, LogOdds, Shape

NEAR_BOUND = 0.9  # of the largest margin a bounded shape can reach: a γ beyond it is as good as out of reach


@dataclass(frozen=True)
class Entry:
    """One objective of the registry: how to build it, and where it is from."""

    build: Callable[..., Objective]
    source: str

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameters and their published defaults."""
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}


REGISTRY: dict[str, Entry] = {}


def registered(name: str, source: str) -> Callable[[Callable[..., Objective]], Callable[..., Objective]]:
    """Enter the decorated builder into the registry."""

    def register(build: Callable[..., Objective]) -> Callable[..., Objective]:
        REGISTRY[name] = Entry(build, source)
        return build

    return register


def objective(name: str, **parameters: Any) -> Any:
    """The objective of that name, with its published defaults for parameters left out.

    Parameters
    ----------
    name : str
        ``"alphapo"``, ``"simpo"``, ``"dpo"``, …: see `rewardshape.theory.objective_names`.
    **parameters
        The objective's own parameters. A target margin is given as `gamma` or as `gamma_beta_ratio`, never both.
        `alpha`, `beta` and `gamma` may be arrays, which broadcast against the scores.

    Returns
    -------
    Objective
        Its `parameters` are JSON-able and rebuild it.

    Raises
    ------
    InputError
        Unknown name or parameter (with the nearest valid ones), or a value that makes no objective.

    Examples
    --------
    >>> objective("alphapo", alpha=0.0, beta=2.0, gamma=1.0).parameters
    {'alpha': 0.0, 'beta': 2.0, 'gamma': 1.0}
    """
    if name not in REGISTRY:
        raise InputError(nearest("objective", name, REGISTRY))
    entry = REGISTRY[name]
    for given in parameters:
        if given not in entry.defaults:
            raise InputError(f"{name}: {nearest('parameter', given, entry.defaults)}")
    return entry.build(**{key: value for key, value in parameters.items() if value is not None})


def objective_names() -> list[str]:
    """All names that `objective` knows."""
    return sorted(REGISTRY)


def target_margin(beta: Any, gamma: Any, gamma_beta_ratio: Any, published_ratio: float) -> Any:
    """γ, from itself or from γ/β; the published ratio where neither is given."""
    if gamma is not None and gamma_beta_ratio is not None:
        raise InputError("give gamma or gamma_beta_ratio, not both")
    if gamma is not None:
        return number("gamma", gamma)
    ratio = published_ratio if gamma_beta_ratio is None else gamma_beta_ratio
    return number("gamma", number("gamma_beta_ratio", ratio) * beta)


def pairwise(
    name: str,
    parameters: dict[str, Any],
    score: Score,
    *,
    shape: Shape | None = None,
    link: Link | None = None,
    beta: Any,
    gamma: Any = 0.0,
) -> Pairwise:
    """Compose an objective, and warn where the composition cannot work as its user would expect."""
    made = Pairwise(
        name=name,
        parameters=plain(**parameters),
        scorer=score,
        shape=shape or Alpha(0.0),
        link=link or Logistic(),
        beta=beta,
        gamma=gamma,
    )
    _warn(made)
    return made


def plain(**parameters: Any) -> dict[str, Any]:
    """Parameters as JSON has them."""
    return {
        key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in parameters.items()
    }


def switch(name: str, value: Any) -> bool:
    """A yes or no."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, got {value!r}")
    return value


def _warn(made: Pairwise) -> None:
    if (
        isinstance(made.shape, Alpha)
        and not made.scorer.per_token
        and np.any(np.asarray(made.shape.alpha) > 0)
    ):
        warnings.warn(
            f"{made.name}: alpha > 0 on summed log-probabilities overflows within a few hundred nats; "
            "use a per-token score (alphapo) or alpha <= 0",
            stacklevel=callers_level(),
        )
    low, high = made.shape.bounds(reference=made.scorer.reference)
    with np.errstate(invalid="ignore"):
        reach = made.beta * (np.asarray(high) - np.asarray(low))
    near = np.asarray(made.gamma) > NEAR_BOUND * reach
    if np.any(near & np.isfinite(reach)):
        warnings.warn(
            f"{made.name}: the reward is bounded, so the margin before gamma never exceeds {np.min(reach):.6g}, and "
            f"gamma = {np.max(made.gamma):.6g} leaves pairs that can never be satisfied; lower gamma or raise beta",
            stacklevel=callers_level(),
        )


SUMMED, RATIO = Score(reference=False, per_token=False), Score(reference=True, per_token=False)
MEAN, MEAN_RATIO = Score(reference=False, per_token=True), Score(reference=True, per_token=True)


@registered("alphapo", "AlphaPO, arXiv:2501.03884")
def _alphapo(
    *, alpha: Any = 0.25, beta: Any = 2.5, gamma: Any = None, gamma_beta_ratio: Any = None
) -> Objective:
    alpha, beta = number("alpha", alpha), number("beta", beta, above=0)
    gamma = target_margin(beta, gamma, gamma_beta_ratio, 0.1)
    parameters = {"alpha": alpha, "beta": beta, "gamma": gamma}
    return pairwise("alphapo", parameters, MEAN, shape=Alpha(alpha), beta=beta, gamma=gamma)


@registered("simpo", "SimPO, arXiv:2405.14734, eq. 6")
def _simpo(*, beta: Any = 2.5, gamma: Any = None, gamma_beta_ratio: Any = None) -> Objective:
    beta = number("beta", beta, above=0)
    gamma = target_margin(beta, gamma, gamma_beta_ratio, 0.1)
    return pairwise("simpo", {"beta": beta, "gamma": gamma}, MEAN, beta=beta, gamma=gamma)


@registered("dpo", "DPO, arXiv:2305.18290, eq. 7")
def _dpo(*, beta: Any = 0.1) -> Objective:
    beta = number("beta", beta, above=0)
    return pairwise("dpo", {"beta": beta}, RATIO, beta=beta)


@registered("cdpo", "Conservative DPO, Mitchell 2023; arXiv:2305.18290, appendix")
def _cdpo(*, beta: Any = 0.1, label_smoothing: float = 0.1) -> Objective:
    beta, noise = (
        number("beta", beta, above=0),
        number("label_smoothing", label_smoothing, least=0, below=0.5),
    )
    parameters = {"beta": beta, "label_smoothing": noise}
    return pairwise("cdpo", parameters, RATIO, link=Smoothed(1 - noise, noise), beta=beta)


@registered("robust_dpo", "Robust DPO, arXiv:2403.00409")
def _robust_dpo(*, beta: Any = 0.1, label_smoothing: float = 0.1) -> Objective:
    beta, noise = (
        number("beta", beta, above=0),
        number("label_smoothing", label_smoothing, least=0, below=0.5),
    )
    parameters = {"beta": beta, "label_smoothing": noise}
    link = Smoothed((1 - noise) / (1 - 2 * noise), -noise / (1 - 2 * noise))
    return pairwise("robust_dpo", parameters, RATIO, link=link, beta=beta)


@registered("ipo", "IPO, arXiv:2310.12036, eq. 17")
def _ipo(*, beta: Any = 0.1, per_token: bool = True) -> Objective:
    """The paper's τ is `beta`: (s_w − s_l − 1/(2β))², so the reward is s itself.

    Log-ratios are per token, which is how the paper's results were made (TRL says so, and does so);
    ``per_token=False`` is the paper's text.
    """
    beta = number("beta", beta, above=0)
    parameters = {"beta": beta, "per_token": switch("per_token", per_token)}
    score = Score(reference=True, per_token=per_token)
    return pairwise("ipo", parameters, score, link=Squared(1 / (2 * beta)), beta=1.0)


@registered("slic", "SLiC-HF, arXiv:2305.10425")
def _slic(*, beta: Any = 0.1, reference: bool = True) -> Objective:
    """max(0, 1 − z). With a reference, as TRL and GPO have it; the paper has none: ``reference=False``, β = 1/δ."""
    beta = number("beta", beta, above=0)
    parameters = {"beta": beta, "reference": switch("reference", reference)}
    return pairwise("slic", parameters, Score(reference, per_token=False), link=Hinge(), beta=beta)


@registered("gpo_exponential", "Generalized preference optimization, arXiv:2402.05749")
def _gpo_exponential(*, beta: Any = 0.1) -> Objective:
    beta = number("beta", beta, above=0)
    return pairwise("gpo_exponential", {"beta": beta}, RATIO, link=Exponential(), beta=beta)


@registered("ln_dpo", "Length-normalised DPO, Tülu 3, arXiv:2411.15124, eq. 6")
def _ln_dpo(*, beta: Any = 5.0) -> Objective:
    beta = number("beta", beta, above=0)
    return pairwise("ln_dpo", {"beta": beta}, MEAN_RATIO, beta=beta)


@registered("fdpo", "f-DPO, arXiv:2309.16240")
def _fdpo(*, divergence: str = "reverse_kl", beta: Any = 0.1, alpha: Any = None) -> Objective:
    """The divergence's f′ of the probability ratio is the shape. `alpha` belongs to ``"alpha"`` (default 0.5).

    Our α is the paper's; TRL's `f_alpha_divergence_coef` is 1 − α.
    """
    if alpha is not None and divergence != "alpha":
        raise InputError(f'fdpo: alpha belongs to divergence="alpha", not to "{divergence}"')
    alpha, beta = number("alpha", 0.5 if alpha is None else alpha), number("beta", beta, above=0)
    shapes: dict[str, Shape] = {
        "reverse_kl": Alpha(0.0),
        "forward_kl": Alpha(1.0),
        "alpha": Alpha(alpha),
        "jensen_shannon": JensenShannon(),
    }
    if divergence not in shapes:
        raise InputError(nearest("divergence", divergence, shapes))
    parameters = {"divergence": divergence, "beta": beta} | (
        {"alpha": alpha} if divergence == "alpha" else {}
    )
    return pairwise("fdpo", parameters, RATIO, shape=shapes[divergence], beta=beta)


@registered("chipo", "χPO, arXiv:2407.13399, eq. 9")
def _chipo(*, beta: Any = 0.05, clip: float | None = None) -> Objective:
    """The paper's analysis clips the margin at `clip` = 2·R_max, beyond which a pair has weight 0."""
    beta = number("beta", beta, above=0)
    link = Logistic() if clip is None else Clipped(Logistic(), number("clip", clip, above=0))
    parameters = {"beta": beta} | ({} if clip is None else {"clip": clip})
    return pairwise("chipo", parameters, RATIO, shape=ChiSquared(), link=link, beta=beta)


@registered("cpo", "CPO, arXiv:2401.08417, eq. 5")
def _cpo(*, beta: Any = 0.1, likelihood_weight: float = 1.0, per_token: bool = True) -> Objective:
    """The likelihood term is per token, as in TRL; ``per_token=False`` is the paper's −log π(y_w|x)."""
    beta = number("beta", beta, above=0)
    weight = number("likelihood_weight", likelihood_weight, least=0)
    parameters = {"beta": beta, "likelihood_weight": weight, "per_token": switch("per_token", per_token)}
    preference = pairwise("cpo", parameters, SUMMED, beta=beta)
    return Sum("cpo", parameters, SUMMED, ((1.0, preference), (weight, _sft(per_token=per_token))))


@registered("orpo", "ORPO, arXiv:2403.07691, eq. 6")
def _orpo(*, odds_weight: float = 0.1) -> Objective:
    """`odds_weight` is the paper's λ, TRL's beta. The probability is that per token, as in the paper's eq. 1."""
    weight = number("odds_weight", odds_weight, above=0)
    parameters = {"odds_weight": weight}
    odds = pairwise("orpo", parameters, MEAN, shape=LogOdds(), beta=1.0)
    return Sum("orpo", parameters, MEAN, ((weight, odds), (1.0, _sft())))


@registered("dpop", "DPO-Positive (Smaug), arXiv:2402.13228, eq. 3")
def _dpop(*, beta: Any = 0.3, penalty: float = 50.0) -> Objective:
    beta, penalty = number("beta", beta, above=0), number("penalty", penalty, least=0)
    return Penalized(
        "dpop", plain(beta=beta, penalty=penalty), RATIO, Alpha(0.0), Logistic(), beta, 0.0, penalty
    )


@registered("ld_dpo", "LD-DPO, arXiv:2409.06411")
def _ld_dpo(*, beta: Any = 0.1, tail: float = 0.5) -> Objective:
    """`tail` is the paper's α: what a token counts beyond the length of the shorter response. 1 is DPO."""
    beta, tail = number("beta", beta, above=0), number("tail", tail, least=0)
    return LengthDesensitized(
        "ld_dpo", plain(beta=beta, tail=tail), RATIO, Alpha(0.0), Logistic(), beta, 0.0, tail
    )


@registered("rpo", "Iterative RPO, arXiv:2404.19733, eq. 1")
def _rpo(*, beta: Any = 0.1, likelihood_weight: float = 1.0) -> Objective:
    beta, weight = number("beta", beta, above=0), number("likelihood_weight", likelihood_weight, least=0)
    parameters = plain(beta=beta, likelihood_weight=weight)
    return Sum("rpo", parameters, RATIO, ((1.0, _dpo(beta=beta)), (weight, _sft())))


@registered("r_dpo", "R-DPO, arXiv:2403.19159, eq. 9")
def _r_dpo(*, beta: Any = 0.1, length_weight: float = 0.01) -> Objective:
    """`length_weight` is the paper's α, in reward units per token."""
    beta, weight = number("beta", beta, above=0), number("length_weight", length_weight)
    parameters = plain(beta=beta, length_weight=weight)
    return LengthMargin("r_dpo", parameters, RATIO, Alpha(0.0), Logistic(), beta, 0.0, weight)


@registered("discopop", "DiscoPOP, arXiv:2406.08414, eq. 5")
def _discopop(*, beta: Any = 0.05, tau: float = 0.05) -> Objective:
    beta, tau = number("beta", beta, above=0), number("tau", tau, above=0)
    return pairwise("discopop", {"beta": beta, "tau": tau}, RATIO, link=LogRatioModulated(tau), beta=beta)


@registered("aot", "AOT, paired, arXiv:2406.05882")
def _aot(*, beta: Any = 0.1, label_smoothing: float = 0.0) -> Objective:
    beta, noise = (
        number("beta", beta, above=0),
        number("label_smoothing", label_smoothing, least=0, below=0.5),
    )
    parameters = plain(beta=beta, label_smoothing=noise)
    return SortedMargin("aot", parameters, RATIO, Alpha(0.0), _smoothed(noise), beta, 0.0)


@registered("aot_unpaired", "AOT, unpaired, arXiv:2406.05882")
def _aot_unpaired(*, beta: Any = 0.1, label_smoothing: float = 0.0) -> Objective:
    beta, noise = (
        number("beta", beta, above=0),
        number("label_smoothing", label_smoothing, least=0, below=0.5),
    )
    parameters = plain(beta=beta, label_smoothing=noise)
    return Sorted("aot_unpaired", parameters, RATIO, Alpha(0.0), _smoothed(noise), beta, 0.0)


@registered("sppo", "SPPO, arXiv:2405.00675, eq. 4.7 with hard preferences")
def _sppo(*, beta: float = 0.001) -> Objective:
    """(s_w − 1/(2β))² + (s_l + 1/(2β))², in nats. The paper's η is 1/β."""
    beta = number("beta", beta, above=0)
    link = Squared(1 / (2 * beta))
    return Pointwise("sppo", {"beta": beta}, RATIO, Alpha(0.0), link, link, 1.0)


@registered("nca", "NCA, arXiv:2402.05369, eq. 13 for pairs")
def _nca(*, beta: float = 0.01) -> Objective:
    beta = number("beta", beta, above=0)
    return Pointwise(
        "nca", {"beta": beta}, RATIO, Alpha(0.0), Smoothed(1.0, 0.5), Logistic(), beta, rejected_weight=0.5
    )


@registered("exo", "EXO, arXiv:2402.00856, eq. 16")
def _exo(*, beta: Any = 0.1, label_smoothing: float = 1e-3) -> Objective:
    beta, noise = (
        number("beta", beta, above=0),
        number("label_smoothing", label_smoothing, above=0, below=0.5),
    )
    parameters = {"beta": beta, "label_smoothing": noise}
    return pairwise("exo", parameters, RATIO, link=ReverseKL(noise), beta=beta)


@registered("bco", "BCO, arXiv:2404.04656")
def _bco(*, beta: float = 0.1, shift: float | str = 0.0) -> Objective:
    """`shift` is the paper's δ, in nats of log-ratio: a number, or ``"batch_mean"``. TRL's pair form has none."""
    beta = number("beta", beta, above=0)
    parts = (RATIO, Alpha(0.0), Logistic(), Logistic(), beta)
    if shift == "batch_mean":
        return RewardShift("bco", {"beta": beta, "shift": shift}, *parts)
    fixed = number("shift", shift)
    return FixedShift("bco", {"beta": beta, "shift": fixed}, *parts, shift=beta * fixed)


@registered("apo_zero", "APO-zero, arXiv:2408.06266, eq. 7")
def _apo_zero(*, beta: float = 0.1) -> Objective:
    beta = number("beta", beta, above=0)
    return Pointwise("apo_zero", {"beta": beta}, RATIO, Alpha(0.0), Sigmoid(), Sigmoid(), beta)


@registered("apo_down", "APO-down, arXiv:2408.06266, eq. 8")
def _apo_down(*, beta: float = 0.1) -> Objective:
    """σ(r_w) + 1 − σ(r_w − r_l): the chosen response is pushed down too, the rejected one more."""
    beta = number("beta", beta, above=0)
    parameters = {"beta": beta}
    ranking = pairwise("apo_down", parameters, RATIO, link=Sigmoid(), beta=beta)
    falling = Pointwise("apo_down", parameters, RATIO, Alpha(0.0), Flipped(Sigmoid()), None, beta)
    return Sum("apo_down", parameters, RATIO, ((1.0, ranking), (1.0, falling)))


@registered("asft", "ASFT, arXiv:2409.10571")
def _asft(*, odds_weight: float = 0.1) -> Objective:
    """Likelihood of the chosen response, plus both responses' log-odds, each against 0. λ is ORPO's by default."""
    weight = number("odds_weight", odds_weight, above=0)
    parameters = {"odds_weight": weight}
    odds = Pointwise("asft", parameters, MEAN, LogOdds(), Logistic(), Logistic(), 1.0)
    return Sum("asft", parameters, MEAN, ((weight, odds), (1.0, _sft())))


@registered("kto", "KTO, arXiv:2402.01306, eq. 8, on pairs")
def _kto(
    *,
    beta: float = 0.1,
    reference_point: float | str = "batch",
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Objective:
    """`reference_point` is the KL in nats: a number, or ``"batch"``, the paired form's estimate.

    That estimate is max(0, mean log-ratio) over the batch, of the rejected responses for the chosen ones and the
    other way round, without a gradient. The loss of a pair is the sum of its two responses' losses.
    """
    beta = number("beta", beta, above=0)
    up = number("desirable_weight", desirable_weight, least=0)
    down = number("undesirable_weight", undesirable_weight, least=0)
    parts = (RATIO, Alpha(0.0), Sigmoid(), Sigmoid(), beta, up, down)
    parameters = {"beta": beta, "desirable_weight": up, "undesirable_weight": down}
    if reference_point == "batch":
        return DivergenceShift("kto", parameters | {"reference_point": "batch"}, *parts)
    point = number("reference_point", reference_point, least=0)
    return FixedShift("kto", parameters | {"reference_point": point}, *parts, shift=beta * point)


@registered("wpo", "WPO, arXiv:2406.11827, eq. 2")
def _wpo(*, beta: Any = 0.01, aligned: bool = True) -> Objective:
    """DPO weighted by the policy's own likelihood of the pair; `aligned` as in the paper's sampled alignment."""
    beta = number("beta", beta, above=0)
    parameters = plain(beta=beta, aligned=switch("aligned", aligned))
    return ProbabilityWeighted("wpo", parameters, RATIO, Alpha(0.0), Logistic(), beta, 0.0, aligned)


@registered("sft", "maximum likelihood of the chosen response")
def _sft(*, per_token: bool = True) -> Objective:
    """−log π(y_w|x)/|y_w|. TRL averages over the tokens of a batch instead, so long responses count more."""
    score = Score(reference=False, per_token=switch("per_token", per_token))
    return Pointwise("sft", {"per_token": per_token}, score, Alpha(0.0), Linear(), None, 1.0)


@registered("lipo", "LiPO-λ, arXiv:2402.01878")
def _lipo(*, beta: float = 0.05, normalized: bool = True) -> Objective:
    beta = number("beta", beta, above=0)
    return Listwise(
        "lipo", {"beta": beta, "normalized": switch("normalized", normalized)}, RATIO, beta, normalized
    )


@registered("sum", "the weighted sum of other objectives")
def _sum(*, terms: list[dict[str, Any]] | None = None) -> Objective:
    """What ``objective(…) + 0.1 * objective(…)`` makes; `terms` are dicts of weight, name and parameters."""
    if not terms:
        raise InputError("sum: give terms, a list of {weight, name, parameters}")
    made = [
        (number("weight", term["weight"]), objective(term["name"], **term.get("parameters", {})))
        for term in terms
    ]
    return sum_of(made)


def _smoothed(noise: float) -> Link:
    return Smoothed(1 - noise, noise) if noise else Logistic()
