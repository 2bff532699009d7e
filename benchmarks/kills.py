"""Is anything lost? Real processes killed at random moments and resumed; starts beside a live run.

    python benchmarks/kills.py kills --number 200 --output runs/kills     # stop at any time, the same line goes on
    python benchmarks/kills.py starts --number 50 --output runs/kills
    python benchmarks/kills.py table --output runs/kills

A kill is SIGKILL at a moment drawn evenly from the processor time that an unbroken run takes. After each the record
must be the beginning of the unbroken run's, and once the run is done all of it, to the last byte. Processes are forked
from one that has imported torch already, so that the moments fall into the work and not into the imports.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from rewardshape import objective
from rewardshape.data import embedded, encode_pairs, read_preferences
from rewardshape.errors import InputError
from rewardshape.integrations.callback import ProbeCallback
from rewardshape.measure import measure
from rewardshape.measure import parse as parse_measure
from rewardshape.probe.command import parse
from rewardshape.probe.run import run
from rewardshape.probe.settings import Settings

PAIRS = 40  # of the embedded ones: a reference is measured on every pair
SMALL = [
    *("--batch-size", "4", "--probe-pairs", "4", "--learning-rate", "1e-3", "--steps", "12"),
    *("--checkpoint-every", "2", "--keep-checkpoints", "2", "--quiet"),
]


@dataclass(frozen=True)
class Kind:
    """A command that is killed: what starts it in a folder, what goes on with it, and from what file there on."""

    start: Callable[[Path], object]
    resume: Callable[[Path], object]
    begun: str


def _probe(*flags: str) -> Kind:
    def start(folder: Path) -> object:
        pairs = folder.parent / "pairs.jsonl"
        checkpoint = str(embedded.checkpoint_path())
        return run(parse([checkpoint, "--data", str(pairs), "--output", str(folder), *SMALL, *flags]))

    return Kind(
        start, lambda folder: run(parse(["--resume", "--output", str(folder), "--quiet"])), "command.json"
    )


def _measure() -> Kind:
    def measured(folder: Path, *flags: str) -> object:
        row = sorted((folder.parent / "row").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
        words = [
            str(embedded.checkpoint_path()),
            *map(str, row),
            "--data",
            str(folder.parent / "pairs.jsonl"),
        ]
        return measure(
            parse_measure([*words, "--probe-pairs", "8", "--quiet", "--output", str(folder), *flags])
        )

    return Kind(measured, lambda folder: measured(folder, "--resume"), "run.json")


def _callback() -> Kind:
    """Somebody else's loop: transformers' trainer, whose own checkpoints are taken where they are whole."""

    def train(folder: Path) -> object:
        tokenizer = AutoTokenizer.from_pretrained(embedded.checkpoint_path())
        pairs, _ = read_preferences(folder.parent / "pairs.jsonl")
        encoded, _ = encode_pairs(pairs, tokenizer, max_prompt_tokens=128, max_response_tokens=128)
        texts = [pair.prompt_ids + pair.responses["chosen"] for pair in encoded]
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(embedded.checkpoint_path()),
            args=TrainingArguments(
                output_dir=str(folder),
                max_steps=12,
                per_device_train_batch_size=1,
                learning_rate=1e-3,
                logging_steps=1,
                save_steps=2,
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=[{"input_ids": ids, "labels": ids} for ids in texts],
            processing_class=tokenizer,
            callbacks=[ProbeCallback(encoded[:6], objective("simpo", beta=2.0, gamma=1.0), quiet=True)],
        )
        whole = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
        # From a checkpoint of the last step transformers would train one step more.
        unfinished = [path for path in whole if int(path.name[11:]) < 12]
        newest = max(unfinished, key=lambda path: int(path.name[11:]), default=None)
        return trainer.train(resume_from_checkpoint=str(newest) if newest else None)

    return Kind(train, train, "checkpoint-*/trainer_state.json")


KINDS = {
    "probe, DPO with its reference": _probe("--objective", "dpo", "--beta", "0.1"),
    "probe, samples and geometry": _probe("--sample-every", "6", "--samples", "6", "--geometry-every", "8"),
    "sweep of two α": _probe("--alpha", "0", "0.25"),
    "measure, six checkpoints": _measure(),
    "callback in transformers' trainer": _callback(),
}


def forked(work: Callable[[Path], object], folder: Path) -> int:
    """Process id of a child that does the work and says nothing; its status is 2 where it was refused."""
    child = os.fork()
    if child:
        return child
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    status = 70
    with contextlib.suppress(BaseException):
        try:
            work(folder)
            status = 0
        except InputError:
            status = 2
    os._exit(status)


def ended(child: int, *, seconds: float = 600, busy: float = math.inf) -> int | None:
    """Exit status of a child that ends within so many seconds, and so many of the processor; None where it does not."""
    process, until = psutil.Process(child), time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        spent = process.cpu_times()
        if spent.user + spent.system >= busy:
            return None
        time.sleep(0.002)
    return None


def records(folder: Path) -> dict[str, bytes]:
    """Every record below a folder, by its place in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("trace.jsonl")}


def kept(found: bytes, whole: bytes) -> bool:
    """Whether a record is the beginning of another, a torn last line aside."""
    return whole.startswith(found[: found.rfind(b"\n") + 1])


