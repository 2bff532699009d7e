"""Published phenomena on a chat model: ``python benchmarks/chat_phenomena.py run CHAT-MODEL [NAME…]``, then ``table``.

Every run is a folder of its own and is skipped once it is done, so a stopped study goes on where it stopped:

* ``no-over-never``: one-word answers to questions, DPO, two couples of four words, the others measured beside;
  ``couples``: the ten other couples;
* ``polite``: polite/impolite answers, α ∈ {0, 0.25, 1, −0.5}, three seeds, with a sample of the untouched model beside
  each pair, whose fall is the divergence KL(π₀‖π);
* ``hh``: the same on HH harmless, α = 0 and 0.25;
* ``control``: ``polite`` at α = 0 and the β and γ at which it is as steep as α = −0.5 where the pairs stand before
  training, with as many of them below their target;
* ``ches``: ``polite`` at α = 0 once more, with CHES and gradient overlaps;
* ``helpful``: the learning-dynamics probe set with its eleven related responses and the greedy tokens, three seeds.

Every prompt stands in the model's own chat template. Weights are float32, activations bfloat16 (``--precision mixed``);
``--precision float32`` takes 1.4 times as long on a CPU. ``--worker I/N`` shares the runs among several processes.

The data stand beside the project in ``../shared`` (or wherever ``--shared`` says). ``docs/phenomena.md`` says what
was seen.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape import read_trace
from rewardshape.analysis import decompose, pairs_table
from rewardshape.analysis.equal import stands_at
from rewardshape.analysis.panels import chosen_and_rejected, probe_panels

WORDS = ("Yes", "No", "Never", "Sure")
COUPLES = {
    "no-over-never": [("No", "Never"), ("Yes", "No")],  # the couple of the claim, and one of opposite answers
}
COUPLES["couples"] = [
    couple for couple in itertools.permutations(WORDS, 2) if couple not in COUPLES["no-over-never"]
]
SEEDS = (0, 1, 2)
POLITE = "llms_from_scratch_polite"
FILES = {"polite": POLITE, "control": POLITE, "ches": POLITE, "hh": "hh_rlhf_harmless_base_test"}
ALPHAS = {"polite": (0.0, 0.25, 1.0, -0.5), "control": (0.0,), "ches": (0.0,), "hh": (0.0, 0.25)}
RATE = 3e-5
SCALE = ("--beta", "2.5", "--gamma-beta-ratio", "0.1")
CONTROL_SCALE = ("--beta", "1.195", "--gamma", "0.315")  # see the test of docs/chat_model.md
NUM_PAIRS = 768  # of each file of real pairs, to which the model writes an answer of its own
OWN = "own"  # the name of that answer
PROMPT_TOKENS, RESPONSE_TOKENS = 128, 48
VALUES_FILE = "values.json"  # the last thing that a run writes
QUESTIONS = "persona_openness"
HELPFUL = "learning_dynamics_helpful_probe"
RELATED = (
    "chosen_initial", "chosen_selfr", "chosen_gptsemantic", "chosen_gptformat", "reject_gptsemantic",
    "reject_gptformat", "irr_train", "irr_test", "irr_hum", "random_permute", "random_nonhum",
)  # fmt: skip
SHORT = (
    "--steps", "60", "--batch-size", "8", "--probe-every", "15", "--checkpoint-every", "60",
    "--max-prompt-tokens", str(PROMPT_TOKENS), "--max-response-tokens", str(RESPONSE_TOKENS),
)  # fmt: skip


class Run(NamedTuple):
    """One run: the phenomenon, the values that name it, its data and flags."""

    phenomenon: str
    values: dict[str, Any]
    data: Path
    flags: tuple[str, ...]

    @property
    def folder(self) -> str:
        return "-".join([self.phenomenon, *(f"{key}={value}" for key, value in self.values.items())])


def runs(phenomenon: str, model: Path, shared: Path, output: Path) -> Iterator[Run]:
    """What a phenomenon needs."""
    data = shared / "data"
    if phenomenon in COUPLES:
        for (chosen, rejected), seed in itertools.product(COUPLES[phenomenon], SEEDS):
            file = _answers(model, data / f"{QUESTIONS}.jsonl", output, chosen, rejected)
            yield Run(
                phenomenon, {"chosen": chosen, "rejected": rejected, "seed": seed}, file,
                ("--objective", "dpo", "--beta", "0.1", "--no-end-token", "--steps", "20", "--batch-size", "16",
                 "--probe-pairs", "32", "--probe-every", "5", "--checkpoint-every", "20", "--learning-rate", "1e-5",
                 "--schedule", "constant", "--warmup-ratio", "0", "--seed", str(seed),
                 "--probe-responses", *(w for w in WORDS if w not in (chosen, rejected))),
            )  # fmt: skip
    elif phenomenon in FILES:
        geometry = ("--geometry-every", "60") if phenomenon == "ches" else ()
        scale = CONTROL_SCALE if phenomenon == "control" else SCALE
        for alpha, seed in itertools.product(ALPHAS[phenomenon], SEEDS):
            yield Run(
                phenomenon, {"alpha": alpha, "seed": seed},
                _with_own(model, data / f"{FILES[phenomenon]}.jsonl", output),
                ("--alpha", f"{alpha:g}", *scale, *SHORT, "--probe-pairs", "64",
                 "--learning-rate", f"{RATE:g}", "--seed", str(seed), "--probe-responses", OWN, *geometry),
            )  # fmt: skip
    elif phenomenon == "helpful":
        for seed in SEEDS:
            yield Run(
                phenomenon, {"seed": seed}, as_chat(data / f"{HELPFUL}.jsonl", output),
                ("--objective", "dpo", "--beta", "0.1", *SHORT, "--probe-pairs", "24", "--learning-rate", "1e-5",
                 "--seed", str(seed), "--probe-responses", *RELATED),
            )  # fmt: skip


def _answers(model: Path, questions: Path, output: Path, chosen: str, rejected: str) -> Path:
    """One-word answers to the questions, all four words of them, in the model's own template."""
    from transformers import AutoTokenizer

    file = output / "answers" / f"{chosen}-over-{rejected}.jsonl"
    if not file.is_file():
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        rows = []
        for line in questions.read_text(encoding="utf-8").splitlines()[:256]:
            asked = [{"role": "user", "content": json.loads(line)["prompt"]}]
            prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
            rows.append(
                {"prompt": prompt, "chosen": chosen, "rejected": rejected, **{word: word for word in WORDS}}
            )
        _write(file, rows)
    return file


