"""One self-contained page for a run or a sweep."""

from rewardshape.report.page import write_report

__all__ = ["write_report"]
