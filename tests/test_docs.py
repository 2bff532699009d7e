"""What README and docs show works: every code block is executed, every link leads somewhere, the site builds.

The blocks of one file run in order, in one folder that holds what a reader would have by then: `my-model`,
`pairs.jsonl`, logs of another trainer, a finished run and a finished sweep. Shell lines run in this process, shortened
by flags of our own. A block that cannot run says why in a comment above it, ``<!-- not run: why -->``.
"""

from __future__ import annotations

import doctest
import glob
import importlib
import io
import json
import pkgutil
import re
import shlex
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import rewardshape
from rewardshape import __main__ as console
from rewardshape.data import embedded, read_preferences
from tests import drawing

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "figures" / "README.md"]
PAGES = [page for page in PAGES if page.is_file()]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

# What a shell line may begin with and is not run:
NOT_OURS = {".", "cd", "conda", "docker", "git", "jupyter", "pip", "sbatch", "tensorboard"}
PREPARED = "prepared-by-the-test"  # in run folders that a page may read before it makes its own
LAUNCHERS = {"torchrun", "accelerate"}
FEW = 4  # blocks that may be marked as not run
SHORT = [
    "--steps", "2", "--probe-pairs", "8", "--batch-size", "4", "--samples", "8", "--best-of", "2", "--quiet",
]  # fmt: skip
PAIRS = 240  # of the reader's: what a line does to every pair of its file takes long with thousands
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>.+?) -->\n+)?(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
SHELL = {"bash", "sh", "shell", "console"}
PLAIN = {"", "text", "bibtex", "yaml", "toml", "diff", "json", "jsonl", "csv"}  # shown, not executed


@dataclass(frozen=True)
class Block:
    """One fenced block: where it stands, its language, its text, and why it is not run (if it is not)."""

    place: str
    language: str
    code: str
    why: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code"))
        place = f"{page.relative_to(ROOT).as_posix()}:{line + 1}"
        found.append(Block(place, match["language"], match["code"], match["why"]))
    return found


NOT_RUN = [block for page in PAGES for block in blocks(page) if block.why]


# --- the folder a reader would have -------------------------------------------------------------------------------

SWEEP = [
    "--alpha", "-0.5", "0", "0.25", "1", "--steps", "4", "--probe-pairs", "8", "--batch-size", "4",
    "--samples", "8", "--best-of", "2", "--geometry-every", "4", "--sample-every", "1", "--quiet",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _undrawn():
    with drawing.undrawn():
        yield


@pytest.fixture(scope="module")
def prepared(made_once) -> Path:
    return made_once("reader", prepare)


def prepare(folder: Path) -> None:
    """What a reader has by then."""
    shutil.copytree(embedded.checkpoint_path(), folder / "my-model")
    lines = embedded.pairs_path().read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "pairs.jsonl").write_text("".join(lines[:PAIRS]), encoding="utf-8")
    pairs = pd.read_json(folder / "pairs.jsonl", lines=True)
    pairs.to_parquet(folder / "pairs.parquet")
    pairs[::-1].to_parquet(folder / "more.parquet")
    write_logs(folder)
    large = folder / "my-7b"  # stands for a large model, and so does the adapter that a run left of it
    shutil.copytree(embedded.checkpoint_path(), large)
    shutil.copytree(embedded.checkpoint_path(), folder / "my-70b")
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(large), LoraConfig(target_modules="all-linear")
    )
    adapted.save_pretrained(folder / "runs" / "my-7b" / "checkpoints" / "checkpoint-150")
    _probe([*SWEEP, "--output", str(folder / "runs" / "embedded")])
    _probe(
        [
            str(folder / "my-model"),
            "--data",
            str(folder / "pairs.jsonl"),
            *SHORT,
            "--output",
            str(folder / "runs" / "my-model"),
        ]
    )
    for run in (folder / "runs").iterdir():
        (run / PREPARED).touch()


