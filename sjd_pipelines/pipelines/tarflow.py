"""TarFlow (Zhai et al. 2024, arXiv 2412.06329): pictures of classes by inverting a flow, with a swappable solver."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Optional

import torch
from diffusers.image_processor import VaeImageProcessor

from ..flows import (
    FlowGuidance,
    FlowOverflowError,
    FlowRun,
    FlowSolver,
    FlowStatistics,
    FlowTarget,
    FrontierFlowSolver,
    GaussSeidelJacobiFlowSolver,
    invert,
    normal_noise,
)
from ..models import TarFlowTransformer2DModel, read_published_file, write_published_file
from ..models.tarflow_published import (
    PUBLISHED_TARFLOWS,
    noise_std_of,
    published_tarflow_name,
    published_tarflow_weights,
    tarflow_from_published,
)
from . import inputs
from .base import SJDPipeline, drawing
from .classes import class_index, keyed_by_text
from .flow_calibration import FlowCalibration
from .loading import load_pipeline, load_single_file
from .output import TarFlowPipelineOutput
from .room import check_room
from .runs import Run, running
from .weights import load_network

DEFAULTS: dict[str, Any] = {
    "guidance_scale": 0.0,
    "annealed_guidance": True,
    "guide_what": "both",
    "attention_temperature": 1.0,
    "denoise_strength": 1.0,
}


class TarFlowPipeline(FlowCalibration, SJDPipeline):
    """Class name to picture with a normalizing flow.

    Args:
        transformer: the flow.
        scheduler: how its blocks are solved.
        id2label: names of the classes by index; None where they have none.
        sampling: what a call uses where it is not told otherwise, as in `DEFAULTS`.
    """

    model_cpu_offload_seq = "transformer"
    scheduler_type = FlowSolver
    scheduler_words = "flow solvers"
    loader_schedulers = ("published",)
    works_by = "A flow decodes no tokens, its blocks are solved"
    _callback_tensor_inputs = ["sample", "solved"]

    def __init__(
        self,
        transformer: TarFlowTransformer2DModel,
        scheduler: FlowSolver,
        # diffusers before 0.36 does not read `X | None` from a signature.
        id2label: Optional[dict] = None,  # noqa: UP045
        sampling: Optional[dict[str, Any]] = None,  # noqa: UP045
    ):
        super().__init__()
        unknown = set(sampling or ()) - set(DEFAULTS)
        if unknown:
            raise ValueError(f"sampling: {sorted(unknown)} not in {', '.join(DEFAULTS)}.")
        self.register_modules(transformer=transformer, scheduler=scheduler)
        self.register_to_config(id2label=keyed_by_text(id2label), sampling=dict(sampling or {}))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any):
        """Load a flow.

        Args:
            pretrained_model_name_or_path: the name of a bundled model (`emoji-flow`), a folder that `save_pretrained`
                wrote, or a hub id of one; which comes first is as for `SJDAutoRegressivePipeline.from_pretrained`.
            **kwargs: `scheduler` (default: the saved one), `dtype` (default float32), `device_map`; for hub ids
                `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            OSError: nothing loadable is there, or a weight file is damaged.
            ValueError: the folder holds another pipeline.
        """
        return load_pipeline(cls, pretrained_model_name_or_path, kwargs)

    @classmethod
    def from_single_file(cls, file: str | Path, **kwargs: Any):
        """Load a published `.pth` file; its configuration is read from its names and shapes.

        Args:
            file: a path, or `owner/name/file.pth` on the hub.
            **kwargs: as in `load_published_files`; for hub paths `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            OSError: the file is not there or cannot be read as plain tensors.
            ValueError: its weights are not a TarFlow's, or its name lacks what is asked of it.
        """
        return load_single_file(cls, file, kwargs)

    @classmethod
    def load_published_files(
        cls,
        file: Path,
        scheduler: FlowSolver | str | None = None,
        noise_std: float | None = None,
        in_channels: int = 3,
        id2label: dict[int, str] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> "TarFlowPipeline":
        """Load a file as it is published.

        Args:
            file: for instance `imagenet_model_4_1024_8_8_0.15.pth`.
            scheduler: None is the exact frontier solver; `published` the strategy that the authors of GS-Jacobi found
                for this file.
            noise_std: of the training noise; None where the file's name tells it, as in `..._0.05.pth`.
            in_channels: channels of a picture.
            id2label: names of the classes.
            dtype: of the weights.
        """
        known = PUBLISHED_TARFLOWS.get(file.stem)
        if scheduler == "published":
            if known is None or known.strategy is None:
                raise ValueError(f"No strategy was published for {file.name}; leave scheduler out, or pass a solver.")
            scheduler = GaussSeidelJacobiFlowSolver(strategy=known.strategy, starts=known.starts)
        noise_std = noise_std_of(file) if noise_std is None else noise_std
        transformer = tarflow_from_published(read_published_file(file), noise_std, in_channels)
        # Past diffusers' own `to`, which warns of float32 modules that there are none of.
        torch.nn.Module.to(transformer, dtype)
        return cls(transformer, scheduler or FrontierFlowSolver(), id2label, known.sampling if known else None)

    @classmethod
    def export_published_files(cls, folder: Path, target: Path) -> list[Path]:
        """Write the one file that the authors' own code loads, named as the published ones are.

        Raises:
            ValueError: the authors' code has no such model.
        """
        transformer = load_network(TarFlowTransformer2DModel, folder / "transformer", torch.float32)
        file = target / published_tarflow_name(transformer, folder.resolve().name)
        write_published_file(published_tarflow_weights(transformer), file, wrapper=None)
        return [file]

    def sampling_defaults(self) -> dict[str, Any]:
        """What a call uses where it is not told otherwise."""
        return DEFAULTS | dict(self.config.sampling)

    def class_names(self) -> list[str]:
        """Names of the classes in the order of their indices, an index where one has none; empty if none has."""
        names = self.config.id2label  # from a file in the order of texts: 0, 1, 10
        if names is None:
            return []
        return [names.get(str(index), str(index)) for index in range(self.transformer.config.num_classes)]

    @drawing
    def __call__(
        self,
        prompt: str | int | list[str] | list[int] | None = None,
        height: int | None = None,
        width: int | None = None,
        guidance_scale: float | None = None,
        annealed_guidance: bool | None = None,
        guide_what: str | None = None,
        attention_temperature: float | None = None,
        denoise_strength: float | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        seeds: int | Iterable[int] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict | None] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        scheduler: FlowSolver | str | None = None,
    ) -> TarFlowPipelineOutput | tuple:
        """Draw pictures.

        Args:
            prompt: a class by name or index, or several. None draws without a class, the only choice for an
                unconditional model.
            height: pixels; the model draws one size only.
            width: pixels.
            guidance_scale: how far to lead away from what the model says without a class; 0 is not at all. None is
                the model's default, as for the next four.
            annealed_guidance: let guidance grow along the tokens of a block.
            guide_what: `both` scales and shifts, or `scale`, or `shift`.
            attention_temperature: of the branch that guidance leads away from; what guides an unconditional model
                where it is not 1.
            denoise_strength: factor of the step that takes the training noise off; 0 leaves it on.
            num_images_per_prompt: pictures of each class.
            generator: one, or one per picture. Each picture takes a single seed from it; without a generator the
                seeds are fresh. `statistics.seeds` has them, and `seeds` takes them.
            seeds: in place of a generator, the seed of each picture itself: draws that picture again, alone or in any
                batch.
            output_type: `pil`, `np`, `pt`, or `latent` for the patches before the noise is taken off.
            return_dict: False returns a tuple `(images, statistics)`.
            callback_on_step_end: called as `callback(pipe, pass_index, solved_tokens, tensors)` after each pass. It
                may set `pipe.interrupt = True`, which stops this run alone; what it returns is ignored.
            callback_on_step_end_tensor_inputs: which of `sample` (`[B, T, D]`, the patches as they are now, in raster
                order) and `solved` (`[B]`, settled tokens over all blocks) it receives, copies both.
            scheduler: solves this call in the place of `pipe.scheduler`; its name is one with its defaults.

        Returns:
            `TarFlowPipelineOutput`, or a tuple.

        Raises:
            ValueError: bad input, before any work starts.
            FlowOverflowError: the flow leaves the range of numbers.
        """
        solver = self.read_scheduler(self.scheduler if scheduler is None else scheduler)
        labels = self.prepare_labels(prompt, num_images_per_prompt)
        guidance = self.prepare_guidance(guidance_scale, annealed_guidance, guide_what, attention_temperature)
        strength = self.sampling_defaults()["denoise_strength"] if denoise_strength is None else denoise_strength
        strength = inputs.check_flow({"denoise_strength": strength})["denoise_strength"]
        self.check_size(*inputs.check_size(height, width))
        inputs.check_output_type(output_type)
        wanted = inputs.check_callback(
            callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs
        )
        generator = inputs.check_generators(generator, len(labels))
        seeds = inputs.check_seeds(seeds, generator, len(labels))
        solver.check(len(self.transformer.blocks), self.transformer.num_tokens)
        check_room(len(labels) * self.picture_bytes(guidance, solver), self._execution_device, len(labels))
        seeds = self.prepare_seeds(generator, len(labels)) if seeds is None else seeds

        with running(self, guidance.scale) as run:
            begin = time.perf_counter()
            target = self.target(labels, guidance)
            solved = self.solve(target, solver, seeds, run, callback_on_step_end, wanted)
            middle = time.perf_counter()
            images = solved.sample
            if output_type != "latent":
                pixels = self.decode_latents(images, target.labels, 0.0 if solved.interrupted else strength)
                images = VaeImageProcessor().postprocess(pixels.float(), output_type=output_type)
            self.maybe_free_model_hooks()
        statistics = FlowStatistics(
            solver=type(solver).__name__,
            label=solver.label,
            seeds=seeds,
            blocks=solved.blocks,
            forward_passes=solved.passes,
            seconds={"solve": middle - begin, "pixels": time.perf_counter() - middle},
            error=solver.error_at(target.conditions),
            interrupted=solved.interrupted,
        )
        if not return_dict:
            return images, statistics
        return TarFlowPipelineOutput(images=images, statistics=statistics)

    def solve(
        self,
        target: FlowTarget,
        solver: FlowSolver,
        seeds: list[int],
        run: Run,
        callback: Callable[..., Any] | None = None,
        tensor_inputs: Sequence[str] = (),
    ) -> FlowRun:
        """Solve one batch, with progress bar, callback and interruption; see `flows.invert`."""
        counts = {"passes": 0, "solved": 0}
        with self.progress_bar(total=len(seeds) * target.num_blocks * target.num_tokens) as bar:

            def on_pass(flow: FlowRun) -> bool:
                bar.update(sum(flow.solved) - counts["solved"])
                counts.update(passes=counts["passes"] + 1, solved=sum(flow.solved))
                if callback is not None:
                    makers = {
                        "sample": lambda: target.order(flow.block, flow.state.current()),
                        "solved": lambda: torch.tensor(flow.solved),
                    }
                    tensors = {name: makers[name]() for name in tensor_inputs}
                    callback(self, counts["passes"] - 1, counts["solved"], tensors)
                return run.interrupted

            return invert(target, solver, self.prepare_latents(seeds), on_pass)

    def check_size(self, height: int | None, width: int | None) -> None:
        """Raise `ValueError` unless it is the size of the model's pictures."""
        side = self.transformer.config.sample_size
        if height not in (None, side) or width not in (None, side):
            raise ValueError(f"This model draws {side}x{side} pixels only, got {height or side}x{width or side}.")

    def prepare_labels(
        self, prompt: str | int | list[str] | list[int] | None, num_images_per_prompt: int
    ) -> list[int]:
        """Classes by index, -1 for none, one per picture. Raises `ValueError` for a class that the model lacks."""
        num_images_per_prompt = inputs.AT_ONCE.check("num_images_per_prompt", num_images_per_prompt)
        prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
        if not prompts:
            raise ValueError("prompt is an empty list; pass at least one class.")
        if not self.transformer.config.num_classes and any(label is not None for label in prompts):
            raise ValueError("This model is unconditional: it draws without a prompt; leave it out.")
        classes, names = self.transformer.config.num_classes, self.class_names()
        labels = [-1 if label is None else class_index(label, classes, names) for label in prompts]
        return [label for label in labels for _ in range(num_images_per_prompt)]

    def prepare_guidance(
        self,
        guidance_scale: float | None,
        annealed_guidance: bool | None,
        guide_what: str | None,
        attention_temperature: float | None,
    ) -> FlowGuidance:
        """Guidance of a call; None is the model's default."""
        given = {
            "guidance_scale": guidance_scale,
            "annealed_guidance": annealed_guidance,
            "guide_what": guide_what,
            "attention_temperature": attention_temperature,
        }
        chosen = self.sampling_defaults() | {name: value for name, value in given.items() if value is not None}
        chosen = inputs.check_flow(chosen)
        names = ("guidance_scale", "annealed_guidance", "guide_what", "attention_temperature")
        return FlowGuidance(*(chosen[name] for name in names))

    def picture_bytes(self, guidance: FlowGuidance, solver: FlowSolver) -> int:
        """Bytes of the keys and values of one picture, of all blocks that a solver may work on side by side."""
        model, config = self.transformer, self.transformer.config
        numbers = 2 * config.layers_per_block * config.hidden_size * (model.num_tokens - 1)
        rows = guidance.branches(config.num_classes > 0) * solver.most_at_once(config.num_blocks)
        return rows * numbers * model.dtype.itemsize

    def prepare_latents(self, seeds: list[int]) -> torch.Tensor:
        """The noise that pictures begin as, `[B, T, D]` in raster order."""
        model = self.transformer
        noise = normal_noise(seeds, model.num_tokens, model.token_size)
        noise = noise.to(model.state_dtype).to(self._execution_device)
        return noise * model.var.to(noise).sqrt()

    def target(self, labels: list[int], guidance: FlowGuidance) -> FlowTarget:
        """The flow for these classes, on its device."""
        self.onload(self.transformer)
        return FlowTarget(self.transformer, torch.tensor(labels, device=self._execution_device), len(labels), guidance)

    def decode_latents(self, latents: torch.Tensor, labels: torch.Tensor, denoise_strength: float) -> torch.Tensor:
        """Solved patches `[B, T, D]` to pictures `[B, channels, S, S]` in [-1, 1], the training noise taken off."""
        pixels = self.transformer.unpatchify(latents)
        if denoise_strength:
            pixels = self.transformer.denoise(pixels, labels, denoise_strength)
        if not pixels.isfinite().all():
            raise FlowOverflowError(
                "The pictures are not finite: the flow has left the range of numbers. Check the weights, or lower "
                "guidance_scale."
            )
        return pixels.clamp(-1, 1)
