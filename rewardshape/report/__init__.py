"""One self-contained page for a run or a sweep."""

from rewardshape.report.page import REPORT_FILE, write_report

__all__ = ["REPORT_FILE", "write_report"]
