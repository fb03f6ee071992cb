"""Pictures of runs: tokens as pixels, pictures as they form, pictures as text, colours for numbers."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from ..decoding import ImageTokenLayout
from .autoregressive import SJDAutoRegressivePipeline

GREY = 0.0  # in [-1, 1], as pixels leave the model
GREY_LEVEL = 128  # the same in 0..255
# Of sketches: pixels per token and side, tokens per block and side, pictures to learn from, pull towards no colour.
PATCH, BLOCK, MOST_FITTED, RIDGE = 2, 4, 4, 1e-6
FRAMES = 60
FRAME_MILLISECONDS = 80
LAST_FRAME_MILLISECONDS = 2000
JPEG_QUALITY = 92
# Black, violet, red, orange, light yellow: rises evenly in brightness, so it reads without colour as well.
RAMP = ((0, 0, 5), (87, 15, 110), (186, 54, 84), (250, 140, 10), (252, 255, 163))


@dataclass
class Recording:
    """What one batch looked like after each pass. Pass it to the pipeline as `callback_on_step_end`.

    Attributes:
        canvases: per pass, `[B, N]` int64 tokens, drafts included.
        committed: per pass, `[B, N]` bool: which tokens are committed.
        height: of the pictures in pixels; None is the model's own, as for `width`.
    """

    height: int | None = None
    width: int | None = None
    canvases: list[torch.Tensor] = field(default_factory=list)
    committed: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, pipe: SJDAutoRegressivePipeline, pass_index: int, committed: int, tensors: dict[str, Any]):
        self.canvases.append(tensors["canvas"].cpu())
        self.committed.append(tensors["acceptance_map"].cpu() >= 0)


def forming_frames(
    pipe: SJDAutoRegressivePipeline, recordings: Sequence[Recording], frames: int = FRAMES
) -> list[list[Image.Image]]:
    """The pictures of all recordings at evenly spaced passes, the last pass included; unfinished cells are grey.

    Pictures that need fewer passes than the longest stay as they are once complete.

    Args:
        pipe: decodes the tokens to pixels.
        recordings: one per batch.
        frames: how many frames at most.

    Returns:
        Per frame, one picture per recorded picture.
    """
    passes = max(len(recording.canvases) for recording in recordings)
    count = min(frames, passes)
    shown = [(frame + 1) * passes // count - 1 for frame in range(count)]
    return [[picture for recording in recordings for picture in _at_pass(pipe, recording, index)] for index in shown]


@torch.no_grad()
def forming_pictures(
    pipe: SJDAutoRegressivePipeline, layout: ImageTokenLayout, canvas: torch.Tensor, committed: torch.Tensor
) -> list[Image.Image]:
    """Pictures at one moment of their run; cells whose token is not committed are grey.

    Args:
        pipe: decodes the tokens to pixels.
        layout: of the canvas.
        canvas: `[B, N]` int64 tokens, drafts included.
        committed: `[B, N]` bool, on the CPU.
    """
    pixels = pipe.decode_tokens(layout.image_tokens(canvas).to(pipe.device), layout).float().cpu()  # [B, 3, H, W]
    unfinished = _unfinished(layout, committed, pixels.shape[-2:])
    return VaeImageProcessor().postprocess(pixels.masked_fill(unfinished, GREY), output_type="pil")


@torch.no_grad()
def token_patches(pipe: SJDAutoRegressivePipeline) -> torch.Tensor:
    """About what each token looks like: `[V, PATCH, PATCH, 3]` uint8, V the codebook's size, on the CPU.

    A linear map of the codebook's vectors, fitted to pictures of blocks of random tokens that the model's own picture
    decoder draws: of V tokens a few dozen are looked at.
    """
    layout, vectors = pipe.image_layout(None, None), pipe.codebook_vectors().float().cpu()
    features = torch.nn.functional.pad(vectors, (0, 1), value=1.0)  # [V, E + 1]
    down, across = -(-layout.rows // BLOCK), -(-layout.columns // BLOCK)
    count = min(MOST_FITTED, -(-2 * features.shape[1] // (down * across)))
    chosen = torch.randint(layout.codebook_size, (count, down, across), generator=torch.Generator().manual_seed(0))
    grid = chosen.repeat_interleave(BLOCK, 1)[:, : layout.rows].repeat_interleave(BLOCK, 2)[:, :, : layout.columns]
    drawn = [pipe.decode_tokens(ids.flatten()[None].to(pipe.device), layout).float().cpu() for ids in grid]
    small = torch.nn.functional.adaptive_avg_pool2d(torch.cat(drawn), (layout.rows * PATCH, layout.columns * PATCH))
    cells = small.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))  # [count, 3, rows, PATCH, columns, PATCH]
    cells = cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(0, 2)  # [cells, PATCH * PATCH * 3]
    seen = features[grid.flatten()]
    # A little pull towards none: there may be fewer tokens to look at than the vectors have numbers.
    gram = seen.T @ seen + RIDGE * len(seen) * torch.eye(seen.shape[1])
    colours = features @ torch.linalg.solve(gram, seen.T @ cells)
    return ((colours / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).unflatten(1, (PATCH, PATCH, 3))


def sketch(
    patches: torch.Tensor, layout: ImageTokenLayout, canvas: torch.Tensor, committed: torch.Tensor
) -> list[Image.Image]:
    """Pictures at one moment of their run, made of `token_patches`; cells whose token is not committed are grey.

    Args:
        patches: of the model.
        layout: of the canvas.
        canvas: `[B, N]` int64 tokens, drafts included, on the CPU.
        committed: `[B, N]` bool, on the CPU.
    """
    ids = layout.image_tokens(canvas).clamp(0, len(patches) - 1)
    cells = patches[ids].masked_fill(layout.image_tokens(~committed)[..., None, None, None], GREY_LEVEL)
    grid = cells.unflatten(1, (layout.rows, layout.columns)).permute(0, 1, 3, 2, 4, 5)
    return [Image.fromarray(one.flatten(2, 3).flatten(0, 1).numpy()) for one in grid]


@torch.no_grad()
def render_tokens(pipe: SJDAutoRegressivePipeline, tokens: torch.Tensor) -> torch.Tensor:
    """`[B, rows * columns]` tokens of the default size -> `[B, 3, H, W]` float32 in [0, 1], on the CPU."""
    pixels = pipe.decode_tokens(tokens.to(pipe.device), pipe.image_layout(None, None))
    return (pixels.float().cpu() / 2 + 0.5).clamp(0, 1)


def to_pictures(pixels: torch.Tensor) -> list[Image.Image]:
    """`[B, 3, H, W]` in [0, 1] -> one picture each."""
    return VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(pixels))


def data_uri(picture: Image.Image, kind: str = "JPEG") -> str:
    """A picture as a `data:` address, JPEG or PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, quality=JPEG_QUALITY)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def on_ramp(values: torch.Tensor) -> torch.Tensor:
    """Numbers as colours of `RAMP`: `[...]` in 0..1 -> `[..., 3]` in 0..255, of the same type."""
    stops = torch.tensor(RAMP, dtype=values.dtype)
    places = values.clamp(0, 1) * (len(RAMP) - 1)
    below = places.long().clamp(max=len(RAMP) - 2)
    share = (places - below)[..., None]
    return stops[below] * (1 - share) + stops[below + 1] * share


def save_animation(frames: Sequence[Image.Image], path: Any) -> None:
    """Write an endless GIF that rests on its last frame."""
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_FRAME_MILLISECONDS]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def _at_pass(pipe: SJDAutoRegressivePipeline, recording: Recording, index: int) -> list[Image.Image]:
    index = min(index, len(recording.canvases) - 1)
    layout = pipe.image_layout(recording.height, recording.width)
    return forming_pictures(pipe, layout, recording.canvases[index], recording.committed[index])


def _unfinished(layout: ImageTokenLayout, committed: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """`[B, 1, H, W]` bool: pixels of cells whose token is not committed."""
    cells = layout.image_tokens(~committed).unflatten(1, (1, layout.rows, layout.columns))
    height, width = size
    return cells.repeat_interleave(height // layout.rows, 2).repeat_interleave(width // layout.columns, 3)