def write_logs(folder: Path) -> None:
    """A DPO run with β = 0.1 in three forms that other trainers write: chosen falls 1.5 nats, rejected 6."""
    rows = [
        {
            "step": 10 * i,
            "loss": 0.69 - 0.02 * i,
            "rewards/chosen": -0.0125 * i,
            "rewards/rejected": -0.05 * i,
            "rewards/margins": 0.0375 * i,
            "rewards/accuracies": 0.5 + 0.03 * i,
            "logps/chosen": -50.0 - 0.125 * i,
            "logps/rejected": -60.0 - 0.5 * i,
        }
        for i in range(13)
    ]
    evaluations = [
        {key if key == "step" else f"eval_{key}": value for key, value in row.items()} for row in rows
    ]
    state = {"log_history": [*rows, *evaluations], "global_step": 120, "max_steps": 120}
    (folder / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "train.log").write_text(
        "".join(f"{ {k: round(v, 6) for k, v in row.items()} }\n" for row in rows), encoding="utf-8"
    )
    head = ["Step", "Validation Loss", "Rewards/chosen", "Rewards/rejected", "Logps/chosen", "Logps/rejected"]
    keys = ["step", "loss", "rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"]
    table = [head, ["---"] * len(head), *([f"{row[key]:g}" for key in keys] for row in rows)]
    card = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    (folder / "README.md").write_text(f"# A model\n\n## Training results\n\n{card}\n", encoding="utf-8")
    named = {"iteration": "step", "lp_good": "logps/chosen", "lp_good_held_out": "logps/chosen"}
    pd.DataFrame({name: [row[key] for row in rows] for name, key in named.items()}).to_csv(
        folder / "mine.csv", index=False
    )


