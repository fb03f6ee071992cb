"""The one module that touches ComfyUI's inside: model folders, memory, progress, interruption."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import comfy.model_management as management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from PIL import Image
from server import PromptServer

from sjd_pipelines import ImageTokenLayout, SJDAutoRegressivePipeline, TarFlowPipeline
from sjd_pipelines.pipelines.base import SJDPipeline
from sjd_pipelines.pipelines.info import inspect_model
from sjd_pipelines.pipelines.pictures import token_patches

from .types import Origin, Patches

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ORIGIN_SAMPLE = 32  # vectors
PREVIEW_SIDE = 512  # pixels
LOWER = "lower batch_size, width and height or the decoder's window, set guidance to 1, or load the model as bf16"

OWN_FOLDER, SHARED_FOLDER = "sjd", "diffusers"
folder_paths.add_model_folder_path(OWN_FOLDER, str(Path(folder_paths.models_dir, OWN_FOLDER)))


class SJDWeights(torch.nn.Module):
    """The networks of a pipeline under one roof; ComfyUI wants to set attributes that library models refuse."""

    def __init__(self, pipe: SJDPipeline):
        super().__init__()
        self.pipe = pipe
        for name, component in pipe.components.items():
            if isinstance(component, torch.nn.Module):
                self.add_module(name, component)


class SJDPatcher(ModelPatcher):
    """Moves the weights between devices; when they leave, graphs that read them there go at once."""

    def detach(self, unpatch_all: bool = True) -> SJDWeights:
        if unpatch_all:  # else the weights stay
            self.model.pipe.drop_graphs()
        return super().detach(unpatch_all)


@dataclass
class Loaded:
    """A pipeline, and ComfyUI's handle on its memory.

    Attributes:
        pipe: the pipeline.
        patcher: moves the weights between devices when ComfyUI says so.
    """

    pipe: SJDPipeline
    patcher: ModelPatcher
    lower: ClassVar[str] = "lower batch_size, or load the model as bf16"

    @contextmanager
    def ready(self, memory_required: float) -> Iterator[SJDPipeline]:
        """The pipeline on the compute device, with room for `memory_required` more bytes.

        Whatever else ComfyUI holds there has to leave if need be.
        """
        try:
            # Networks without ComfyUI's own layers cannot be loaded in part.
            management.load_models_gpu([self.patcher], memory_required=memory_required, force_full_load=True)
            yield self.pipe
        except torch.OutOfMemoryError as error:
            # Of the same type, because ComfyUI unloads all models when it sees it.
            raise torch.OutOfMemoryError(f"Out of memory: {self.lower}. ({error})") from error


@dataclass
class Model(Loaded):
    """An autoregressive model.

    Attributes:
        token_bytes: keys and values of one token of one guided picture.
        codebook: what its token ids mean.
        patches: about what each token looks like, see `token_patches`.
        rendered: grid, tokens `[1, rows * columns]` and pixels of the picture that was made last.
    """

    pipe: SJDAutoRegressivePipeline
    token_bytes: int
    codebook: Origin
    patches: torch.Tensor
    rendered: tuple[ImageTokenLayout, torch.Tensor, torch.Tensor] | None = None
    lower: ClassVar[str] = LOWER


@dataclass
class Flow(Loaded):
    """A normalizing flow.

    Attributes:
        origin: tells it from others.
    """

    pipe: TarFlowPipeline
    origin: Origin


def model_folders(place: str) -> list[Path]:
    """The folders that hold models: those of `models/sjd`, or those that all packs share."""
    return [Path(path) for path in folder_paths.get_folder_paths(place)]


def load_model(source: str | Path, dtype: str, compile: bool = False) -> Model:
    """Load a pipeline and hand its memory to ComfyUI; `source` is as `models.find_model` returns it."""
    device = management.get_torch_device()
    torch_dtype = _best_dtype(device) if dtype == "auto" else DTYPES[dtype]
    pipe = SJDAutoRegressivePipeline.from_pretrained(source, dtype=torch_dtype)
    pipe.set_progress_bar_config(disable=True)
    if compile:
        pipe.enable_compile()
    patcher = SJDPatcher(SJDWeights(pipe), load_device=device, offload_device=management.unet_offload_device())
    vectors = pipe.codebook_vectors()
    codebook = Origin(
        f"{type(pipe).__name__} {vectors.shape[0]} x {vectors.shape[1]}", vectors[:ORIGIN_SAMPLE].float().cpu()
    )
    token_bytes = inspect_model(source, torch_dtype).prompt_token_bytes
    with Loaded(pipe, patcher).ready(_render_bytes(*pipe.image_sizes()[0])):
        patches = token_patches(pipe)
    return Model(pipe, patcher, token_bytes, codebook, patches)


@torch.no_grad()
def finish_patches(flow: Flow, patches: Patches, denoise: float | None) -> torch.Tensor:
    """Patches `[B, T, D]` -> `[B, H, W, 3]` float32 in 0..1, on ComfyUI's device for results."""
    strength = flow.pipe.sampling_defaults()["denoise_strength"] if denoise is None else denoise
    # Taking the noise off keeps the states of every block for the way back.
    states = patches.values.shape[1] * flow.pipe.transformer.config.hidden_size * 4
    with flow.ready(32 * len(flow.pipe.transformer.blocks) * len(patches.values) * states) as pipe:
        device = flow.patcher.load_device
        pixels = pipe.decode_latents(patches.values.to(device), torch.tensor(patches.labels).to(device), strength)
    return (pixels.float() / 2 + 0.5).movedim(1, -1).to(management.intermediate_device())


