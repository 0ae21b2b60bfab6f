"""A real browser for tests: Chromium without a window, told by its DevTools protocol over two pipes what to do.

`Browser().open(url)` gives a `Page`, which keeps every error of the page's console and every address it asked for."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = (  # WebGL by the CPU; nothing that Chromium asks for of its own accord
    "--headless=new --no-sandbox --no-first-run --disable-background-networking --disable-component-update "
    "--disable-default-apps --disable-sync --disable-dev-shm-usage --hide-scrollbars --window-size=1280,900 "
    "--use-angle=swiftshader --enable-unsafe-swiftshader --remote-debugging-pipe"
)
PATIENCE_S = 120  # a page of a busy machine may take long


def chromium() -> str:
    "The command that starts Chromium. Skips the test where none is installed."
    command = next(filter(None, map(shutil.which, NAMES)), None)
    if command is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium): pages were not opened in a browser")
    return command


class Browser:
    "One running Chromium, for `with`."

    def __init__(self):
        self.command = chromium()
        self.number, self.unread, self.tab = 0, b"", None

    def __enter__(self):
        self.profile = tempfile.mkdtemp(prefix="chromium")
        reads, self.write = os.pipe()
        self.read, writes = os.pipe()
        start = f"exec {self.command} {ARGUMENTS} --user-data-dir={self.profile} about:blank 3<&{reads} 4>&{writes}"
        with open(f"{self.profile}/log", "w") as log:
            self.process = subprocess.Popen(["bash", "-c", start], pass_fds=(reads, writes), stdout=log, stderr=log)
        os.close(reads)
        os.close(writes)
        return self

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        os.close(self.write)
        os.close(self.read)
        shutil.rmtree(self.profile, ignore_errors=True)

    def messages(self, deadline: float) -> Iterator[dict]:
        "What Chromium says, one message after the other. TimeoutError at the deadline; EOFError where it has ended."
        while True:
            while b"\0" in self.unread:
                message, _, self.unread = self.unread.partition(b"\0")
                yield json.loads(message)
            if not select.select([self.read], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium said nothing for {PATIENCE_S} s")
            if not (more := os.read(self.read, 1 << 20)):
                raise EOFError(Path(self.profile, "log").read_text("utf-8"))
            self.unread += more

    def ask(self, method: str, page: "Page | None" = None, **parameters) -> dict:
        "The answer to a command of the protocol; events that come before it go to their page."
        self.number += 1
        number = self.number
        command = {"id": number, "method": method, "params": parameters}
        if page is not None:
            command["sessionId"] = page.session
        os.write(self.write, json.dumps(command).encode() + b"\0")
        for message in self.messages(time.monotonic() + PATIENCE_S):
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            if page is not None and message.get("sessionId") == page.session:
                page.hear(message["method"], message["params"])
        raise AssertionError("messages end only by an error")

    def open(self, url: str) -> "Page":
        "A page in a tab of its own, when it has loaded. The tab before it is closed."
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        if self.tab is not None:
            self.ask("Target.closeTarget", targetId=self.tab)
        self.tab = target
        page = Page(self, self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable", page)
        answer = self.ask("Page.navigate", page, url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"
        page.wait_for("document.readyState == 'complete'")
        return page


class Page:
    "A tab. `errors`: what its console shows in red; `requests`: all addresses that it asked for."

    def __init__(self, browser: Browser, session: str):
        self.browser, self.session = browser, session
        self.errors, self.requests = [], []

    def hear(self, method: str, facts: dict) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = facts["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and facts["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in facts["args"]))
        elif method == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.errors.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")

    def evaluate(self, script: str):
        "The value of a JavaScript expression."
        answer = self.browser.ask("Runtime.evaluate", self, expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (script, answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = PATIENCE_S) -> None:
        "Until the expression is true. AssertionError, with the console's errors, where it does not become so."
        end = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({script})"):
            assert time.monotonic() < end, f"not within {seconds} s: {script}; console: {self.errors}"
            time.sleep(0.1)

    def click(self, selector: str) -> None:
        "A click with the mouse in the middle of the first such element, brought into view."
        self.evaluate(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        middle = "(r => ({x: r.x + r.width / 2, y: r.y + r.height / 2}))"
        place = self.evaluate(f"{middle}(document.querySelector({selector!r}).getBoundingClientRect())")
        for event in ("mousePressed", "mouseReleased"):
            self.browser.ask("Input.dispatchMouseEvent", self, type=event, button="left", clickCount=1, **place)

    def picture(self, selector: str) -> np.ndarray:
        "What a person sees of the first such element, RGB [height, width, 3]."
        box = "(r => ({x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height}))"
        clip = self.evaluate(f"{box}(document.querySelector({selector!r}).getBoundingClientRect())")
        answer = self.browser.ask("Page.captureScreenshot", self, clip={**clip, "scale": 1}, captureBeyondViewport=True)
        content = np.frombuffer(base64.b64decode(answer["data"]), np.uint8)
        return cv2.cvtColor(cv2.imdecode(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        "Nothing: the pages' own console tells what was not found."


@contextmanager
def served(folder: Path) -> Iterator[str]:
    "The address of a server of a folder, on this machine alone."
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
