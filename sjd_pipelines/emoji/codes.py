"""Image tokens without a learned encoder: k-means over glyph patches, plus reserved background codes.

A glyph cell's token depends only on its own 8x8 RGBA patch, not on what is behind it or where it stands. So the same
object always has the same tokens, and the transformer has far less to learn than with a convolutional encoder.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from .glyphs import CELL, GRID, LARGE, SMALL, load_glyphs
from .scenes import BACKGROUNDS, COLOURS, LEVEL_STEP, LEVELS, Placement, Scene

CODEBOOK = 2048
BACKGROUND_CODES = len(BACKGROUNDS) * LEVELS  # the first codes of the codebook: colour * LEVELS + level
TABLE = Path(__file__).with_name("glyph_codes.npz")
_EMPTY = 0.01  # a patch with less ink than this (mean alpha) is background


def glyph_patches(cells: int) -> np.ndarray:
    """Cut glyphs into cells: `[objects, cells, cells, 256]` float32 (8 x 8 x premultiplied RGBA)."""
    glyphs = load_glyphs(cells)
    count = glyphs.shape[0]
    patches = glyphs.reshape(count, cells, CELL, cells, CELL, 4).transpose(0, 1, 3, 2, 4, 5)
    return patches.reshape(count, cells, cells, CELL * CELL * 4)


def k_means(points: np.ndarray, clusters: int, rng: np.random.Generator, rounds: int = 40) -> np.ndarray:
    """Lloyd's algorithm from a k-means++ start (Arthur and Vassilvitskii 2007).

    Args:
        points: `[N, D]` float32, with at least `clusters` distinct rows.

    Returns:
        `[N]` int64 cluster of each point; every cluster has at least one.
    """
    norms = (points**2).sum(1)

    def distances(centres: np.ndarray) -> np.ndarray:
        return np.maximum(norms[:, None] - 2 * points @ centres.T + (centres**2).sum(1), 0)

    chosen = [int(rng.integers(len(points)))]
    nearest = distances(points[chosen])[:, 0]
    nearest[chosen] = 0
    while len(chosen) < clusters:
        weights = nearest.astype(np.float64)
        chosen.append(int(rng.choice(len(points), p=weights / weights.sum())))
        nearest = np.minimum(nearest, distances(points[chosen[-1:]])[:, 0])
        nearest[chosen] = 0
    centres = points[chosen].copy()
    for _ in range(rounds):
        table = distances(centres)
        assignment = table.argmin(1)
        error = table[np.arange(len(points)), assignment]
        for empty in np.setdiff1d(np.arange(clusters), assignment):  # an empty cluster takes the worst-served point
            worst = int(error.argmax())
            assignment[worst], error[worst] = empty, 0
        sums = np.zeros_like(centres)
        np.add.at(sums, assignment, points)
        centres = sums / np.bincount(assignment, minlength=clusters)[:, None]
    return assignment


def build_table(table_path: str | Path = TABLE, seed: int = 0) -> Path:
    """Cluster all glyph patches and write the token of every glyph cell (-1 where the glyph has no ink)."""
    patches = {cells: glyph_patches(cells) for cells in (LARGE, SMALL)}
    inked = {cells: patch[..., 3::4].mean(-1) >= _EMPTY for cells, patch in patches.items()}
    points = np.concatenate([patches[cells][inked[cells]] for cells in (LARGE, SMALL)])
    distinct, inverse = np.unique(points, axis=0, return_inverse=True)
    clusters = min(CODEBOOK - BACKGROUND_CODES, len(distinct))
    codes = k_means(distinct, clusters, np.random.default_rng(seed))[inverse.reshape(-1)] + BACKGROUND_CODES
    tables, start = {}, 0
    for cells in (LARGE, SMALL):
        table = np.full(inked[cells].shape, -1, dtype=np.int16)
        size = int(inked[cells].sum())
        table[inked[cells]] = codes[start : start + size]
        tables[f"glyphs_{cells}"] = table
        start += size
    table_path = Path(table_path)
    temporary = table_path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **tables)
    temporary.replace(table_path)
    return table_path


@cache
def glyph_codes(cells: int, table_path: Path = TABLE) -> np.ndarray:
    """Tokens of every glyph at one size: `[objects, cells, cells]` int16, -1 where the background shows."""
    with np.load(table_path, allow_pickle=False) as tables:
        return tables[f"glyphs_{cells}"]


def scene_tokens(scene: Scene, placements: list[Placement], shading: np.ndarray) -> np.ndarray:
    """The image tokens of a scene in raster order: `[256]` int64."""
    tokens = BACKGROUNDS.index(scene.background) * LEVELS + np.rint(shading).astype(np.int64)
    for placement in placements:
        codes = glyph_codes(placement.cells)[placement.glyph]
        window = tokens[
            placement.row : placement.row + placement.cells, placement.column : placement.column + placement.cells
        ]
        np.copyto(window, codes, where=codes >= 0)
    return tokens.reshape(GRID * GRID)


def first_token(placement: Placement) -> int:
    """The raster index of the first token that a placed glyph has."""
    inked = glyph_codes(placement.cells)[placement.glyph] >= 0  # [cells, cells]
    row, column = divmod(int(inked.argmax()), placement.cells)
    return (placement.row + row) * GRID + placement.column + column


def code_patches() -> np.ndarray:
    """What each code stands for: `[2048, 256]` float32, the mean RGBA patch of its cells (alpha 0 for background)."""
    sums = np.zeros((CODEBOOK, CELL * CELL * 4), dtype=np.float32)
    counts = np.zeros(CODEBOOK, dtype=np.float32)
    for cells in (LARGE, SMALL):
        codes = glyph_codes(cells)
        inked = codes >= 0
        np.add.at(sums, codes[inked], glyph_patches(cells)[inked])
        np.add.at(counts, codes[inked], 1)
    for index in range(BACKGROUND_CODES):
        colour, level = divmod(index, LEVELS)
        rgb = np.asarray(COLOURS[BACKGROUNDS[colour]]) / 255 + LEVEL_STEP * (level - (LEVELS - 1) / 2)
        sums[index] = np.tile(np.append(rgb, 0), CELL * CELL)
        counts[index] = 1
    return sums / np.maximum(counts, 1)[:, None]


@cache
def initial_codebook(dimension: int) -> np.ndarray:
    """Unit vectors `[2048, dimension]` float32 in which similar patches are near: whitened principal components.

    One constant coordinate keeps the length of the others after normalisation. Starting here instead of at random
    vectors saves the decoder from finding out what 2048 names mean.
    """
    patches = code_patches()
    left, scales, _ = np.linalg.svd(patches - patches.mean(0), full_matrices=False)
    components = left[:, : dimension - 1] * np.sqrt(scales[: dimension - 1])
    components *= 1.5 / np.sqrt((components**2).sum(1).mean())
    vectors = np.concatenate([components, np.ones((CODEBOOK, 1))], axis=1)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
