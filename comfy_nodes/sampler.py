"""The sampler: prompt to tokens."""

import torch
from comfy_api.latest import io

from sjd_pipelines import SCHEDULERS, DecodingScheduler, DecodingStatistics, ImageTokenLayout
from sjd_pipelines.bundled import bundled_folder
from sjd_pipelines.disk import read_object
from sjd_pipelines.pipelines.graphs import BY_NUMBERS, MAX_SEED, OPTIONS, OWN, picture_seeds
from sjd_pipelines.pipelines.inputs import SAMPLING
from sjd_pipelines.pipelines.words import LISTED

from .labels import SEED_WORDS, WORDS_LISTED
from .preview import Watch
from .runtime import Model, check_interrupt, picture_of, pixel_size, render_picture
from .schema import advanced, schema
from .sizes import CHOICES, layout_of
from .types import Decoder, DecoderType, ModelType, Report, ReportType, Tokens, TokensType


def _bundled_words() -> str:
    """What the bundled model can be asked for."""
    kinds = read_object(bundled_folder() / "words.json")
    objects, backgrounds = (
        ", ".join(word.partition(" (")[0] for word in kinds[kind]) for kind in ("objects", "backgrounds")
    )
    return (
        f"The emoji model counts to three, knows left of, right of, above and below, and these objects: {objects}. "
        f"Its backgrounds are {backgrounds}."
    )