def prepared(output: Path, row: bool = True) -> None:
    """The pairs, and the row of checkpoints that is measured."""
    output.mkdir(parents=True, exist_ok=True)
    lines = embedded.pairs_path().read_text(encoding="utf-8").splitlines(keepends=True)
    (output / "pairs.jsonl").write_text("".join(lines[:PAIRS]), encoding="utf-8")
    if row and not (output / "row").is_dir():
        made = KINDS["probe, DPO with its reference"]
        folder, _ = unbroken(output, 0, made)
        shutil.rmtree(output / "row-run", ignore_errors=True)
        started = json.loads((folder / "command.json").read_text())["settings"]
        settings = Settings.from_dict(started).replace(output=str(output / "row-run"), keep_checkpoints=6)
        if os.waitpid(forked(lambda _: run(settings), folder), 0)[1]:
            raise SystemExit(f"{output}: the row of checkpoints could not be made")
        os.replace(output / "row-run" / "checkpoints", output / "row")


def unbroken(output: Path, number: int, kind: Kind) -> tuple[Path, float]:
    """The folder of a run that nobody stops, and its seconds of the processor."""
    folder, timed = output / f"unbroken-{number}", output / f"unbroken-{number}.seconds"
    if not timed.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        _, status, used = os.wait4(forked(kind.start, folder), 0)
        if status:
            raise SystemExit(f"{folder}: the unbroken run failed")
        timed.write_text(str(used.ru_utime + used.ru_stime))
    return folder, float(timed.read_text())


def logged(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def kills(output: Path, wanted: int) -> None:
    """Kill until there are so many kills, each kind in turn."""
    prepared(output)
    log = output / "kills.jsonl"
    while sum("moment" in row for row in logged(log)) < wanted:
        killed = Counter(row["kind"] for row in logged(log) if "moment" in row)
        number, (name, kind) = min(enumerate(KINDS.items()), key=lambda item: killed[item[1][0]])
        rows = campaign(output / "broken", *unbroken(output, number, kind), kind)
        with open(log, "a", encoding="utf-8") as file:
            file.writelines(json.dumps({"kind": name, **row}) + "\n" for row in rows)
        print(
            f"{name}: {len(rows) - 1} kills; {', '.join(sorted({row['outcome'] for row in rows}))}",
            flush=True,
        )


def campaign(broken: Path, whole: Path, busy: float, kind: Kind) -> list[dict[str, Any]]:
    """One run, killed and resumed until it is done; a row for each kill, and one for the end."""
    shutil.rmtree(broken, ignore_errors=True)
    expected = records(whole)
    rows: list[dict[str, Any]] = []
    begun = False
    while True:
        child = forked(kind.resume if begun else kind.start, broken)
        moment = random.uniform(0, busy)
        status = ended(child, busy=moment if len(rows) < 40 else math.inf)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            found = records(broken)
            good = all(kept(content, expected[name]) for name, content in found.items())
            lines = sum(content.count(b"\n") for content in found.values())
            rows.append({"moment": round(moment, 3), "lines": lines, "outcome": "kept" if good else "LOST"})
            begun = any(broken.glob(kind.begun))
            if not begun:
                shutil.rmtree(broken, ignore_errors=True)
            continue
        same = status == 0 and records(broken) == expected
        rows.append({"outcome": "whole at the end" if same else f"LOST at the end, status {status}"})
        if not same:
            shutil.move(broken, broken.with_name(f"lost-{int(time.time())}"))
        return rows


def starts(output: Path, wanted: int) -> None:
    """Second processes in the folder of a live run, resumed or started anew, one after the other."""
    prepared(output, row=False)
    kind = next(iter(KINDS.values()))
    whole, _ = unbroken(output, 0, kind)
    said: Counter[str] = Counter()
    live = output / "live"
    while sum(said.values()) - said["runs that were whole"] < wanted:
        shutil.rmtree(live, ignore_errors=True)
        first = forked(kind.start, live)
        while not any(live.glob(kind.begun)):
            time.sleep(0.01)
        status = None
        while status is None:
            second = ended(forked(random.choice([kind.resume, kind.start]), live))
            status = ended(first, seconds=0.01)
            if status is None:  # so the first was there all the time
                said["refused" if second == 2 else f"NOT REFUSED, status {second}"] += 1
        same = status == 0 and records(live) == records(whole)
        said["runs that were whole" if same else "LOST"] += 1
        print(dict(said), flush=True)
    (output / "starts.json").write_text(json.dumps(said) + "\n")


def table(output: Path) -> None:
    """What is done, by kind."""
    rows = logged(output / "kills.jsonl")
    print("| command | kills | runs resumed to their end | lost |\n|---|---|---|---|")
    for name in dict.fromkeys(row["kind"] for row in rows):
        mine = [row for row in rows if row["kind"] == name]
        killed = sum("moment" in row for row in mine)
        lost = sum("LOST" in row["outcome"] for row in mine)
        print(f"| {name} | {killed} | {len(mine) - killed} | {lost} |")
    print(
        f"\n{sum('moment' in row for row in rows)} kills, {sum('LOST' in row['outcome'] for row in rows)} lost"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["kills", "starts", "table"])
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("runs/kills"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()  # what is imported need not be looked through in every child
    if arguments.what == "table":
        table(arguments.output)
    else:
        {"kills": kills, "starts": starts}[arguments.what](arguments.output, arguments.number)
    return 0


if __name__ == "__main__":
    sys.exit(main())
