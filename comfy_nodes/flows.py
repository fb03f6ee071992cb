"""Flows: loader, sampler, decoder, and calibration of a plan."""

import torch
from comfy_api.latest import io

from sjd_pipelines.flows import MODES, OBJECTIVES, FlowSolver, OverlappingFlowSolver
from sjd_pipelines.flows.planned import text_of
from sjd_pipelines.flows.side_by_side import FITTED
from sjd_pipelines.pipelines.families import FLOW
from sjd_pipelines.pipelines.graphs import MAX_SEED, OWN, picture_seeds

from . import models, runtime
from .labels import CONVERT, SEED_WORDS
from .runtime import Flow, Progress, check_interrupt, show_text
from .schema import schema
from .types import FlowType, Patches, PatchesType, Solver, SolverType


class SJDFlowLoader(io.ComfyNode):
    kind = FLOW

    @classmethod
    def define_schema(cls) -> io.Schema:
        options = models.choices(cls.kind)
        return schema(
            node_id="SJDFlowLoader",
            display_name="SJD Load Flow",
            category="SJD/loaders",
            description="Loads a normalizing flow (TarFlow): a model that turns noise into a picture of a class, "
            "patch by patch. Flows are folders in models/sjd (or models/diffusers); a small emoji flow comes with the "
            "pack.",
            search_aliases=["TarFlow", "normalizing flow", "emoji", "class to image"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=options,
                    default=options[0],
                    tooltip="Which flow draws. Put the folders of others into models/sjd and press R to see them "
                    "here. ComfyUI's Python makes one of a published file, in this pack's folder: `python "
                    f"{CONVERT}`.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", *runtime.DTYPES],
                    default="auto",
                    tooltip="Number format of the weights. auto is fp32: in bf16 and fp16 patches never come to rest, "
                    "so that solvers need a tolerance of about 0.01 there.",
                ),
            ],
            outputs=[
                FlowType.Output(
                    "FLOW",
                    display_name="flow",
                    tooltip="The loaded flow, for SJD Flow Sampler, SJD Decode Patches and SJD Calibrate Solver.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool:
        models.check_choice(model, cls.kind)
        return True

    @classmethod
    def fingerprint_inputs(cls, model: str, dtype: str) -> str:
        return models.fingerprint(model, dtype, cls.kind)

    @classmethod
    def execute(cls, model: str, dtype: str) -> io.NodeOutput:
        return io.NodeOutput(runtime.load_flow(models.find_model(model, cls.kind), models.check_dtype(dtype)))


class SJDFlowSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SJDFlowSampler",
            display_name="SJD Flow Sampler",
            category="SJD/sampling",
            description="Draws pictures of a class with a flow; connect SJD Decode Patches to see them. The solver "
            "decides how many forward passes that takes. Progress counts solved patches over all blocks.",
            search_aliases=["TarFlow", "normalizing flow", "class to image", "fast"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                FlowType.Input("flow", tooltip="The flow that draws, from SJD Load Flow."),
                io.String.Input(
                    "class_name",
                    default="penguin",
                    tooltip="What to draw: one of the flow's classes, by name or number; empty draws without a class. "
                    "A word that is no class is refused with the list of those there are.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip=f"Same seed and settings give the same picture. {SEED_WORDS}",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=256,
                    tooltip="Pictures drawn at once. They do not influence one another; each costs memory.",
                ),
                _guidance(),
                SolverType.Input(
                    "solver",
                    optional=True,
                    tooltip="How the flow is solved, from one of the SJD solver nodes or SJD Calibrate Solver. "
                    "Without one the model's own is used, as a rule Frontier, which is exact.",
                ),
            ],
            outputs=[
                PatchesType.Output(
                    "PATCHES",
                    display_name="patches",
                    tooltip="The pictures as patches, with the noise of the training on them, for SJD Decode Patches.",
                ),
                io.String.Output("STRING", display_name="text", tooltip="In words, what the run took."),
                io.Int.Output("STEPS", display_name="steps", tooltip="Forward passes of one block each, all in turn."),
            ],
        )

    @classmethod
    def execute(
        cls, flow: Flow, class_name: str, seed: int, batch_size: int, guidance: float, solver: Solver | None = None
    ) -> io.NodeOutput:
        check_interrupt()
        own = flow.pipe.scheduler
        scheduler = type(own).from_config(own.config) if solver is None else solver.make()
        label = class_name.strip() or None
        progress = Progress(batch_size * len(flow.pipe.transformer.blocks) * flow.pipe.transformer.num_tokens)

        def watch(pipe: object, index: int, solved: int, tensors: dict) -> None:
            check_interrupt()
            progress.update(solved)

        seeds = picture_seeds(seed, batch_size)
        with flow.ready(memory_required(flow, batch_size, scheduler)) as pipe:
            output = pipe(
                label,
                guidance_scale=None if guidance == OWN else guidance,
                num_images_per_prompt=batch_size,
                generator=[torch.Generator().manual_seed(one) for one in seeds],
                output_type="latent",
                callback_on_step_end=watch,
                callback_on_step_end_tensor_inputs=[],
                scheduler=scheduler,
            )
        labels = pipe.prepare_labels(label, batch_size)
        statistics = output.statistics
        error = "" if statistics.error is None else f", measured error {statistics.error:.1e}"
        text = (
            f"{scheduler.name}: {statistics.label}{error}\n{statistics.forward_passes} passes, one patch after the "
            f"other takes {len(statistics.blocks) * (pipe.transformer.num_tokens - 1)}; "
            f"{statistics.seconds['solve']:.2f} s for {batch_size} picture{'s' if batch_size > 1 else ''}\n"
            f"seeds {', '.join(map(str, seeds))}"
        )
        show_text(cls.hidden and cls.hidden.unique_id, text)
        return io.NodeOutput(
            Patches(output.images.float().cpu(), labels, flow.origin), text, statistics.forward_passes
        )


class SJDFlowDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SJDFlowDecode",
            display_name="SJD Decode Patches",
            category="SJD/image",
            description="Turns a flow's patches into pictures, and takes the noise of the training off, as VAE Decode "
            "does for latents.",
            inputs=[
                FlowType.Input("flow", tooltip="The flow that drew the patches; those of another one are refused."),
                PatchesType.Input("patches", tooltip="Patches from SJD Flow Sampler."),
                io.Float.Input(
                    "denoise",
                    default=OWN,
                    min=OWN,
                    max=4,
                    step=0.05,
                    tooltip="How much of the noise is taken off: 0 none, 1 all that training put on. -1 is the "
                    "model's recommended value. Costs one pass forward and one back.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE",
                    display_name="image",
                    tooltip="The pictures, for Preview, Save, upscalers and any other image node.",
                )
            ],
        )

    @classmethod
    def execute(cls, flow: Flow, patches: Patches, denoise: float) -> io.NodeOutput:
        if not patches.origin.same_as(flow.origin):
            raise ValueError("These patches were drawn by another flow: connect the one that drew them.")
        check_interrupt()
        return io.NodeOutput(runtime.finish_patches(flow, patches, None if denoise == OWN else denoise))


