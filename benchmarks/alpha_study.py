"""The study that ``docs/alpha.md`` plans: does α help on the embedded task?

    python benchmarks/alpha_study.py run --output runs/alpha        # stops at any time, goes on where it stopped
    python benchmarks/alpha_study.py table --output runs/alpha      # from the runs that are complete

``run`` takes stages (``tune``, ``shared``, ``judge``, ``control``) and ``--worker I/N`` for several processes. A run
is a folder of its own: the trace of the probe, and `generations.csv`, what five of its checkpoints answer to 256
held-out requests at temperature 1, 0.7 and 0. It is complete when that file is there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from generations import TEMPERATURES, Prompt, answer, best_of, tempered
from scipy import stats

from rewardshape import read_trace
from rewardshape.data import embedded
from rewardshape.errors import InputError
from rewardshape.theory import Alpha

ALPHAS = (-1.0, -0.5, 0.0, 0.25, 0.5, 1.0)
BETA = 10.0
QUANTILES = (0.25, 0.5, 0.75)  # of pairs whose margin is below the target before training
RATES = (5e-5, 1.5e-4, 4.5e-4)
TUNING_SEEDS = (0, 1, 2)
JUDGING_SEEDS = tuple(range(3, 11))
SHARED = (0.5, 1.5e-4)  # quantile and rate
STEPS, EVERY = 150, 30
PROMPTS = 256
MAX_TOKENS = 72
SELECT = 0.7  # the temperature at which a checkpoint is chosen
MODELS = 3  # supervised models; seed s starts from number s mod 3
GOLD_FILE = "generations.csv"


class Setting(NamedTuple):
    """One run of the study."""

    stage: str
    alpha: float
    quantile: float
    rate: float
    seed: int
    beta: float = BETA

    @property
    def name(self) -> str:
        return f"{self.stage}-alpha={self.alpha:g}-q={self.quantile:g}-rate={self.rate:g}-seed={self.seed}"


# --- what a run starts from ---------------------------------------------------------------------------------------


def start_of(seed: int, output: Path) -> tuple[Path, Path]:
    """The supervised model of a seed, and its pairs labelled by that seed's annotator.

    Model 0 and its pairs are the package's own; the others are made by the package's script, with another seed.
    """
    number = seed % MODELS
    folder = output / "models" / str(number)
    if number == 0:
        model, pairs_file = embedded.checkpoint_path(), embedded.pairs_path()
    else:
        model, pairs_file = folder / "model", folder / "pairs.jsonl"
        if not pairs_file.is_file():
            raise SystemExit(
                f"{pairs_file}: not there; make it with "
                f"python -m rewardshape.data.embedded.train --seed {number} --output {folder}"
            )
    labelled = output / "pairs" / f"{seed}.jsonl"
    if not labelled.is_file():
        labelled.parent.mkdir(parents=True, exist_ok=True)
        rows = [json.loads(line) for line in pairs_file.read_text(encoding="utf-8").splitlines()]
        answers = [(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
        embedded.write_pairs(labelled, embedded.label(answers, seed=seed))
    return model, labelled


@cache
def first_scores(checkpoint: Path, pairs_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean log-probs (nats per token, end token included) of chosen and rejected before training."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    rows = [json.loads(line) for line in pairs_file.read_text(encoding="utf-8").splitlines()]
    found = []
    for name in ("chosen", "rejected"):
        means = []
        for row in rows:
            prompt, response = (tokenizer(row[part])["input_ids"] for part in ("prompt", name))
            ids = torch.tensor([prompt + response + [tokenizer.eos_token_id]])
            with torch.no_grad():
                logps = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            means.append(logps.gather(-1, ids[0, len(prompt) :, None]).mean().item())
        found.append(np.array(means))
    return found[0], found[1]


def target(setting: Setting) -> float:
    """γ: the quantile of the reward margins, at this α and β, of the package's own pairs before training."""
    chosen, rejected = first_scores(embedded.checkpoint_path(), embedded.pairs_path())
    reward = Alpha(setting.alpha).reward
    return float(np.quantile(setting.beta * (reward(chosen) - reward(rejected)), setting.quantile))


# --- running ------------------------------------------------------------------------------------------------------


