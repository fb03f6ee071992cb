"""What is in a picture: scenes, where their glyphs stand, the shading behind them, and which scenes are held out."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .glyphs import CELL, GRID, LARGE, OBJECTS, SMALL, load_glyphs

KINDS = ("single", "count", "relation")
RELATIONS = ("left", "right", "above", "below")
OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above"}
LEVELS = 5  # brightness steps of a background colour
LEVEL_STEP = 9 / 255  # how far apart two steps are, in each RGB channel
NOISE = 0.22  # cell noise of the shading in levels; it is what makes the next background token uncertain

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (200, 40, 45), "orange": (240, 140, 35), "yellow": (235, 220, 60), "green": (50, 150, 65),
    "blue": (45, 85, 200), "purple": (125, 55, 165), "pink": (240, 155, 195), "white": (237, 237, 237),
    "black": (28, 28, 28), "gray": (132, 132, 132),
}  # fmt: skip
BACKGROUNDS: tuple[str, ...] = tuple(COLOURS)


@dataclass(frozen=True)
class Scene:
    """The truth about one picture.

    Attributes:
        objects: one name per glyph in the picture (1 to 3; all the same unless `relation` is set).
        background: a name from `BACKGROUNDS`; None where any will do, which only a judge can read.
        relation: where `objects[0]` stands seen from `objects[1]` (`RELATIONS`), or `None`.
    """

    objects: tuple[str, ...]
    background: str | None
    relation: str | None = None

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        if self.relation is not None:
            return "relation"
        return "single" if len(self.objects) == 1 else "count"

    @property
    def held_out(self) -> bool:
        """Whether this scene is kept from training: its object and background, or its two objects and relation."""
        if any(_one_in_ten(f"{name}|{self.background}") for name in self.objects):
            return True
        if self.relation is None:
            return False
        first, second, relation = self.objects[0], self.objects[1], self.relation
        if relation in ("right", "below"):  # "a right of b" is "b left of a": one triple, one fate
            first, second, relation = second, first, {"right": "left", "below": "above"}[relation]
        return _one_in_ten(f"{first}|{second}|{relation}")


@dataclass(frozen=True)
class Placement:
    """One glyph: index into `OBJECTS`, top-left cell, and cells per side."""

    glyph: int
    row: int
    column: int
    cells: int


def _one_in_ten(key: str) -> bool:
    return zlib.crc32(f"sjd|{key}".encode()) % 1000 < 100


def sample_scene(rng: np.random.Generator, kind: str, held_out: bool = False) -> Scene:
    """Draw a scene of one kind from the training part, or from the held-out part.

    Raises:
        ValueError: unknown `kind`.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {KINDS}, got {kind!r}.")
    while True:
        background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
        if kind == "relation":
            first, second = (OBJECTS[i] for i in rng.choice(len(OBJECTS), 2, replace=False))
            scene = Scene((first, second), background, RELATIONS[rng.integers(4)])
        else:
            count = 1 if kind == "single" else int(rng.integers(2, 4))
            scene = Scene((OBJECTS[rng.integers(len(OBJECTS))],) * count, background)
        if scene.held_out == held_out:
            return scene


def scene_stream(rng: np.random.Generator, mix: tuple[float, float, float], held_out: bool = False) -> Iterator[Scene]:
    """Endless scenes; `mix` is the share of each of `KINDS`."""
    while True:
        yield sample_scene(rng, KINDS[rng.choice(3, p=mix)], held_out)