@torch.inference_mode(False)
def load_flow(source: str | Path, dtype: str) -> Flow:
    """Load a flow and hand its memory to ComfyUI; `source` is as `models.find_model` returns it.

    ComfyUI runs nodes in inference mode, and of weights that were made there no gradient can be taken, which the last
    step of a picture needs.
    """
    device = management.get_torch_device()
    # What is rounded to half precision does not settle: solvers would go on for as long as sequential sampling takes.
    torch_dtype = torch.float32 if dtype == "auto" else DTYPES[dtype]
    pipe = TarFlowPipeline.from_pretrained(source, dtype=torch_dtype)
    pipe.set_progress_bar_config(disable=True)
    patcher = ModelPatcher(SJDWeights(pipe), load_device=device, offload_device=management.unet_offload_device())
    sample = pipe.transformer.blocks[0].pos_embed.detach()[:ORIGIN_SAMPLE].float().cpu()
    return Flow(pipe, patcher, Origin(f"flow of {pipe.transformer.num_parameters()} numbers", sample))


@torch.no_grad()
def render_picture(model: Model, ids: torch.Tensor, layout: ImageTokenLayout) -> torch.Tensor:
    """`[1, rows * columns]` ids -> `[1, H, W, 3]` float32 in 0..1, on ComfyUI's device for results.

    The sampler shows the finished picture, which is then turned into pixels again: the one made last is kept.
    """
    if model.rendered is not None and model.rendered[0] == layout and torch.equal(model.rendered[1], ids):
        return model.rendered[2]
    with model.ready(_render_bytes(*pixel_size(model.pipe, layout))) as pipe:
        pixels = pipe.decode_tokens(ids.to(model.patcher.load_device), layout).float()
        pixels = (pixels / 2 + 0.5).clamp(0, 1).movedim(1, -1).to(management.intermediate_device())
    model.rendered = (layout, ids.clone(), pixels)
    return pixels


def picture_of(pixels: torch.Tensor) -> Image.Image:
    """The first of `[B, H, W, 3]` in 0..1."""
    return Image.fromarray((pixels[0].cpu() * 255).round().to(torch.uint8).numpy())


def _render_bytes(height: int, width: int) -> int:
    # The picture decoders are siblings of Stable Diffusion's; this is ComfyUI's rule of thumb for that one.
    return 2178 * height * width * 4


def pixel_size(pipe: SJDAutoRegressivePipeline, layout: ImageTokenLayout) -> tuple[int, int]:
    """Height and width in pixels of a picture of this token grid."""
    height, width = pipe.image_sizes()[0]
    scale = height // pipe.image_layout(height, width).rows
    return layout.rows * scale, layout.columns * scale


def check_interrupt() -> None:
    """Raise ComfyUI's own exception if the user pressed Cancel. Nothing here may catch it."""
    management.throw_exception_if_processing_interrupted()


def show_text(node_id: str | None, text: str) -> None:
    """Write on the node that runs, in the place of what an earlier run wrote there.

    ComfyUI's newer nodes run lines together, so that each gets its full stop.
    """
    if node_id is not None:
        lines = [line if line.endswith(".") else f"{line}." for line in text.splitlines()]
        PromptServer.instance.send_progress_text("\n".join(lines), node_id)


def output_file(prefix: str, ending: str) -> Path:
    """A new file in ComfyUI's output folder; `prefix` may name folders in there, as in core's own nodes."""
    folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    Path(folder).mkdir(parents=True, exist_ok=True)
    return next(
        file
        for number in itertools.count(counter)
        if not (file := Path(folder, f"{name}_{number:05}_{ending}")).exists()
    )


def saved_files(ending: str) -> dict[str, Path]:
    """Files of a kind in ComfyUI's output and input folders, by the names that core gives them, the newest first."""
    places = {" [output]": folder_paths.get_output_directory(), "": folder_paths.get_input_directory()}
    found = [(Path(place), mark, file) for mark, place in places.items() for file in Path(place).rglob(f"*{ending}")]
    files = [(file.relative_to(place).as_posix() + mark, file) for place, mark, file in found if file.is_file()]
    return dict(sorted(files, key=lambda one: -one[1].stat().st_mtime))


class Progress:
    """The bar on the node that runs, and the picture below it."""

    def __init__(self, total: int):
        self._bar = ProgressBar(total)
        self._total = total

    def update(self, done: int, picture: Image.Image | None = None) -> None:
        preview = None if picture is None else ("JPEG", picture, PREVIEW_SIDE)
        self._bar.update_absolute(done, self._total, preview)


def _best_dtype(device: torch.device) -> torch.dtype:
    if management.should_use_bf16(device):
        return torch.bfloat16
    return torch.float16 if management.should_use_fp16(device) else torch.float32
