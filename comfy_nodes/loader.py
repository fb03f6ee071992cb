"""The model loader."""

from comfy_api.latest import io

from sjd_pipelines.pipelines.families import AUTOREGRESSIVE, FAMILIES

from . import models, runtime
from .schema import advanced, schema
from .types import ModelType

FAMILY_NAMES = ", ".join(family.models for family in FAMILIES if family.kind == AUTOREGRESSIVE)


class SJDModelLoader(io.ComfyNode):
    kind = AUTOREGRESSIVE

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SJDModelLoader",
            display_name="SJD Load Model",
            category="SJD/loaders",
            description="Loads an autoregressive image model: one that writes a picture token by token. Models are "
            "folders in models/sjd (or models/diffusers); small emoji models come with the pack.",
            search_aliases=["autoregressive", "emoji", "checkpoint", "text to image", *FAMILY_NAMES.split(", ")],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=models.choices(cls.kind),
                    default=models.DEFAULT_MODEL,
                    tooltip=f"Which model draws. Put model folders ({FAMILY_NAMES}) into models/sjd and press R to "
                    "see them here. Bigger models draw better and need more memory.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", *runtime.DTYPES],
                    default="auto",
                    tooltip="Number format of the model. auto picks the best for your device. bf16 and fp16 need half "
                    "the memory of fp32 and are faster on GPUs; exact decoders repeat a picture most faithfully "
                    "in fp32.",
                ),
                advanced(
                    io.Boolean.Input,
                    "compile",
                    default=False,
                    optional=True,
                    tooltip="Compile the passes of the model and replay them, on NVIDIA GPUs as CUDA graphs. Pictures "
                    "then come faster, but the first one of each size, batch size and decoder may take minutes. "
                    "Compiling needs Triton on a GPU and a C++ compiler on a CPU; where that is missing passes are "
                    "replayed uncompiled, and log and report say so. Graphs need some memory. Decoders that work row "
                    "by row stay as they are.",
                ),
            ],
            outputs=[
                ModelType.Output(
                    "MODEL",
                    display_name="model",
                    tooltip="The loaded model, for the sampler and for SJD Decode Tokens. ComfyUI moves it "
                    "off the GPU when the memory is needed.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool:
        models.check_choice(model, cls.kind)
        return True

    @classmethod
    def fingerprint_inputs(cls, model: str, dtype: str, compile: bool = False) -> str:
        return models.fingerprint(model, dtype, cls.kind)

    @classmethod
    def execute(cls, model: str, dtype: str, compile: bool = False) -> io.NodeOutput:
        return io.NodeOutput(runtime.load_model(models.find_model(model), models.check_dtype(dtype), compile))