class SJDFlowCalibrate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SJDFlowCalibrate",
            display_name="SJD Calibrate Solver",
            category="SJD/solvers",
            description="Tries the solvers on every block of a flow, on this device, and makes the plan that costs "
            "least under an error that you allow, or fits a solver of all blocks to the flow where that costs less. "
            "Takes a few minutes with the emoji flow; the outcome is kept until an input changes.",
            inputs=[
                FlowType.Input("flow", tooltip="The flow, from SJD Load Flow."),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="safe",
                    tooltip="The error against drawing one patch after the other that a plan may have: "
                    f"{', '.join(f'{mode} {error:g}' for mode, error in MODES.items())}. More takes fewer passes.",
                ),
                io.Combo.Input(
                    "objective",
                    options=list(OBJECTIVES),
                    default="seconds",
                    tooltip="What to save: seconds on this device, or forward passes.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Pictures that will be drawn at once: a plan is made for a batch size.",
                ),
                _guidance(),
            ],
            outputs=[
                SolverType.Output("SOLVER", display_name="solver", tooltip="The plan, for SJD Flow Sampler."),
                io.String.Output(
                    "STRING",
                    display_name="plan",
                    tooltip="The plan as text, which SJD Solver: Planned takes, so that it need not be made again; or "
                    "the name and settings of a solver of all blocks, whose fitted numbers are in solver alone.",
                ),
            ],
        )

    @classmethod
    def execute(cls, flow: Flow, mode: str, objective: str, batch_size: int, guidance: float) -> io.NodeOutput:
        progress, done = Progress(len(flow.pipe.transformer.blocks)), []

        def on_block(block: int, trials: list) -> None:
            check_interrupt()
            done.append(block)
            progress.update(len(done))

        needed = (memory_required(flow, FITTED), memory_required(flow, batch_size, OverlappingFlowSolver()))
        with flow.ready(max(needed)) as pipe:
            found = pipe.calibrate(
                mode=mode,
                objective=objective,
                batch_size=batch_size,
                guidance_scale=None if guidance == OWN else guidance,
                on_block=on_block,
            )
        solver = found.solver
        settings = {name: value for name, value in solver.config.items() if not name.startswith("_")}
        return io.NodeOutput(Solver(solver.name, settings), text_of(solver))


def _guidance() -> io.Input:
    return io.Float.Input(
        "guidance",
        default=OWN,
        min=OWN,
        max=30,
        step=0.1,
        tooltip="How strictly the picture follows the class. -1 is the model's recommended value, 0 is off. Above 0 "
        "every pass works on twice the data; high values make pictures harsher and more alike.",
    )


def memory_required(flow: Flow, batch_size: int, solver: FlowSolver | None = None) -> float:
    """Bytes a run needs beside the weights: keys and values of the blocks in work, and some copies of states.

    Args:
        flow: the flow.
        batch_size: pictures at once.
        solver: how it is solved; None is block by block.
    """
    model, config = flow.pipe.transformer, flow.pipe.transformer.config
    caches = 1 if solver is None else solver.most_at_once(config.num_blocks)
    rows, states = 2 * batch_size, model.num_tokens * config.hidden_size * model.dtype.itemsize
    return rows * states * (2 * config.layers_per_block * caches + 4 * (1 + config.mlp_ratio))


FLOW_NODES: list[type[io.ComfyNode]] = [SJDFlowLoader, SJDFlowCalibrate, SJDFlowSampler, SJDFlowDecode]
