"""Headless Chromium by the DevTools protocol, through two pipes: only the browser is needed."""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str | None:
    """The first Chromium on the path."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """A page that is open: commands in, answers and events out."""

    def __init__(self, to: Any, of: Any) -> None:
        self._to, self._of, self._count, self._session = to, of, 0, None
        self.problems: list[str] = []  # errors and warnings of the console
        self.requests: list[str] = []  # addresses that were asked for
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while (answer := self._read()).get("id") != message["id"]:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, file: Path) -> None:
        """Load a page and wait for it."""
        self.call("Page.navigate", url=file.as_uri())
        while self._read().get("method") != "Page.loadEventFired":
            pass
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def look(self, *, width: int = 1100, height: int = 900, **features: str) -> None:
        """Set the size of the window and media features such as prefers_color_scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        wanted = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.call("Emulation.setEmulatedMedia", features=wanted)

    def picture(self) -> bytes:
        """The whole page as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def _read(self) -> dict[str, Any]:
        """The next message; what the page complains of is kept."""
        raw = bytearray()
        while (byte := self._of.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("expected a browser that goes on, got one that ended")
            raw += byte
        message = json.loads(raw)
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.problems.append(json.dumps(params["args"]))
            case "Log.entryAdded":
                self.problems.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
        return message


@contextlib.contextmanager
def tab(folder: Path) -> Iterator[Tab]:
    """A page of a new browser, whose profile lies in a folder, until the end of the block."""
    found = executable()
    assert found is not None
    (read_in, write_in), (read_out, write_out) = os.pipe(), os.pipe()
    words = [found, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    words += ["--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder}"]
    start = f'exec 3<&{read_in} 4>&{write_out}; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", start, "bash", *words],
        pass_fds=(read_in, write_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(read_in)
    os.close(write_out)
    try:
        with os.fdopen(write_in, "wb") as to, os.fdopen(read_out, "rb") as of:
            yield Tab(to, of)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
