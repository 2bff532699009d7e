"""The studies that ``docs/alpha.md`` and ``docs/chat_model.md`` plan: does α help?

    python benchmarks/alpha_study.py run --output runs/alpha        # stops at any time, goes on where it stopped
    python benchmarks/alpha_study.py table --output runs/alpha      # from the runs that are complete
    python benchmarks/alpha_study.py keep shared --output runs/alpha --into docs/alpha_study
    python benchmarks/alpha_study.py run --task chat --model chat-model --output runs/chat

``run`` takes stages (``tune``, ``shared``, ``judge``, ``control``) and ``--worker I/N`` for several processes. A run
is a folder of its own: the trace of the probe, and `generations.csv`, what its checkpoints answer to held-out requests
at temperature 1, 0.7 and 0. It is complete when that file is there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from alpha_tasks import TASKS, Task, first_scores
from generations import TEMPERATURES, answer, best_of, load, tempered
from scipy import stats

from rewardshape import read_trace
from rewardshape.analysis import displacement_summary
from rewardshape.analysis.equal import stands_at
from rewardshape.errors import InputError
from rewardshape.theory import Alpha

ALPHAS = (-1.0, -0.5, 0.0, 0.25, 0.5, 1.0)
BETA = 10.0
QUANTILES = (0.25, 0.5, 0.75)  # of pairs whose margin is below the target before training
SELECT = 0.7  # the temperature at which a checkpoint is chosen
GOLD_FILE = "generations.csv"
SETTING_FILE = "study.json"


class Setting(NamedTuple):
    """One run of a study. In the control, `alpha` is the value it is the control of; α = 0 is trained, at `beta`."""

    stage: str
    alpha: float
    quantile: float
    rate: float
    seed: int
    beta: float = BETA

    @property
    def name(self) -> str:
        return f"{self.stage}-alpha={self.alpha:g}-q={self.quantile:g}-rate={self.rate:g}-seed={self.seed}"

    @property
    def trained_alpha(self) -> float:
        return 0.0 if self.stage == "control" else self.alpha


# --- running ------------------------------------------------------------------------------------------------------


def target(setting: Setting, task: Task) -> float:
    """γ: the quantile of the reward margins, at this α and β, of the first model's pairs before training."""
    chosen, rejected = first_scores(task)
    reward = Alpha(setting.trained_alpha).reward
    return float(np.quantile(setting.beta * (reward(chosen) - reward(rejected)), setting.quantile))


def matched_beta(alpha: float, task: Task) -> float:
    """The β at which α = 0 is as steep as this α where the pairs are before training."""
    return float(BETA * Alpha(alpha).slope(np.concatenate(first_scores(task))).mean())


