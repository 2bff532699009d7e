"""Every published objective as a declaration: one entry each.

`meaning` says what a parameter is, `whom` the source of its default. "TRL" is the default or the paper index of
TRL's DPOTrainer; "ours" means that no source that could be read states a value.
Long because it is a table to look things up in, not to read through.
"""

from __future__ import annotations

from typing import Any

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
from rewardshape.theory.objectives.base import Objective, Sum
from rewardshape.theory.objectives.declaration import Declaration, Parameter, choice, count, real, switch
from rewardshape.theory.objectives.listwise import Listwise, Ranked
from rewardshape.theory.objectives.pairwise import (
    PLAIN,
    AdaptiveBeta,
    AdaptiveMargin,
    BatchRobust,
    DownSampled,
    LengthDesensitized,
    LengthMargin,
    MovingReference,
    Offset,
    Pairwise,
    Penalized,
    ProbabilityWeighted,
    SequentialKL,
    Shifted,
    Sorted,
    SortedMargin,
)
from rewardshape.theory.objectives.pointwise import DivergenceShift, FixedShift, Pointwise, RewardShift
from rewardshape.theory.scores import Score
from rewardshape.theory.shapes import Alpha, ChiSquared, JensenShannon, LogOdds, Shape, SquaredLog

SUMMED, RATIO = Score(reference=False, per_token=False), Score(reference=True, per_token=False)
MEAN, MEAN_RATIO = Score(reference=False, per_token=True), Score(reference=True, per_token=True)


_ALPHA_DPO = "α-DPO, authors' llama-3-8b-instruct-alpha-dpo.yaml"


def _alpha(default: float, meaning: str, whom: str) -> Parameter:
    return real(default, meaning, whom, arrays=True)


def _beta(
    default: float,
    whom: str,
    meaning: str = "scale of the reward, per nat of score",
    *,
    arrays: bool = True,
) -> Parameter:
    return real(default, meaning, whom, arrays=arrays, above=0)


def _gamma(ratio: float, whom: str) -> Parameter:
    return real(ratio, "target margin, in reward units; the default is this times beta", whom, arrays=True)


def _noise(default: float, whom: str, **bounds: float) -> Parameter:
    limits = {"least": 0.0, "below": 0.5} | bounds
    return real(default, "ε, the share of labels taken to be wrong", whom, arrays=False, **limits)


def _weight(default: float, meaning: str, whom: str) -> Parameter:
    return real(default, meaning, whom, least=0)


def _smoothed(noise: float) -> Link:
    return Smoothed(1 - noise, noise) if noise else Logistic()


def _likelihood(*, per_token: bool = True) -> Objective:
    return Pointwise(Score(reference=False, per_token=per_token), PLAIN, Linear(), None)


def _fdpo(divergence: str, beta: Any, alpha: Any = 0.0) -> Objective:
    shapes: dict[str, Shape] = {
        "reverse_kl": PLAIN,
        "forward_kl": Alpha(1.0),
        "alpha": Alpha(alpha),
        "jensen_shannon": JensenShannon(),
    }
    return Pairwise(RATIO, shapes[divergence], beta=beta)


def _bco(beta: Any, shift: Any) -> Objective:
    parts = (RATIO, PLAIN, Logistic(), Logistic(), beta)
    return RewardShift(*parts) if shift == "batch_mean" else FixedShift(*parts, shift=beta * shift)


def _kto(beta: Any, desirable_weight: float, undesirable_weight: float, reference_point: Any) -> Objective:
    parts = (RATIO, PLAIN, Sigmoid(), Sigmoid(), beta, desirable_weight, undesirable_weight)
    return (
        DivergenceShift(*parts)
        if reference_point == "batch"
        else FixedShift(*parts, shift=beta * reference_point)
    )