@pytest.fixture
def reader(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder, and in it."""
    folder = tmp_path / "reader"
    shutil.copytree(prepared, folder)
    if (ROOT / "figures").is_dir():
        shutil.copytree(ROOT / "figures", folder / "figures")
    for run in (folder / "figures").glob("runs/*"):
        (run / PREPARED).touch()
    monkeypatch.chdir(folder)
    return folder


# --- running what a block says ------------------------------------------------------------------------------------


def run_python(block: Block, namespace: dict[str, Any]) -> None:
    if ">>>" in block.code:
        test = doctest.DocTestParser().get_doctest(block.code, namespace, block.place, block.place, 0)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        output = io.StringIO()
        runner.run(test, out=output.write, clear_globs=False)
        assert not runner.failures, output.getvalue()
        namespace |= test.globs
        return
    with redirect_stdout(io.StringIO()):
        exec(compile(block.code, block.place, "exec"), namespace)


def shell_lines(code: str) -> list[list[str]]:
    """The words of each command: continued lines joined, comments and prompts dropped."""
    joined = code.replace("\\\n", " ").splitlines()
    lines = [shlex.split(line.strip().removeprefix("$ "), comments=True) for line in joined]
    return [words for words in lines if words]


def run_shell(words: list[str], reader: Path) -> None:
    while "=" in words[0]:  # VARIABLE=value command
        words = words[1:]
    if words[0] in NOT_OURS or words[:3] == ["python", "-m", "pip"]:
        return
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word and word not in targets] == []
        return
    if words[0] in LAUNCHERS:  # here one process does
        words = ["python", *words[words.index("-m") :]]
    words = [found for word in words for found in (sorted(glob.glob(word)) if "*" in word else [word])]
    if words[0] == "rewardshape":
        command, arguments = words[1], words[2:]
    else:
        assert words[:2] == ["python", "-m"], f"no way to run: {shlex.join(words)}"
        assert words[2].startswith("rewardshape."), f"no way to run: {shlex.join(words)}"
        command, arguments = words[2].removeprefix("rewardshape."), words[3:]
    if command == "probe":
        _probe(shortened(arguments, reader))
        return
    if command == "figures":  # into a folder of the reader's own, never the project's
        arguments = [*arguments, "--output", str(reader / "drawn")]
        arguments = arguments if arguments[0] != "--output" else ["reward_shapes", *arguments]
    with redirect_stdout(io.StringIO()):
        assert console.main([command, *arguments]) == 0, shlex.join(words)


def shortened(arguments: list[str], reader: Path) -> list[str]:
    """The same command, small; it finds its output folder free as in the reader's first run."""
    if {"--help", "--resume", "--dry-run"} & set(arguments):
        return [*arguments, "--quiet"]
    more = ["--seeds", "1"] if "--what-if" in arguments else []
    more += ["--sample-every", "2"] if "--sample-every" in arguments else []
    named = arguments[arguments.index("--output") + 1] if "--output" in arguments else None
    checkpoint = arguments[0] if arguments and not arguments[0].startswith("-") else None
    folder = reader / (named or Path("runs", Path(checkpoint).name if checkpoint else "embedded"))
    if (folder / PREPARED).exists():
        shutil.rmtree(folder)
    return [*arguments, *SHORT, *more]


def _probe(arguments: list[str]) -> None:
    from rewardshape.probe.__main__ import main

    with redirect_stdout(io.StringIO()):
        try:
            status = main(arguments)
        except SystemExit as ended:  # --help
            status = ended.code
    assert status == 0, shlex.join(arguments)


# --- the tests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_of_the_page_runs(page: Path, reader: Path):
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.why:
            continue
        try:
            if block.language in ("python", "py", "pycon"):
                run_python(block, namespace)
            elif block.language in SHELL or block.code.startswith("python -m "):
                for words in shell_lines(block.code):
                    run_shell(words, reader)
            else:
                assert block.language in PLAIN, f"a language no test knows: {block.language}"
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{block.place}: {error}") from error


def test_few_blocks_are_not_run():
    """Counted by page and reason: the gallery shows the code of every figure, which the tests of figures draw."""
    assert len({(block.place.partition(":")[0], block.why) for block in NOT_RUN}) <= FEW


def test_every_json_row_shown_as_preference_data_is_read_as_a_pair(tmp_path: Path):
    shown = [block for block in blocks(ROOT / "docs" / "data.md") if block.language == "json"]
    assert shown
    for number, block in enumerate(shown):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(block.code, encoding="utf-8")
        pairs, report = read_preferences([file])
        assert len(pairs) == len(block.code.splitlines()), (block.place, report.summary())


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_to_a_file_leads_to_one(page: Path):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) + re.findall(r'(?:src|href)="([^"#]+)', text)
    missing = [link for link in links if ":" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_every_flag_in_the_docs_exists():
    known = set(re.findall(r"--[a-z][a-z-]+", "".join(_help(command) for command in console.COMMANDS)))
    known |= {"--version", "--help"}
    shown = {
        (flag, block.place)
        for page in PAGES
        for block in blocks(page)
        if block.language in SHELL or block.code.startswith("python -m ")
        for words in shell_lines(block.code)
        for flag in ours(words)
        if flag.startswith("--")
    }
    assert {(flag, place) for flag, place in shown if flag.partition("=")[0] not in known} == set()


def ours(words: list[str]) -> list[str]:
    """What follows the name of the package: not the flags of a launcher before it."""
    return words[next((i for i, word in enumerate(words) if word.startswith("rewardshape")), len(words)) :]


def _help(command: str) -> str:
    output = io.StringIO()
    with redirect_stdout(output), pytest.raises(SystemExit):
        console.main([command, "--help"])
    return output.getvalue()


def _modules() -> list[str]:
    walked = pkgutil.walk_packages(rewardshape.__path__, "rewardshape.")
    return [found.name for found in walked if not found.name.endswith("__main__")]


@pytest.mark.parametrize("name", _modules())
def test_examples_in_docstrings_are_right(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    if name.startswith("rewardshape.integrations"):
        pytest.importorskip("trl")
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_the_guide_to_phenomena_quotes_the_numbers_that_its_pictures_are_drawn_from():
    text = " ".join((ROOT / "docs" / "phenomena.md").read_text(encoding="utf-8").split())
    found = pd.read_csv(ROOT / "docs" / "phenomena" / "ches.csv")
    found = found[found["change"] == "chosen_change"].set_index(["set", "descriptor"])
    for pairs, descriptor in (
        ("polite/impolite", "ches"), ("polite/impolite", "edit_distance"), ("polite/impolite", "chosen_tokens"),
        ("polite/impolite", "ches_normalised"), ("polite/impolite", "initial_logp_mean"),
        ("HH harmless", "ches"), ("HH harmless", "initial_logp_mean"),
    ):  # fmt: skip
        rho, low, high = (found.loc[(pairs, descriptor), name] for name in ("rho", "rho_low", "rho_high"))
        assert f"{rho:.2f} [{low:.2f}, {high:.2f}]".replace("-", "−") in text, (pairs, descriptor)
    moved = pd.read_csv(ROOT / "docs" / "phenomena" / "entanglement.csv")
    right = (moved["should_fall"] == moved["fell"]).groupby(moved["set"]).agg(["sum", "size"])
    for _, (count, of) in right.iterrows():
        assert f"{count} of {of}" in text
