"""The command line: words to settings and back, and the help. Made from `rewardshape.probe.settings`, line by line.

On argparse, and not on HfArgumentParser, jsonargparse or tyro: here a setting of one value or of several is one field
(`--alpha 0 0.25` is a sweep), the manifest leads back to the very command, a mistake is one line with the nearest flag,
and `--help` needs neither torch nor transformers. HfArgumentParser comes with transformers and takes no list in the
place of a number; jsonargparse and tyro would want every setting declared as a union of a number and a list, and have
errors of several lines. What would be left for a library is what argparse does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import textwrap
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rewardshape.errors import InputError, needing
from rewardshape.numbers import typed
from rewardshape.probe.settings import CHANGEABLE, GROUPS, SETTINGS, Setting, Settings, flag, named
from rewardshape.theory import objective_names, preset_names
from rewardshape.trace.folder import RunFolder

PROGRAM = "python -m rewardshape.probe"
OF_THE_OUTPUT = {
    "output",
    "jobs",
    "resume",
    "repair",
    "quiet",
    "json",
    "dry_run",
}  # of how a run is started, not of the run


def parse(argv: Sequence[str] | None = None, prog: str = PROGRAM) -> Settings:
    """Settings from a command line; with ``--resume`` the recorded ones, changed only where that is harmless.

    Raises
    ------
    InputError
        An unknown flag (the nearest one is named), a value that it cannot have, a run that cannot be resumed.
    """
    parser = Parser(
        prog=prog,
        usage="%(prog)s [CHECKPOINT] [--data FILE ...] [--alpha A ...] [flags]",
        description=DESCRIPTION,
        epilog=EPILOG.format(objectives=_listed(objective_names()), presets=_listed(preset_names())),
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    _add_arguments(parser)
    given = parsed(parser, argv, SETTINGS)
    file = given.pop("sweep", None)
    return settled(given if file is None else {**read_sweep(file), **given})


def read_sweep(file: str) -> dict[str, Any]:
    """Settings by name from a YAML file: ``alpha: [0, 0.25]``, a line each; the same values as the flags take.

    Raises
    ------
    InputError
        With the file's name: what cannot be read, and what is no setting.
    """
    with needing("probe", file):
        import yaml
    try:
        found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--sweep {file}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise InputError(f"--sweep {file}: settings and their values belong there, as alpha: [0, 0.25]")
    given = {name.replace("-", "_"): value for name, value in found.items()}
    try:
        return {
            name: value if name == "checkpoint" else _of_yaml(named(name), value)
            for name, value in given.items()
        }
    except InputError as error:
        raise InputError(f"--sweep {file}: {error}") from None


def _of_yaml(setting: Setting, value: Any) -> Any:
    """YAML takes 1e-5 for a text; a number is what is wanted of it where the setting is one."""
    if isinstance(value, list):
        return [_of_yaml(setting, item) for item in value]
    if isinstance(value, str) and setting.kind in (int, float):
        with contextlib.suppress(ValueError):
            return setting.kind(value)
    return value


def settled(given: Mapping[str, Any]) -> Settings:
    """The settings that these names and values make; to resume, the recorded ones with what may change of them."""
    asked = Settings.from_dict(given)
    if not asked.output.resume or asked.output.output is None:
        return asked
    from rewardshape.data.sources import is_hub_id

    recorded = recorded_settings(Path(asked.output.output))
    was, now = recorded.as_dict(), asked.as_dict()
    for name in given:
        if name not in CHANGEABLE and now[name] != was[name]:
            raise InputError(
                f"{flag(name)}: cannot change on --resume, the run was started with {_words(was[name])}; leave it "
                "out, or start a new run"
            )
    for source in was["data"] or ():
        path = Path(source)
        if path.suffix and not (path.is_absolute() or path.exists() or is_hub_id(source)):
            raise InputError(
                f"{source}: no such file; --resume looks for it from where the run was begun: go on from there"
            )
    return recorded.replace(**{name: now[name] for name in given if name in CHANGEABLE})


def recorded_settings(folder: Path) -> Settings:
    """The settings a command was started with, from its folder."""
    file = RunFolder(folder).command
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))["settings"]
        return Settings.from_dict(recorded)
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(f"--resume: {file} cannot be read, so {folder} is no run to go on with") from error


def command_line(settings: Settings) -> str:
    """The command that these settings stand for: it makes the same run again."""
    words = shlex.split(PROGRAM) + ([settings.checkpoint] if settings.checkpoint else [])
    flat = settings.as_dict()
    for name, setting in SETTINGS.items():
        value, default = flat[name], list(setting.default) if setting.many else setting.default
        if name in OF_THE_OUTPUT or value == default:
            continue
        words.append(flag(name))
        if value is not True:
            words += [typed(item) for item in (value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _words(value: Any) -> str:
    return " ".join(map(typed, value)) if isinstance(value, list) else typed(value)


# --- the parser -------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one ``error:`` line and exit status 2, and −5e-1 is a number."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # argparse's own pattern knows no exponent and takes -5e-1 for a flag.
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")

    def error(self, message: str) -> Any:
        commas = re.search(r"invalid \w+ value: '[^']*,", message)
        raise InputError(f"{message}{'; separate values by spaces' if commas else ''} (see --help)")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """One flag per setting, grouped by concern."""
    parser.add_argument(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="causal-LM folder or hub id; default the embedded model",
    )
    parser.add_argument(
        "--sweep",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="settings from a YAML file, a line each, as alpha: [0, 0.25]; a flag beside it wins",
    )
    add_flags(parser, SETTINGS)


def add_flags(parser: argparse.ArgumentParser, names: Collection[str]) -> None:
    """The flags of the settings of these names, under the heading of their groups."""
    for name, cls in GROUPS.items():
        group = parser.add_argument_group((cls.__doc__ or "").rstrip("."))
        for setting in SETTINGS.values():
            if setting.group == name and setting.name in names:
                group.add_argument(flag(setting.name), **_argument(setting))


def parsed(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, names: Collection[str]
) -> dict[str, Any]:
    """What a command line gives, by name; an unknown flag is refused with the nearest."""
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_unknown(unknown[0], names))
    return {name: value for name, value in vars(known).items() if value is not None}


def _argument(setting: Setting) -> dict[str, Any]:
    shown = f" (default {setting.default})" if setting.default not in (None, False, ()) else ""
    arguments: dict[str, Any] = {"help": setting.help + shown, "default": argparse.SUPPRESS}
    if setting.kind is bool:
        return arguments | {"action": "store_true"}
    arguments |= {"type": setting.kind, "metavar": setting.metavar, "choices": setting.choices}
    return arguments | ({"nargs": "+"} if setting.many or setting.axis else {})


def _unknown(word: str, names: Collection[str]) -> str:
    """What is wrong with a word that no flag takes."""
    name = word.partition("=")[0]
    if not name.startswith("--"):
        return f"unrecognized argument: {word}"
    [close] = get_close_matches(name, map(flag, names), 1, cutoff=0.0)
    return f"{name}: no such flag; the nearest is {close}"


class Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)


def _listed(names: Sequence[str]) -> str:
    return textwrap.fill(
        ", ".join(names), 108, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )


DESCRIPTION = """\
Train a language model on preference pairs and log what happens to chosen and rejected log-probs at every step.
Without CHECKPOINT: the embedded model and task, a sweep over α that takes a few minutes on two cores."""

EPILOG = """\
Several values of a flag that shows "A [A ...]" make a sweep: one run each.

examples
  %(prog)s
      the embedded model, four values of α
  %(prog)s ./my-model --data pairs.jsonl --alpha 0 0.25 --steps 100
      your checkpoint and pairs, two runs to compare: α = 0 is SimPO, α = 0.25 AlphaPO
  %(prog)s ./my-model --data pairs.parquet --objective dpo --beta 0.1
      DPO; the untouched checkpoint is the reference
  %(prog)s ./my-model --data pairs.jsonl --preset alphapo/mistral-7b-instruct
      a published setting
  %(prog)s ./my-model --data pairs.jsonl --alpha 0.25 --geometry-every 10 --sample-every 10
      also why pairs fall (overlaps of gradients), and what the model now says
  %(prog)s ./my-model --data pairs.jsonl --dry-run
      read the data, print the plan, train nothing
  %(prog)s --resume --output runs/my-model
      go on after an interruption

objectives
{objectives}

presets
{presets}

A run folder holds run.json (the manifest), trace.jsonl (the record), checkpoints/, figures/ and report.html.
Read it in Python with rewardshape.read_trace(folder). Log-probs are in nats; a step is one optimiser update."""