def run_one(setting: Setting, task: Task) -> None:
    """Train with the probe, answer the held-out requests from every checkpoint, drop the checkpoints."""
    from rewardshape.probe.command import parse
    from rewardshape.probe.run import run

    folder = task.output / "runs" / setting.name
    if (folder / GOLD_FILE).is_file() or (folder / "failed").is_file():
        return
    start = task.model(setting.seed % task.models)
    if (folder / "run.json").is_file():
        flags = ["--resume", "--output", str(folder)]
    else:
        flags = [
            str(start), "--data", str(task.pairs(setting.seed)), "--output", str(folder), *task.flags,
            "--alpha", f"{setting.trained_alpha:g}", "--beta", f"{setting.beta:.6g}",
            "--gamma", f"{target(setting, task):.6g}", "--learning-rate", f"{setting.rate:g}",
            "--steps", str(task.steps), "--seed", str(setting.seed),
            "--probe-every", str(task.tuning_probe_every if setting.stage == "tune" else task.probe_every),
            "--checkpoint-every", str(task.every), "--keep-checkpoints", str(task.steps // task.every),
        ]  # fmt: skip
    try:
        run(parse([*flags, "--quiet"]))
    except InputError as error:  # not finite: the run ends, stays out of the tables, and is counted
        (folder / "failed").write_text(f"{error}\n", encoding="utf-8")
        return
    (folder / SETTING_FILE).write_text(json.dumps(setting._asdict()), encoding="utf-8")
    saved = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoints/checkpoint-*")}
    asked_at = task.tuning_temperatures if setting.stage == "tune" else TEMPERATURES
    tables = [
        answers_of(path, start, task, seed=setting.seed, temperatures=asked_at).assign(step=step)
        for step, path in sorted(saved.items())
    ]
    aside = folder / (GOLD_FILE + ".writing")
    pd.concat(tables).to_csv(aside, index=False)
    aside.rename(folder / GOLD_FILE)
    shutil.rmtree(folder / "checkpoints")


def answers_of(
    checkpoint: Path, start: Path, task: Task, *, seed: int, temperatures: Sequence[float] = TEMPERATURES
) -> pd.DataFrame:
    """What a checkpoint answers to the held-out requests at each temperature; how far it went, at 1."""
    policy, reference, tokenizer = load(checkpoint), load(start), _tokenizer(start)
    how: dict[str, Any] = {"max_tokens": task.max_tokens, "seed": seed}
    asked = task.asked(tokenizer)
    return pd.concat(
        answer(policy, reference if t == 1 else None, tokenizer, asked, task.gold, temperature=t, **how)
        for t in temperatures
    )


def _tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


def baselines(task: Task) -> None:
    """Gold of each untouched model at ten temperatures, and of the best of n samples by the labeller's proxy."""
    for number in range(task.models):
        file = task.output / "baselines" / f"{number}.csv"
        if file.is_file():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        model, tokenizer = load(task.model(number)), _tokenizer(task.model(number))
        asked = task.asked(tokenizer)
        how: dict[str, Any] = {"max_tokens": task.max_tokens, "seed": number}
        rows = tempered(model, tokenizer, asked, task.gold, **how).assign(kind="tempered")
        samples = answer(model, model, tokenizer, asked, task.gold, temperature=1.0, per_prompt=16, **how)
        texts = {prompt.prompt_id: prompt.text for prompt in asked}
        best = pd.DataFrame([best_of(samples, task.proxy, texts, n) for n in (1, 2, 4, 8, 16)])
        pd.concat([rows, best.assign(kind="best of n")]).to_csv(file, index=False)


def untouched(task: Task) -> None:
    """What each untouched model answers to the held-out requests, as the checkpoints do."""
    for number in range(task.models):
        file = _untouched(task, number)
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            answers_of(task.model(number), task.model(number), task, seed=number).to_csv(file, index=False)


def _untouched(task: Task, number: int) -> Path:
    return task.output / "untouched" / f"{number}.csv"


def settings(stage: str, task: Task) -> Iterator[Setting]:
    """What a stage runs; ``judge`` and ``control`` need every run of ``tune``."""
    if stage == "tune":
        for seed, alpha, quantile, rate in itertools.product(
            task.tuning_seeds, ALPHAS, QUANTILES, task.rates
        ):
            yield Setting(stage, alpha, quantile, rate, seed)
    elif stage == "shared":
        for seed, alpha in itertools.product(task.judging_seeds, ALPHAS):
            yield Setting(stage, alpha, *task.shared, seed)
    elif stage == "judge":
        for seed, (alpha, best) in itertools.product(task.judging_seeds, tuned(task).items()):
            yield Setting(stage, alpha, *best, seed)
    elif stage == "control":
        for seed, (alpha, best) in itertools.product(task.judging_seeds, tuned(task).items()):
            if alpha:
                yield Setting(stage, alpha, *best, seed, beta=matched_beta(alpha, task))
    else:
        raise SystemExit(f"stage {stage}: choose tune, shared, judge or control")


# --- what is read off ---------------------------------------------------------------------------------------------


def halves(prompt_ids: pd.Series) -> pd.Series:
    """Whether a request chooses the checkpoint (True) or judges it."""
    return prompt_ids.str.rpartition(":")[2].astype(int) % 2 == 1


def judged(task: Task, stages: Sequence[str]) -> pd.DataFrame:
    """One row per complete run: gold of the chosen checkpoint on the other half, of the last one, and its KL."""
    rows = []
    for file in sorted((task.output / "runs").glob(f"*/{GOLD_FILE}")):
        setting = json.loads((file.parent / SETTING_FILE).read_text(encoding="utf-8"))
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
                **{f"gold T={t:g}": other.get((step, t)) for t in TEMPERATURES},
                **{f"end T={t:g}": other.get((task.steps, t)) for t in TEMPERATURES},
                "kl": kl.get(step),
                "kl_end": kl.get(task.steps),
            }
        )
    return pd.DataFrame(rows)


