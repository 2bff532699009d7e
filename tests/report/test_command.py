"""`rewardshape report`: the page again, also while a run goes on."""

from __future__ import annotations

import json
import re
import threading

import pytest

from rewardshape.report import command
from rewardshape.report.command import main
from rewardshape.trace import RunFolder


def status(folder, value):
    RunFolder(folder).set_status(value)  # whole, as a run writes it: somebody reads it meanwhile


def test_the_page_is_written_and_named(write, tmp_path, capsys):
    folder = write(tmp_path / "run")
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert 'http-equiv="refresh"' not in (folder / "report.html").read_text(encoding="utf-8")


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
                    seen.append((last, bool(re.search(r'http-equiv="refresh" content="\d+"', text))))
                    break
                threading.Event().wait(0.05)
        status(folder, "done")

    other = threading.Thread(target=train)
    other.start()
    assert main([str(folder), "--watch"]) == 0
    other.join()
    assert seen == [(10, True), (18, True), (30, True)]
    assert 'http-equiv="refresh"' not in page.read_text(encoding="utf-8")  # over: the page rests