def run_one(setting: Setting, output: Path) -> None:
    """Train with the probe, answer the held-out requests from every checkpoint, drop the checkpoints."""
    from rewardshape.probe.run import run
    from rewardshape.probe.settings import parse

    folder = output / "runs" / setting.name
    if (folder / GOLD_FILE).is_file() or (folder / "failed").is_file():
        return
    checkpoint, pairs = start_of(setting.seed, output)
    if (folder / "run.json").is_file():
        flags = ["--resume", "--output", str(folder)]
    else:
        flags = [
            str(checkpoint), "--data", str(pairs), "--output", str(folder),
            "--alpha", f"{setting.alpha:g}", "--beta", f"{setting.beta:.6g}", "--gamma", f"{target(setting):.6g}",
            "--learning-rate", f"{setting.rate:g}", "--steps", str(STEPS), "--seed", str(setting.seed),
            "--batch-size", "16", "--probe-pairs", "128", "--probe-every", "10",
            "--checkpoint-every", str(EVERY), "--keep-checkpoints", str(STEPS // EVERY),
        ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(setting._asdict()), encoding="utf-8")
    try:
        run(parse([*flags, "--quiet"]))
    except (
        InputError
    ) as error:  # a loss that is not finite ends a run; it stays out of the tables and is counted
        (folder / "failed").write_text(f"{error}\n", encoding="utf-8")
        return
    checkpoints = {
        int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoints/checkpoint-*")
    }
    tables = [
        answers_of(path, checkpoint, seed=setting.seed).assign(step=step)
        for step, path in checkpoints.items()
    ]
    aside = folder / (GOLD_FILE + ".writing")
    pd.concat(tables).to_csv(aside, index=False)
    aside.rename(folder / GOLD_FILE)
    shutil.rmtree(folder / "checkpoints")


def answers_of(checkpoint: Path, start: Path, *, seed: int) -> pd.DataFrame:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(start)
    policy, reference = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (checkpoint, start))
    return pd.concat(
        answer(
            policy, reference, tokenizer, asked(tokenizer), embedded.gold,
            temperature=temperature, max_tokens=MAX_TOKENS, seed=seed,
        )
        for temperature in TEMPERATURES
    )  # fmt: skip


def asked(tokenizer: Any) -> list[Prompt]:
    """The held-out requests."""
    texts = embedded.prompts(PROMPTS)
    return [Prompt(f"held-out:{i}", text, tokenizer(text)["input_ids"]) for i, text in enumerate(texts, 1)]