def tuned(task: Task) -> dict[float, tuple[float, float]]:
    """Per α the quantile and rate with the highest gold (T = 0.7, choosing half) over the tuning seeds."""
    table = judged(task, ["tune"])
    expected = len(ALPHAS) * len(QUANTILES) * len(task.rates) * len(task.tuning_seeds)
    if len(table) < expected:
        raise SystemExit(f"tune: {len(table)} of {expected} runs are complete; run that stage first")
    mean = table.groupby(["alpha", "quantile", "rate"])["select"].mean()
    return {alpha: mean[alpha].idxmax() for alpha in ALPHAS}


def differences(table: pd.DataFrame, column: str, control: pd.DataFrame | None = None) -> pd.DataFrame:
    """Of every seed (rows) and α (columns) the end point minus that of α = 0, or of the α's control."""
    wide = table.pivot_table(index="seed", columns="alpha", values=column)
    shaped = wide.drop(columns=0.0)
    if control is not None:
        return shaped - control.pivot_table(index="seed", columns="alpha", values=column)
    return shaped.sub(wide[0.0], axis=0)


def contrasts(table: pd.DataFrame, column: str, control: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every α against 0 (or against its control) of the same seed, and the slope over α.

    Mean, 95 % t-interval and two-sided p over the seeds that have both.
    """
    apart = differences(table, column, control)
    rows = [{"alpha": f"{alpha:g}", **_t_interval(apart[alpha].dropna())} for alpha in apart]
    if control is None:
        wide = table.pivot_table(index="seed", columns="alpha", values=column).dropna()
        slopes = wide.apply(lambda row: np.polyfit(row.index.to_numpy(float), row, 1)[0], axis=1)
        rows.append({"alpha": "slope", **_t_interval(slopes)})
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


def along_curve(
    runs: Path, table: pd.DataFrame, axis: str, control: pd.DataFrame | None = None, points: int = 9
) -> pd.DataFrame:
    """Chosen of every run minus that of α = 0 (or of its control) of its seed, along the range that both reach.

    At equal margin gain or KL. A run stands where it first reaches the value; the shorter of the two curves ends
    the comparison. Of two runs of which one gained none there is no row.
    """

    def curves(of: pd.DataFrame) -> dict[tuple[int, float], tuple[np.ndarray, np.ndarray]]:
        return {
            (row.seed, row.alpha): chosen_along(runs / row.run, axis) for row in of.itertuples(index=False)
        }

    rows, shaped = [], curves(table)
    others = shaped if control is None else curves(control)
    for (seed, alpha), (x, y) in shaped.items():
        other = (seed, 0.0 if control is None else alpha)
        if alpha == 0 or other not in others:
            continue
        x0, y0 = others[other]
        furthest = min(x.max(), x0.max())
        if furthest <= 0:
            continue
        for share in np.linspace(1 / points, 1, points):
            value = share * furthest
            difference = stands_at(value, x, y) - stands_at(value, x0, y0)
            rows.append({"seed": seed, "alpha": alpha, "share": share, axis: value, "difference": difference})
    return pd.DataFrame(rows)


# --- the command line ---------------------------------------------------------------------------------------------


def show_tables(task: Task) -> None:
    """Everything that docs/alpha.md quotes, from complete runs only."""
    pd.set_option("display.width", 200)
    done = judged(task, ["tune", "judge", "shared", "control"])
    failed = len(list((task.output / "runs").glob("*/failed")))
    print(
        done.groupby("stage").size().to_string() if len(done) else "no run is complete", f"\nfailed: {failed}"
    )
    for stage, rows in done.groupby("stage") if len(done) else ():
        print(f"\n== {stage}: means over seeds")
        keys = ["alpha", "quantile", "rate"]
        numbers = [name for name in rows if "T=" in name] + ["kl", "kl_end", "chosen_step"]
        print(rows.groupby(keys)[numbers].mean().round(3).to_string())
        if stage in ("judge", "shared") and rows["seed"].nunique() > 2:
            tests = pd.concat([contrasts(rows, "gold T=0.7"), contrasts(rows, "gold T=0")])
            primary = tests["alpha"].isin(["0.25", "-0.5", "slope"])
            tests.loc[primary, "Holm"] = holm(tests.loc[primary, "p"].reset_index(drop=True)).to_numpy()
            print(tests.round(4).to_string(index=False))
            _show_curves(task, rows)
        if stage == "control" and rows["seed"].nunique() > 2:
            tuned_runs = done[done["stage"] == "judge"]
            tests = [contrasts(tuned_runs, column, rows) for column in ("gold T=0.7", "gold T=0")]
            print("\n== judge minus control\n", pd.concat(tests).round(4).to_string(index=False))
            _show_curves(task, tuned_runs, rows)
    for file in sorted((task.output / "baselines").glob("*.csv")):
        print(f"\n== untouched model {file.stem}\n", pd.read_csv(file).round(3).to_string(index=False))


def axes_of(task: Task) -> tuple[str, ...]:
    """Along what runs are compared; KL is a curve only where it was sampled more than once."""
    return ("margin", "kl") if task.steps > task.every else ("margin",)


def _show_curves(task: Task, rows: pd.DataFrame, control: pd.DataFrame | None = None) -> None:
    for axis in axes_of(task):
        curve = along_curve(task.output / "runs", rows, axis, control)
        told = curve.groupby(["alpha", "share"])["difference"].agg(["mean", "sem", "count"])
        print(f"along the {axis}\n{told.round(4).to_string()}")


def keep(task: Task, stages: Sequence[str], into: Path) -> None:
    """What the page and its figure are made from.

    A row for every run, the curves against α = 0, and gold of every answer of the untouched models.
    """
    into.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        rows = judged(task, [stage]).sort_values(["seed", "alpha"])
        ends = pd.concat([ended(task.output / "runs" / run) for run in rows["run"]])
        rows = rows.merge(ends, on="run")
        kept = rows.drop(columns=["stage", "run"])
        kept.round({name: 5 for name in kept if name != "rate"}).to_csv(into / f"{stage}.csv", index=False)
        shaped, control = (judged(task, ["judge"]), rows) if stage == "control" else (rows, None)
        for axis in axes_of(task) if stage != "tune" else ():
            curve = along_curve(task.output / "runs", shaped, axis, control)
            curve.round(6).to_csv(into / f"{stage}_along_{axis}.csv", index=False)
    files = {number: _untouched(task, number) for number in range(task.models)}
    answers = [pd.read_csv(file).assign(model=number) for number, file in files.items() if file.is_file()]
    if answers:
        columns = ["model", "prompt_id", "temperature", "gold"]
        pd.concat(answers)[columns].to_csv(into / "untouched.csv", index=False)


def ended(folder: Path) -> pd.DataFrame:
    """Where a run's probe pairs stand at its end: changes in nats per token, shares of pairs."""
    columns = ["chosen_change", "rejected_change", "share_fallen", "at_target", "accuracy"]
    return displacement_summary(read_trace(folder))[columns].assign(run=folder.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["run", "table", "keep"])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="tune, judge, shared, control")
    parser.add_argument("--output", type=Path, default=Path("runs/alpha"))
    parser.add_argument("--worker", default="1/1", metavar="I/N", help="this process takes every Nth run")
    parser.add_argument("--task", choices=sorted(TASKS), default="embedded")
    parser.add_argument("--model", type=Path, help="the chat model's folder")
    parser.add_argument("--bias", type=float, help="of the labels; another bias needs another --output")
    parser.add_argument(
        "--into", type=Path, default=Path("docs/alpha_study"), help="where `keep` writes its tables"
    )
    options = parser.parse_args()
    task = TASKS[options.task](options.output, options.model, options.bias)
    if options.what == "table":
        show_tables(task)
        return
    if options.what == "keep":
        keep(task, options.stages, options.into)
        return
    this, workers = map(int, options.worker.split("/"))
    if this == 1:
        baselines(task)
        untouched(task)
    for stage in options.stages or ["tune", "shared", "judge", "control"]:
        for number, setting in enumerate(settings(stage, task)):
            if number % workers == this - 1:
                run_one(setting, task)


if __name__ == "__main__":
    main()
