"""`sjd comfy install`: a link, a copy, and what is in the way."""

import os
from pathlib import Path

import pytest

from sjd_pipelines.cli import main
from sjd_pipelines.cli.comfy import place

ROOT = Path(__file__).parents[2]


@pytest.fixture
def target(tmp_path):
    (tmp_path / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    return tmp_path / "ComfyUI" / "custom_nodes" / "sjd_pipelines"


@pytest.fixture
def checkout(tmp_path):
    """A checkout in miniature."""
    folder = tmp_path / "checkout"
    for name in ("comfy_nodes/web/docs/a.md", "sjd_pipelines/version.py", "__init__.py", "tests/test_a.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def install(capsys, *options):
    status = main(["comfy", "install", *map(str, options)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_link_to_this_checkout(capsys, target):
    status, out, err = install(capsys, target.parents[1])
    assert (status, err) == (0, "")
    assert target.is_symlink()
    assert target.resolve() == ROOT
    lines = out.splitlines()
    assert lines[0] == f"Linked {target} to {ROOT}: changes there are seen at once."
    assert lines[1].endswith(f"pip install -r {ROOT / 'requirements.txt'}")
    assert install(capsys, target.parents[1])[1].startswith("Nothing to do")
    assert os.listdir(target.parent) == [target.name]


def test_this_folder_is_the_default(capsys, target, monkeypatch):
    monkeypatch.chdir(target.parents[1])
    assert install(capsys)[0] == 0
    assert target.is_symlink()


def test_a_copy_and_a_newer_one(checkout, target):
    assert place(checkout, target, copy=True).startswith(f"Copied the pack to {target}: ")
    assert (target / "comfy_nodes/web/docs/a.md").read_text() == "comfy_nodes/web/docs/a.md"
    assert not (target / "tests").exists()
    (checkout / "sjd_pipelines/version.py").write_text("newer")
    place(checkout, target, copy=True)
    assert (target / "sjd_pipelines/version.py").read_text() == "newer"
    place(checkout, target, copy=False)
    assert target.is_symlink()
    place(checkout, target, copy=True)
    assert not target.is_symlink()
    assert (checkout / "tests/test_a.py").is_file()
    assert os.listdir(target.parent) == [target.name]


def test_where_links_are_not_allowed(checkout, target, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("not here")

    monkeypatch.setattr(os, "symlink", refuse)
    assert "(this system allows no links)" in place(checkout, target, copy=False)
    assert (target / "__init__.py").is_file()
    assert not target.is_symlink()


def test_something_else_is_in_the_way(capsys, target):
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    status, out, err = install(capsys, target.parents[1])
    assert (status, out) == (2, "")
    assert err == f"sjd: error: {target} exists and is not this pack; move it away first.\n"
    assert (target / "mine.txt").read_text() == "mine"


def test_a_folder_without_comfyui(capsys, tmp_path):
    status, _, err = install(capsys, tmp_path)
    assert status == 2
    assert "is not a ComfyUI folder: it has no custom_nodes folder." in err


def test_a_checkout_inside_comfyui(checkout, target):
    checkout.rename(target)
    assert place(target, target, copy=False).startswith("Nothing to do")
    assert place(target, target, copy=True).startswith("Nothing to do")
