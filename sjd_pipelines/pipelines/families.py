"""The model families, one entry each. What else is to be known of a family stands in its class.

Package exports, loading, `sjd convert` and the texts that name the families are made from this table. It imports no
family, so that looking at it costs nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module

AUTOREGRESSIVE, FLOW = "autoregressive", "flow"  # kinds of families


@dataclass(frozen=True)
class LoadOption:
    """An option of a family's loader that `sjd convert` has too.

    Attributes:
        name: keyword of the loader.
        help: what it is.
        metavar: what `sjd convert --help` calls its value.
        type: of its value.
        choices: the values there are; None is any.
    """

    name: str
    help: str
    metavar: str | None = None
    type: type = str
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Published:
    """A published model that loads as it is.

    Attributes:
        source: where it is on the hub, `owner/name`.
        gigabytes: of its download, about.
        memory: gigabytes that a guided picture of its own size takes in bf16, weights included, about.
    """

    source: str
    gigabytes: float
    memory: float

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.source.split("/")[1]


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        module: its file among the pipelines.
        pipeline: its class in there.
        models: its members, as people call them.
        sources: what to load, as README says it.
        model_type: of config.json; None where no transformers class holds such a model.
        single_files: name of a weight by which the files are known that its models are published as; None where
            they are no single files.
        kind: `autoregressive` (tokens, decoded by a scheduler) or `flow` (a normalizing flow, solved by a solver).
        options: of its loader, for `sjd convert`.
        published: its models that load as they are.
    """

    module: str
    pipeline: str
    models: str
    sources: str
    model_type: str | None = None
    single_files: str | None = None
    kind: str = AUTOREGRESSIVE
    options: tuple[LoadOption, ...] = ()
    published: tuple[Published, ...] = ()

    def load(self) -> type:
        """The pipeline class."""
        return getattr(import_module(f"{__package__}.{self.module}"), self.pipeline)


_CHAMELEON = (
    LoadOption("vq_model", "its VQGAN, where the model has none", "FILE|FOLDER"),
    LoadOption("recipe", "whose prompts and defaults", choices=("anole", "lumina-mgpt")),
    LoadOption("resolution", "where the name of a Lumina-mGPT does not say it", "PIXELS", int),
)
_LLAMAGEN = (
    LoadOption("vq_file", "its image tokenizer (vq_ds16_t2i.pt, ...)", "FILE"),
    LoadOption("image_size", "where the name does not say it", "PIXELS", int),
    LoadOption("num_attention_heads", "where no published model is as wide", "N", int),
    LoadOption("text_encoder", "T5 encoder of a text model", "FOLDER|ID"),
    LoadOption("tokenizer", "tokenizer of the T5 encoder", "FOLDER|ID"),
)

_TARFLOW = (
    LoadOption("noise_std", "of its training noise, where the name does not say it", "SIGMA", float),
    LoadOption("in_channels", "of its pictures; 3 is colour", "N", int),
)

FAMILIES = (
    Family(
        "janus",
        "SJDJanusPipeline",
        "Janus, Janus-Pro",
        "`deepseek-community/Janus-Pro-1B`, `-7B`",
        "janus",
        published=(
            Published("deepseek-community/Janus-Pro-1B", 4.2, 5),
            Published("deepseek-community/Janus-Pro-7B", 14.8, 16),
        ),
    ),
    Family(
        "llamagen",
        "SJDLlamaGenPipeline",
        "LlamaGen",
        "`emoji-par`, which is part of the package; `from_single_file` of the published `.pt` files (text, class, "
        "PAR); or a converted folder",
        single_files="tok_embeddings.weight",
        options=_LLAMAGEN,
    ),
    Family(
        "emu3",
        "SJDEmu3Pipeline",
        "Emu3",
        "`BAAI/Emu3-Gen-hf`",
        "emu3",
        published=(Published("BAAI/Emu3-Gen-hf", 17.5, 21),),
    ),
    Family(
        "chameleon",
        "SJDChameleonPipeline",
        "Anole, Lumina-mGPT",
        "`leloy/Anole-7b-v0.1-hf`, `Alpha-VLLM/Lumina-mGPT-7B-768`",
        "chameleon",
        options=_CHAMELEON,
        published=(
            Published("leloy/Anole-7b-v0.1-hf", 14.1, 16),
            Published("Alpha-VLLM/Lumina-mGPT-7B-768", 14.2, 18),
        ),
    ),
    Family(
        "tarflow",
        "TarFlowPipeline",
        "TarFlow",
        "`emoji-flow`, which is part of the package; `from_single_file` of the published `.pth` files; or a folder",
        single_files="blocks.0.pos_embed",
        kind=FLOW,
        options=_TARFLOW,
    ),
)

# What cannot be loaded as its authors published it -> where it is in a form that can. By `model_type`, if it has one.
INSTEAD = {
    "multi_modality": "deepseek-community/Janus-Pro-1B or deepseek-community/Janus-Pro-7B",
    "Emu3": "BAAI/Emu3-Gen-hf",
    "anole": "leloy/Anole-7b-v0.1-hf",
}


def family_of_pipeline(name: str) -> Family | None:
    """The family whose pipeline class has this name."""
    return next((family for family in FAMILIES if family.pipeline == name), None)


def family_of_type(model_type: str | None) -> Family | None:
    """The family whose config.json has this `model_type`; None, also where there is no type."""
    return next((family for family in FAMILIES if family.model_type and family.model_type == model_type), None)


def family_of_weights(names: Collection[str]) -> Family | None:
    """The family whose published files have weights of these names."""
    return next((family for family in FAMILIES if family.single_files in names), None)
