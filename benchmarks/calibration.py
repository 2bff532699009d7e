"""How often each statement is made by chance, and how often a real effect is seen: the tables of docs/calibration.md.

    python benchmarks/calibration.py                   every cell that calibration.jsonl lacks, then the tables
    python benchmarks/calibration.py --only onset      the cells whose name matches

A cell is one world at one size (calibration_worlds.py, calibration_logs.py), with the statements that are looked for
in it; calibration_plan.py and calibration_plan_logs.py list them. Its worlds are drawn from a seed made of its name, so
that a cell gives the same rates wherever and in whatever order it runs; the command may be stopped and started again. A
line of calibration.jsonl is one rate; take out those that a change of the product makes untrue.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from pathlib import Path

from calibration_cells import Cell, Statement, by_chance
from calibration_plan import cells

RESULTS = Path(__file__).with_suffix(".jsonl")
PAGE = Path(__file__).parents[1] / "docs" / "calibration.md"
BEGIN, END = "<!-- written by benchmarks/calibration.py -->\n", "<!-- end -->"


def measured() -> list[dict[str, object]]:
    """The rates that were measured, one a line of the file of results."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []
    return [json.loads(line) for line in lines]


def run(share: float, only: str) -> None:
    """Every cell that is not measured and whose name matches `only`, each written when it is done."""
    done = {row["name"] for row in measured()}
    for cell in cells():
        if set(cell.names) <= done or not any(re.search(only, name) for name in cell.names):
            continue
        start, simulations = time.process_time(), max(20, round(share * cell.simulations))
        rates = cell.rates(simulations)
        with RESULTS.open("a", encoding="utf-8") as out:
            for name, rate in rates.items():
                known = None if math.isnan(rate) else rate
                row = {"name": name, "rate": known, "simulations": simulations}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        took = time.process_time() - start
        print(
            f"{took:4.0f} s  {simulations}  " + "; ".join(f"{n}: {r:.3f}" for n, r in rates.items()),
            flush=True,
        )


def tables(rows: list[dict[str, object]]) -> str:
    """One table a statement, in the order of the plan: worlds in rows, sizes in columns."""
    rates = {str(row["name"]): row for row in rows}
    planned = [(cell, *one) for cell in cells() for one in zip(cell.statements, cell.names, strict=True)]
    shown = [(cell, statement, rates[name]) for cell, statement, name in planned if name in rates]
    parts = [_summary(len(planned), shown)]
    for name in dict.fromkeys(statement.name for _, statement, _ in shown):
        mine = [row for row in shown if row[1].name == name]
        columns = sorted({cell.size for cell, _, _ in mine}, key=_by_number)
        lines = [f"| {name}{_goals(mine)} | {' | '.join(columns)} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for world in dict.fromkeys(cell.world for cell, _, _ in mine):
            cells_of = {
                cell.size: _shown(statement, row) for cell, statement, row in mine if cell.world == world
            }
            lines.append(f"| {world} | {' | '.join(cells_of.get(size, '') for size in columns)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _summary(planned: int, shown: list[tuple[Cell, Statement, dict[str, object]]]) -> str:
    """How many rates of the plan were measured, and how many of them lie within their goal."""
    counts = [_simulations(row) for _, _, row in shown]
    judged = [(statement, row) for _, statement, row in shown if statement.goal and row["rate"] is not None]
    within = sum(statement.least <= _rate(row) <= statement.most for statement, row in judged)
    beyond = sum(statement.beyond(_rate(row), _simulations(row)) for statement, row in judged)
    return (
        f"{len(shown)} of {planned} rates of the plan, each from {min(counts)} to {max(counts):,} simulations. Of "
        f"{len(judged)} with a goal, {within} lie within it, {len(judged) - within - beyond} beyond it by no more than "
        f"the chance of the simulations, and {beyond} beyond that (bold)."
    )


def _goals(shown: list[tuple[Cell, Statement, dict[str, object]]]) -> str:
    """The goals of a table, and to how much its rates are known."""
    goals = " or ".join(dict.fromkeys(statement.goal for _, statement, _ in shown if statement.goal))
    room = max(by_chance(statement, _simulations(row)) for _, statement, row in shown)
    known = "" if shown[0][1].median else f"± {100 * room:.1f} by chance"
    told = ", ".join(part for part in (f"goal {goals}" if goals else "", known) if part)
    return f" ({told})" if told else ""


def _rate(row: dict[str, object]) -> float:
    return float(str(row["rate"]))


def _simulations(row: dict[str, object]) -> int:
    return int(str(row["simulations"]))


def _shown(statement: Statement, row: dict[str, object]) -> str:
    if row["rate"] is None:
        return "refused"
    rate, simulations = _rate(row), _simulations(row)
    text = f"{100 * rate:.1f} %"
    return f"**{text}**" if statement.goal and statement.beyond(rate, simulations) else text


def _by_number(size: str) -> list[int]:
    return [int(number) for number in reversed(re.findall(r"\d+", size))]


def write_page() -> None:
    """Put the tables where they stand in the docs."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{tables(measured())}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the simulations of each cell")
    parser.add_argument("--only", default="", help="pattern of the names of the cells to run")
    arguments = parser.parse_args()
    run(arguments.share, arguments.only)
    write_page()
