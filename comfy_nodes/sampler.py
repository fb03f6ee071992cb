"""The sampler: prompt to tokens."""

import torch
from comfy_api.latest import io

from sjd_pipelines import SCHEDULERS, DecodingScheduler, ImageTokenLayout
from sjd_pipelines.pipelines.graphs import MAX_SEED, OPTIONS, OWN

from .preview import Watch
from .runtime import Model, check_interrupt, pixel_size, show_text
from .types import Decoder, DecoderType, ModelType, Report, ReportType, Tokens, TokensType


def _picture_inputs() -> list[io.Input]:
    """What is drawn: model, prompt, seed, size and number."""
    return [
        ModelType.Input("model", tooltip="The model that draws, from SJD Load Model."),
        io.String.Input(
            "prompt",
            multiline=True,
            dynamic_prompts=True,
            default="a heart on a blue background",
            tooltip="What to draw. The emoji model knows 48 objects, 10 backgrounds and counts to three; a "
            "class-conditional LlamaGen wants the number of an ImageNet class. Words that the model does not "
            "know are named on the node.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=True,
            tooltip="Same seed, settings and device give the same picture. Picture i of a batch has seed + i "
            "and can be drawn again alone.",
        ),
        io.Int.Input(
            "width",
            default=0,
            min=0,
            max=8192,
            step=8,
            tooltip="Width in pixels; 0 is the size the model was trained for. A size the model cannot draw "
            "is refused with those it can. Twice the area takes twice the tokens and as much more time.",
        ),
        io.Int.Input(
            "height",
            default=0,
            min=0,
            max=8192,
            step=8,
            tooltip="Height in pixels; 0 is the size the model was trained for.",
        ),
        io.Int.Input(
            "batch_size",
            default=1,
            min=1,
            max=64,
            tooltip="Pictures drawn at once. They do not influence one another; each costs memory, and a GPU "
            "draws several in little more time than one.",
        ),
    ]


def _sampling_inputs() -> list[io.Input]:
    """How tokens are sampled; each may be left to the model."""
    return [
        io.Float.Input(
            "guidance",
            default=OWN,
            min=OWN,
            max=30,
            step=0.1,
            tooltip="How strictly the picture follows the prompt (classifier-free guidance). -1 is the "
            "model's recommended value, 1 is off. Above 1 every pass works on twice the data; high values "
            "make pictures harsher and more alike.",
        ),
        io.Float.Input(
            "temperature",
            default=OWN,
            min=OWN,
            max=5,
            step=0.05,
            tooltip="How adventurous each token is. -1 is the model's recommended value, usually 1; lower is "
            "safer and flatter, 0 always takes the likeliest token. No cost.",
        ),
        io.Int.Input(
            "top_k",
            default=OWN,
            min=OWN,
            max=100_000,
            tooltip="Choose among the k likeliest tokens only. -1 is the model's recommended value, 0 is all. "
            "Small values give cleaner and less varied pictures. No cost.",
        ),
        io.Float.Input(
            "top_p",
            default=OWN,
            min=OWN,
            max=1,
            step=0.01,
            tooltip="Choose among the likeliest tokens that together hold this much probability. -1 is the "
            "model's recommended value, 1 is all. No cost.",
        ),
    ]


def _run_inputs() -> list[io.Input]:
    """How the run goes."""
    return [
        io.Int.Input(
            "preview_seconds",
            default=1,
            min=0,
            max=60,
            tooltip="Show the forming picture this often; 0 shows none. They are left out where they would "
            "take more than a twentieth of the time, as with a small model on a CPU.",
        ),
        DecoderType.Input(
            "decoder",
            optional=True,
            tooltip="How tokens are guessed ahead and checked, from one of the SJD decoder nodes. Without one "
            "the model's own is used, as a rule Seeded Jacobi, which is exact.",
        ),
        io.String.Input(
            "negative_prompt",
            optional=True,
            multiline=True,
            dynamic_prompts=True,
            default="",
            tooltip="What guidance leads away from; empty is what the model was trained with. Has no effect "
            "with guidance off. No cost.",
        ),
    ]


class SJDSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SJDSampler",
            display_name="SJD Sampler",
            category="SJD/sampling",
            description="Draws pictures of a prompt as tokens; connect SJD Decode Tokens to see them. The decoder "
            "decides how many forward passes that takes. Progress counts finished tokens, and the picture is shown as "
            "it forms, with unfinished parts in grey.",
            inputs=[*_picture_inputs(), *_sampling_inputs(), *_run_inputs()],
            outputs=[
                TokensType.Output(
                    "TOKENS",
                    display_name="tokens",
                    tooltip="The pictures as token numbers. Decode them to see them, or compare them exactly.",
                ),
                ReportType.Output(
                    "REPORT",
                    display_name="report",
                    tooltip="What the run took, for SJD Report, SJD Acceptance Map and SJD Compare.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        prompt: str,
        seed: int,
        width: int,
        height: int,
        batch_size: int,
        guidance: float,
        temperature: float,
        top_k: int,
        top_p: float,
        preview_seconds: int,
        decoder: Decoder | None = None,
        negative_prompt: str = "",
    ) -> io.NodeOutput:
        check_interrupt()
        layout = model.pipe.image_layout(height or None, width or None)
        given = {"guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        options = {OPTIONS[name]: value for name, value in given.items() if value != OWN}
        own = model.pipe.scheduler
        scheduler = type(own).from_config(own.config) if decoder is None else decoder.make()
        guided = options.get("guidance_scale", model.pipe.sampling_defaults()["guidance_scale"]) > 1
        seeds = [(seed + i) & MAX_SEED for i in range(batch_size)]
        negative_prompt = negative_prompt.strip()
        remarks = model.pipe.prompt_remarks([prompt, negative_prompt] if guided else [prompt])
        show_text(cls.hidden and cls.hidden.unique_id, "\n".join(remarks))
        watch = Watch(model, layout, batch_size, preview_seconds)
        with model.ready(memory_required(model, layout, scheduler, prompt, batch_size, guided)) as pipe:
            output = pipe(
                prompt,
                negative_prompt=negative_prompt or None,
                height=height or None,
                width=width or None,
                num_images_per_prompt=batch_size,
                generator=[torch.Generator().manual_seed(one) for one in seeds],
                output_type="latent",
                callback_on_step_end=watch,
                callback_on_step_end_tensor_inputs=list(watch.tensor_inputs),
                scheduler=scheduler,
                **options,
            )
        height, width = pixel_size(pipe, layout)
        tokens = Tokens(output.tokens.cpu(), layout, height, width, model.codebook)
        settings = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
        report = Report(
            output.statistics,
            SCHEDULERS.name_of(type(scheduler)),
            settings,
            seeds,
            layout.num_tokens,
            layout.columns,
            height,
            width,
            remarks,
        )
        return io.NodeOutput(tokens, report)


def memory_required(
    model: Model, layout: ImageTokenLayout, scheduler: DecodingScheduler, prompt: str, batch_size: int, guided: bool
) -> float:
    """Bytes a run needs beside the weights: keys and values of every slot, and some copies of a window's laws."""
    prompt_slots = 64 + len(prompt.encode()) // 2  # a chat template; tokens of two letters or more
    window_slots = scheduler.margin(layout)
    slots = prompt_slots + layout.num_tokens + window_slots
    canvas = slots * model.token_bytes * (1 if guided else 0.5)
    laws = 8 * window_slots * layout.vocabulary_size * 4
    return batch_size * (canvas + laws)
