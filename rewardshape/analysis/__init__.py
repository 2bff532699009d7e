"""From a trace to numbers: displacement, its cause, over-optimization."""
