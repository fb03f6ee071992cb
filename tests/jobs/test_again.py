"""Pictures that remember how they were drawn, and are drawn again from that."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sjd_pipelines import FLOW_SOLVERS, SCHEDULERS, RevisedJacobiScheduler, __version__, draw_again
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.jobs.provenance import KEY, save_picture, weights_digest
from sjd_pipelines.jobs.rows import Row
from sjd_pipelines.jobs.schedulers import describe_scheduler, make_scheduler
from sjd_pipelines.jobs.session import Session


def drawn(pipe, path, **options):
    (one,) = Session(pipe, "toy").draw([Row("1", "a red dog", **options)])
    save_picture(one.image, path, one.provenance)
    return one


def remembered(path):
    with Image.open(path) as picture:
        return json.loads(picture.info[KEY])


def rewrite(path, **chunks):
    """The picture with other text chunks."""
    info = PngInfo()
    for key, text in chunks.items():
        info.add_text(key, text)
    with Image.open(path) as picture:
        picture.save(path, pnginfo=info)


@pytest.mark.parametrize("name", ["autoregressive", "sjd", "coupled-sjd", "eagle", "revised-jacobi", "zipar"])
def test_a_picture_is_drawn_again_token_for_token(pipe, tmp_path, name):
    settings = {"scheduler": {"name": name}, "temperature": 0.7, "top_k": 9, "top_p": 0.95, "guidance_scale": 2}
    one = drawn(pipe, tmp_path / "a.png", seed=3, negative_prompt="car", settings=settings)
    pipe.scheduler = RevisedJacobiScheduler(window=3)  # what a picture remembers does not depend on it
    (again,) = draw_again(tmp_path / "a.png", pipe)
    assert again.tokens.tolist() == one.tokens.tolist()
    save_picture(again.image, tmp_path / "b.png", replace(again.provenance, model=one.provenance.model))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_a_picture_remembers(pipe, tmp_path):
    one = drawn(pipe, tmp_path / "a.png", seed=3, settings={"scheduler": {"name": "sjd", "window": 5}})
    assert remembered(tmp_path / "a.png") == {
        "version": __version__,
        "model": {
            "name": "toy", "pipeline": "SJDJanusPipeline", "dtype": "float32", "weights": weights_digest(pipe),
        },
        "prompt": "a red dog",
        "picture_seed": one.record["picture_seed"],
        "height": 8,
        "width": 8,
        "settings": {
            **pipe.sampling_defaults(), "scheduler": {"name": "sjd", "window": 5, "initialise": "law-above"},
        },
    }  # fmt: skip


def test_a_flow_is_drawn_again(flow_pipe, tmp_path):
    one = Session(flow_pipe, "toy").draw([Row("1", "cat", seed=1, settings={"guidance_scale": 1.0})])[0]
    save_picture(one.image, tmp_path / "a.png", one.provenance)
    (again,) = draw_again(tmp_path / "a.png", flow_pipe)
    assert again.image.tobytes() == one.image.tobytes()
    assert again.provenance.row == replace(one.provenance.row, id=again.row.id)


@pytest.mark.parametrize("name", [*SCHEDULERS, *FLOW_SOLVERS])
def test_every_scheduler_is_plain_data(name):
    scheduler = {**SCHEDULERS, **FLOW_SOLVERS}[name]()
    described = json.loads(json.dumps(describe_scheduler(scheduler)))
    Row.of({"prompt": "a", "settings": {"scheduler": described}}, 1)
    assert describe_scheduler(make_scheduler(None, described)) == describe_scheduler(scheduler)


def test_other_weights_are_refused(pipe, tmp_path):
    drawn(pipe, tmp_path / "a.png", seed=3)
    other = toy_pipeline(side=4, codebook_size=16, seed=1)
    with pytest.raises(ValueError, match=r"a\.png: it was drawn by toy with weights of SHA-256 '.*would be another"):
        draw_again(tmp_path / "a.png", other)
    with pytest.raises(ValueError, match="was drawn by a model in a folder, toy; say where it is"):
        draw_again(tmp_path / "a.png")
    other = toy_pipeline(side=4, codebook_size=16)
    assert weights_digest(other) == weights_digest(pipe)
    torch.nn.Module.to(other.model, torch.bfloat16)
    with pytest.raises(ValueError, match="with dtype 'float32', this has 'bfloat16'"):
        draw_again(tmp_path / "a.png", other)


def test_windows_that_speed_chose_are_not_known(pipe, tmp_path):
    drawn(pipe, tmp_path / "a.png", seed=3, settings={"scheduler": {"name": "sjd", "window": "auto"}})
    with pytest.raises(ValueError, match="it was drawn with window auto by a scheduler that is not exact"):
        draw_again(tmp_path / "a.png", pipe)
    one = drawn(pipe, tmp_path / "a.png", seed=3, settings={"scheduler": {"name": "seeded-jacobi", "window": "auto"}})
    assert draw_again(tmp_path / "a.png", pipe)[0].tokens.tolist() == one.tokens.tolist()


NO_MODEL = '{"version": "1", "model": {"name": "", "pipeline": "", "dtype": "", "weights": ""}'
DAMAGED = {
    "": "is damaged, or of another version",
    "[]": "is damaged",
    "[" * 100_000: "is damaged",
    "{}": "there is no 'version'",
    '{"version": 3, "model": {}}': "must be texts",
    '{"version": "1", "model": {"name": 1, "pipeline": "", "dtype": "", "weights": ""}}': "must be texts",
    NO_MODEL + "}": "it has no prompt",
    NO_MODEL + ', "prompt": "a"}': "there is no picture_seed",
}


@pytest.mark.parametrize("text", DAMAGED, ids=[f"{index}" for index in range(len(DAMAGED))])
def test_damaged_memories_are_refused(pipe, tmp_path, text):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rewrite(tmp_path / "a.png", **{KEY: text})
    with pytest.raises(ValueError, match=DAMAGED[text]) as error:
        draw_again(tmp_path / "a.png", pipe)
    assert str(error.value).startswith(f"{tmp_path / 'a.png'}: ")


def test_files_that_remember_nothing(pipe, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"a\.png is no PNG"):
        draw_again(tmp_path / "a.png", pipe)
    drawn(pipe, tmp_path / "a.png", seed=3)
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"a\.png is a damaged PNG"):
        draw_again(tmp_path / "a.png", pipe)
    rewrite_plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(rewrite_plain)
    with pytest.raises(ValueError, match="it does not say how it was drawn"):
        draw_again(rewrite_plain, pipe)
    with pytest.raises(FileNotFoundError):
        draw_again(tmp_path / "missing.png", pipe)


def test_like_on_the_command_line(sjd, model):
    sjd("generate", "car", "--model", model, "--seed", 1, "--scheduler", "sjd", "--set", "initialise=uniform")
    sjd("generate", "car", "--model", model, "--seed", 1, "--scheduler", "sjd", "-o", "b.png", "--temperature", 0.5)
    for name in ("car-1.png", "b.png"):
        status, _, err = sjd("generate", "--like", name, "--model", model, "-o", f"again/{name}", "--quiet")
        assert (status, err) == (2, "sjd: error: --output: the folder again does not exist.\n")
    Path("again").mkdir()
    for name in ("car-1.png", "b.png"):
        status, out, err = sjd("generate", "--like", name, "--model", model, "-o", f"again/{name}", "--quiet")
        assert (status, out, err) == (0, f"again/{name}\n", "")
        assert Path("again", name).read_bytes() == Path(name).read_bytes()


def test_like_refuses_what_it_can_not_draw(sjd, model, tmp_path_factory):
    sjd("generate", "car", "--model", model, "--seed", 1, "-o", "a.png", "--quiet")
    other = tmp_path_factory.mktemp("models") / "other"
    toy_pipeline(4, 64, seed=1).save_pretrained(other)
    refused = {
        (): "--like a.png: was drawn by a model in a folder, toy; name it with --model.",
        ("--model", other): "a.png: it was drawn by toy with weights of SHA-256 ",
        ("--model", model, "--seed", 2): "--seed does not go with --like: the picture has its own.",
        ("--model", model, "--set", "a=b"): "--set does not go with --like: the picture has its own.",
        ("--model", model, "--dtype", "float16"): "--dtype does not go with --like: the picture has its own.",
        ("car",): "PROMPT, --prompts and --like exclude each other; give one of them.",
    }
    for options, words in refused.items():
        status, out, err = sjd("generate", "--like", "a.png", *options, "-o", "again.png")
        assert (status, out) == (2, "")
        assert err.startswith(f"sjd: error: {words}")
        assert err.count("\n") == 1
    status, _, err = sjd("generate", "--like", "missing.png")
    assert (status, err) == (2, "sjd: error: --like missing.png: No such file or directory.\n")
    assert not Path("again.png").exists()
