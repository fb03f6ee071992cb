"""What a pipeline's own Jacobi decoding passes through, on disk: the drafts of every pass beside the final picture.

With the noise of a seed fixed by position, seeded Jacobi decoding is a deterministic iteration at any temperature: its
fixed point is the picture that the seed draws. A folder holds one file for each batch of pictures, written when the
batch is complete, so that an interrupted recording goes on with the next one.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..declaration import LONGEST
from ..decoding import ImageTokenLayout, PositionNoise, Sampling, TargetPass, decode
from ..disk import read_object, read_text
from ..learning.recipe import Count, Recipe
from ..learning.runs import check_run_folder, write_atomically
from ..learning.saved import as_saved
from ..pipelines import SJDAutoRegressivePipeline
from ..pipelines.inputs import SEED, check_call
from ..ranges import Range, shown
from ..schedulers import SeededJacobiScheduler

SETTINGS_FILE = "settings.json"
_TOLD = "trajectory"
# Prompt entries and their pictures [B, 3, H, W] in [0, 1] -> per picture the tokens [N] of a true one, None if it is
# right as it is.
Judge = Callable[[Sequence[dict[str, Any]], torch.Tensor], Sequence[torch.Tensor | None]]


@dataclass(frozen=True)
class Settings(Recipe):
    """How a folder's trajectories were recorded; one that is resumed must be told the same.

    Attributes:
        model: a folder, a hub id or the name of a bundled model; empty is the default one.
        window: drafts of a pass.
        batch_size: pictures in a file.
        seed: of the first picture; picture i has `seed + i`, as `seeds` of the pipeline's call takes it.
        guidance_scale, temperature, top_k, top_p: None is the model's own.
    """

    model: str = ""
    window: Annotated[int, Range(1, LONGEST, whole=True)] = 32
    batch_size: Count = 16
    seed: Annotated[int, SEED] = 0
    guidance_scale: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


class DraftRecorder:
    """Looks on at a run and keeps the drafts that each pass was fed; a `Companion`."""

    def __init__(self) -> None:
        self.fronts: list[torch.Tensor] = []  # [B] each: the position that the pass commits at least
        self.drafts: list[torch.Tensor] = []  # [B, W] each: tokens fed for this position and those after it

    def observe(self, seen: TargetPass) -> None:
        self.fronts.append(seen.query.predicts[:, 0])
        self.drafts.append(seen.query.token_ids[:, 1:].clone())  # the query's own tensor may be reused


@dataclass
class Trajectory:
    """A batch of pictures with the way that led to them; T passes, those of the longest picture.

    Attributes:
        prompts: B of them.
        seeds: B of them.
        sampling: the settings they were drawn with.
        final: `[B, N]` int64 by position, the fixed point.
        labels: `[B, N]` int64, what the picture should have been: the same, unless a judge found it wrong.
        fronts: `[T, B]` int64, the first position that each pass predicts; N or more where a picture was complete.
        drafts: `[T, B, W]` int64, the tokens it was fed for this position and those after it.
    """

    prompts: list[str]
    seeds: list[int]
    sampling: Sampling
    final: torch.Tensor
    labels: torch.Tensor
    fronts: torch.Tensor
    drafts: torch.Tensor

    @property
    def passes(self) -> torch.Tensor:
        """`[B]`: passes that each picture took."""
        return (self.fronts < self.final.shape[1]).sum(0)


@torch.no_grad()
def draw_trajectory(
    pipe: SJDAutoRegressivePipeline, prompts: list[str], seeds: list[int], sampling: Sampling, window: int
) -> Trajectory:
    """Draw pictures by seeded Jacobi decoding (at temperature 0 greedy Jacobi) and keep the drafts of all passes.

    Args:
        pipe: of any family.
        prompts: B of them.
        seeds: one for each.
        sampling: how tokens are sampled.
        window: drafts of a pass.
    """
    scheduler, layout = SeededJacobiScheduler(window=window), pipe.image_layout(None, None)
    encoded = pipe.encode_prompt(prompts, None, sampling.guided, 1, layout)
    target = pipe.prepare_target(encoded, layout, sampling, scheduler.margin(layout))
    recorder = DraftRecorder()
    noise = PositionNoise(seeds, target.device, target.length)
    state = decode(target, scheduler, noise, {"recorder": recorder})
    final = state.tokens.cpu()
    fronts, drafts = torch.stack(recorder.fronts).cpu(), torch.stack(recorder.drafts).cpu()
    return Trajectory(prompts, seeds, sampling, final, final, fronts, drafts)


def record(
    pipe: SJDAutoRegressivePipeline,
    entries: Sequence[dict[str, Any]],
    folder: Path,
    settings: Settings,
    judge: Judge | None = None,
    minutes: float = 0.0,
) -> int:
    """Record a picture of each prompt, batch by batch; goes on after the batches that are there.

    Args:
        pipe: the teacher.
        entries: with the `prompt`, and what else the judge wants to know.
        folder: where to.
        settings: kept beside the trajectories.
        judge: says which pictures are wrong, and what would have been right.
        minutes: stop after so many; 0 goes on to the last prompt.

    Returns:
        How many pictures the folder holds.

    Raises:
        OSError: a file that is there is not as it was recorded, or `folder` is a file.
        ValueError: the folder was recorded with other settings, with another judge or of other prompts, or there are
            no prompts, or one that can't be read, or the judge is none.
    """
    check_recording(folder, judge, minutes)
    if not entries:
        raise ValueError("There are no prompts to record.")
    prompts = [text for entry in entries for text in pipe.prepare_prompts(entry["prompt"])]
    check_call(prompts, 1, "latent")
    layout, count = pipe.image_layout(None, None), 0
    pipe.check_prompts(prompts, None, layout)
    sampling = pipe.prepare_sampling(settings.guidance_scale, settings.temperature, settings.top_k, settings.top_p)
    _keep_settings(folder, asdict(settings) | {"judge": _name_of(judge)})
    start = time.monotonic()
    for index, first in enumerate(range(0, len(entries), settings.batch_size)):
        file, last = folder / f"{index:05}.safetensors", min(first + settings.batch_size, len(entries))
        count += last - first
        if file.exists():
            if _told(file)["prompts"] != prompts[first:last]:
                raise ValueError(f"{file} was recorded of other prompts; choose another folder.")
            continue
        if 0 < minutes * 60 < time.monotonic() - start:
            return count - (last - first)
        seeds = [settings.seed + picture for picture in range(first, last)]
        drawn = draw_trajectory(pipe, prompts[first:last], seeds, sampling, settings.window)
        if judge is not None:
            drawn.labels = _true_labels(pipe, entries[first:last], drawn.final, judge)
        _save(drawn, file)
        print(f"{count} pictures, {drawn.passes.float().mean():.1f} passes each", flush=True)
    return count


def load(folder: Path) -> list[Trajectory]:
    """What a folder holds by now.

    Raises:
        OSError: a file is not as it was recorded.
        ValueError: it holds nothing.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} holds no trajectories; record some with `trajectories`.")
    return [_load(file) for file in files]


