r"""Did the answers get worse? Samples of a run, step 0 against now, judged by a gold reward.

**Win rate.** For each prompt, every answer of now is set against every answer of step 0; a win counts 1, a tie ½, and
the prompt's rate is the mean. Intervals are over prompts. Of two answers to one prompt only their order counts.

**Length-controlled win rate**, after AlpacaEval 2 (arXiv 2404.04475, without the terms of instruction difficulty, which
need many models): a logistic regression of the outcome on a constant and on tanh of the standardised difference in
length,

.. math:: P(\text{now wins}) = \sigma\big(\theta + \phi \tanh(\Delta / \operatorname{sd}(\Delta))\big),

read at a difference of zero: σ(θ). Its standard error is the sandwich estimate with prompts as clusters (Liang and
Zeger, 1986, doi:10.1093/biomet/73.1.13), its interval Student's t over prompts, formed for θ. Where one side is always
the longer, nothing is known of equal lengths and nothing is said.

**Choosing and judging apart.** Where a checkpoint is chosen by its gold reward, half of the prompts choose it and the
other half judges it: the best of several noisy means is too good on the prompts that chose it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from rewardshape.analysis.panels import run_label
from rewardshape.analysis.resampling import CONFIDENCE, MIN_TESTED, mean_interval, with_interval
from rewardshape.analysis.samples import POLICY, has_gold, judged, samples_of, temperatures
from rewardshape.errors import InputError
from rewardshape.numbers import counted, percent, percents, shortest
from rewardshape.trace import Run, Trace

Harm = Literal["lost to worse answers", "lost to equally good ones", "answers got better", "cannot tell"]
PLAINLY: dict[Harm, str] = {
    "lost to worse answers": "worse",
    "lost to equally good ones": "equally good",
    "answers got better": "better",
    "cannot tell": "cannot tell",
}
CHANCE = "4 to 7 in 100"  # runs whose answers are as good as before are called worse or better: docs/calibration.md
CHOSEN_COLUMNS = [
    "run", "setting", "alpha", "seed", "step", "gold", "gold_start", "gain", "gain_low", "gain_high", "gold_of_choice",
    "num_prompts",
]  # fmt: skip
EQUIVALENCE = 0.1  # of win rate: answers that win between 40 % and 60 % are called equally good


@dataclass(frozen=True)
class Judgement:
    """What a run's answers are worth now against step 0.

    Attributes
    ----------
    word : str
        One of `Harm`.
    win_rate, low, high : float
        Share of comparisons that the answers of now win (ties count half), 95 % over prompts.
    length_controlled, length_controlled_low, length_controlled_high : float
        The same at equal length, with its interval; NaN where one side is always the longer, or wins all.
    num_prompts : int
    step, first_step : int
        What was compared with what.
    temperature : float
        At which both were sampled; 0 is greedy.
    """

    word: Harm
    win_rate: float
    low: float
    high: float
    length_controlled: float
    length_controlled_low: float
    length_controlled_high: float
    num_prompts: int
    step: int
    first_step: int
    temperature: float = POLICY

    @property
    def sentence(self) -> str:
        """One line for page and terminal, of a run whose chosen responses lost probability."""
        return self.told(lost=True)

    def told(self, *, lost: bool) -> str:
        """The same; where nothing was lost, answers are only worse, better or equally good."""
        how = f"answers at T = {shortest(self.temperature)}" if self.temperature else "greedy answers"
        steps = f"step {self.step} against step {self.first_step}, {counted(self.num_prompts, 'prompt')}"
        if not np.isfinite([self.low, self.high]).all():
            return f"{how}: {self.word} with {steps}"
        rate = f"won {percent(self.win_rate)} (95 % interval {percents(self.low, self.high)}{self._at_equal_length})"
        word = self.word if lost else PLAINLY[self.word]
        if self.word == "cannot tell":
            word = f"cannot tell with {counted(self.num_prompts, 'prompt')}"
        return f"{how}: {word}; {rate}, {steps}"

    @property
    def _at_equal_length(self) -> str:
        ends = self.length_controlled_low, self.length_controlled_high
        if not np.isfinite([self.length_controlled, *ends]).all():
            return ""
        return f"; at equal length {percent(self.length_controlled)}, {percents(*ends)}"


def judge_generations(trace: Trace) -> pd.DataFrame:
    """Every run's last answers against those of its first sampled step, at each temperature.

    Returns
    -------
    DataFrame
        One row per run and temperature: ``run``, ``setting``, ``alpha``, ``seed``, ``temperature`` and the fields of
        `Judgement`, with its ``sentence``.

    Raises
    ------
    InputError
        If the trace holds no samples with a gold reward.
    """
    return pd.DataFrame(
        [
            {**run_label(run), **vars(found), "sentence": found.sentence}
            for run in _judged(trace)
            for found in judgements_of(trace, run)
        ]
    )


def judgements_of(trace: Trace, run: Run) -> list[Judgement]:
    """One run's last answers against those of its first sampled step, a judgement a temperature; none without gold."""
    found = []
    for temperature in temperatures(trace):
        samples = judged(samples_of(trace, run, temperature=temperature))
        if samples.empty:
            continue
        first, last = samples["step"].min(), samples["step"].max()
        if first < last:
            found.append(against(*(samples[samples["step"] == step] for step in (first, last))))
    return found


