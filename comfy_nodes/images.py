"""Tokens to pictures, and pictures side by side."""

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from sjd_pipelines.pipelines.sheets import contact_sheet

from . import charts
from .runtime import Model, Progress, check_interrupt, picture_of, render_picture
from .schema import schema
from .types import ModelType, Report, ReportType, Tokens, TokensType

GAP = 4  # pixels
MOST_COMPARED = 4
LEAST_CAPTIONED = 256  # pixels across, so that a caption can be read


class SJDDecodeTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SJDDecodeTokens",
            display_name="SJD Decode Tokens",
            category="SJD/image",
            description="Turns tokens into pictures with the model's own picture decoder, as VAE Decode does for "
            "latents.",
            search_aliases=["VAE decode", "tokens to image", "autoregressive", "detokenize"],
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
        return schema(
            node_id="SJDPictureGrid",
            display_name="SJD Picture Grid",
            category="SJD/image",
            description="Lays a batch of pictures out on one sheet, row by row.",
            search_aliases=["contact sheet", "image grid", "collage"],
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


class SJDPictureComparison(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = []
        for number in range(1, MOST_COMPARED + 1):
            optional = number > 1
            inputs += [
                io.Image.Input(
                    f"image_{number}", optional=optional, tooltip="A decoded picture; of a batch the first is shown."
                ),
                ReportType.Input(
                    f"report_{number}", optional=optional, tooltip="The report of the SJD Sampler that drew it."
                ),
            ]
        return schema(
            node_id="SJDPictureComparison",
            display_name="SJD Compare Pictures",
            category="SJD/analysis",
            description="Lays up to four pictures out on one sheet, each with its decoder, passes and seconds below.",
            search_aliases=["side by side", "caption", "label", "speed", "image grid", "autoregressive"],
            inputs=inputs,
            outputs=[io.Image.Output("IMAGE", display_name="sheet", tooltip="One picture that holds them all.")],
        )

    @classmethod
    def execute(cls, image_1: torch.Tensor, report_1: Report, **others: Any) -> io.NodeOutput:
        given = {"image_1": image_1, "report_1": report_1} | others
        pictures, captions = [], []
        for number in range(1, MOST_COMPARED + 1):
            image, report = given.get(f"image_{number}"), given.get(f"report_{number}")
            if (image is None) != (report is None):
                raise ValueError(f"Picture {number} needs both image_{number} and report_{number}.")
            if image is not None:
                pictures.append(picture_of(image[..., :3]))
                captions.append(charts.caption(report))
        if len({picture.size for picture in pictures}) > 1:
            raise ValueError("The pictures must all be of one size.")
        scale = -(-LEAST_CAPTIONED // pictures[0].width)
        pictures = [one.resize([scale * side for side in one.size], Image.Resampling.BICUBIC) for one in pictures]
        sheet = contact_sheet(pictures, 2, captions=captions)
        return io.NodeOutput(torch.from_numpy(np.array(sheet)).float()[None] / 255)