def place(scene: Scene, rng: np.random.Generator) -> list[Placement]:
    """Choose a cell for every glyph; glyphs in company stand in distinct halves, so they never overlap."""
    glyphs = [OBJECTS.index(name) for name in scene.objects]
    if len(glyphs) == 1:
        row, column = rng.integers(1, GRID - LARGE, 2)
        return [Placement(glyphs[0], int(row), int(column), LARGE)]
    if len(glyphs) == 3:
        cells = [(_half(rng, 0), _half(rng, 0)), (_half(rng, 0), _half(rng, 1)), (_half(rng, 1), _free(rng))]
        if rng.integers(2):  # the pair below, the third glyph above
            cells = [(GRID - SMALL - row, column) for row, column in cells]
    else:
        along = [_half(rng, 0), _half(rng, 1)]
        across = _free(rng)
        # The second glyph strays sideways by at most three cells: "left of" must never look like "above".
        other = int(np.clip(across + rng.integers(-3, 4), 0, GRID - SMALL))
        if scene.relation in ("right", "below"):
            along.reverse()
        vertical = scene.relation in ("above", "below") if scene.relation else bool(rng.integers(2))
        cells = list(zip(along, (across, other)))
        if not vertical:
            cells = [(row, column) for column, row in cells]
    return [Placement(glyph, row, column, SMALL) for glyph, (row, column) in zip(glyphs, cells)]


def _half(rng: np.random.Generator, half: int) -> int:
    """A first cell such that a small glyph stays in the first (0) or second (1) half of the grid."""
    return int(rng.integers(2)) + half * (GRID // 2)


def _free(rng: np.random.Generator) -> int:
    return int(rng.integers(GRID - SMALL + 1))


def sample_light(rng: np.random.Generator) -> np.ndarray:
    """Soft random light behind a scene: `[16, 16]` float32, brightness in levels."""
    axis = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * axis[:, None] + np.sin(angle) * axis[None, :]
    field = (LEVELS - 1) / 2 + rng.uniform(-0.8, 0.8) + rng.uniform(0.5, 2.5) * ramp
    frequency = rng.uniform(2, 5, 2)
    phase = rng.uniform(0, 2 * np.pi, 2)
    field = field + 0.5 * np.cos(frequency[0] * axis + phase[0])[:, None] * np.cos(frequency[1] * axis + phase[1])
    return field.astype(np.float32)


def sample_shading(rng: np.random.Generator, light: np.ndarray | None = None) -> np.ndarray:
    """The light with the noise of every cell: `[16, 16]` float32 in levels, from 0 to `LEVELS - 1`."""
    light = sample_light(rng) if light is None else light
    return np.clip(light + NOISE * rng.standard_normal((GRID, GRID)), 0, LEVELS - 1).astype(np.float32)


def _upsampling_matrix() -> np.ndarray:
    """Linear interpolation from cell centres to pixel centres: `[128, 16]`."""
    centres = np.clip((np.arange(GRID * CELL) + 0.5) / CELL - 0.5, 0, GRID - 1)
    low = np.minimum(centres.astype(int), GRID - 2)
    weight = centres - low
    matrix = np.zeros((GRID * CELL, GRID), dtype=np.float32)
    rows = np.arange(GRID * CELL)
    matrix[rows, low] = 1 - weight
    matrix[rows, low + 1] += weight
    return matrix


_UPSAMPLE = _upsampling_matrix()


def render(scene: Scene, placements: list[Placement], shading: np.ndarray) -> np.ndarray:
    """Draw a scene: `[128, 128, 3]` float32 in [0, 1].

    The light is interpolated from the *quantised* levels, which is all that the background tokens say.
    """
    levels = _UPSAMPLE @ np.rint(shading) @ _UPSAMPLE.T  # [128, 128]
    base = np.asarray(COLOURS[scene.background], dtype=np.float32) / 255
    pixels = base + LEVEL_STEP * (levels - (LEVELS - 1) / 2)[..., None]
    for placement in placements:
        glyph = load_glyphs(placement.cells)[placement.glyph]
        top, left, side = placement.row * CELL, placement.column * CELL, placement.cells * CELL
        window = pixels[top : top + side, left : left + side]
        window *= 1 - glyph[..., 3:]
        window += glyph[..., :3]
    return np.clip(pixels, 0, 1)