def against(first: pd.DataFrame, last: pd.DataFrame) -> Judgement:
    """Judge the answers of one step against those of another.

    Parameters
    ----------
    first, last : DataFrame
        Rows of ``trace.samples`` of one step each: prompt_id, gold, num_tokens.
    """
    return judgement_of(
        *_comparisons(first, last),
        step=int(last["step"].iloc[0]),
        first_step=int(first["step"].iloc[0]),
        temperature=float(last["temperature"].iloc[0]) if "temperature" in last else POLICY,
    )


def judgement_of(
    outcomes: np.ndarray,
    length_difference: np.ndarray,
    prompts: np.ndarray,
    *,
    step: int,
    first_step: int,
    temperature: float,
) -> Judgement:
    """A judgement from comparisons, whoever made them.

    Parameters
    ----------
    outcomes, length_difference, prompts : array, shape (comparisons,)
        As `length_controlled_win_rate` takes them.
    """
    rates = np.bincount(prompts, outcomes) / np.bincount(prompts)
    low, high = _rate_interval(rates)
    controlled, controlled_low, controlled_high = length_controlled_win_rate(
        outcomes, length_difference, prompts
    )
    return Judgement(
        word=_word(low, high, len(rates)),
        win_rate=float(rates.mean()) if len(rates) else np.nan,
        low=low,
        high=high,
        length_controlled=controlled,
        length_controlled_low=controlled_low,
        length_controlled_high=controlled_high,
        num_prompts=len(rates),
        step=step,
        first_step=first_step,
        temperature=temperature,
    )


def _word(low: float, high: float, num_prompts: int) -> Harm:
    if num_prompts < MIN_TESTED or not np.isfinite([low, high]).all():
        return "cannot tell"
    if high < 0.5:
        return "lost to worse answers"
    if low > 0.5:
        return "answers got better"
    if low > 0.5 - EQUIVALENCE and high < 0.5 + EQUIVALENCE:
        return "lost to equally good ones"
    return "cannot tell"


def _comparisons(first: pd.DataFrame, last: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every comparison's outcome, difference in length and number of its prompt, (comparisons,) each."""
    before, after = _by_prompt(first), _by_prompt(last)
    outcomes, lengths, prompts = [np.array([])], [np.array([])], [np.array([], int)]
    for number, prompt in enumerate(name for name in before if name in after):
        (old, old_tokens), (new, new_tokens) = before[prompt], after[prompt]
        won = (np.sign(new[:, None] - old) + 1) / 2
        outcomes.append(won.ravel())
        lengths.append((new_tokens[:, None] - old_tokens).ravel())
        prompts.append(np.full(won.size, number))
    return np.concatenate(outcomes), np.concatenate(lengths), np.concatenate(prompts)


def _by_prompt(samples: pd.DataFrame) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """Gold and number of tokens of every prompt's answers."""
    gold, tokens = (samples[name].to_numpy(float) for name in ("gold", "num_tokens"))
    codes, prompts = pd.factorize(samples["prompt_id"])
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(prompts)))[:-1]
    return dict(
        zip(
            prompts, zip(np.split(gold[order], ends), np.split(tokens[order], ends), strict=True), strict=True
        )
    )