def baselines(output: Path) -> None:
    """Gold of each untouched model at ten temperatures, and of the best of n samples by the labeller's proxy."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for number in range(MODELS):
        file = output / "baselines" / f"{number}.csv"
        if file.is_file():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        start, _ = start_of(number, output)
        tokenizer: Any = AutoTokenizer.from_pretrained(start)
        model: Any = AutoModelForCausalLM.from_pretrained(start).eval()
        prompts = asked(tokenizer)
        how: dict[str, Any] = {"max_tokens": MAX_TOKENS, "seed": number, "per_prompt": 2}
        rows = tempered(model, tokenizer, prompts, embedded.gold, **how).assign(kind="tempered")
        samples = answer(
            model, model, tokenizer, prompts, embedded.gold, temperature=1.0, **how | {"per_prompt": 16}
        )
        texts = {prompt.prompt_id: prompt.text for prompt in prompts}
        best = pd.DataFrame([best_of(samples, embedded.proxy, texts, n) for n in (1, 2, 4, 8, 16)])
        pd.concat([rows, best.assign(kind="best of n")]).to_csv(file, index=False)


def settings(stage: str, output: Path) -> Iterator[Setting]:
    """What a stage runs; ``judge`` and ``control`` need every run of ``tune``."""
    if stage == "tune":
        for seed, alpha, quantile, rate in itertools.product(TUNING_SEEDS, ALPHAS, QUANTILES, RATES):
            yield Setting(stage, alpha, quantile, rate, seed)
    elif stage == "shared":
        for seed, alpha in itertools.product(JUDGING_SEEDS, ALPHAS):
            yield Setting(stage, alpha, *SHARED, seed)
    elif stage in ("judge", "control"):
        best = tuned(output)
        for seed, alpha in itertools.product(JUDGING_SEEDS, ALPHAS):
            quantile, rate = best[alpha]
            if stage == "judge":
                yield Setting(stage, alpha, quantile, rate, seed)
            elif alpha:
                yield Setting(stage, alpha, quantile, rate, seed)._replace(beta=matched_beta(alpha))
    else:
        raise SystemExit(f"stage {stage}: choose tune, judge, shared or control")


def matched_beta(alpha: float) -> float:
    """The β at which α = 0 is as steep as this α where the pairs are before training."""
    scores = np.concatenate(first_scores(embedded.checkpoint_path(), embedded.pairs_path()))
    return float(BETA * Alpha(alpha).slope(scores).mean())


# --- what is read off ---------------------------------------------------------------------------------------------


def halves(prompt_ids: pd.Series) -> pd.Series:
    """Whether a request chooses the checkpoint (True) or judges it."""
    return prompt_ids.str.rpartition(":")[2].astype(int) % 2 == 1


def judged(output: Path, stages: Sequence[str]) -> pd.DataFrame:
    """One row per complete run: gold of the chosen checkpoint on the other half, of the last one, and its KL."""
    rows = []
    for file in sorted((output / "runs").glob(f"*/{GOLD_FILE}")):
        setting = json.loads((file.parent / "study.json").read_text(encoding="utf-8"))
        if setting["stage"] not in stages:
            continue
        table = pd.read_csv(file)
        chooses = halves(table["prompt_id"])
        mean = table[chooses & (table["temperature"] == SELECT)].groupby("step")["gold"].mean()
        step = int(mean.idxmax())
        other = table[~chooses].groupby(["step", "temperature"])["gold"].mean()
        kl = table[table["temperature"] == 1.0].groupby("step")["kl"].mean()
        rows.append(
            {
                **setting,
                "run": file.parent.name,
                "chosen_step": step,
                "select": mean.max(),
                **{f"gold T={t:g}": other[step, t] for t in TEMPERATURES},
                **{f"end T={t:g}": other[STEPS, t] for t in TEMPERATURES},
                "kl": kl[step],
                "kl_end": kl[STEPS],
            }
        )
    return pd.DataFrame(rows)


def tuned(output: Path) -> dict[float, tuple[float, float]]:
    """Per α the quantile and rate with the highest gold (T = 0.7, judging half) over the tuning seeds."""
    table = judged(output, ["tune"])
    expected = len(ALPHAS) * len(QUANTILES) * len(RATES) * len(TUNING_SEEDS)
    if len(table) < expected:
        raise SystemExit(f"tune: {len(table)} of {expected} runs are complete; run that stage first")
    mean = table.groupby(["alpha", "quantile", "rate"])["select"].mean()
    return {alpha: mean[alpha].idxmax() for alpha in ALPHAS}


def contrasts(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Every α against 0 of the same seed: mean, 95 % t-interval and two-sided p over the seeds that have both."""
    wide = table.pivot_table(index="seed", columns="alpha", values=column)
    rows = []
    for alpha in wide.columns.drop(0.0):
        difference = (wide[alpha] - wide[0.0]).dropna()
        rows.append({"against 0": f"{alpha:g}", **_t_interval(difference)})
    slopes = wide.dropna().apply(lambda row: np.polyfit(row.index.to_numpy(float), row, 1)[0], axis=1)
    rows.append({"against 0": "slope over α", **_t_interval(slopes)})
    return pd.DataFrame(rows).assign(end_point=column)


def _t_interval(values: pd.Series) -> dict[str, float]:
    n, mean, error = len(values), values.mean(), stats.sem(values)
    half = stats.t.ppf(0.975, n - 1) * error
    p = 2 * stats.t.sf(abs(mean) / error, n - 1)
    return {"n": n, "mean": mean, "low": mean - half, "high": mean + half, "p": p}


