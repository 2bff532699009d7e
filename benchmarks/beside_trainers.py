"""Can the package be installed beside the trainers that people use? Resolves only, installs nothing; needs `uv`.

    python benchmarks/beside_trainers.py [TRAINER…]

For every trainer: its newest release, with all that it pins, together with `rewardshape[probe]`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAINERS = ["axolotl", "llamafactory", "openrlhf", "verl", "ms-swift", "unsloth", "trl"]
SHOWN = re.compile(r"^(transformers|trl|torch|accelerate)==\S+", re.MULTILINE)


def resolve(trainer: str) -> tuple[str, bool, str]:
    """The trainer's version, whether it can be had beside the package, and with which versions, or why not."""
    alone = compiled(f"{trainer}\n")
    pinned = re.search(rf"^{re.escape(trainer)}==(\S+)", alone.stdout, re.MULTILINE | re.IGNORECASE)
    if pinned is None:
        return "", False, alone.stderr.strip().replace("\n", " ")[:300]
    both = compiled(f"{trainer}=={pinned[1]}\nrewardshape[probe] @ file://{ROOT}\n")
    if both.returncode:
        return pinned[1], False, both.stderr.strip().replace("\n", " ")[:300]
    return pinned[1], True, ", ".join(match[0] for match in SHOWN.finditer(both.stdout))


def compiled(wanted: str) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
        file.write(wanted)
        file.flush()
        words = ["uv", "pip", "compile", "--quiet", "--no-annotate", "--python-version", "3.11"]
        return subprocess.run([*words, file.name], capture_output=True, text=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or TRAINERS:
        version, possible, said = resolve(name)
        print(f"{name} {version}: {'resolves' if possible else 'does not resolve'}: {said}", flush=True)
