"""Runs to report on, a page as a reader without a script has it, and a real Chromium to open it in.

Chromium is driven over its DevTools socket by websocket-client, which comes with jupyter.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewardshape.report import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-allow-origins=*",
]


class Tab:
    """One page of a running browser."""

    def __init__(self, socket: Any):
        self.socket, self.number, self.events = socket, 0, []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, file: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load a file in a window of this size and wait until it is there."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self.ask("Page.navigate", url=file.as_uri())
        self.wait("document.readyState === 'complete' && location.href.startsWith('file')")

    def run(self, code: str) -> Any:
        """What an expression gives."""
        result = self.ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, code: str, seconds: float = 30) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError):
                if self.run(code):
                    return
            time.sleep(0.1)
        raise AssertionError(f"never true: {code}")

    def center(self, selector: str) -> tuple[float, float]:
        """The middle of an element, scrolled into view."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect(); "
            "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        return box[0], box[1]

    def mouse(self, kind: str, x: float, y: float) -> None:
        """``mouseMoved``, ``mousePressed`` or ``mouseReleased``."""
        pressed = kind != "mouseMoved"
        button = {"button": "left", "clickCount": 1} if pressed else {}
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def click(self, selector: str) -> None:
        """Click the middle of an element."""
        x, y = self.center(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def key(self, name: str) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "ArrowUp": 38, "ArrowDown": 40}
            text = {"text": "\r"} if name == "Enter" and kind == "keyDown" else {}
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                code=name,
                windowsVirtualKeyCode=codes[name],
                **text,
            )

    def picture(self, file: Path, *, whole: bool = False) -> Path:
        """A screenshot."""
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(found["data"]))
        return file

    def pdf(self, file: Path) -> Path:
        """The page as printed."""
        file.write_bytes(base64.b64decode(self.ask("Page.printToPDF", printBackground=False)["data"]))
        return file

    def complaints(self) -> list[str]:
        """Errors of scripts, violations of the content policy, and anything asked of a network, since `open`."""
        self.ask("Runtime.evaluate", expression="0")
        found = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"])
            if event["method"] == "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                if not url.startswith(("file:", "data:")):
                    found.append(url)
        return found


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A browser with one tab; its own profile, nothing of the reader's."""
    if BROWSER is None:
        pytest.skip("no Chromium is installed here, so pages cannot be opened")
    websocket = pytest.importorskip(
        "websocket", reason="websocket-client, which comes with jupyter, drives the browser"
    )
    flags = [*FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    said = profile / "said.txt"
    with said.open("w") as errors:
        process = subprocess.Popen([BROWSER, *flags], stderr=errors)
    try:
        port = _awaited(lambda: re.findall(r"ws://127\.0\.0\.1:(\d+)/", said.read_text()), said)
        page = _awaited(lambda: _pages(port), said)
        socket = websocket.create_connection(page, timeout=60, http_no_proxy=["127.0.0.1"])
        yield Tab(socket)
        socket.close()
    finally:
        process.kill()
        process.wait()


def _awaited(found: Callable[[], list[str]], said: Path) -> str:
    """The one thing that is found, once there is one."""
    end = time.monotonic() + 60
    while not (things := found()):
        assert time.monotonic() < end, said.read_text()
        time.sleep(0.02)
    [thing] = things
    return thing


def _pages(port: str) -> list[str]:
    """Where the browser at a port is spoken to about each of its pages."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/json") as answer:
        return [one["webSocketDebuggerUrl"] for one in json.load(answer) if one["type"] == "page"]


PAIRS, STEPS = 36, 31
HOSTILE = (
    """<script>document.title='owned'</script>"><img src=x onerror="document.title='owned'">"""
    "</style>&amp;{{ 7*7 }}"
)
TOKENS = {"chosen": np.full(PAIRS, 6), "rejected": np.full(PAIRS, 8)}


def _write(
    write_run,
    folder,
    *,
    fall=0.3,
    alpha=0.25,
    seed=0,
    hostile=False,
    prompt="Say it.",
    name="alphapo",
    one_prompt=False,
):
    """A run whose chosen responses fall by about `fall` nats per token, and the rejected twice as far."""
    rng = np.random.default_rng(seed)
    pace = rng.uniform(0.6, 1.4, PAIRS)
    course = np.linspace(0, 1, STEPS)[:, None]
    sums = {
        "chosen": -rng.uniform(5, 7, PAIRS) - 6 * fall * course * pace,
        "rejected": -rng.uniform(7, 9, PAIRS) - 8 * (2 * fall + 0.1) * course * pace,
    }
    bad = HOSTILE if hostile else ""
    words = {"chosen": ["Yes", ",", " I", " do", f"{bad}", "."], "rejected": [*"No, not "]}
    texts = [
        {
            "pair_id": f"pairs{bad}.jsonl:{i + 1}",
            "prompt": prompt + bad if one_prompt else f"{i + 1}. {prompt}{bad}",
            "responses": {response: "".join(tokens) for response, tokens in words.items()},
            "tokens": words,
        }
        for i in range(PAIRS)
    ]
    tokens = {
        step: [
            [sums[name][step, i] / len(words[name])] * len(words[name])
            for i in range(PAIRS)
            for name in words
        ]
        for step in (0, STEPS - 1)
    }
    parameters = {"alpha": alpha, "beta": 2.5, "gamma": 0.5} if name == "alphapo" else {"beta": 0.1}
    return write_run(
        folder,
        sums,
        num_tokens=TOKENS,
        pair_ids=[text["pair_id"] for text in texts],
        objective={"name": name, "parameters": parameters},
        texts=texts,
        tokens=tokens,
        run={"seed": seed, "learning_rate": 1e-4, "data": [f"data/{bad}.jsonl"]},
        model={"checkpoint": f"models/tiny{bad}"},
        command=f"python -m rewardshape.probe --alpha {alpha} {bad}",
    )


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text outside them."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="session")
def write(write_run) -> Callable[..., Path]:
    """Writes a run whose chosen responses fall: `write(folder, fall=0.3, alpha=0.25, hostile=False, …)`."""
    return lambda folder, **options: _write(write_run, folder, **options)


@pytest.fixture
def sweep(write, tmp_path) -> Path:
    return _write_sweep(write, tmp_path / "sweep")


def _write_sweep(write, folder) -> Path:
    for alpha, fall in ((-0.5, 0.1), (0.0, 0.2), (0.25, 0.3)):
        write(folder / f"alpha={alpha:g}", fall=fall, alpha=alpha)
    return folder


@pytest.fixture(scope="session")
def written(write, tmp_path_factory) -> dict[str, bytes]:
    """The pages of ``run`` and of `sweep`, drawn once."""
    folder = tmp_path_factory.mktemp("written")
    made = {"run": write(folder / "run"), "sweep": _write_sweep(write, folder / "sweep")}
    return {name: write_report(path).read_bytes() for name, path in made.items()}


@pytest.fixture
def sweep_page(written, sweep) -> Path:
    """The page of `sweep` in it."""
    (sweep / "report.html").write_bytes(written["sweep"])
    return sweep / "report.html"


@pytest.fixture
def run_page(written, tmp_path) -> Path:
    """The page of a run as `write` writes it."""
    (tmp_path / "report.html").write_bytes(written["run"])
    return tmp_path / "report.html"


@pytest.fixture
def page_of() -> type[Page]:
    return Page


@pytest.fixture
def bad_text() -> str:
    """Text that would run, load or break something if it were not escaped."""
    return HOSTILE


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
