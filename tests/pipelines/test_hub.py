"""What a download that fails says."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sjd_pipelines import SJDAutoRegressivePipeline
from sjd_pipelines.pipelines.hub import download_file, download_folder


@pytest.fixture
def hub():
    """A hub that has what no test asks for; gives its address and a function that sets its answer."""
    answer = {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):  # a file is asked after before it is fetched
            self.send_response(answer["status"])
            if answer["code"]:
                self.send_header("X-Error-Code", answer["code"])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", lambda status, code: answer.update(status=status, code=code)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "The hub has no owner/name, or it is private; pass token="),
        (403, "GatedRepo", "owner/name is for those who have agreed to its terms"),
        (404, "RevisionNotFound", "owner/name has no revision v9 on the hub"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(hub, tmp_path, status, code, message):
    endpoint, answers = hub
    answers(status, code)
    with pytest.raises(OSError, match=f"^{message}"):
        download_folder("owner/name", ["*.json"], {"revision": "v9", "endpoint": endpoint, "cache_dir": tmp_path})


def test_a_file_that_the_hub_lacks(hub, tmp_path):
    endpoint, answers = hub
    answers(404, "EntryNotFound")
    with pytest.raises(OSError, match=r"^The hub has no owner/name/vq\.pt\.$"):
        download_file("owner/name", "vq.pt", {"endpoint": endpoint, "cache_dir": tmp_path})


def test_a_hub_that_nobody_hears(hub, tmp_path):
    options = {"endpoint": "http://127.0.0.1:9", "cache_dir": tmp_path}
    with pytest.raises(
        OSError, match="owner/name has not been downloaded before, and the hub can't be reached; check"
    ):
        download_folder("owner/name", ["*.json"], options)


def test_a_model_that_is_not_here_when_nothing_may_be_downloaded(tmp_path):
    options = {"local_files_only": True, "cache_dir": tmp_path}
    message = "has not been downloaded before, and nothing is downloaded, as local_files_only or HF_HUB_OFFLINE says"
    with pytest.raises(OSError, match=f"^owner/name {message}"):
        SJDAutoRegressivePipeline.from_pretrained("owner/name", **options)
    with pytest.raises(OSError, match=rf"^owner/name/c2i_B_256\.pt {message}"):
        SJDAutoRegressivePipeline.from_single_file("owner/name/c2i_B_256.pt", vq_file="vq.pt", **options)


def test_what_is_no_hub_id(tmp_path):
    with pytest.raises(OSError, match=r"^own er/na--me is no hub id \(owner/name\)"):
        SJDAutoRegressivePipeline.from_pretrained("own er/na--me", cache_dir=tmp_path)