def as_chat(source: Path, output: Path) -> Path:
    """The pairs of a file as messages, which the model's own template then frames; blank answers are left out."""
    from text_scores import turns

    file = output / "chat" / source.name
    if not file.is_file():
        rows = []
        for line in source.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            said = {
                name: [{"role": "assistant", "content": text.strip()}]
                for name, text in row.items()
                if name != "prompt"
            }
            if all(answer[0]["content"] for answer in said.values()):
                question = [{"role": "user", "content": row["prompt"]}]
                rows.append({"prompt": turns(row["prompt"]) or question, **said})
        _write(file, rows)
    return file


def _with_own(model: Path, source: Path, output: Path) -> Path:
    """The first pairs of a file, each with a sample of the untouched model at temperature 1.

    A prompt whose sample does not end within the limit is left out: cut, it would be no sample.
    """
    import torch
    from generations import ROWS, load
    from transformers import AutoTokenizer

    from rewardshape.data import encode_pairs, read_preferences
    from rewardshape.probe.measure.sampling import respond

    file = output / "own" / source.name
    if file.is_file():
        return file
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    policy = load(model)
    pairs = read_preferences(as_chat(source, output))[0][:NUM_PAIRS]
    limits = {"max_prompt_tokens": PROMPT_TOKENS, "max_response_tokens": RESPONSE_TOKENS}
    asked = sorted(encode_pairs(pairs, tokenizer, **limits)[0], key=lambda pair: len(pair.prompt_ids))
    written: dict[str, str] = {}
    torch.manual_seed(0)
    for start in range(0, len(asked), ROWS):  # sorted: little padding
        part = asked[start : start + ROWS]
        prompts = [pair.prompt_ids for pair in part]
        answers = respond(
            policy, prompts, temperature=1.0, max_tokens=RESPONSE_TOKENS, end=tokenizer.eos_token_id
        )
        for pair, tokens in zip(part, answers, strict=True):
            if tokens[-1] == tokenizer.eos_token_id:
                written[pair.pair_id] = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    rows = [
        {
            "prompt": pair.prompt,
            **pair.responses,
            OWN: [{"role": "assistant", "content": written[pair.pair_id]}],
        }
        for pair in pairs
        if written.get(pair.pair_id)
    ]
    _write(file, rows)
    return file


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(file.name + ".writing")
    aside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    aside.rename(file)


