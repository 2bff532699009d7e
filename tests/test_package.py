"""The package as a whole: what importing it costs, which room may import which, and that its files agree."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import rewardshape
from rewardshape import __main__ as console

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rewardshape"

# The house of docs/api/index.md: a room imports only from floors below its own.
FLOORS = [
    {"errors", "numbers"},
    {"terminal"},
    {"theory", "trace", "logs", "data"},
    {"analysis", "plotting"},
    {"verdict", "figures"},
    {"report"},
    {"notebook"},
    {"probe", "diagnose", "judgements"},
    {"integrations"},
    {"measure", "__main__"},
]
HEAVY = ("torch", "transformers", "accelerate", "peft", "trl", "datasets")


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- imports ------------------------------------------------------------------------------------------------------


def test_importing_the_package_is_quick_and_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, time; before = time.process_time(); import rewardshape; print(time.process_time() - before);"
        "print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    runs = [python(code).splitlines() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in runs) < 0.05
    assert {loaded for _, loaded in runs} == {"[]"}


def test_help_is_there_at_once():
    spent = []
    for _ in range(3):
        before = os.times()
        assert "probe" in python("import rewardshape.__main__ as console; console.main(['--help'])")
        after = os.times()
        spent.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert min(spent) < 0.3  # seconds of processor, the start of Python among them


def test_everything_below_the_probe_works_without_torch_and_transformers():
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import rewardshape
from rewardshape import Alpha, InputError, Trace, objective, preset, read_trace
import rewardshape.analysis as analysis
[getattr(analysis, name) for name in analysis.__all__]
import rewardshape.data, rewardshape.data.embedded, rewardshape.diagnose, rewardshape.figures, rewardshape.report
import rewardshape.plotting.displacement, rewardshape.plotting.sweep
print(objective("alphapo", alpha=0.25, beta=2.5, gamma=0.25).margin(-1.0, -1.2))
"""
    assert float(python(code)) == pytest.approx(0.408334, abs=1e-6)  # 2.5·(φ(−1) − φ(−1.2)) − 0.25, by hand


# --- the house ----------------------------------------------------------------------------------------------------


def room_of(module: str) -> str:
    return module.split(".")[1]


def modules() -> list[tuple[str, Path]]:
    return [
        (".".join(file.relative_to(ROOT).with_suffix("").parts), file)
        for file in sorted(PACKAGE.rglob("*.py"))
        if file != PACKAGE / "__init__.py"
    ]


def imported(file: Path) -> set[tuple[str, int]]:
    """Every module of the package that a file imports, wherever in it, with the line."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write imports in full"
            if node.module == "rewardshape":  # a room, or a public name whose home we look up
                found |= {(home(alias.name), node.lineno) for alias in node.names}
            else:
                found.add((str(node.module), node.lineno))
    return {(name, line) for name, line in found if name.startswith("rewardshape.")}


def home(name: str) -> str:
    """The module where a name that the package itself offers lives."""
    if name in rewardshape.__all__:
        return str(getattr(rewardshape, name).__module__)
    return f"rewardshape.{name}"


def floor_of(room: str) -> int:
    [floor] = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    return floor


def test_every_room_has_its_floor():
    rooms = {room_of(name) for name, _ in modules()}
    assert rooms == set().union(*FLOORS)


@pytest.mark.parametrize(("name", "file"), modules(), ids=[name for name, _ in modules()])
def test_a_room_imports_only_from_floors_below(name: str, file: Path):
    room = room_of(name)
    upward = [
        f"{file.relative_to(ROOT)}:{line} imports {other}"
        for other, line in sorted(imported(file))
        if room_of(other) != room and floor_of(room_of(other)) >= floor_of(room)
    ]
    assert upward == []


def imports_within(room: str) -> dict[str, set[str]]:
    """Of each module of a room the modules of the room that it imports; lazy and type-only imports count."""
    files = {name.removesuffix(".__init__"): file for name, file in modules() if room_of(name) == room}
    found: dict[str, set[str]] = {}
    for name, file in files.items():
        found[name] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & files.keys()
            elif isinstance(node, ast.ImportFrom):
                parts = {f"{node.module}.{alias.name}" for alias in node.names} & files.keys()
                named = {str(node.module)} & files.keys() if len(parts) < len(node.names) else set()
                found[name] |= parts | named
    return found


def in_circles(graph: dict[str, set[str]]) -> set[str]:
    """The nodes from which a path leads back to themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            node = ahead.pop()
            if node not in seen:
                seen.add(node)
                ahead += graph[node]
        return seen

    return {node for node in graph if node in reached(node)}


