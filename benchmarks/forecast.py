"""Is a forecast from the first fifth of a run any good? ``python benchmarks/forecast.py FOLDER…``

Takes every finished run below the folders, forecasts its end from the first `--seen` of its steps, and tells how far
off that is, beside "it stays as it is" and a straight line in the step, and how often the interval holds the end. Rows
are grouped by the folder they came from, so that what fixed the forecast's one constant and what did not stay apart.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from rewardshape import read_trace
from rewardshape.analysis.forecast import forecast_end
from rewardshape.analysis.panels import chosen_and_rejected
from rewardshape.errors import InputError


def test_of(run: Path, seen: float) -> pd.DataFrame:
    """Forecast, alternatives and truth of one finished run."""
    trace = read_trace(run)
    table = forecast_end(trace, seen=seen)
    for chosen, rejected in chosen_and_rejected(trace):
        change = {"chosen": chosen.change().mean(axis=1), "rejected": rejected.change().mean(axis=1)}
        change["margin"] = change["chosen"] - change["rejected"]
        steps = chosen.steps
        first = steps <= seen * steps[-1]
        for quantity, curve in change.items():
            row = table["quantity"] == quantity
            table.loc[row, "end"] = curve[-1]
            x = steps[first].astype(float)
            table.loc[row, "straight"] = x @ curve[first] / (x @ x) * steps[-1]
        table["finished"] = bool(len(table)) and bool((steps[-1] == table["last_step"]).all())
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--seen", type=float, default=0.2)
    options = parser.parse_args()
    tables = []
    for folder in options.folders:
        for file in sorted(folder.rglob("trace.jsonl")):
            try:
                tables.append(test_of(file.parent, options.seen).assign(source=folder.name))
            except (InputError, ValueError, KeyError) as error:
                print(f"{file.parent}: left out, {error}")
    rows = pd.concat([table for table in tables if len(table)], ignore_index=True)
    rows = rows[rows["finished"].astype(bool)]
    rows["inside"] = (rows["low"] <= rows["end"]) & (rows["end"] <= rows["high"])
    rows["ratio"] = (rows["end"] - rows["forecast"]).abs() / ((rows["high"] - rows["low"]) / 2)
    for name in ("forecast", "parabola", "straight", "now"):
        rows[f"off {name}"] = (rows["end"] - rows[name]).abs()
    off = [name for name in rows if name.startswith("off ")]
    groups = rows.groupby(["source", "quantity"])
    table = groups[off].median().join(groups["inside"].mean()).join(groups.size().rename("runs"))
    table["size of the change"] = groups["end"].apply(lambda end: end.abs().median())
    table["ratio, 90 %"] = groups["ratio"].apply(lambda ratio: np.quantile(ratio, 0.9))
    pd.set_option("display.width", 200)
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