def run_one(one: Run, model: Path, output: Path, precision: str) -> None:
    """Train with the probe; drop the checkpoints. A run that diverges is done, too, and stays out of the tables."""
    from rewardshape.probe.command import parse
    from rewardshape.probe.run import run
    from rewardshape.probe.stopping import Diverged

    folder = output / one.folder
    if (folder / VALUES_FILE).is_file() or (folder / "failed").is_file():
        return
    begun = (folder / "run.json").is_file()
    new = (str(model), "--data", str(one.data), *one.flags, "--precision", precision)
    try:
        run(parse([*(["--resume"] if begun else new), "--output", str(folder), "--quiet"]))
    except Diverged as error:
        (folder / "failed").write_text(f"{error}\n", encoding="utf-8")
        return
    for checkpoint in folder.glob("checkpoints/*/*.pt"):
        checkpoint.unlink()  # the optimiser's state is twice the model
    values = {"phenomenon": one.phenomenon, **one.values}
    (folder / VALUES_FILE).write_text(json.dumps(values), encoding="utf-8")


def course(folder: Path) -> pd.DataFrame:
    """Of a complete run, a row for every probed step: mean changes since step 0 of all measured responses.

    Nats per token; `fell` is the share of chosen responses below their start; what `decompose` says is in nats per
    response.
    """
    trace = read_trace(folder)
    values = json.loads((folder / VALUES_FILE).read_text(encoding="utf-8"))
    ((chosen, rejected),) = chosen_and_rejected(trace)
    table = pd.DataFrame({**values, "step": chosen.steps})
    for panel in probe_panels(trace):
        table[f"Δ {panel.response}"] = panel.change().mean(axis=1)
    table["fell"] = (chosen.change() < 0).mean(axis=1)
    table["margin gain"] = (chosen.change() - rejected.change()).mean(axis=1)
    for name in ("greedy_logp_sum", "entropy_sum"):
        table[f"Δ {name.removesuffix('_sum')}"] = chosen.change(name).mean(axis=1)
    if OWN in trace.responses["response"].unique():
        parts = decompose(trace, own=OWN).set_index("step")[["chosen", "margin_part", "kl", "excess"]]
        table = table.join(parts.add_prefix("nats a response: "), on="step")
    return table


def complete(output: Path, name: str) -> list[pd.DataFrame]:
    """The courses of the runs of a phenomenon that are done."""
    return [course(file.parent) for file in sorted(output.glob(f"{name}-*/{VALUES_FILE}"))]


SHOWN = ("Δ", "fell", "margin", "nats")  # what the names of a course's measured columns begin with


def show_tables(output: Path, names: list[str]) -> None:
    """What is complete: means over seeds of the last step with 95 % t-intervals; each α against α = 0."""
    beside = ["polite"] if "control" in names else []
    known = {name: pd.concat(found) for name in [*names, *beside] if (found := complete(output, name))}
    for name in names:
        if name not in known:
            print(f"\n== {name}: no run is complete")
            continue
        rows = known[name].groupby([*_keys(known[name]), "seed"]).tail(1)
        print(f"\n== {name}")
        for key, group in rows.groupby(keys) if (keys := _keys(rows)) else [((), rows)]:
            print(f"{key} n={len(group)}: {_means(group, [c for c in rows if c.startswith(SHOWN)])}")
        for words, one, other in _compared(name, known):
            print(f"{words}: {_means(against(one, other))}")


def _keys(rows: pd.DataFrame) -> list[str]:
    return [key for key in ("chosen", "rejected", "alpha") if key in rows]


