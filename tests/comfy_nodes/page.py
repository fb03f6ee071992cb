"""A headless Chromium on ComfyUI's page, driven through its debugging protocol."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from .comfyui import WebSocket

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--window-size=1600,900", "--remote-debugging-port=0",
)  # fmt: skip
START_SECONDS = 120
ANSWER_SECONDS = 300


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """One page.

    Attributes:
        errors: what went wrong in scripts of the page.
    """

    def __init__(self, profile: Path):
        command = [chromium(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = self._port(profile / "DevToolsActivePort")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        url = target["webSocketDebuggerUrl"]
        self._socket = WebSocket(url.replace("ws://", "http://"), url[url.index("/devtools") :])
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._heard = threading.Condition()
        self.errors: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()
        self.call("Runtime.enable")
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and wait for its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._socket.send(WebSocket.TEXT, json.dumps(message).encode())
        with self._heard:
            if not self._heard.wait_for(lambda: number in self._answers, ANSWER_SECONDS):
                raise TimeoutError(method)
            answer = self._answers.pop(number)
        assert "error" not in answer, answer
        return answer["result"]

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_until(self, script: str, seconds: float = START_SECONDS) -> None:
        """Wait until an expression is true; errors of a page that is not there yet do not count."""
        wrapped = (
            "new Promise(done => { const look = () => { let is = false; try { is = !!(" + script + ") } catch {}"
            f" if (is || performance.now() > end) done(is); else setTimeout(look, 200) }};"
            f" const end = performance.now() + {seconds * 1000}; look() }})"
        )
        assert self.run(wrapped), script

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._socket.close()

    def _port(self, file: Path) -> int:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            if file.is_file() and (lines := file.read_text().split()):
                return int(lines[0])
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
        raise RuntimeError("Chromium did not start.")

    def _listen(self) -> None:
        for _, body in self._socket.messages():
            message = json.loads(body)
            with self._heard:
                if "id" in message:
                    self._answers[message["id"]] = message
                    self._heard.notify_all()
                elif message["method"] == "Runtime.exceptionThrown":
                    details = message["params"]["exceptionDetails"]
                    self.errors.append(details.get("exception", {}).get("description", details["text"]))
