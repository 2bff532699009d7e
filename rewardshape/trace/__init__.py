"""The record of a run: an append-only writer, and a reader that gives tidy tables."""

from rewardshape.trace.folder import RunFolder, write_json, write_whole
from rewardshape.trace.format import TraceWriter
from rewardshape.trace.read import Trace, read_probe_set, read_prompts, read_trace
from rewardshape.trace.run import Run

__all__ = [
    "Run",
    "RunFolder",
    "Trace",
    "TraceWriter",
    "read_probe_set",
    "read_prompts",
    "read_trace",
    "write_json",
    "write_whole",
]