def _compared(name: str, known: dict[str, pd.DataFrame]) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Which runs of a phenomenon are set against which: every shape against α = 0, the control against both."""
    shapes = dict(iter(known[name].groupby("alpha"))) if "alpha" in known[name] else {}
    if name == "control" and "polite" in known:
        polite = dict(iter(known["polite"].groupby("alpha")))
        yield "control against α = 0", known[name], polite[0.0]
        yield "α = -0.5 against control", polite[-0.5], known[name]
    elif 0.0 in shapes:
        yield from (
            (f"α = {alpha:g} against α = 0", runs, shapes[0.0]) for alpha, runs in shapes.items() if alpha
        )


def against(runs: pd.DataFrame, zero: pd.DataFrame) -> pd.DataFrame:
    """Of each seed that both have: what one ends above the other, and how far chosen is apart at equal margin.

    At equal margin: where both first reach the largest margin gain that both reach, straight between probed steps;
    NaN where one gained none.
    """
    rows = []
    for seed in sorted(set(runs["seed"]) & set(zero["seed"])):
        courses = [table[table["seed"] == seed] for table in (runs, zero)]
        margin = min(course["margin gain"].max() for course in courses)
        stands = [
            stands_at(margin, course["margin gain"].to_numpy(), course["Δ chosen"].to_numpy())
            for course in courses
        ]
        ends = [course.iloc[-1][["Δ chosen", "margin gain", "nats a response: kl"]] for course in courses]
        rows.append(
            {
                **(ends[0] - ends[1]),
                "Δ chosen at equal margin": stands[0] - stands[1] if margin > 0 else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _means(group: pd.DataFrame, columns: list[str] | None = None) -> str:
    """Means with half of their 95 % t-interval over the rows."""
    numbers, n = group[columns or list(group)], len(group)
    half = stats.t.ppf(0.975, n - 1) * numbers.sem() if n > 1 else None
    return "  ".join(
        f"{name} {numbers[name].mean():+.3f}" + ("" if half is None else f" ± {half[name]:.3f}")
        for name in numbers
    )


def pairs(folder: Path, model: Path) -> pd.DataFrame:
    """Every probe pair of a complete run, what became of it, and its CHES before training (forward passes alone)."""
    import torch
    from generations import load
    from transformers import AutoTokenizer

    from rewardshape.data import EncodedPair
    from rewardshape.probe.measure.geometry import ches
    from rewardshape.probe.measure.logprobs import PlainReader, on_device
    from rewardshape.probe.measure.predictions import see

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    policy, reader = load(model), PlainReader()
    rows = []
    for line in (folder / "probe_set.jsonl").read_text(encoding="utf-8").splitlines():
        shown = json.loads(line)
        prompt, *sides = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (shown["prompt"], shown["responses"]["chosen"], shown["responses"]["rejected"])
        )
        pair = EncodedPair(shown["pair_id"], prompt, dict(zip(("chosen", "rejected"), sides, strict=True)))
        with torch.no_grad():
            batch = on_device(reader.collate([pair]), policy.device)
            logps, seen = see(policy, lambda batch: reader.logps(policy, batch), batch)
        plain, normalised = ches(*seen.hidden.split(logps.lengths))
        rows.append({"pair_id": pair.pair_id, "ches": plain, "ches_normalised": normalised})
    values = json.loads((folder / VALUES_FILE).read_text(encoding="utf-8"))
    return pairs_table(read_trace(folder)).merge(pd.DataFrame(rows), on="pair_id").assign(**values)


def keep(output: Path, names: list[str], into: Path, model: Path) -> None:
    """What the pages and their figures are made from.

    The courses of the runs, a table for each phenomenon; of the runs with α = 0 on pairs, every pair.
    """
    into.mkdir(parents=True, exist_ok=True)
    for name in names:
        found = complete(output, name)
        if found:
            pd.concat(found).round(5).to_csv(into / f"{name}.csv", index=False)
        if name in FILES and (done := sorted(output.glob(f"{name}-alpha=0.0-*/{VALUES_FILE}"))):
            each = pd.concat([pairs(file.parent, model) for file in done])
            each[["seed", "pair_id", *OF_PAIRS]].round(5).to_csv(into / f"{name}_pairs.csv", index=False)
            print(
                f"== {name}: rank correlation with the change of chosen, of each seed\n{correlations(each)}"
            )


def correlations(each: pd.DataFrame) -> pd.DataFrame:
    """Spearman's, of what is known of a pair before training with what became of its chosen response."""
    known = [name for name in OF_PAIRS if not name.endswith("_change")]
    return each.groupby("seed").apply(
        lambda rows: rows[known].corrwith(rows["chosen_change"], method="spearman")
    )


OF_PAIRS = [
    "chosen_change", "rejected_change", "chosen_tokens", "rejected_tokens", "similarity", "initial_logp_mean",
    "initial_logp_margin", "ches", "ches_normalised",
]  # fmt: skip
NAMES = ("no-over-never", "polite", "control", "helpful", "hh", "ches", "couples")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["run", "table", "keep"])
    parser.add_argument("model", type=Path, help="the folder that benchmarks/chat_model.py made")
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--output", type=Path, default=Path("runs/chat-phenomena"))
    parser.add_argument("--precision", default="mixed")
    parser.add_argument("--worker", default="1/1", metavar="I/N", help="this process takes every Nth run")
    parser.add_argument("--into", type=Path, default=Path("docs/chat_model"), help="where `keep` writes")
    options = parser.parse_args()
    if options.what == "run":
        this, workers = map(int, options.worker.split("/"))
        for phenomenon in options.names:
            planned = runs(phenomenon, options.model, options.shared, options.output)
            for one in itertools.islice(planned, this - 1, None, workers):
                run_one(one, options.model, options.output, options.precision)
    elif options.what == "table":
        show_tables(options.output, options.names)
    else:
        keep(options.output, options.names, options.into, options.model)


if __name__ == "__main__":
    main()
