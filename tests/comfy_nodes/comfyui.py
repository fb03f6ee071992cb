"""A real ComfyUI server for the end-to-end tests, on the loopback and in folders of its own."""

import base64
import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHECKOUT = os.environ.get("COMFYUI_PATH")
START_SECONDS = 180
RUN_SECONDS = 600
ENDS = ("execution_success", "execution_interrupted", "execution_error")

# A second pack beside ours, that lets a test look into the server: which models are loaded, what memory it uses. As
# some packs do, it puts `custom_nodes` on the path, where our folder has the name of the library.
PROBE = """
import gc, os, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))
import comfy.model_management as management
from aiohttp import web
from server import PromptServer

@PromptServer.instance.routes.get("/probe")
async def probe(request):
    gc.collect()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    loaded = [type(one.model.model).__name__ for one in management.current_loaded_models if one.model is not None]
    kinds = [type(one).__name__ for one in gc.get_objects()]
    alive = {kind: kinds.count(kind) for kind in ("CanvasCache", "SJDWeights")}
    return web.json_response({"loaded": loaded, "resident": resident} | alive)

@PromptServer.instance.routes.get("/probe/evict")
async def evict(request):
    # What ComfyUI does on a GPU when a model needs room for itself.
    keep = management.current_loaded_models[:1]
    management.free_memory(1e30, management.get_torch_device(), keep)
    return web.json_response({})

NODE_CLASS_MAPPINGS = {}
"""


class ComfyUI:
    """A running server and one client of it.

    Attributes:
        url: of the server.
        log: file with all it printed.
    """

    def __init__(self, base: Path):
        (base / "custom_nodes" / "a_probe").mkdir(parents=True)
        (base / "custom_nodes" / "a_probe" / "__init__.py").write_text(PROBE)
        (base / "custom_nodes" / "sjd_pipelines").symlink_to(ROOT, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = base / "server.log"
        command = [
            os.environ.get("COMFYUI_PYTHON", sys.executable), "main.py", "--cpu", "--listen", "127.0.0.1",
            "--port", str(port), "--disable-api-nodes", "--base-directory", str(base),
            "--database-url", "sqlite:///:memory:",
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT)
        self._socket: WebSocket | None = None
        self.client = uuid.uuid4().hex
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()

    def start(self) -> None:
        """Wait until the server answers, and listen to it."""
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.get("/system_stats")
                break
            except urllib.error.URLError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"ComfyUI did not start:\n{self.log.read_text()}") from None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.2)
        self._socket = WebSocket(self.url, f"/ws?clientId={self.client}")
        threading.Thread(target=self._listen, daemon=True).start()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        if self._socket is not None:
            self._socket.close()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if answer.headers.get_content_type() == "application/json" else body

    def post(self, path: str, value: Any) -> tuple[int, Any]:
        """Status and answer, of refusals too."""
        request = urllib.request.Request(
            self.url + path, json.dumps(value).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            with refusal:
                status, body = refusal.code, refusal.read()
        return status, json.loads(body) if body else None

    def queue(self, prompt: dict[str, Any]) -> str:
        """Queue a graph; its id."""
        status, answer = self.post("/prompt", {"prompt": prompt, "client_id": self.client})
        assert status == 200, answer
        return answer["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = RUN_SECONDS) -> list[dict[str, Any]]:
        """Everything the server said until that graph was done, cancelled or failed; how it ended is the last."""
        seen = []
        for event in self.follow(seconds):
            if is_over(event, prompt_id):
                break
            seen.append(event)
        endings = [event for event in seen if event["type"] in ENDS and event["data"]["prompt_id"] == prompt_id]
        return [*seen, endings[-1]]

    def follow(self, seconds: float = RUN_SECONDS) -> Iterator[dict[str, Any]]:
        """What the server says, each with the time it was heard at as `heard`."""
        end = time.monotonic() + seconds
        while True:
            yield self.events.get(timeout=max(0.001, end - time.monotonic()))

    def run(self, prompt: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Run a graph: what was said meanwhile, and its outputs by node."""
        prompt_id = self.queue(prompt)
        events = self.wait(prompt_id)
        assert events[-1]["type"] == "execution_success", events[-1]
        return events, self.get(f"/history/{prompt_id}")[prompt_id]["outputs"]

    def pictures(self, outputs: dict[str, Any]) -> list[bytes]:
        """The picture files of a run, as they were written."""
        images = [image for output in outputs.values() for image in output.get("images", [])]
        return [self.get(f"/view?{urllib.parse.urlencode(image)}") for image in images]

    def _listen(self) -> None:
        for kind, body in self._socket.messages():
            event = json.loads(body) if kind == WebSocket.TEXT else {"type": "binary", "body": body}
            self.events.put(event | {"heard": time.monotonic()})


def is_over(event: dict[str, Any], prompt_id: str) -> bool:
    """Whether this says that a graph has left the queue; its history can be read from then on."""
    data = event.get("data", {})
    return event["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id


class WebSocket:
    """As much of RFC 6455 as listening to ComfyUI takes, so that the tests need no further package."""

    TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

    def __init__(self, url: str, path: str):
        host, key = urllib.parse.urlparse(url), base64.b64encode(os.urandom(16)).decode()
        self._socket = socket.create_connection((host.hostname, host.port))
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        answer = self._file.readline()
        if b" 101 " not in answer:
            self.close()
            raise ConnectionError(answer)
        while self._file.readline().strip():
            pass

    def send(self, kind: int, body: bytes) -> None:
        mask = os.urandom(4)
        length = bytes([0x80 | len(body)]) if len(body) < 126 else b"\xfe" + len(body).to_bytes(2, "big")
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))
        self._socket.sendall(bytes([0x80 | kind]) + length + mask + masked)

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """Kind and body of each message until the other side closes."""
        kind, body = 0, b""
        while header := self._file.read(2):
            code, length = header[0] & 15, header[1] & 127
            if length > 125:
                length = int.from_bytes(self._file.read(2 if length == 126 else 8), "big")
            part = self._file.read(length)
            if code == self.CLOSE:
                return
            if code == self.PING:
                self.send(self.PONG, part)
            if code in (self.PING, self.PONG):
                continue
            kind, body = (kind, body + part) if code == 0 else (code, part)
            if header[0] & 0x80:
                yield kind, body

    def close(self) -> None:
        self._file.close()
        self._socket.close()