def _picture_inputs() -> list[io.Input]:
    """What is drawn: model, prompt, seed, size and number."""
    return [
        ModelType.Input("model", tooltip="The model that draws, from SJD Load Model."),
        io.String.Input(
            "prompt",
            multiline=True,
            dynamic_prompts=True,
            default="a heart on a blue background",
            tooltip=f"What to draw. {_bundled_words()} emoji-par draws one of these objects, by its name alone. "
            "A published class-conditional LlamaGen wants the number of an ImageNet class. Words that the model does "
            "not know are named on the node.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=True,
            tooltip=f"Same seed, settings and device give the same picture. {SEED_WORDS}",
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
        advanced(
            io.Float.Input,
            "temperature",
            default=OWN,
            min=OWN,
            max=5,
            step=0.05,
            tooltip="How adventurous each token is. -1 is the model's recommended value, usually 1; lower is "
            "safer and flatter, 0 always takes the likeliest token. No cost.",
        ),
        advanced(
            io.Int.Input,
            "top_k",
            default=OWN,
            min=OWN,
            max=100_000,
            tooltip="Choose among the k likeliest tokens only. -1 is the model's recommended value, 0 is all. "
            "Small values give cleaner and less varied pictures. No cost.",
        ),
        advanced(
            io.Float.Input,
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
        advanced(
            io.Int.Input,
            "preview_seconds",
            default=1,
            min=0,
            max=60,
            tooltip="Show the forming picture: 1 as often as it is nearly free (a fiftieth of the time at most), "
            "more every so many seconds, 0 not at all. It is a sketch, told from the tokens; the last one is the "
            "finished picture.",
        ),
        DecoderType.Input(
            "decoder",
            optional=True,
            tooltip="How tokens are guessed ahead and checked, from SJD Decoder. Without one the model's own is used; "
            "the emoji model's gives the very picture that drawing one token at a time gives, in fewer passes.",
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
        io.Combo.Input(
            "size",
            options=list(CHOICES),
            default=BY_NUMBERS,
            optional=True,
            tooltip="A size that the model can draw, by its shape, in the place of width and height. Models that draw "
            "one size only take that, or the shape that it has.",
        ),
    ]


class SJDSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SJDSampler",
            display_name="SJD Sampler",
            category="SJD/sampling",
            description="Draws pictures of a prompt as tokens; connect SJD Decode Tokens to see them. The decoder "
            "decides how many forward passes that takes. Progress counts finished tokens, and the picture is shown as "
            "it forms, with unfinished parts in grey.",
            search_aliases=["text to image", "txt2img", "autoregressive", "KSampler", "fast", "speed", "generate"],
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
    def validate_inputs(
        cls,
        prompt: str | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        size: str | None = None,
    ) -> bool:
        # Raised, as of loaders; what is returned is repeated for every input, too. Linked and missing ones are None.
        if prompt is not None:
            check_prompt(prompt)
        check_sampling(guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p)
        if size not in (None, *CHOICES):
            raise ValueError(f"size must be one of: {'; '.join(CHOICES)}. It is '{size}'.")
        return True

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
        size: str = BY_NUMBERS,
    ) -> io.NodeOutput:
        check_interrupt()
        check_prompt(prompt)
        options = check_sampling(guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p)
        layout = layout_of(model.pipe, size, height, width)
        height, width = pixel_size(model.pipe, layout)
        own = model.pipe.scheduler
        scheduler = (
            type(own).from_config(own.config) if decoder is None else decoder.make_for(layout, model.pipe.companions())
        )
        sampling = model.pipe.prepare_sampling(**options)
        seeds = picture_seeds(seed, batch_size)
        negative_prompt = negative_prompt.strip() if sampling.guided else ""
        remarks = model.pipe.prompt_remarks(list(filter(None, [prompt, negative_prompt])))
        remarks = [one.replace(LISTED, WORDS_LISTED) for one in remarks]
        node_id = cls.hidden and cls.hidden.unique_id
        watch = Watch(model, layout, batch_size, preview_seconds, node_id, "\n".join(remarks))
        with model.ready(memory_required(model, layout, scheduler, prompt, batch_size, sampling.guided)) as pipe:
            output = pipe(
                prompt,
                negative_prompt=negative_prompt or None,
                height=height,
                width=width,
                num_images_per_prompt=batch_size,
                generator=[torch.Generator().manual_seed(one) for one in seeds],
                output_type="latent",
                callback_on_step_end=watch,
                callback_on_step_end_tensor_inputs=list(watch.tensor_inputs),
                scheduler=scheduler,
                **options,
            )
        tokens = Tokens(output.tokens.cpu(), layout, height, width, model.codebook)
        used = {name: getattr(sampling, theirs) for name, theirs in OPTIONS.items()}
        prompts = prompt, negative_prompt
        report = report_of(output.statistics, tokens, scheduler, decoder, used, seeds, prompts, remarks)
        picture = picture_of(render_picture(model, tokens.ids[:1], layout)) if watch.shows_pictures else None
        watch.finish(picture, report.passes, report.seconds)
        return io.NodeOutput(tokens, report)


def check_prompt(prompt: str) -> None:
    """Raise `ValueError` for a prompt that asks for nothing."""
    if not prompt.strip():
        raise ValueError("The prompt is empty: say what to draw.")


def check_sampling(**given: float | None) -> dict[str, float]:
    """What is given of `OPTIONS`, by the pipeline's names; those of the model and linked ones are left out.

    Raises:
        ValueError: one is out of range.
    """
    given = {name: value for name, value in given.items() if value not in (OWN, None)}
    for name, value in given.items():
        if refusal := SAMPLING[OPTIONS[name]].refusal(value):
            raise ValueError(f"{name} {refusal}; {OWN} is the model's own.")
    return {OPTIONS[name]: value for name, value in given.items()}


def report_of(
    statistics: DecodingStatistics,
    tokens: Tokens,
    scheduler: DecodingScheduler,
    decoder: Decoder | None,
    sampling: dict[str, float],
    seeds: list[int],
    prompts: tuple[str, str],
    remarks: list[str],
) -> Report:
    """What a run did; `prompts` are the prompt and the negative one, as the model got them."""
    name = SCHEDULERS.name_of(type(scheduler))
    return Report(
        statistics,
        name,
        name if decoder is None or decoder.title is None else decoder.title,
        {key: value for key, value in scheduler.config.items() if not key.startswith("_")},
        seeds,
        tokens.layout.num_tokens,
        tokens.layout.columns,
        tokens.height,
        tokens.width,
        remarks,
        *prompts,
        sampling,
    )


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
