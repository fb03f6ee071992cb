"""Does a picture show what its caption says? A judge by template matching, independent of any trained model.

It knows the glyph sheet and the background colours of the bundled checkpoint's world, and nothing of the model. The
background is the named colour nearest to most border cells. Then glyph templates at both sizes are placed greedily on
cell-aligned offsets, each time the one that explains most of what is still unexplained (matching pursuit), until no
template explains enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from .captions import caption
from .codes import scene_tokens
from .glyphs import CELL, GRID, LARGE, OBJECTS, SMALL, load_glyphs
from .scenes import BACKGROUNDS, COLOURS, KINDS, Placement, Scene, place, render, sample_scene, sample_shading

MATCH = 0.60  # share of a window's deviation from the background that a glyph must explain to be read
MIN_INK = 3.0  # deviation (sum of squares, RGB in [0, 1]) below which a window counts as empty
MAX_GLYPHS = 5
CEILING_BATCH = 25
_POOL = 2  # templates are compared at half resolution: decoders blur edges by about a pixel
_SIDE = GRID * CELL // _POOL
_STEP = CELL // _POOL


@dataclass(frozen=True)
class Reading:
    """What the judge sees in one picture.

    Attributes:
        background: a name from `BACKGROUNDS`.
        placements: the recognised glyphs, strongest first.
        matches: for each, the explained share of its window in [0, 1].
    """

    background: str
    placements: tuple[Placement, ...]
    matches: tuple[float, ...]

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the recognised glyphs, sorted."""
        return tuple(sorted(OBJECTS[placement.glyph] for placement in self.placements))

    @property
    def relation(self) -> tuple[str, str, str] | None:
        """`(first, "left" or "above", second)` if exactly two glyphs are seen, else `None`."""
        if len(self.placements) != 2:
            return None
        (name_a, y_a, x_a), (name_b, y_b, x_b) = (
            (OBJECTS[p.glyph], p.row + p.cells / 2, p.column + p.cells / 2) for p in self.placements
        )
        relation, shift = ("left", x_b - x_a) if abs(x_b - x_a) >= abs(y_b - y_a) else ("above", y_b - y_a)
        return (name_a, relation, name_b) if shift > 0 else (name_b, relation, name_a)


def to_pixels(image: Image.Image | np.ndarray | torch.Tensor) -> torch.Tensor:
    """A PIL image, `[H, W, 3]` array or `[3, H, W]` tensor (floats in [0, 1] or bytes) as `[3, 128, 128]` float32.

    Raises:
        ValueError: not three channels.
    """
    if isinstance(image, Image.Image):
        image = np.array(image.convert("RGB"))
    pixels = torch.from_numpy(image).movedim(-1, 0) if isinstance(image, np.ndarray) else image
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        raise ValueError(f"Expected an RGB picture, got shape {tuple(pixels.shape)}.")
    pixels = pixels.float() / 255 if not pixels.is_floating_point() else pixels.float()
    side = GRID * CELL
    if pixels.shape[1:] != (side, side):
        pixels = F.interpolate(pixels[None], (side, side), mode="bilinear", antialias=True)[0]
    return pixels.clamp(0, 1)