def _rate_interval(rates: np.ndarray) -> tuple[float, float]:
    """Student's t over prompts, kept within 0 and 1; where every prompt agrees, the rule of three's exact bound."""
    count = len(rates)
    if count < 2:
        return np.nan, np.nan
    spread = rates.std(ddof=1)
    if np.ptp(rates) == 0:
        bound = 1 - ((1 - CONFIDENCE) / 2) ** (1 / count)
        mean = rates[0]
        return (max(mean - bound, 0.0), min(mean + bound, 1.0))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * spread / np.sqrt(count)
    return max(float(rates.mean() - half), 0.0), min(float(rates.mean() + half), 1.0)


def length_controlled_win_rate(
    outcomes: np.ndarray, length_difference: np.ndarray, prompts: np.ndarray
) -> tuple[float, float, float]:
    """The win rate at equal length (module docstring) and the ends of its interval over prompts.

    Parameters
    ----------
    outcomes : array, shape (comparisons,)
        1 won, ½ tied, 0 lost.
    length_difference : array, shape (comparisons,)
        Tokens of the answer of now less those of the other.
    prompts : array of int, shape (comparisons,)
        The number of the prompt that both answer, from 0.

    Returns
    -------
    rate, low, high : float
        NaN where one side is always the longer, wins all, or the regression has no finite answer.
    """
    unknown = (np.nan, np.nan, np.nan)
    if (
        not len(outcomes)
        or np.ptp(outcomes) == 0
        or not length_difference.min() <= 0 <= length_difference.max()
    ):
        return unknown
    spread = float(np.std(length_difference)) or 1.0
    x = np.stack([np.ones_like(length_difference), np.tanh(length_difference / spread)], 1)
    x = x if np.ptp(length_difference) else x[:, :1]

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ theta
        value = np.mean(np.logaddexp(0, z) - outcomes * z)
        return value, x.T @ (special.expit(z) - outcomes) / len(outcomes)

    theta = optimize.minimize(loss, np.zeros(x.shape[1]), jac=True, method="BFGS").x
    if np.abs(theta).max() >= 20:
        return unknown
    chance = special.expit(x @ theta)
    by_prompt = np.stack([np.bincount(prompts, column) for column in (x * (outcomes - chance)[:, None]).T], 1)
    inverse = np.linalg.inv(x.T @ (x * (chance * (1 - chance))[:, None]))
    count = len(by_prompt)
    if count < 2:
        return float(special.expit(theta[0])), np.nan, np.nan
    variance = inverse @ by_prompt.T @ by_prompt @ inverse * count / (count - 1)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.sqrt(variance[0, 0])
    rate, low, high = special.expit([theta[0], theta[0] - half, theta[0] + half])
    return float(rate), float(low), float(high)


def generation_curve(trace: Trace) -> pd.DataFrame:
    """What the samples of every step are like, whatever a gold reward says.

    Returns
    -------
    DataFrame
        One row per run, temperature and sampled step: ``run``, ``setting``, ``alpha``, ``seed``, ``temperature``,
        ``step``, ``num_samples``; ``num_tokens`` (mean), where recorded ``unfinished`` (share that ran into the limit
        of length), ``entropy`` and ``top_mass`` (of the policy's predictions along the samples, nats and probability
        of the ten likeliest words, means per token; arXiv 2410.11677 follows both); ``distinct_1``, ``distinct_2``
        (distinct words and pairs of neighbouring words over all of them, of all samples of the step; arXiv 1510.03055),
        ``repetition`` (mean share of a sample's pairs of words that it has said before), ``kl`` (nats per response)
        and, where judged, ``gold`` and ``win_rate`` against the first sampled step.
    """
    rows: list[dict[str, Any]] = []
    for run, temperature in product(trace.runs, temperatures(trace)):
        samples = samples_of(trace, run, temperature=temperature)
        first = samples[samples["step"] == samples["step"].min()] if len(samples) else samples
        for step, mine in samples.groupby("step") if len(samples) else ():
            row: dict[str, Any] = {
                **run_label(run),
                "temperature": temperature,
                "step": step,
                "num_samples": len(mine),
                "num_tokens": mine["num_tokens"].mean(),
                "kl": mine["kl"].mean(),
                **_peakedness(mine),
                **_variety([str(text).split() for text in mine["text"]]),
            }
            if has_gold(mine):
                rates = _comparisons(judged(first), judged(mine))[0]
                row |= {"gold": mine["gold"].mean(), "win_rate": rates.mean() if len(rates) else np.nan}
            rows.append(row)
    if not rows:
        raise InputError(f"{trace.folder}: no samples; run the probe with --sample-every K")
    return pd.DataFrame(rows)


