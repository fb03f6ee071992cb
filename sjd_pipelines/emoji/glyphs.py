"""The drawn objects: 48 Noto Color Emoji glyphs, kept as one small sheet so that nothing else needs the font.

`python -m sjd_pipelines.training glyphs` makes the sheet from the font; everything else reads it with `load_glyphs`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 8  # pixels per image token, both ways
GRID = 16  # image tokens per row and column
LARGE = 10  # cells per side of a glyph that stands alone
SMALL = 7  # cells per side of a glyph in company
SHEET = Path(__file__).with_name("glyphs.png")

GLYPHS: dict[str, str] = {
    "dog": "🐶", "cat": "🐱", "lion": "🦁", "bear": "🐻", "panda": "🐼", "frog": "🐸", "pig": "🐷", "cow": "🐮",
    "rabbit": "🐰", "fox": "🦊", "chicken": "🐔", "penguin": "🐧", "owl": "🦉", "fish": "🐟", "octopus": "🐙",
    "crab": "🦀", "turtle": "🐢", "elephant": "🐘", "butterfly": "🦋", "apple": "🍎", "banana": "🍌",
    "strawberry": "🍓", "grapes": "🍇", "pizza": "🍕", "burger": "🍔", "donut": "🍩", "cake": "🎂",
    "mushroom": "🍄", "pumpkin": "🎃", "tree": "🌲", "flower": "🌻", "cactus": "🌵", "car": "🚗", "bus": "🚌",
    "train": "🚂", "rocket": "🚀", "airplane": "✈️", "house": "🏠", "ball": "⚽", "guitar": "🎸", "key": "🔑",
    "clock": "⏰", "umbrella": "☂️", "crown": "👑", "heart": "❤️", "star": "⭐", "snowman": "⛄", "robot": "🤖",
}  # fmt: skip
OBJECTS: tuple[str, ...] = tuple(GLYPHS)

_FONT_SIZE = 109  # the only bitmap size in NotoColorEmoji.ttf
_SHEET_COLUMNS = 8
_SIDES = (LARGE * CELL, SMALL * CELL)


def render_glyph(character: str, font: ImageFont.FreeTypeFont, side: int) -> Image.Image:
    """Draw one glyph, cropped to its ink and fitted into `side` x `side` pixels with a one-pixel margin."""
    canvas = Image.new("RGBA", (2 * _FONT_SIZE, 2 * _FONT_SIZE))
    ImageDraw.Draw(canvas).text((20, 20), character, font=font, embedded_color=True)
    ink = canvas.crop(canvas.getbbox())
    scale = (side - 2) / max(ink.size)
    width, height = (max(1, round(length * scale)) for length in ink.size)
    ink = ink.resize((width, height), Image.Resampling.LANCZOS)
    fitted = Image.new("RGBA", (side, side))
    fitted.paste(ink, ((side - width) // 2, (side - height) // 2))
    return fitted


def make_sheet(font_path: str | Path, sheet_path: str | Path = SHEET) -> Path:
    """Render every glyph at both sizes into one RGBA PNG.

    Args:
        font_path: `NotoColorEmoji.ttf` (bitmap edition).
        sheet_path: where to write; replaced atomically.

    Raises:
        OSError: the font cannot be read at its bitmap size.
    """
    font = ImageFont.truetype(str(font_path), _FONT_SIZE)
    rows = -(-len(OBJECTS) // _SHEET_COLUMNS)
    tile = sum(_SIDES)  # a large glyph with its small twin to the right
    sheet = Image.new("RGBA", (_SHEET_COLUMNS * tile, rows * _SIDES[0]))
    for index, name in enumerate(OBJECTS):
        row, column = divmod(index, _SHEET_COLUMNS)
        for side, shift in zip(_SIDES, (0, _SIDES[0])):
            sheet.paste(render_glyph(GLYPHS[name], font, side), (column * tile + shift, row * _SIDES[0]))
    sheet_path = Path(sheet_path)
    temporary = sheet_path.with_suffix(".tmp")
    sheet.save(temporary, format="PNG", optimize=True)
    temporary.replace(sheet_path)
    return sheet_path


@cache
def load_glyphs(cells: int, sheet_path: Path = SHEET) -> np.ndarray:
    """Read the glyphs of one size from the sheet.

    Args:
        cells: `LARGE` or `SMALL`.

    Returns:
        `[objects, 8 * cells, 8 * cells, 4]` float32 in [0, 1]; colour is premultiplied by alpha, so that a picture is
        `glyph[..., :3] + (1 - glyph[..., 3:]) * background`.
    """
    if cells not in (LARGE, SMALL):
        raise ValueError(f"`cells` must be {LARGE} or {SMALL}, got {cells}.")
    side, tile = cells * CELL, sum(_SIDES)
    shift = 0 if cells == LARGE else _SIDES[0]
    pixels = np.asarray(Image.open(sheet_path).convert("RGBA"), dtype=np.float32) / 255
    glyphs = []
    for index in range(len(OBJECTS)):
        row, column = divmod(index, _SHEET_COLUMNS)
        top, left = row * _SIDES[0], column * tile + shift
        glyphs.append(pixels[top : top + side, left : left + side])
    stack = np.stack(glyphs)
    stack[..., :3] *= stack[..., 3:]
    stack.setflags(write=False)
    return stack