def holm(p: pd.Series) -> pd.Series:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 6, 1979)."""
    ordered = p.sort_values()
    adjusted = (ordered * np.arange(len(p), 0, -1)).cummax().clip(upper=1)
    return adjusted.reindex(p.index)


def chosen_along(folder: Path, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """(margin gain or KL, chosen change) of a run from step 0 on, nats per token; KL in nats per response."""
    probe = read_trace(folder).responses.query("split == 'probe'")
    mean = (
        probe.assign(mean=probe["logp_sum"] / probe["num_tokens"])
        .groupby(["step", "response"])["mean"]
        .mean()
        .unstack()
    )
    change = mean - mean.loc[0]
    if axis == "margin":
        return (change["chosen"] - change["rejected"]).to_numpy(), change["chosen"].to_numpy()
    kl = pd.read_csv(folder / GOLD_FILE).query("temperature == 1.0").groupby("step")["kl"].mean()
    return np.array([0.0, *kl]), change["chosen"].loc[[0, *kl.index]].to_numpy()


def along_curve(runs: Path, table: pd.DataFrame, axis: str, points: int = 9) -> pd.DataFrame:
    """Chosen of every run minus that of α = 0 of its seed, at equal margin gain or KL, along their common range.

    A run stands where it first reaches the value; the shorter of the two curves ends the comparison.
    """
    rows = []
    curves = {
        (row.seed, row.alpha): chosen_along(runs / row.run, axis) for row in table.itertuples(index=False)
    }
    for (seed, alpha), (x, y) in curves.items():
        if alpha == 0 or (seed, 0.0) not in curves:
            continue
        x0, y0 = curves[seed, 0.0]
        furthest = min(x.max(), x0.max())
        for share in np.linspace(1 / points, 1, points):
            value = share * furthest
            difference = _first_reached(x, y, value) - _first_reached(x0, y0, value)
            rows.append({"seed": seed, "alpha": alpha, "share": share, axis: value, "difference": difference})
    return pd.DataFrame(rows)


def _first_reached(x: np.ndarray, y: np.ndarray, value: float) -> float:
    rising = np.maximum.accumulate(x)
    return float(np.interp(value, rising, y))


# --- the command line ---------------------------------------------------------------------------------------------


def show_tables(output: Path) -> None:
    """Everything that docs/alpha.md quotes, from complete runs only."""
    pd.set_option("display.width", 200)
    done = judged(output, ["tune", "judge", "shared", "control"])
    failed = len(list((output / "runs").glob("*/failed")))
    print(
        done.groupby("stage").size().to_string() if len(done) else "no run is complete", f"\nfailed: {failed}"
    )
    for stage, rows in done.groupby("stage"):
        print(f"\n== {stage}: means over seeds")
        keys = ["alpha", "quantile", "rate"]
        numbers = [name for name in rows if "T=" in name] + ["kl", "kl_end", "chosen_step"]
        print(rows.groupby(keys)[numbers].mean().round(3).to_string())
        if stage in ("judge", "shared") and rows["seed"].nunique() > 2:
            tests = pd.concat([contrasts(rows, "gold T=0.7"), contrasts(rows, "gold T=0")])
            primary = tests["against 0"].isin(["0.25", "-0.5", "slope over α"])
            tests.loc[primary, "Holm"] = holm(tests.loc[primary, "p"].reset_index(drop=True)).to_numpy()
            print(tests.round(4).to_string(index=False))
            for axis in ("margin", "kl"):
                curve = along_curve(output / "runs", rows, axis)
                print(
                    curve.groupby(["alpha", "share"])["difference"]
                    .agg(["mean", "sem", "count"])
                    .round(4)
                    .to_string()
                )
    for file in sorted((output / "baselines").glob("*.csv")):
        print(f"\n== untouched model {file.stem}\n", pd.read_csv(file).round(3).to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="tune, judge, shared, control")
    parser.add_argument("--output", type=Path, default=Path("runs/alpha"))
    parser.add_argument("--worker", default="1/1", metavar="I/N", help="this process takes every Nth run")
    options = parser.parse_args()
    if options.what == "table":
        show_tables(options.output)
        return
    this, workers = map(int, options.worker.split("/"))
    if this == 1:
        baselines(options.output)
    for stage in options.stages or ["tune", "shared", "judge", "control"]:
        for number, setting in enumerate(settings(stage, options.output)):
            if number % workers == this - 1:
                run_one(setting, options.output)


if __name__ == "__main__":
    main()
