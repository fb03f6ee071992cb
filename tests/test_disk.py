"""Output on disk: what may be replaced, what is refused, and files of unknown origin."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sjd_pipelines import disk

NO_FIFO = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")


@pytest.fixture
def odd(tmp_path):
    """Things in a folder that are no regular files."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
    (tmp_path / "locked").write_text("kept")
    (tmp_path / "locked").chmod(0o444)
    (tmp_path / "folder").mkdir()
    (tmp_path / "around").symlink_to("round")
    (tmp_path / "round").symlink_to("around")
    (tmp_path / "to-null").symlink_to(os.devnull)
    return tmp_path


REFUSED = {
    "pipe": "is a pipe, not a regular file; name another one.",
    "socket": "is a socket, not a regular file; name another one.",
    "to-null": "is a device, not a regular file; name another one.",
    "locked": "is read-only; name another file, or make it writable.",
    "folder": "is a folder; name a file.",
    "around": "Too many levels of symbolic links.",
    "n" * 300: "File name too long.",
    "zero\0byte": "embedded null byte.",
}


@NO_FIFO
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_regular_file_is_never_replaced(odd, name):
    before = {path.name: path.lstat().st_ino for path in odd.iterdir()}
    assert disk.refusal_of_file(odd / name) == REFUSED[name]
    with pytest.raises((OSError, ValueError)), disk.replacing(odd / name) as temporary:
        temporary.write_text("new")
    assert {path.name: path.lstat().st_ino for path in odd.iterdir()} == before


@NO_FIFO
def test_the_device_itself_is_refused():
    assert disk.refusal_of_file(Path(os.devnull)) == "is a device, not a regular file; name another one."


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("missing/a", "the folder {0} does not exist."),
        ("file/a", "{0} is not a folder."),
        (f"{'n' * 300}/a", "{0}: File name too long."),
        ("around/a", "{0}: Too many levels of symbolic links."),
    ],
)
def test_folders_that_take_no_file(tmp_path, name, refusal):
    (tmp_path / "file").touch()
    (tmp_path / "around").symlink_to("around")
    folder = (tmp_path / name).parent
    assert disk.refusal_of_folder(folder) == refusal.format(folder)


@NO_FIFO
def test_a_link_is_followed_and_stays(odd):
    (odd / "to-file").symlink_to("folder/file")  # does not exist yet
    for text in ("one", "two"):
        disk.write_json(odd / "to-file", text)
        assert json.loads((odd / "folder/file").read_text()) == text
    assert (odd / "to-file").is_symlink()
    assert os.listdir(odd / "folder") == ["file"]


def test_the_longest_name_that_there_is_can_be_written(tmp_path):
    path = tmp_path / f"{'n' * 251}.png"
    with disk.replacing(path) as temporary:
        temporary.write_text("new")
    assert os.listdir(tmp_path) == [path.name]


def test_nobody():
    with pytest.raises(OSError, match=r"^~nosuchuser/a\.png: there is no user of that name\.$"):
        disk.expanded("~nosuchuser/a.png")
    assert disk.expanded("~") == Path.home()


def test_what_is_no_text_is_an_escape_in_json(tmp_path):
    disk.write_json(tmp_path / "a.json", {"name": "a\udcff.png", "umlaut": "ä"})
    assert "umlaut" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert disk.read_json(tmp_path / "a.json") == {"name": "a\udcff.png", "umlaut": "ä"}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "is not valid JSON: Expecting value"),
        (b"\xff\xfe{}", "is no text in UTF-8: 'utf-8' codec"),
        (b"[" * 100_000, "is not valid JSON: it is nested too deeply"),
        (b'{"a":' * 100_000, "is not valid JSON: it is nested too deeply"),
        (b"1" * 10_000, "is not valid JSON: Exceeds the limit"),
        (b'{"a": 1', "is not valid JSON: Expecting"),
        (b"[]", "holds list where a JSON object is expected"),
        (b"3", "holds int where"),
        (b"null", "holds NoneType where"),
        (b'"text"', "holds str where"),
    ],
)
def test_json_that_is_none_or_something_else(tmp_path, content, error):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(OSError, match=f"config.json {error}"):
        disk.read_object(file)


def test_a_folder_has_the_permissions_of_new_ones(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").touch()
    with disk.new_folder(tmp_path / "made") as folder:
        (folder / "inside").mkdir(mode=0o700)
        os.close(os.open(folder / "inside" / "weights", os.O_CREAT, 0o600))
    modes = {path: stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("plain", "made", "made/inside")}
    assert len(set(modes.values())) == 1
    weights = (tmp_path / "made/inside/weights").stat().st_mode
    assert weights == (tmp_path / "plain/file").stat().st_mode


def test_a_folder_is_made_whole_or_not_at_all(tmp_path):
    def stopped():
        with disk.new_folder(tmp_path / "deep" / "made") as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert os.listdir(tmp_path / "deep") == []
    (tmp_path / "there").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    refused = {
        "there": "there exists; choose a new folder",
        "dangling": "dangling exists",
        "there/made": "Not a directory",
        f"missing/{'n' * 300}": "File name too long",
    }
    for name, refusal in refused.items():
        with pytest.raises(OSError, match=refusal), disk.new_folder(tmp_path / name):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks on folders")
def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom sjd_pipelines.disk import new_folder\n"
        "with new_folder(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "made")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        (left,) = os.listdir(tmp_path)
        with pytest.raises(KeyError), disk.new_folder(tmp_path / "made"):
            raise KeyError
        assert os.listdir(tmp_path) == [left]
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert os.listdir(tmp_path) == [left]
    with disk.new_folder(tmp_path / "made"):
        pass
    assert os.listdir(tmp_path) == ["made"]