@cache
def _templates(cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Half-resolution glyphs of one size: premultiplied colour `[O, 3, s, s]` and alpha `[O, 1, s, s]`."""
    glyphs = torch.from_numpy(load_glyphs(cells).copy()).permute(0, 3, 1, 2)
    glyphs = F.avg_pool2d(glyphs, _POOL)
    return glyphs[:, :3].contiguous(), glyphs[:, 3:].contiguous()


def read_background(pixels: torch.Tensor) -> tuple[str, torch.Tensor]:
    """The named colour nearest to most border cells, and the mean colour `[3]` of those cells."""
    cells = F.avg_pool2d(pixels[None], CELL)[0]  # [3, 16, 16]
    border = torch.cat([cells[:, 0], cells[:, -1], cells[:, 1:-1, 0], cells[:, 1:-1, -1]], dim=1).T  # [60, 3]
    palette = torch.tensor([COLOURS[name] for name in BACKGROUNDS], dtype=torch.float32) / 255
    nearest = torch.cdist(border, palette).argmin(1)
    winner = int(nearest.bincount(minlength=len(palette)).argmax())
    return BACKGROUNDS[winner], border[nearest == winner].mean(0)


def read_scene(image: Image.Image | np.ndarray | torch.Tensor) -> Reading:
    """Read background and glyphs from a picture; see the module's text for how."""
    pixels = to_pixels(image)
    background, colour = read_background(pixels)
    picture = F.avg_pool2d(pixels[None], _POOL)  # [1, 3, 64, 64]
    free = torch.ones(1, 1, _SIDE, _SIDE)
    placements, matches = [], []
    while len(placements) < MAX_GLYPHS:
        best = max((_best_match(picture, colour, free, cells) for cells in (LARGE, SMALL)), key=lambda m: m[0])
        score, match, placement = best
        if score <= 0:
            break
        placements.append(placement)
        matches.append(match)
        top, left, side = placement.row * _STEP, placement.column * _STEP, placement.cells * _STEP
        _, alpha = _templates(placement.cells)
        covered = F.max_pool2d(alpha[placement.glyph][None], 3, 1, 1)[0, 0] > 0.02  # ink and its blurred rim
        free[0, 0, top : top + side, left : left + side][covered] = 0
    return Reading(background, tuple(placements), tuple(matches))


def _best_match(
    picture: torch.Tensor, colour: torch.Tensor, free: torch.Tensor, cells: int
) -> tuple[float, float, Placement | None]:
    """The template that explains most energy at one size.

    The deviation of a window from the background is compared with what is left after subtracting the template drawn
    on that background; both count free pixels only.

    Returns:
        explained energy (0 if no template passes), explained share, and where.
    """
    side = cells * _STEP
    glyphs, alpha = _templates(cells)
    ink = glyphs - alpha * colour[:, None, None]  # what the glyph adds to the background, [O, 3, s, s]
    deviation = (picture - colour[:, None, None]) * free  # [1, 3, 64, 64]
    windows = F.unfold(deviation, side, stride=_STEP)[0]  # [3 s s, P]
    open_pixels = F.unfold(free, side, stride=_STEP)[0]  # [s s, P]
    energy = windows.square().sum(0)  # [P]
    product = ink.flatten(1) @ windows  # [O, P]
    template_energy = ink.square().sum(1).flatten(1)  # [O, s s]
    visible_energy = template_energy @ open_pixels  # [O, P]
    explained = 2 * product - visible_energy  # |d|^2 - |d - t|^2 over free pixels
    share = explained / energy.clamp(min=1e-6)
    mostly_free = visible_energy > 0.75 * template_energy.sum(1, keepdim=True)
    accepted = (share > MATCH) & (visible_energy > MIN_INK) & mostly_free
    explained = torch.where(accepted, explained, torch.zeros(()))
    index = int(explained.argmax())
    glyph, position = divmod(index, explained.shape[1])
    columns = GRID - cells + 1
    placement = Placement(glyph, position // columns, position % columns, cells)
    return float(explained.flatten()[index]), float(share.flatten()[index]), placement


def score_picture(image: Image.Image | np.ndarray | torch.Tensor, scene: Scene) -> dict[str, bool]:
    """Which parts of the truth a picture shows.

    Returns:
        `background` (where the scene has one); `object`: exactly the right kinds of glyph; `count`: the right number
        of glyphs in all; `relation` (relations only): both objects, where they should be; `all`: everything.
    """
    reading = read_scene(image)
    scores = {
        "object": set(reading.objects) == set(scene.objects),
        "count": len(reading.objects) == len(scene.objects),
    }
    if scene.background is not None:
        scores["background"] = reading.background == scene.background
    correct = reading.objects == tuple(sorted(scene.objects))
    if scene.relation is not None:
        first, second = scene.objects
        if scene.relation in ("right", "below"):
            first, second = second, first
        axis = "left" if scene.relation in ("left", "right") else "above"
        scores["relation"] = correct = reading.relation == (first, axis, second)
    scores["all"] = correct and scores.get("background", True)
    return scores


def score_pictures(images: Sequence, scenes: Sequence[Scene]) -> dict[str, float]:
    """Mean of `score_picture` over pictures: the rate of each score, and `n`.

    Raises:
        ValueError: the two lengths differ, or are zero.
    """
    if len(images) != len(scenes) or not scenes:
        raise ValueError(f"Need as many pictures as scenes, and at least one; got {len(images)} and {len(scenes)}.")
    return rates([score_picture(image, scene) for image, scene in zip(images, scenes)])


def rates(scores: Sequence[dict[str, bool]]) -> dict[str, float]:
    """How often each score holds among the pictures that have it, and `n`, the number of pictures."""
    names = sorted({name for score in scores for name in score})
    values = {name: [score[name] for score in scores if name in score] for name in names}
    return {"n": len(scores)} | {name: sum(given) / len(given) for name, given in values.items()}


def held_out_scenes(n: int, kind: str = "single", seed: int = 0) -> list[tuple[str, Scene]]:
    """Captions with their truth, from combinations that were never trained on.

    Args:
        kind: "single", "count" or "relation".
    """
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng, kind, held_out=True) for _ in range(n)]
    return [(caption(scene, rng, plain=True), scene) for scene in scenes]


def ceilings(
    render_tokens: Callable[[torch.Tensor], torch.Tensor], per_kind: int, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Scores of true pictures: as rendered, and after tokens and pixel decoder. Nothing can score higher.

    Args:
        render_tokens: the pixel decoder, `[B, 256]` tokens -> `[B, 3, H, W]` in [0, 1].
        per_kind: pictures per kind of scene.
        seed: of captions, places and shading.
    """
    rng = np.random.default_rng(seed)
    scenes = [scene for kind in KINDS for _, scene in held_out_scenes(per_kind, kind, seed)]
    rendered, tokens = [], []
    for scene in scenes:
        placements, shading = place(scene, rng), sample_shading(rng)
        rendered.append(render(scene, placements, shading))
        tokens.append(torch.from_numpy(scene_tokens(scene, placements, shading)))
    decoded = torch.cat([render_tokens(batch) for batch in torch.stack(tokens).split(CEILING_BATCH)])  # [S, 3, H, W]
    errors = [(to_pixels(d) - to_pixels(r)).square().mean() for d, r in zip(decoded, rendered)]
    psnr = float(-10 * torch.stack(errors).log10().mean())
    return {
        "rendered (ceiling)": score_pictures(rendered, scenes),
        "decoded from true tokens (ceiling)": score_pictures(list(decoded), scenes) | {"psnr": psnr},
    }
