"""The record of a run: an append-only writer, and a reader that gives tidy tables."""

from rewardshape.trace.format import TraceWriter
from rewardshape.trace.read import Trace, read_trace

__all__ = ["Trace", "TraceWriter", "read_trace"]
