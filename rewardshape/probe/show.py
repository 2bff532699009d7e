"""What a finished command leaves for people: the table on the terminal, the pictures, the report."""

from __future__ import annotations

import json

import pandas as pd

from rewardshape.analysis import displacement_summary
from rewardshape.pictures import draw_all
from rewardshape.probe.settings import Settings
from rewardshape.report import write_report
from rewardshape.trace import Trace

COLUMNS = {
    "chosen_change": "chosen [nats/token]",
    "rejected_change": "rejected [nats/token]",
    "share_fallen": "chosen fell",
    "margin": "margin",
    "accuracy": "accuracy",
}


def show(trace: Trace, settings: Settings) -> None:
    """Draw the pictures into the command's folder, write the report, print the table."""
    summary = displacement_summary(trace)
    draw_all(trace, trace.folder / "figures")
    page = write_report(trace.folder)
    if settings.output.json:
        print(json.dumps({"folder": str(trace.folder), "runs": json.loads(summary.to_json(orient="records"))}))
    elif not settings.output.quiet:
        print(text_table(summary))
        print(f"\nreport: {page}\ntrace and figures: {trace.folder}")


def text_table(summary: pd.DataFrame) -> str:
    """The last step of every run: changes since step 0 on the probe set, with 95 % intervals over pairs."""
    shown = pd.DataFrame({"run": summary["run"]})
    for column, title in COLUMNS.items():
        sign = "+" if column.endswith("change") else ""
        percent = column in ("share_fallen", "accuracy")
        form = "{:.0%}" if percent else "{:" + sign + ".3f}"
        if percent or column == "margin":
            shown[title] = [form.format(value) for value in summary[column]]
        else:
            shown[title] = [
                f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"
                for value, low, high in zip(
                    summary[column], summary[f"{column}_low"], summary[f"{column}_high"], strict=True
                )
            ]
    steps, pairs = int(summary["step"].max()), int(summary["num_pairs"].max())
    caption = f"after {steps} steps, change since step 0 on {pairs} probe pairs, 95 % intervals over pairs"
    return f"{caption}\n\n{shown.to_string(index=False)}"
