"""The console script: ``rewardshape NAME …``, the same as ``python -m rewardshape.NAME …``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from rewardshape.errors import to_any_output

COMMANDS = {
    "probe": ("rewardshape.probe.__main__", "train on preference pairs and log every step"),
    "measure": ("rewardshape.measure", "make a run's trace of saved checkpoints, of any trainer"),
    "diagnose": (
        "rewardshape.diagnose",
        "say what happened in a run, from its folder or another trainer's log",
    ),
    "judgements": ("rewardshape.judgements", "let people judge the answers of a run, then and now"),
    "report": ("rewardshape.report.command", "write the page of a run again, also while it goes on"),
    "figures": ("rewardshape.figures.command", "draw all figures, of the theory and of your own runs"),
}

HELP = """\
usage: rewardshape COMMAND …

Reward shape and likelihood displacement in direct alignment.

commands
{commands}

examples
  rewardshape probe                                                 the embedded model: a first look, in minutes
  rewardshape probe ./my-model --data pairs.jsonl --alpha 0 0.25    your checkpoint and pairs
  rewardshape measure ./base out/checkpoint-* --data pairs.jsonl    checkpoints that you have already
  rewardshape diagnose trainer_state.json                           a run you have already
  rewardshape judgements runs/my-model answers.csv                  answers for people to judge; read back when filled
  rewardshape report runs/my-model --watch                          its page, written again while it runs
  rewardshape figures --runs runs/my-model                          its pictures, drawn again
  rewardshape COMMAND --help                                        every flag, with examples
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Hand over to the command named first."""
    to_any_output()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(
            HELP.format(commands="\n".join(f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items())),
            end="",
        )
        return 0
    if words[0] == "--version":
        print(importlib.import_module("rewardshape").__version__)
        return 0
    if words[0] not in COMMANDS:
        print(f"error: no command {words[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return importlib.import_module(COMMANDS[words[0]][0]).main(words[1:], prog=f"rewardshape {words[0]}")


if __name__ == "__main__":
    sys.exit(main())
