"""Tokens to pictures, and pictures side by side."""

import torch
from comfy_api.latest import io

from .runtime import Model, Progress, check_interrupt, render_picture
from .types import ModelType, Tokens, TokensType

GAP = 4  # pixels


class SJDDecodeTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SJDDecodeTokens",
            display_name="SJD Decode Tokens",
            category="SJD/image",
            description="Turns tokens into pictures with the model's own picture decoder, as VAE Decode does for "
            "latents.",
            inputs=[
                ModelType.Input(
                    "model",
                    tooltip="The model that drew the tokens; another one's codebook would give noise and is refused.",
                ),
                TokensType.Input(
                    "tokens",
                    tooltip="Tokens from SJD Sampler. Decoding takes a moment per picture, "
                    "one after the other, so that a large batch needs no more memory.",
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
    def execute(cls, model: Model, tokens: Tokens) -> io.NodeOutput:
        if not tokens.codebook.same_as(model.codebook):
            raise ValueError(
                f"These tokens are of the codebook {tokens.codebook.name}, the model has {model.codebook.name} with "
                "other vectors: connect the model that drew them."
            )
        progress, pictures = Progress(len(tokens.ids)), []
        for ids in tokens.ids.split(1):
            check_interrupt()
            pictures.append(render_picture(model, ids, tokens.layout))
            progress.update(len(pictures))
        return io.NodeOutput(torch.cat(pictures))


class SJDPictureGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SJDPictureGrid",
            display_name="SJD Picture Grid",
            category="SJD/image",
            description="Lays a batch of pictures out on one sheet, row by row.",
            inputs=[
                io.Image.Input("images", tooltip="A batch of pictures of one size; join batches with Batch Images."),
                io.Int.Input("columns", default=4, min=1, max=64, tooltip="Pictures per row. No cost."),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE", display_name="sheet", tooltip="One picture that holds them all, with white gaps."
                )
            ],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, columns: int) -> io.NodeOutput:
        count, _, _, channels = images.shape
        columns = min(columns, count)
        rows = -(-count // columns)
        # A white gap below and right of every picture; the last ones are cut off again.
        padded = torch.nn.functional.pad(images, (0, 0, 0, GAP, 0, GAP, 0, rows * columns - count), value=1.0)
        sheet = padded.unflatten(0, (rows, columns)).permute(0, 2, 1, 3, 4)  # [rows, H, columns, W, C]
        sheet = sheet.flatten(2, 3).flatten(0, 1)[None, :-GAP, :-GAP, :channels]
        return io.NodeOutput(sheet)