def _peakedness(samples: pd.DataFrame) -> dict[str, float]:
    found = {}
    for name in ("entropy", "top_mass"):
        if f"{name}_sum" in samples:
            found[name] = float((samples[f"{name}_sum"] / samples["num_tokens"]).mean())
    if "finish" in samples:
        found["unfinished"] = float((samples["finish"] == "length").mean())
    return found


def _variety(texts: list[list[str]]) -> dict[str, float]:
    words = [word for text in texts for word in text]
    pairs = [list(pairwise(text)) for text in texts]
    every = [pair for its in pairs for pair in its]
    repeated = [1 - len(set(its)) / len(its) for its in pairs if its]
    return {
        "distinct_1": len(set(words)) / len(words) if words else np.nan,
        "distinct_2": len(set(every)) / len(every) if every else np.nan,
        "repetition": float(np.mean(repeated)) if repeated else np.nan,
    }


def chosen_checkpoint(trace: Trace, *, temperature: float = POLICY, seed: int = 0) -> pd.DataFrame:
    """The best sampled step of every run by gold, chosen on one half of the prompts and judged on the other.

    Returns
    -------
    DataFrame
        One row per run of which two prompts or more were sampled at every step: ``run``, ``setting``, ``alpha``,
        ``seed``, ``step`` (chosen), ``gold`` and ``gold_start``
        (mean on the judging half, chosen step and first step), ``gain`` with ``…_low`` and ``…_high`` (paired over the
        judging prompts), ``gold_of_choice`` (mean on the choosing half: too good) and ``num_prompts`` that judged.
    """
    rows = []
    for run in _judged(trace):
        samples = samples_of(trace, run, temperature=temperature)
        means = samples.groupby(["prompt_id", "step"])["gold"].mean().unstack("step").dropna()
        if len(means) > 1:  # one for each half
            rows.append({**run_label(run), **chosen_on_half(means, seed=seed)})
    return pd.DataFrame(rows, columns=CHOSEN_COLUMNS)


def chosen_on_half(means: pd.DataFrame, *, seed: int = 0) -> dict[str, Any]:
    """The best step by one half of the prompts, and what it is worth on the other; `means`: prompts × steps."""
    drawn = np.random.default_rng(seed).permutation(len(means))
    choosing, judging = means.iloc[drawn[: len(drawn) // 2]], means.iloc[drawn[len(drawn) // 2 :]]
    step: Any = choosing.mean().idxmax()
    gains = (judging[step] - judging[judging.columns[0]]).to_numpy(float)
    gain = gains.mean() if len(gains) else np.nan
    low, high = (float(ends[0]) for ends in mean_interval(gains[None]))
    return {
        "step": int(step),
        "gold": judging[step].mean(),
        "gold_start": judging[judging.columns[0]].mean(),
        **with_interval("gain", gain, low, high),
        "gold_of_choice": choosing[step].mean(),
        "num_prompts": len(judging),
    }


def _judged(trace: Trace) -> list[Run]:
    samples = judged(trace.samples)
    if samples.empty:
        raise InputError(
            f"{trace.folder}: no samples with a gold reward; run the probe with --sample-every K and --gold"
        )
    names = set(samples["run"])
    return [run for run in trace.runs if run.name in names]
