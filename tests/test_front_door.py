"""The public names: loaded when they are used, seen by type checkers, and shown in the reference."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rewardshape

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rewardshape"
LAZY = [
    "rewardshape",
    *(f"rewardshape.{stub.parent.name}" for stub in sorted(PACKAGE.glob("*/__init__.pyi"))),
]
ROOMS = ["theory", "data", "trace", "logs", "analysis", "plotting", "verdict", "figures", "report"]
INDEXES = ["rewardshape", *(f"rewardshape.{room}" for room in ROOMS)]


# --- loaded when used ---------------------------------------------------------------------------------------------


MEASURING = {"ProbeCallback", "Recorder"}  # what needs torch to be there at all


@pytest.mark.parametrize("package", INDEXES)
def test_every_public_name_loads(package: str):
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        if name in MEASURING and importlib.util.find_spec("torch") is None:
            with pytest.raises(
                rewardshape.InputError, match=r"rewardshape\[probe\]"
            ):  # which extra to install
                getattr(module, name)
        else:
            assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018


def test_the_version_is_at_the_door():
    assert re.fullmatch(r"\d+\.\d+\.\d+", rewardshape.__version__)


# --- seen by type checkers ----------------------------------------------------------------------------------------

# A user's words, and what a type checker must say of them.
REVEALED = {
    "objective('dpo')": "rewardshape.theory.objectives.base.Objective",
    "Alpha(0.25)": "rewardshape.theory.shapes.Alpha",
    "read_trace('runs/mine')": "rewardshape.notebook.ShownTrace",
    "read_trace('runs/mine').runs[0]": "rewardshape.trace.run.Run",
    "write_report('runs/mine')": "pathlib.Path",
    "read_logs('train.log')[0]": "rewardshape.logs.log.Log",
    "displacement_curve(read_trace('runs/mine'))": "pandas.core.frame.DataFrame",
    "plot_displacement(displacement_curve(read_trace('runs/mine')))": "matplotlib.axes._axes.Axes",
}
# Beside what has stubs of its own; to read the rest takes longer, and no type at the door depends on it.
READ = "rewardshape.*,numpy.*"


def test_a_type_checker_knows_every_public_name(tmp_path: Path):
    pytest.importorskip("mypy")
    # The door's names before the rooms' (its `read_trace` gives a trace that draws); every room in a scope of its own.
    door = set(public("rewardshape"))
    here = {
        package: [n for n in public(package) if package == "rewardshape" or n not in door]
        for package in INDEXES
    }
    lines = [f"from {package} import {', '.join(names)}" for package, names in here.items() if names]
    lines += [f"reveal_type({words})" for words in REVEALED]
    named = [name for package in INDEXES for name in public(package)]
    for number, package in enumerate(INDEXES):
        lines += [f"def room_{number}() -> None:", f"    from {package} import {', '.join(public(package))}"]
        lines += [f"    reveal_type({name})" for name in public(package)]
    script = tmp_path / "mine.py"
    script.write_text("\n".join(lines), "utf-8")
    config = tmp_path / "mypy.ini"
    config.write_text(
        f"[mypy]\nignore_missing_imports = true\nfollow_imports = skip\n[mypy-{READ}]\nfollow_imports = normal\n",
        "utf-8",
    )
    code = (
        "import sys; from mypy import api;"
        f"said, wrong, status = api.run(['--config-file', {str(config)!r}, '--cache-dir', {os.devnull!r},"
        f" {str(script)!r}]); print(said); print(wrong, file=sys.stderr)"
    )
    there = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=there
    )
    types = re.findall(r'mine\.py:\d+: note: Revealed type is "(.*)"', done.stdout)
    assert len(types) == len(REVEALED) + len(named), done.stdout + done.stderr
    assert re.findall(r"mine\.py:\d+: error: .*", done.stdout) == []
    assert dict(zip(REVEALED, types, strict=False)) == REVEALED
    assert [line for line, kind in zip(named, types[len(REVEALED) :], strict=True) if kind == "Any"] == []


def public(package: str) -> list[str]:
    return [name for name in importlib.import_module(package).__all__ if not name.startswith("__")]


# --- said what they are -------------------------------------------------------------------------------------------


def members(kind: type) -> Iterator[tuple[str, object]]:
    """The public functions and properties that a class itself defines, without what dataclasses hold in fields."""
    for name, member in vars(kind).items():
        function = getattr(member, "__func__", getattr(member, "func", getattr(member, "fget", member)))
        if not name.startswith("_") and inspect.isfunction(function) and function.__name__ == name:
            yield name, member


def test_every_public_name_says_what_it_is():
    """Every function, class, method and property of every module; what overrides a method may leave it to that one."""
    for package in ("torch", "trl"):
        pytest.importorskip(package)
    silent = []
    for module in map(importlib.import_module, modules()):
        own = [
            thing
            for name, thing in vars(module).items()
            if is_shown(thing) and thing.__module__ == module.__name__ and not name.startswith("_")
        ]
        silent += [thing.__qualname__ for thing in own if not inspect.getdoc(thing)]
        silent += [
            f"{kind.__qualname__}.{name}"
            for kind in own
            if inspect.isclass(kind)
            for name, member in members(kind)
            if not inspect.getdoc(member) and not inspect.getdoc(getattr(kind, name))
        ]
    assert silent == []


def modules() -> list[str]:
    walked = pkgutil.walk_packages(rewardshape.__path__, "rewardshape.")
    return [found.name for found in walked if not found.name.endswith("__main__")]


# --- in the reference ---------------------------------------------------------------------------------------------


def documented(room: str) -> set[str]:
    """The names of a room that the pages of docs/api show: those asked for, and the public ones of whole modules."""
    text = "\n".join(
        page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "api").glob("*.md"))
    )
    found = set()
    for path in re.findall(rf"^::: rewardshape\.({room}(?:\.\w+)*)$", text, re.MULTILINE):
        file = PACKAGE.joinpath(*path.split("."))
        if file.with_suffix(".py").is_file():
            found |= shown(file.with_suffix(".py"))
        elif not file.is_dir():
            found.add(path.rpartition(".")[2])
    return found


def is_shown(thing: object) -> bool:
    return inspect.isclass(thing) or inspect.isfunction(thing)


def shown(file: Path) -> set[str]:
    """What mkdocstrings shows of a module: its public classes and functions."""
    return {
        node.name
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node)
    }


@pytest.mark.parametrize("room", ROOMS)
def test_the_reference_shows_every_name_of_the_room(room: str):
    module = importlib.import_module(f"rewardshape.{room}")
    named = {name for name in getattr(module, "__all__", []) if is_shown(getattr(module, name))}
    assert sorted(named - documented(room)) == []


def test_every_name_at_the_door_is_a_room_s():
    pytest.importorskip("accelerate", reason="what stands above the probe needs rewardshape[probe]")
    for name in public("rewardshape"):
        home = getattr(rewardshape, name).__module__.split(".")
        assert home[0] == "rewardshape"
        if home[1] in ROOMS:
            assert name in importlib.import_module(".".join(home[:2])).__all__
