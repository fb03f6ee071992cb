"""Contact sheets: pictures side by side. Nothing here needs torch."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

GAP = 4  # pixels between the pictures
FONT, LETTER, LINE = 10, 6, 15  # of their captions, in pixels: size, mean width of a letter, distance of two lines
LARGEST = 8192  # pixels of a sheet of files, in width


def contact_sheet(
    pictures: Sequence[Image.Image], columns: int, gap: int = GAP, captions: Sequence[str] = ()
) -> Image.Image:
    """Pictures of one size in rows of `columns`, `gap` white pixels in between, `captions` below if any."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    width, height = pictures[0].size
    texts = ["\n".join(textwrap.wrap(caption, width // LETTER)) for caption in captions]
    foot = LINE * max((text.count("\n") + 1 for text in texts), default=0)
    across, down = width + gap, height + foot + gap
    sheet = Image.new("RGB", (columns * across - gap, rows * down - gap), "white")
    pen = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(picture, (column * across, row * down))
        if texts:
            pen.text((column * across, row * down + height), texts[index], "black", ImageFont.load_default(FONT))
    return sheet


def sheet_of_files(files: Sequence[Path], columns: int) -> Image.Image:
    """A contact sheet of files of any sizes, one in memory at a time; made smaller where they are many."""
    return contact_sheet(_Thumbnails(files, LARGEST // columns), columns)


class _Thumbnails(Sequence[Image.Image]):
    """Picture files as pictures of one size, opened when they are looked at."""

    def __init__(self, files: Sequence[Path], most: int):
        self.files = files
        sizes = set()
        for file in files:
            with Image.open(file) as picture:
                sizes.add(picture.size)
        width, height = (max(sides) for sides in zip(*sizes))
        shrink = max(1.0, max(width, height) / max(1, most - GAP))
        self.size = max(1, int(width / shrink)), max(1, int(height / shrink))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Image.Image:
        with Image.open(self.files[index]) as picture:
            whole = picture.convert("RGB")
        return whole if whole.size == self.size else ImageOps.pad(whole, self.size, color="white")