ZOO: tuple[Declaration, ...] = (
    Declaration(
        "alphapo",
        "AlphaPO, arXiv:2501.03884",
        lambda alpha, beta, gamma: Pairwise(MEAN, Alpha(alpha), beta=beta, gamma=gamma),
        {
            "alpha": _alpha(0.25, "shape α", "AlphaPO, Table 3, Mistral-7B-Instruct"),
            "beta": _beta(2.5, "AlphaPO, Table 3, Mistral-7B-Instruct"),
            "gamma": _gamma(0.1, "AlphaPO, Table 3, Mistral-7B-Instruct, whose column is γ/β"),
        },
    ),
    Declaration(
        "simpo",
        "SimPO, arXiv:2405.14734, eq. 6",
        lambda beta, gamma: Pairwise(MEAN, beta=beta, gamma=gamma),
        {
            "beta": _beta(2.5, "SimPO, README of the repository, Mistral-7B-Instruct"),
            "gamma": _gamma(0.1, "SimPO, README of the repository, Mistral-7B-Instruct"),
        },
    ),
    Declaration(
        "dpo",
        "DPO, arXiv:2305.18290, eq. 7",
        lambda beta: Pairwise(RATIO, beta=beta),
        {"beta": _beta(0.1, "DPO, arXiv:2305.18290, appendix B; TRL")},
    ),
    Declaration(
        "cdpo",
        "Conservative DPO, Mitchell 2023, ericmitchell.ai/cdpo.pdf, eq. 3",
        lambda beta, label_smoothing: Pairwise(RATIO, link=_smoothed(label_smoothing), beta=beta),
        {
            "beta": _beta(0.1, "TRL"),
            "label_smoothing": _noise(
                0.1, "README of the DPO authors' repository: might be reasonable, untested"
            ),
        },
    ),
    Declaration(
        "robust_dpo",
        "Robust DPO, arXiv:2403.00409",
        lambda beta, label_smoothing: Pairwise(
            RATIO,
            link=Smoothed(
                (1 - label_smoothing) / (1 - 2 * label_smoothing),
                -label_smoothing / (1 - 2 * label_smoothing),
            ),
            beta=beta,
        ),
        {"beta": _beta(0.1, "TRL"), "label_smoothing": _noise(0.1, "ours")},
    ),
    Declaration(
        "ipo",
        "IPO, arXiv:2310.12036, eq. 17",
        lambda beta, per_token: Pairwise(
            Score(reference=True, per_token=per_token), link=Squared(1 / (2 * beta))
        ),
        {
            "beta": _beta(
                0.1, "HALOs; TRL", "the paper's τ: (s_w − s_l − 1/(2β))², so the reward is s itself"
            ),
            "per_token": switch(
                True,
                "log-ratios per token; False is the paper's text",
                "TRL, which says that the paper's results were made so",
            ),
        },
    ),
    Declaration(
        "slic",
        "SLiC-HF, arXiv:2305.10425",
        lambda beta, reference: Pairwise(
            Score(reference=reference, per_token=False), link=Hinge(), beta=beta
        ),
        {
            "beta": _beta(0.1, "TRL", "scale of the reward; the paper's δ is 1/β"),
            "reference": switch(
                True,
                "a log-ratio for a score; the paper's calibration term has none, and adds λ times a likelihood "
                "term, which only `slic_hf` has",
                "TRL and GPO",
            ),
        },
    ),
    Declaration(
        "gpo_exponential",
        "Generalized preference optimization, arXiv:2402.05749",
        lambda beta: Pairwise(RATIO, link=Exponential(), beta=beta),
        {"beta": _beta(0.1, "ours, DPO's")},
    ),
    Declaration(
        "ln_dpo",
        "Length-normalised DPO, arXiv:2407.15229; Tülu 3, arXiv:2411.15124, eq. 6",
        lambda beta: Pairwise(MEAN_RATIO, beta=beta),
        {"beta": _beta(5.0, "Tülu 3, final 8B and 70B recipes of open-instruct")},
    ),
    Declaration(
        "fdpo",
        "f-DPO, arXiv:2309.16240",
        _fdpo,
        {
            "divergence": choice(
                "reverse_kl",
                "the divergence whose f′ of the probability ratio is the shape",
                "ours: DPO",
                "reverse_kl",
                "forward_kl",
                "alpha",
                "jensen_shannon",
            ),
            "beta": _beta(0.1, "TRL"),
            "alpha": Parameter(
                0.5,
                "the paper's α; TRL's f_alpha_divergence_coef is 1 − α",
                "TRL, whose coefficient is 0.5",
                _alpha(0.5, "", "").check,
                only_with=("divergence", "alpha"),
            ),
        },
    ),
    Declaration(
        "chipo",
        "χPO, arXiv:2407.13399, eq. 9",
        lambda beta, clip=None: Pairwise(
            RATIO, ChiSquared(), Logistic() if clip is None else Clipped(Logistic(), clip), beta
        ),
        {
            "beta": _beta(0.05, "ours"),
            "clip": real(
                None,
                "2·R_max of the paper's analysis: beyond it a pair has weight 0; none by default",
                "",
                above=0,
            ),
        },
    ),
    Declaration(
        "cpo",
        "CPO, arXiv:2401.08417, eq. 5",
        lambda beta, likelihood_weight, per_token: Sum(
            SUMMED,
            ((1.0, Pairwise(SUMMED, beta=beta)), (likelihood_weight, _likelihood(per_token=per_token))),
        ),
        {
            "beta": _beta(0.1, "TRL"),
            "likelihood_weight": _weight(1.0, "of −log π(y_w|x); TRL's cpo_alpha", "CPO, eq. 5; TRL"),
            "per_token": switch(True, "the likelihood term per token; False is the paper's sum", "TRL"),
        },
    ),
    Declaration(
        "orpo",
        "ORPO, arXiv:2403.07691, eq. 6",
        lambda odds_weight: Sum(MEAN, ((odds_weight, Pairwise(MEAN, LogOdds())), (1.0, _likelihood()))),
        {
            "odds_weight": real(
                0.1,
                "the paper's λ, TRL's beta; the probability is that per token, as in the paper's eq. 1",
                "ORPO, Mistral-ORPO-β; TRL",
                above=0,
            )
        },
    ),
    Declaration(
        "dpop",
        "DPO-Positive (Smaug), arXiv:2402.13228, eq. 3",
        lambda beta, penalty: Penalized(RATIO, beta=beta, penalty=penalty),
        {
            "beta": _beta(
                0.3, "third-party recipes of the paper's (β 0.3, λ 50); the authors published no code"
            ),
            "penalty": _weight(50.0, "λ: what a nat of the chosen below the reference costs", "as beta"),
        },
    ),
    Declaration(
        "ld_dpo",
        "LD-DPO, arXiv:2409.06411",
        lambda beta, tail: LengthDesensitized(RATIO, beta=beta, tail=tail),
        {
            "beta": _beta(0.1, "TRL"),
            "tail": _weight(
                0.5,
                "the paper's α: what a token counts beyond the length of the shorter response; 1 is DPO",
                "TRL",
            ),
        },
    ),
    Declaration(
        "rpo",
        "Iterative RPO, arXiv:2404.19733, eq. 1",
        lambda beta, likelihood_weight: Sum(
            RATIO, ((1.0, Pairwise(RATIO, beta=beta)), (likelihood_weight, _likelihood()))
        ),
        {
            "beta": _beta(0.1, "TRL"),
            "likelihood_weight": _weight(1.0, "the paper's α, TRL's rpo_alpha before 0.29", "TRL"),
        },
        note="Not Regularized PO, arXiv:2405.16436, which TRL's paper index lists as RPO: likelihood_weight 0.005.",
    ),
    Declaration(
        "r_dpo",
        "R-DPO, arXiv:2403.19159, eq. 9",
        lambda beta, length_weight: LengthMargin(RATIO, beta=beta, length_weight=length_weight),
        {
            "beta": _beta(0.1, "ours, DPO's"),
            "length_weight": real(0.01, "the paper's α, in reward units per token", "ours"),
        },
    ),
    Declaration(
        "discopop",
        "DiscoPOP, arXiv:2406.08414, eq. 5",
        lambda beta, tau: Pairwise(RATIO, link=LogRatioModulated(tau), beta=beta),
        {
            "beta": _beta(0.05, "ours, TRL's tau"),
            "tau": real(0.05, "temperature τ of the blend", "TRL", above=0),
        },
    ),
    Declaration(
        "aot",
        "AOT, paired, arXiv:2406.05882",
        lambda beta, label_smoothing: SortedMargin(RATIO, link=_smoothed(label_smoothing), beta=beta),
        {
            "beta": _beta(0.01, "AOT, caption of Figure 2, by TRL's paper index"),
            "label_smoothing": _noise(0.0, "TRL"),
        },
    ),
    Declaration(
        "aot_unpaired",
        "AOT, unpaired, arXiv:2406.05882",
        lambda beta, label_smoothing: Sorted(RATIO, link=_smoothed(label_smoothing), beta=beta),
        {
            "beta": _beta(0.01, "AOT, caption of Figure 2, by TRL's paper index", arrays=False),
            "label_smoothing": _noise(0.0, "TRL"),
        },
    ),
    Declaration(
        "sppo",
        "SPPO, arXiv:2405.00675, eq. 4.7 with hard preferences",
        lambda beta: Pointwise(RATIO, PLAIN, Squared(1 / (2 * beta)), Squared(1 / (2 * beta))),
        {
            "beta": _beta(
                0.001,
                "SPPO, authors' scripts",
                "1/η of the paper: (s_w − 1/(2β))² + (s_l + 1/(2β))², in nats",
            )
        },
        note="The sum of the two squares, as TRL; the authors' trainer halves it, before gradient clipping.",
    ),
    Declaration(
        "nca",
        "NCA, arXiv:2402.05369, eq. 13 for pairs",
        lambda beta: Pointwise(RATIO, PLAIN, Smoothed(1.0, 0.5), Logistic(), beta, rejected_weight=0.5),
        {"beta": _beta(0.01, "NCA, authors' preference_qlora.yaml")},
    ),
    Declaration(
        "exo",
        "EXO, arXiv:2402.00856, eq. 16",
        lambda beta, label_smoothing: Pairwise(RATIO, link=ReverseKL(label_smoothing), beta=beta),
        {
            "beta": _beta(0.1, "authors' script for IMDB (0.5 for HH and TL;DR); TRL", "the paper's β_π"),
            "label_smoothing": _noise(
                1e-3, "TRL; the authors' scripts have log ε = −10, not normalised", above=0
            ),
        },
    ),
    Declaration(
        "bco",
        "BCO, arXiv:2404.04656",
        _bco,
        {
            "beta": _beta(0.01, "BCO, section C, by TRL's paper index"),
            "shift": real(
                0.0,
                "the paper's δ, in nats of log-ratio: a number, or \"batch_mean\"; LLaMA-Factory and TRL's BCOTrainer "
                "keep a running mean",
                "TRL's pair form, which has none",
                "batch_mean",
            ),
        },
    ),
    Declaration(
        "apo_zero",
        "APO-zero, arXiv:2408.06266, eq. 7",
        lambda beta: Pointwise(RATIO, PLAIN, Sigmoid(), Sigmoid(), beta),
        {"beta": _beta(0.1, "TRL")},
    ),
    Declaration(
        "apo_down",
        "APO-down, arXiv:2408.06266, eq. 8",
        lambda beta: Sum(
            RATIO,
            (
                (1.0, Pairwise(RATIO, link=Sigmoid(), beta=beta)),
                (1.0, Pointwise(RATIO, PLAIN, Flipped(Sigmoid()), None, beta)),
            ),
        ),
        {"beta": _beta(0.1, "TRL")},
        note="σ(r_w) + 1 − σ(r_w − r_l): the chosen response is pushed down too, the rejected one more.",
    ),
    Declaration(
        "asft",
        "ASFT, arXiv:2409.10571",
        lambda odds_weight: Sum(
            MEAN, ((odds_weight, Pointwise(MEAN, LogOdds(), Logistic(), Logistic())), (1.0, _likelihood()))
        ),
        {"odds_weight": real(0.1, "λ of both responses' log-odds, each against 0", "ours, ORPO's", above=0)},
    ),
    Declaration(
        "kto",
        "KTO, arXiv:2402.01306, eq. 8, on pairs",
        _kto,
        {
            "beta": _beta(0.1, "TRL; HALOs"),
            "desirable_weight": _weight(1.0, "λ_D", "TRL; HALOs"),
            "undesirable_weight": _weight(1.0, "λ_U", "TRL; HALOs"),
            "reference_point": real(
                "batch",
                'the KL in nats: a number, or "batch": max(0, mean log-ratio) over the batch, of the rejected '
                "responses for the chosen ones and the other way round, without a gradient",
                "the paired form of TRL's DPOTrainer",
                "batch",
                least=0,
            ),
        },
        note="The loss of a pair is the sum of its two responses' losses.",
    ),
    Declaration(
        "wpo",
        "WPO, arXiv:2406.11827, eq. 2",
        lambda beta, aligned, clip: ProbabilityWeighted(
            RATIO, beta=beta, aligned=aligned, clip=None if clip == "none" else clip
        ),
        {
            "beta": _beta(0.01, "WPO, authors' mistral-base.yaml"),
            "aligned": switch(True, "the paper's sampled alignment", "WPO, authors' run_wpo.py; TRL"),
            "clip": real(
                1.0,
                "the largest weight of a pair; of the aligned weights of on-policy text about half are beyond 1. "
                '"none" is today\'s TRL',
                "WPO, authors' run_wpo.py",
                "none",
                above=0,
            ),
        },
    ),
    Declaration(
        "sft",
        "maximum likelihood of the chosen response",
        lambda per_token: _likelihood(per_token=per_token),
        {
            "per_token": switch(
                True,
                "−log π(y_w|x)/|y_w|; TRL averages over the tokens of a batch instead, so long responses count more",
                "ours",
            )
        },
    ),
    Declaration(
        "lipo",
        "LiPO-λ, arXiv:2402.01878",
        lambda beta, normalized: Listwise(RATIO, beta, normalized),
        {
            "beta": _beta(0.05, "ours, as other implementations have it", arrays=False),
            "normalized": switch(
                True, "Δ = 1 for two responses with labels 1 and 0, so that the loss is DPO's", "ours"
            ),
        },
    ),
    Declaration(
        "dpo_shift",
        "DPO-Shift, arXiv:2502.07599",
        lambda beta, rejected_factor: Shifted(RATIO, beta=beta, rejected_factor=rejected_factor),
        {
            "beta": _beta(0.1, "DPO-Shift, authors' dposhift_config.py"),
            "rejected_factor": real(
                0.95,
                "the paper's f(λ), fixed; the authors also let it run linearly from or to 1",
                "one of the authors' runs, which have 0.5 to 1",
                least=0,
            ),
        },
    ),
    Declaration(
        "simper",
        "SimPER, arXiv:2502.00883; authors' simper_trainer.py",
        lambda: Pairwise(MEAN, Alpha(-1.0), Linear()),
        note="−e^(s_w) + e^(s_l): the alpha family at α = −1 with a linear link; it has no parameter.",
    ),
    Declaration(
        "cal_dpo",
        "Cal-DPO, arXiv:2412.14516; authors' dpo_trainer.py",
        lambda beta, calibration_weight: Sum(
            RATIO,
            (
                (1.0, Pairwise(RATIO)),
                (
                    calibration_weight,
                    Pointwise(RATIO, PLAIN, Squared(1 / (2 * beta)), Squared(1 / (2 * beta))),
                ),
            ),
        ),
        {
            "beta": _beta(
                0.002,
                "Cal-DPO, authors' dpo_config_full.yaml",
                "the log-ratios are calibrated to ±1/(2β); the preference term has β = 1",
            ),
            "calibration_weight": _weight(0.5, "of the two squares", "Cal-DPO, authors' dpo_trainer.py"),
        },
    ),
    Declaration(
        "alpha_dpo",
        "α-DPO, arXiv:2410.10148; authors' dpo_trainer.py",
        lambda alpha, beta, gamma: AdaptiveMargin(MEAN, beta=beta, gamma=gamma, spread=alpha),
        {
            "alpha": _alpha(
                0.2, "what a standard deviation of the gap adds to γ/β; not AlphaPO's α", _ALPHA_DPO
            ),
            "beta": _beta(2.5, _ALPHA_DPO),
            "gamma": _gamma(0.6, _ALPHA_DPO),
        },
        note="Mean and standard deviation are the batch's; the authors keep running ones, of momentum 0.9.",
    ),
    Declaration(
        "beta_dpo",
        "β-DPO, arXiv:2407.08639; authors' trainers.py",
        lambda beta, scaling, usual_gap: AdaptiveBeta(RATIO, beta=beta, scaling=scaling, usual_gap=usual_gap),
        {
            "beta": _beta(0.1, "β-DPO, authors' README", "β₀"),
            "scaling": real(0.6, "a", "β-DPO, authors' README"),
            "usual_gap": real(0.0, "M₀, in nats; the authors keep a running mean of the gap", "ours"),
        },
        note="The authors also leave out 20 % of the pairs, drawn at random against outlying gaps; this does not.",
    ),
    Declaration(
        "dr_dpo",
        "Dr. DPO, arXiv:2407.07880; authors' README",
        lambda beta, temperature: BatchRobust(RATIO, beta=beta, temperature=temperature),
        {
            "beta": _beta(0.1, "Dr. DPO, authors' README"),
            "temperature": real(1.0, "β′", "Dr. DPO, authors' dpo.yaml", above=0),
        },
    ),
    Declaration(
        "odpo",
        "DPO with an offset, arXiv:2402.10571",
        lambda beta, offset: Offset(RATIO, beta=beta, offset=offset),
        {
            "beta": _beta(0.1, "ours, DPO's"),
            "offset": _weight(
                1.0, "α; the labels must differ, chosen above rejected", "ODPO, authors' odpo.yaml"
            ),
        },
    ),
    Declaration(
        "slic_hf",
        "SLiC-HF, arXiv:2305.10425, with its likelihood term; HALOs, SLiCTrainer",
        lambda delta, likelihood_weight: Sum(
            SUMMED,
            ((1.0, Pairwise(SUMMED, link=Hinge(delta))), (likelihood_weight, _likelihood(per_token=False))),
        ),
        {
            "delta": real(1.0, "the margin δ, in nats", "ours", least=0),
            "likelihood_weight": _weight(0.1, "λ of −log π(y_w|x)", "HALOs"),
        },
        note="The target of the likelihood term is the chosen response.",
    ),
    Declaration(
        "rrhf",
        "RRHF, arXiv:2304.05302; authors' train.py, on pairs",
        lambda rank_weight: Sum(MEAN, ((rank_weight, Pairwise(MEAN, link=Hinge(0.0))), (1.0, _likelihood()))),
        {"rank_weight": _weight(1.0, "of max(0, s_l − s_w); the authors' rrhf_weight", "ours")},
        note="The likelihood term is per token; the authors' is averaged over the batch's padded positions.",
    ),
    Declaration(
        "tdpo",
        "TDPO₂, arXiv:2404.11999; authors' trainers.py",
        lambda beta, kl_weight: SequentialKL(RATIO, beta=beta, kl_weight=kl_weight),
        {
            "beta": _beta(0.1, "TDPO, authors' tdpo.yaml"),
            "kl_weight": real(0.5, "α of the sequential KL", "TDPO, authors' tdpo.yaml"),
        },
    ),
    Declaration(
        "sampo",
        "SamPO, arXiv:2406.10957; authors' dpo_trainer.py",
        lambda beta, tokens: DownSampled(RATIO, beta=beta, drawn=tokens == "drawn"),
        {
            "beta": _beta(0.1, "ours, DPO's"),
            "tokens": choice(
                "drawn",
                "which tokens of the longer response count: as many as the shorter has, drawn anew at every step; or "
                '"expected", all of them in proportion, the expectation over the draws',
                "SamPO, authors' dpo_trainer.py",
                "drawn",
                "expected",
            ),
        },
    ),
    Declaration(
        "pro",
        "PRO, arXiv:2306.17492; authors' process_manager.py",
        lambda likelihood_weight: Sum(
            MEAN, ((1.0, Ranked(MEAN)), (likelihood_weight, _likelihood(per_token=False)))
        ),
        {
            "likelihood_weight": _weight(
                0.05, "of −log π(y_w|x); the authors' sft_weight", "PRO, authors' train_hh.sh"
            )
        },
        note="On pairs, with the annotator's scores for rewards. `Ranked(…).list_loss` takes rankings of any length, "
        "where the authors multiply the likelihood term by (K − 1)².",
    ),
    Declaration(
        "tpo",
        "TPO, arXiv:2405.16681, as TRL's TPOTrainer has it",
        lambda beta, likelihood_weight: Sum(
            SUMMED, ((1.0, Pairwise(SUMMED, beta=beta)), (likelihood_weight, _likelihood()))
        ),
        {
            "beta": _beta(0.01, "TRL's TPOConfig"),
            "likelihood_weight": _weight(
                1.0, "of the likelihood of the gold response; TRL's tpo_alpha", "TRL's TPOConfig"
            ),
        },
        note="On pairs the chosen response is the gold one too, so this is CPO's loss; TPO has a third one for it.",
    ),
    Declaration(
        "tpo_l",
        "TPO-L, arXiv:2405.16681, as TRL's TPOTrainer has it",
        lambda beta, gamma, likelihood_weight: Sum(
            MEAN, ((1.0, Pairwise(MEAN, beta=beta, gamma=gamma)), (likelihood_weight, _likelihood()))
        ),
        {
            "beta": _beta(0.01, "TRL's TPOConfig"),
            "gamma": _gamma(50.0, "TRL's TPOConfig, whose tpo_l_gamma is 0.5"),
            "likelihood_weight": _weight(1.0, "as in tpo", "TRL's TPOConfig"),
        },
        note="As `tpo`: SimPO's loss and the likelihood of the chosen response.",
    ),
    Declaration(
        "poft",
        "PoFT, arXiv:2412.12865, eq. 7 and 8",
        lambda: Pointwise(MEAN_RATIO, PLAIN, Logistic(), None),
        note="−log σ of the per-token log-ratio to an *aligned* model, of the chosen response alone: the reference is "
        "not the policy's own beginning. The probe has no other; give `ref_logp_sum` of one in code. Of several "
        "aligned models the paper takes the mean, and each divides by its own tokens.",
    ),
    Declaration(
        "tr_dpo",
        "TR-DPO, arXiv:2404.09656, as TRL's sync_ref_model has it",
        lambda beta, mixing, every: MovingReference(RATIO, beta=beta, mixing=mixing, every=every),
        {
            "beta": _beta(0.1, "TRL"),
            "mixing": real(
                0.6,
                "μ, the share of the policy in the reference from then on; 1 replaces it",
                "TRL",
                above=0,
                most=1,
            ),
            "every": count(512, "steps between two moves of the reference", "TRL"),
        },
        note="The probe moves the reference and records the log-probs under it with every pair that is trained on; "
        "margins of the probe set are those against the untouched model. In TRL, `sync_ref_model=True` moves it.",
    ),
    Declaration(
        "squared_po",
        "SquaredPO, arXiv:2602.06788",
        lambda beta: Pairwise(RATIO, SquaredLog(), beta=beta),
        {"beta": _beta(0.1, "ours, DPO's")},
        note="The f′ of f(t) = ½(log t)² for the divergence of f-DPO.",
    ),
    Declaration(
        "mpo",
        "Mixed preference optimization, arXiv:2411.10442, as TRL sums it",
        lambda beta, preference_weight, quality_weight, likelihood_weight: Sum(
            RATIO,
            (
                (preference_weight, Pairwise(RATIO, beta=beta)),
                (quality_weight, Pointwise(RATIO, PLAIN, Logistic(), Logistic(), beta)),
                (likelihood_weight, _likelihood()),
            ),
        ),
        {
            "beta": _beta(0.1, "TRL"),
            "preference_weight": _weight(0.8, "of DPO", "TRL's paper index"),
            "quality_weight": _weight(0.2, "of BCO, without its shift", "TRL's paper index"),
            "likelihood_weight": _weight(1.0, "of −log π(y_w|x)/|y_w|", "TRL's paper index"),
        },
    ),
)
