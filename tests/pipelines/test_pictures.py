"""Contact sheets, and frames of pictures as they form."""

import numpy as np
import torch
from PIL import Image

from sjd_pipelines import AutoregressiveScheduler, SeededJacobiScheduler
from sjd_pipelines.pipelines.pictures import RAMP, Recording, forming_frames, on_ramp, save_animation
from sjd_pipelines.pipelines.sheets import contact_sheet

SIDE = 8  # pixels; 4 x 4 tokens of 2 x 2 pixels
GREY = 128


def record(pipe, scheduler, prompts):
    pipe.scheduler = scheduler
    recording = Recording()
    return pipe(prompts, callback_on_step_end=recording).images, recording


def test_frames_end_with_the_pictures_and_start_grey(pipe):
    sequential, first = record(pipe, AutoregressiveScheduler(), ["a red dog", "car"])
    parallel, second = record(pipe, SeededJacobiScheduler(window=4), ["two cat"])
    frames = forming_frames(pipe, [first, second])
    assert len(frames) == 16
    assert all(len(pictures) == 3 for pictures in frames)
    for shown, drawn in zip(frames[-1], [*sequential, *parallel]):
        assert np.array_equal(shown, drawn)
    for row in range(4):  # after 4 (row + 1) sequential passes, so many rows of tokens are done
        pixels = np.asarray(frames[4 * row + 3][0])
        assert (pixels[2 * row + 2 :] == GREY).all()
        assert (pixels[2 * row : 2 * row + 2] != GREY).any()


def test_no_more_frames_than_asked_for_and_always_the_last(pipe):
    (picture,), recording = record(pipe, AutoregressiveScheduler(), ["car"])
    frames = forming_frames(pipe, [recording], frames=5)
    assert len(frames) == 5
    assert np.array_equal(frames[-1][0], picture)


def test_contact_sheet():
    pictures = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "lime", "blue")]
    sheet = contact_sheet(pictures, columns=2, gap=2)
    assert sheet.size == (2 * SIDE + 2, 2 * SIDE + 2)
    corners = [sheet.getpixel((column, row)) for row in (0, SIDE + 2) for column in (0, SIDE + 2)]
    assert corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert sheet.getpixel((SIDE, 0)) == (255, 255, 255)
    assert contact_sheet(pictures[:1], columns=5).size == (SIDE, SIDE)


def test_contact_sheet_has_captions_below_its_pictures():
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime")]
    sheet = contact_sheet(pictures, columns=2, captions=["a cat", "a dog left of a car"])
    assert sheet.width == contact_sheet(pictures, columns=2).width
    below = np.asarray(sheet.convert("L"))[64:]
    assert (below[:, :64] < 128).any()
    assert (below[:, 68:] < 128).any()
    inked = (below < 128).any(0)
    assert not inked[60:68].any()  # a caption stays below its own picture
    assert (below[13:, :64] > 128).all()
    assert (below[13:, 68:] < 128).any()


def test_animation_rests_on_its_last_frame(tmp_path):
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "lime", "blue")]
    save_animation(frames, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as animation:
        assert (animation.n_frames, animation.info["loop"]) == (3, 0)
        animation.seek(2)
        assert animation.info["duration"] == 2000


def test_numbers_are_colours_of_the_ramp_and_of_the_way_between():
    colours = on_ramp(torch.tensor([[-1.0, 0.0, 0.25], [0.625, 1.0, 2.0]]))
    halfway = [(a + b) / 2 for a, b in zip(RAMP[2], RAMP[3])]
    expected = [[RAMP[0], RAMP[0], RAMP[1]], [halfway, RAMP[4], RAMP[4]]]
    assert torch.equal(colours, torch.tensor(expected, dtype=torch.float32))