def check_fit(trajectories: Sequence[Trajectory], layout: ImageTokenLayout) -> None:
    """Raise `ValueError` unless a model with this layout can have drawn all of them."""
    for one in trajectories:
        largest = max(int(tokens.max()) for tokens in (one.final, one.labels, one.drafts))
        if one.final.shape[1] != layout.num_tokens or largest >= layout.vocabulary_size:
            raise ValueError(
                f"The trajectories are of another model: they have {one.final.shape[1]} tokens, up to {largest}, and "
                f"the teacher draws {layout.num_tokens}, up to {layout.vocabulary_size - 1}. Record some with it."
            )


def read_prompts(file: Path) -> list[dict[str, Any]]:
    """The entries of a file: a prompt on each line, or (`.jsonl`) an object with a `prompt`.

    Raises:
        OSError: it can't be read.
        ValueError: a line is no such object.
    """
    lines = [line for line in read_text(Path(file)).splitlines() if line.strip()]
    if Path(file).suffix != ".jsonl":
        return [{"prompt": line.strip()} for line in lines]
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
            raise ValueError(f'{file}, line {number}: expected an object such as {{"prompt": "a dog"}}.')
        entries.append(entry)
    return entries


def _keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Note how a folder is recorded. Raises `ValueError` if it says something else."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / SETTINGS_FILE
    if not file.exists():
        write_atomically(file, lambda path: path.write_text(json.dumps(settings, indent=2) + "\n"))
        return
    kept = read_object(file)
    differing = [name for name, value in settings.items() if kept.get(name) != value]
    if differing:
        raise ValueError(f"{folder} was recorded with another {', '.join(differing)}; choose another folder.")


