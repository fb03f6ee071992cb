"""The model loader."""

from comfy_api.latest import io

from sjd_pipelines.pipelines.families import FAMILIES

from . import runtime
from .types import ModelType

FAMILY_NAMES = ", ".join(family.models for family in FAMILIES)


class SJDModelLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SJDModelLoader",
            display_name="SJD Load Model",
            category="SJD/loaders",
            description="Loads an autoregressive image model: one that writes a picture token by token. Models are "
            "folders in models/sjd (or models/diffusers); a small emoji model comes with the pack.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=list(runtime.models()),
                    default=runtime.DEFAULT_MODEL,
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
    def validate_inputs(cls, model: str, dtype: str) -> bool | str:
        # Linked inputs arrive as None. The oldest supported ComfyUI does not check the choices of a list.
        if dtype is not None and dtype not in ("auto", *runtime.DTYPES):
            return f"dtype must be auto, {', '.join(runtime.DTYPES)}; got {dtype!r}."
        try:
            if model is not None:
                runtime.find_model(model)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model: str, dtype: str) -> str:
        """A folder whose files were replaced is another model."""
        files = runtime.model_files(runtime.find_model(model))
        states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return f"{model} {dtype} {states}"

    @classmethod
    def execute(cls, model: str, dtype: str) -> io.NodeOutput:
        return io.NodeOutput(runtime.load_model(runtime.find_model(model), dtype))