def test_a_circle_is_found():
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {"b", "c"}


@pytest.mark.parametrize("room", sorted(set().union(*FLOORS)))
def test_no_circle_inside_a_room(room: str):
    assert in_circles(imports_within(room)) == set()


def test_every_module_has_a_test_file_of_its_name():
    """``rewardshape/trace/read.py`` in ``tests/trace``, in it or deeper, as ``test_read.py``."""
    tests = {
        (file.relative_to(ROOT / "tests").parts[0], file.name) for file in ROOT.glob("tests/*/**/test_*.py")
    }
    tests |= {
        (file.name.removeprefix("test_").removesuffix(".py"), file.name)
        for file in ROOT.glob("tests/test_*.py")
    }
    alone = {
        name.removeprefix("rewardshape.")
        for name, file in modules()
        if not file.stem.startswith("__") and (room_of(name), f"test_{file.stem}.py") not in tests
    }
    assert sorted(alone) == [], "write it a test, in tests/<room>/test_<module>.py"


# --- files that must agree ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), "pins of public versions only"
    return {normal(name): version for name, _, version in (pin.partition("==") for pin in pins)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_holds_everything_that_the_project_asks_for(project: dict, locked: dict[str, str]):
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [Requirement(line) for group in groups for line in group]
    wanted = [wish for wish in wanted if wish.name != "rewardshape"]
    missing = [str(wish) for wish in wanted if normal(wish.name) not in locked]
    assert missing == [], "run make lock"
    wrong = [str(wish) for wish in wanted if not wish.specifier.contains(locked[normal(wish.name)])]
    assert wrong == []


def test_the_oldest_versions_allowed_are_those_of_the_lowest_lock(project: dict):
    lines = (ROOT / "requirements.lowest.lock").read_text(encoding="utf-8").splitlines()
    lowest = {normal(name): version for name, _, version in (line.partition("==") for line in lines)}
    groups = [project["dependencies"], project["optional-dependencies"]["probe"]]
    for wish in [Requirement(line) for group in groups for line in group]:
        [floor] = [part.version for part in wish.specifier if part.operator == ">="]
        found = lowest[normal(wish.name)]
        assert Version(found).release[:2] == Version(floor).release[:2] + (0,) * (
            2 - len(Version(floor).release)
        ), wish


# The package that an import comes from, where the names differ; and what comes with one that is declared.
DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow"}


def test_every_package_that_is_imported_is_declared(project: dict):
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {normal(Requirement(line).name) for group in groups for line in group}
    found = {
        (name.partition(".")[0], file.relative_to(ROOT).as_posix())
        for _, file in modules()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in names_imported(node)
    }
    outside = {(name, file) for name, file in found if name not in sys.stdlib_module_names | {"rewardshape"}}
    assert (
        sorted(
            (name, file) for name, file in outside if normal(DISTRIBUTIONS.get(name, name)) not in declared
        )
        == []
    )


def test_every_package_that_everyone_gets_is_imported(project: dict):
    found = {
        normal(DISTRIBUTIONS.get(name.partition(".")[0], name.partition(".")[0]))
        for _, file in modules()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in names_imported(node)
    }
    found.add("lazy-loader")  # by the package itself, whose head is no room
    declared = {normal(Requirement(line).name) for line in project["dependencies"]}
    assert sorted(declared - {normal(name.replace("_", "-")) for name in found}) == []


def names_imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [str(node.module)] if isinstance(node, ast.ImportFrom) else []


def test_the_workflow_runs_what_every_change_must_pass_on_every_python(project: dict):
    text = (ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert [step["run"] for step in jobs["everything"]["steps"] if "run" in step] == ["bash .ci/run"]
    versions = jobs["without-torch"]["strategy"]["matrix"]["python-version"]
    prefix = "Programming Language :: Python :: 3."
    stated = [line.rpartition(" ")[2] for line in project["classifiers"] if line.startswith(prefix)]
    assert versions == stated
    assert Requirement(f"python{project['requires-python']}").specifier.contains(versions[0])
    for script in re.findall(r"bash (\.ci/\S+)", text):
        assert os.access(ROOT / script, os.X_OK), script


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda form: form.stem
)
def test_issue_forms_are_whole(form: Path):
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    if form.stem == "config":
        return
    assert {"name", "description", "body"} <= set(content)
    ids = [field["id"] for field in content["body"]]
    assert len(set(ids)) == len(ids)
    assert all(
        field["type"] in ("input", "textarea") and field["attributes"]["label"] for field in content["body"]
    )


LONGEST = 450


@pytest.mark.parametrize(("name", "file"), modules(), ids=[name for name, _ in modules()])
def test_a_file_is_no_longer_than_can_be_read_or_says_why(name: str, file: Path):
    text = file.read_text(encoding="utf-8")
    if text.count("\n") > LONGEST:
        head = ast.get_docstring(ast.parse(text)) or ""
        assert "Long because" in head, f"over {LONGEST} lines: say why in its head"


def test_conda_users_get_the_versions_of_the_lock(project: dict):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == project["name"]
    plain = [line for line in environment["dependencies"] if isinstance(line, str)]
    [pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    [python] = [line.removeprefix("python=") for line in plain if line.startswith("python=")]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(python)
    assert {"pip", "make"} <= set(plain)  # nothing else from conda that the lock pins


def test_one_version_everywhere(project: dict):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert rewardshape.__version__ == project["version"] == citation["version"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_license_and_citation_are_those_of_the_project(project: dict):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["license"] == citation["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert citation["references"]
    assert all(reference["url"].startswith("https://arxiv.org/abs/") for reference in citation["references"])


def test_every_file_that_is_no_code_is_packed():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = patterns["tool"]["setuptools"]["package-data"]["rewardshape"]
    covered = {file for pattern in packed for file in PACKAGE.glob(pattern)}
    others = {file for file in PACKAGE.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert sorted(others - covered) == []


# --- the console script -------------------------------------------------------------------------------------------


def test_help_names_every_command_and_shows_examples(capsys: pytest.CaptureFixture[str]):
    for words in ([], ["--help"]):
        assert console.main(words) == 0
        shown = capsys.readouterr().out
        assert all(re.search(rf"^  {command} ", shown, re.MULTILINE) for command in console.COMMANDS)
        assert "examples" in shown


@pytest.mark.parametrize("command", console.COMMANDS)
def test_help_of_a_command_teaches_with_examples(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        console.main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: rewardshape {command}")
    assert f"  rewardshape {command}" in shown.partition("examples")[2]


def test_an_unknown_command_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]):
    assert console.main(["prob"]) == 2
    assert (
        capsys.readouterr().err
        == "error: no command 'prob'; there are probe, measure, diagnose, judgements, report, figures\n"
    )


def test_version_is_printed(capsys: pytest.CaptureFixture[str]):
    assert console.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == rewardshape.__version__


def test_the_script_is_installed_under_the_name_of_the_package(project: dict):
    assert project["scripts"] == {"rewardshape": "rewardshape.__main__:main"}