def _name_of(judge: Judge | None) -> str | None:
    """As the command line names it, or its class if it is no function."""
    named = judge if hasattr(judge, "__qualname__") else type(judge)
    return None if judge is None else f"{named.__module__}:{named.__qualname__}"


def check_recording(folder: Path, judge: Judge | None, minutes: float) -> None:
    """What of `record` can be refused before there is a pipeline; raises what it does."""
    Range(0).check("minutes", minutes)
    check_run_folder(folder)
    if judge is None:
        return
    try:
        signature = inspect.signature(judge)
    except ValueError:  # some functions written in C have none
        return
    try:
        signature.bind("entries", "pictures")
    except TypeError as error:
        raise ValueError(f"The judge {_name_of(judge)} must take prompt entries and their pictures.") from error


@torch.no_grad()
def _true_labels(
    pipe: SJDAutoRegressivePipeline, entries: Sequence[dict[str, Any]], final: torch.Tensor, judge: Judge
) -> torch.Tensor:
    """`[B, N]`: the pictures' own tokens, or true ones where the judge says so."""
    layout = pipe.image_layout(None, None)
    tokens = layout.image_tokens(final).to(pipe.device)
    told = judge(entries, pipe.postprocess(tokens, layout, "pt"))
    if not isinstance(told, Sequence) or len(told) != len(entries):
        raise ValueError(f"The judge must say one thing of each of {len(entries)} pictures, got {shown(told)}.")
    labels = final.clone()
    for row, true in enumerate(told):
        if true is not None:
            labels[row] = _checked_tokens(true, layout)
    return labels


def _checked_tokens(true: Any, layout: ImageTokenLayout) -> torch.Tensor:
    """A judge's true tokens, if they can be those of a picture."""
    whole = isinstance(true, torch.Tensor) and not (true.is_floating_point() or true.is_complex())
    if (
        whole
        and true.shape == (layout.num_tokens,)
        and 0 <= int(true.min()) <= int(true.max()) < layout.vocabulary_size
    ):
        return true.long()
    raise ValueError(
        f"A judge's true tokens must be a tensor of {layout.num_tokens} whole numbers from 0 to "
        f"{layout.vocabulary_size - 1}, got {shown(true)}."
    )


def _save(drawn: Trajectory, file: Path) -> None:
    names = ("final", "labels", "fronts", "drafts")
    tensors = {name: getattr(drawn, name).to(torch.int32).contiguous() for name in names}
    told = {"prompts": drawn.prompts, "seeds": drawn.seeds, "sampling": asdict(drawn.sampling)}
    metadata = {_TOLD: json.dumps(told)}  # one entry: several would come in any order
    write_atomically(file, lambda path: save_file(tensors, path, metadata))


def _told(file: Path) -> dict[str, Any]:
    with as_saved(file), safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
        if _TOLD not in metadata:
            raise ValueError("it holds no trajectory")
        told = json.loads(metadata[_TOLD])
        return {name: told[name] for name in ("prompts", "seeds", "sampling")}


def _load(file: Path) -> Trajectory:
    told = _told(file)
    with as_saved(file):
        tensors = {name: tensor.long() for name, tensor in load_file(file).items()}
        drawn = Trajectory(told["prompts"], told["seeds"], Sampling(**told["sampling"]), **tensors)
        pictures, passes = len(drawn.prompts), len(drawn.fronts)
        shapes = drawn.final.shape[:1], drawn.labels.shape, drawn.fronts.shape, drawn.drafts.shape[:2]
        if shapes != ((pictures,), drawn.final.shape, (passes, pictures), (passes, pictures)):
            raise ValueError(f"the shapes do not go with {pictures} prompts")
        if any(int(numbers.min()) < 0 for numbers in tensors.values()):
            raise ValueError("a number in it is negative")
        return drawn
