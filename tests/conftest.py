"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Two test processes on two cores: threads that wait for each other are many times slower than one each. And the
# number of threads decides how floating-point sums are rounded: every process has one, so bytes can be compared.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the tests are of the CPU, also where there is a GPU

import gc
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings

from rewardshape.trace import TraceWriter

# The same examples at every run, so that no test fails by chance; `HYPOTHESIS_PROFILE=random` looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


# Where everything is installed (.ci/run), a skip hides a test: there it is a failure.
EVERYTHING = os.environ.get("REWARDSHAPE_EVERYTHING") == "1"
SHARED = Path(__file__).resolve().parents[2] / "shared"
# Without torch (`pip install rewardshape` and no extra) these rooms are not to be had.
if importlib.util.find_spec("torch") is None:
    collect_ignore = [
        "data",
        "integrations",
        "probe",
        "theory",
        "test_docs.py",
        "test_measure.py",
        "test_notebooks.py",
    ]


def _no_skips(report):
    if EVERYTHING and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where everything is installed: {report.longrepr}"
    return report


def pytest_configure(config):
    """A folder for what all processes of the tests share (`tests.processes`), until the first of them ends."""
    if not hasattr(config, "workerinput"):
        folder = Path(tempfile.mkdtemp(prefix="rewardshape-"))
        (folder / "owner").write_text(str(os.getpid()))
        os.environ["REWARDSHAPE_TESTS"] = str(folder)


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["REWARDSHAPE_TESTS"], ignore_errors=True)


def pytest_collection_modifyitems(config, items):
    """Without the folder beside the project what reads it is not there to be run, and is counted as deselected."""
    if not SHARED.is_dir():
        beside = [item for item in items if "shared" in item.fixturenames]
        config.hook.pytest_deselected(items=beside)
        items[:] = [item for item in items if item not in set(beside)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _no_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _no_skips((yield))


def pytest_collection_finish():
    """What is imported by now stays: every training collects garbage, and need not look through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`made_once(name, make)`: a folder that `make` fills, once for all processes of the tests."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], object]) -> Path:
        from filelock import FileLock

        folder, whole = base / name, base / f"{name}.made"
        with FileLock(base / f"{name}.lock"):
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a make that failed left
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def inputs() -> Path:
    """Checkpoints and preference data of others that lie in the repository: see its README."""
    return Path(__file__).resolve().parent / "inputs"


@pytest.fixture(scope="session")
def real_log() -> Callable[[str], Path]:
    """A training log of other people's runs that lies in the repository, by its file's name."""
    return lambda name: Path(__file__).resolve().parent / "logs" / "files" / name


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the project with what may not lie in it: whole data sets, logs whose licence is not stated."""
    return SHARED


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20250103)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """Writes a run folder with the real writer: `write_run(folder, {"chosen": (steps, pairs) array, …})`."""
    return _write_run


def _write_run(
    folder: Path,
    logp_sums: dict[str, np.ndarray],
    *,
    num_tokens: dict[str, np.ndarray],
    steps: list[int] | None = None,
    pair_ids: list[str] | None = None,
    objective: dict | None = None,
    ref_logp_sums: dict[str, np.ndarray] | None = None,
    measured: dict[str, dict[str, np.ndarray]] | None = None,
    texts: list[dict] | None = None,
    tokens: dict[int, list[list[float]]] | None = None,
    geometry: dict[int, dict] | None = None,
    samples: dict[int, dict] | None = None,
    metrics: dict[int, dict] | None = None,
    **manifest: object,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    num_steps, num_pairs = logp_sums["chosen"].shape
    steps = list(range(num_steps)) if steps is None else steps
    pair_ids = [f"pairs.jsonl:{i + 1}" for i in range(num_pairs)] if pair_ids is None else pair_ids
    names = list(logp_sums)
    probe_set = {
        "pair_id": [pair for pair in pair_ids for _ in names],
        "response": names * num_pairs,
        "num_tokens": [int(num_tokens[name][i]) for i in range(num_pairs) for name in names],
        "ref_logp_sum": [
            None if ref_logp_sums is None else float(ref_logp_sums[name][i])
            for i in range(num_pairs)
            for name in names
        ],
    }
    columns = {"logp_sum": logp_sums, **(measured or {})}
    with TraceWriter(folder, probe_set) as writer:
        for i, step in enumerate(steps):
            probe = {
                column: np.stack([values[name][i] for name in names], axis=1).ravel()
                for column, values in columns.items()
            }
            writer.append(
                step,
                metrics={"loss": 0.6} if step and metrics is None else (metrics or {}).get(step),
                probe=probe,
                tokens=(tokens or {}).get(step),
                geometry=(geometry or {}).get(step),
                samples=(samples or {}).get(step),
                seconds=0.1,
            )
    objective = objective or {"name": "alphapo", "parameters": {"alpha": 0.25, "beta": 2.5, "gamma": 0.25}}
    manifest = {"objective": objective, "run": {"seed": 0}, **manifest}
    (folder / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    if texts is not None:
        lines = "".join(json.dumps(pair) + "\n" for pair in texts)
        (folder / "probe_set.jsonl").write_text(lines, encoding="utf-8")
    return folder
