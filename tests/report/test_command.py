"""`rewardshape report`: the page again, also while a run goes on."""

from __future__ import annotations

import json
import threading

import pytest
from filelock import FileLock

from rewardshape.errors import InputError
from rewardshape.report import command
from rewardshape.report.command import main, watch
from rewardshape.trace import RunFolder


def status(folder, value):
    RunFolder(folder).set_status(value)  # whole, as a run writes it: somebody reads it meanwhile


def test_the_page_is_written_and_named(write, tmp_path, capsys):
    folder = write(tmp_path / "run")
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert "data-refresh" not in (folder / "report.html").read_text(encoding="utf-8").partition("<style>")[0]


def test_a_folder_without_a_trace_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")


@pytest.mark.timeout(120)
def test_watching_writes_again_for_every_new_step_until_the_run_has_ended(write, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "EVERY", 0.05)
    folder = write(tmp_path / "run")
    whole = (folder / "trace.jsonl").read_text().splitlines(keepends=True)
    (folder / "trace.jsonl").write_text("".join(whole[:12]))
    status(folder, "running")
    page = folder / "report.html"
    seen = []

    def train():
        for before, count in ((12, 12), (12, 20), (20, len(whole))):
            with open(folder / "trace.jsonl", "a") as record:  # a record only ever grows
                record.write("".join(whole[before:count]))
            last = json.loads(whole[count - 1])["step"]
            for _ in range(600):
                text = page.read_text(encoding="utf-8") if page.exists() else ""
                if f"as of step {last}." in text:
                    seen.append((last, 'data-refresh="10"' in text))
                    break
                threading.Event().wait(0.05)
        status(folder, "done")

    other = threading.Thread(target=train)
    other.start()
    assert main([str(folder), "--watch"]) == 0
    other.join()
    assert seen == [(10, True), (18, True), (30, True)]
    assert 'data-refresh="' not in page.read_text(encoding="utf-8")  # over: the page rests


def test_between_two_runs_of_a_sweep_the_watch_goes_on(write, tmp_path, monkeypatch):
    """The command has named three runs; two are done, the third has not begun."""
    monkeypatch.setattr(command, "EVERY", 0.05)
    sweep = tmp_path / "sweep"
    for alpha in (0.0, 0.25):
        status(write(sweep / f"alpha={alpha:g}", alpha=alpha), "done")
    RunFolder(sweep).command.write_text(
        json.dumps({"command": "probe", "runs": ["alpha=0", "alpha=0.25", "alpha=1"]})
    )
    pages = watch(sweep)
    assert 'data-refresh="' in next(pages).read_text(encoding="utf-8")
    status(write(sweep / "alpha=1", alpha=1.0), "done")
    assert 'data-refresh="' not in next(pages).read_text(encoding="utf-8")
    assert list(pages) == []


def test_a_command_that_has_recorded_nothing_yet_is_waited_for(write, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "EVERY", 0.01)
    folder = tmp_path / "run"
    folder.mkdir()
    RunFolder(folder).command.write_text(json.dumps({"command": "probe"}))
    looks = iter([True, True, True, False])
    assert list(watch(folder, going=lambda: next(looks))) == []
    status(write(folder), "done")
    assert list(watch(folder)) == [folder / "report.html"]


@pytest.mark.timeout(60)
def test_watching_a_run_that_was_killed_ends(write, tmp_path, monkeypatch):
    """Its manifest says that it is running, and its lock is held; then nobody holds it any more."""
    monkeypatch.setattr(command, "EVERY", 0.05)
    folder = write(tmp_path / "run")
    status(folder, "running")
    lock = FileLock(RunFolder(folder).lock)
    lock.acquire()
    pages = watch(folder)
    assert 'data-refresh="' in next(pages).read_text(encoding="utf-8")
    lock.release()
    RunFolder(folder).lock.touch()
    assert 'data-refresh="' not in next(pages).read_text(encoding="utf-8")
    assert list(pages) == []


@pytest.mark.timeout(60)
def test_watching_what_cannot_be_read_and_has_ended_is_an_error(write, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "EVERY", 0.01)
    folder = write(tmp_path / "run")
    status(folder, "done")
    RunFolder(folder).command.write_text(json.dumps({"command": "probe"}))
    RunFolder(folder).probe_set.write_text("{}\n")
    with pytest.raises(InputError, match="not a probe pair"):
        list(watch(folder))
