"""What sets Chameleon's drawing descendants apart: prompt, framing of the picture, sizes and sampling."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..decoding import ImageTokenLayout
from ..disk import read_object

IMAGE_START, IMAGE_END = "<racm3:break>", "<eoss>"
ROW_END = "<reserved08799>"
IMAGE_PLACEHOLDER = "<image>"  # where a prompt that asks about a picture has it
PATCH = 32  # pixels per unit of Lumina-mGPT's size tokens
PIXELS_PER_TOKEN = 16
MAX_RATIO = 4.0
RESOLUTIONS = (512, 768, 1024)


@dataclass(frozen=True)
class Recipe:
    """How one model draws.

    Attributes:
        prompt: user's text and layout -> text of the user's turn.
        header: layout -> names of the tokens that open the picture, which the unconditional branch has as well.
        unconditional_start: begin-of-sequence tokens before the header of the unconditional branch.
        row_ends: whether each row of tokens is closed by a token.
        image_sizes: resolution -> (height, width) in pixels, the default first.
        sampling: defaults of the sampling arguments.
    """

    prompt: Callable[[str, ImageTokenLayout], str]
    header: Callable[[ImageTokenLayout], list[str]]
    unconditional_start: int
    row_ends: bool
    image_sizes: Callable[[int], list[tuple[int, int]]]
    sampling: dict[str, Any]


def _lumina_prompt(text: str, layout: ImageTokenLayout) -> str:
    height, width = layout.rows * PIXELS_PER_TOKEN, layout.columns * PIXELS_PER_TOKEN
    return f"Generate an image of {width}x{height} according to the following prompt:\n{text}"


def _lumina_header(layout: ImageTokenLayout) -> list[str]:
    sides = (layout.rows * PIXELS_PER_TOKEN // PATCH, layout.columns * PIXELS_PER_TOKEN // PATCH)
    return [IMAGE_START, *(f"<reserved{8800 + side:05d}>" for side in sides)]


def lumina_sizes(resolution: int) -> list[tuple[int, int]]:
    """The (height, width) that Lumina-mGPT was trained on: the square first, then from the widest to the tallest.

    A walk along the grids of 32-pixel patches that have at most the square's area, between 4:1 and 1:4.
    """
    area = (resolution // PATCH) ** 2
    sizes = {(resolution, resolution): None}
    wide, high = area, 1
    while wide > 0:
        if max(wide, high) <= MAX_RATIO * min(wide, high):
            sizes[high * PATCH, wide * PATCH] = None
        if (high + 1) * wide <= area:
            high += 1
        else:
            wide -= 1
    return list(sizes)


RECIPES = {
    # Chameleon's own image options (guidance 3, temperature 0.7, top-p 0.9), with which Anole's text-to-image script
    # runs; its unconditional branch restarts at the picture, after the begin token.
    "anole": Recipe(
        prompt=lambda text, layout: text,
        header=lambda layout: [IMAGE_START],
        unconditional_start=1,
        row_ends=False,
        image_sizes=lambda resolution: [(resolution, resolution)],
        sampling={"guidance_scale": 3.0, "temperature": 0.7, "top_k": 0, "top_p": 0.9},
    ),
    # The settings of the examples in Lumina-mGPT's README (cfg 4.0, image_top_k 2000); SJD's papers use guidance 3.
    "lumina-mgpt": Recipe(
        prompt=_lumina_prompt,
        header=_lumina_header,
        unconditional_start=0,
        row_ends=True,
        image_sizes=lumina_sizes,
        sampling={"guidance_scale": 4.0, "temperature": 1.0, "top_k": 2000, "top_p": 1.0},
    ),
}


def image_vocabulary_ids(words: dict[str, int]) -> list[int]:
    """Vocabulary id of each codebook entry: its digits are spelled in letters, `IMGIMGABCZ` being entry 12.

    Raises:
        ValueError: entries are missing.
    """
    digits = str.maketrans("ABCDEFGHIJ", "0123456789")
    table = {
        int(name[len("IMGIMG") : -1].translate(digits)): token
        for name, token in words.items()
        if name.startswith("IMGIMG")
    }
    if sorted(table) != list(range(len(table))) or not table:
        raise ValueError("The vocabulary map of this model does not name every image token.")
    return [table[code] for code in range(len(table))]


def recipe_of_folder(folder: Path, recipe: str | None, resolution: int | None) -> tuple[str, int]:
    """Fill in what is None from a transformers folder: the recipe from its config.json, the resolution from its name.

    Raises:
        ValueError: the folder does not say.
    """
    if recipe is None:
        architectures = read_object(folder / "config.json").get("architectures")
        architecture = " ".join(map(str, architectures)) if isinstance(architectures, list) else ""
        if "XLLMX" in architecture or _resolution_in_name(folder, "lumina"):
            recipe = "lumina-mgpt"
        elif "anole" in str(folder.resolve()).lower():
            recipe = "anole"
        else:
            raise ValueError(f"{folder} does not say how it draws; pass recipe='anole' or recipe='lumina-mgpt'.")
    if resolution is None:
        resolution = 512 if recipe == "anole" else _resolution_in_name(folder, "")
    if resolution is None:
        raise ValueError(f"{folder} does not say its resolution; pass resolution=512, 768 or 1024.")
    return recipe, resolution


def _resolution_in_name(folder: Path, word: str) -> int | None:
    """The number in `Lumina-mGPT-7B-768`, the name of the folder or of the hub repository it was downloaded from."""
    for part in reversed(folder.resolve().parts):
        found = re.search(rf"{word}.*(?<!\d)({'|'.join(map(str, RESOLUTIONS))})(?!\d)", part.lower())
        if found:
            return int(found.group(1))
    return None
