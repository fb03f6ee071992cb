"""What a run did: in words, as a map over the picture, and beside another run."""

import torch
from comfy_api.latest import io

from sjd_pipelines.pipelines.pictures import on_ramp

from . import charts
from .runtime import show_text
from .schema import schema
from .types import Report, ReportType, Tokens, TokensType


class Words(io.ComfyNode):
    """A node that shows words. It runs every time, at no cost: what stood on it may be gone from the page."""

    @classmethod
    def fingerprint_inputs(cls, **inputs: object) -> float:
        return float("nan")  # a new one, since ComfyUI takes an object to equal itself


class SJDReport(Words):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SJDReport",
            display_name="SJD Report",
            category="SJD/analysis",
            description="Says in words what a run did and took: prompt, settings, seeds, forward passes, seconds.",
            search_aliases=["statistics", "seconds", "speed", "passes", "seed", "autoregressive"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[ReportType.Input("report", tooltip="The report of an SJD Sampler. Reading it costs nothing.")],
            outputs=[
                io.String.Output("STRING", display_name="text", tooltip="The report in words, as shown on the node."),
                io.Float.Output(
                    "TOKENS_PER_STEP",
                    display_name="tokens per step",
                    tooltip="Tokens finished per forward pass, on average; sequential drawing has 1.",
                ),
                io.Int.Output(
                    "STEPS", display_name="steps", tooltip="Forward passes until the last picture was complete."
                ),
                io.Float.Output(
                    "SECONDS",
                    display_name="seconds",
                    tooltip="Time from prompt to tokens for the whole batch, without turning tokens into pixels.",
                ),
            ],
        )

    @classmethod
    def execute(cls, report: Report) -> io.NodeOutput:
        text = charts.describe(report)
        steps = max(report.statistics.forward_passes)
        show_text(cls.hidden and cls.hidden.unique_id, text)
        return io.NodeOutput(text, report.tokens / report.passes, steps, report.seconds)


class SJDAcceptanceMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SJDAcceptanceMap",
            display_name="SJD Acceptance Map",
            category="SJD/analysis",
            description="Paints when each part of a picture was finished. Where a decoder saves passes, many tokens "
            "share a colour.",
            search_aliases=["heat map", "passes", "autoregressive", "lossless"],
            inputs=[
                ReportType.Input("report", tooltip="The report of the SJD Sampler that drew the pictures."),
                io.Combo.Input(
                    "metric",
                    options=list(charts.METRICS),
                    default="step",
                    tooltip="step: the forward pass that finished each token, early is dark and late is bright. "
                    "together: how many tokens that pass finished at once, bright is many. No cost.",
                ),
                io.Float.Input(
                    "opacity",
                    default=0.6,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How strongly the map covers the image below it; 1 shows the map alone. No cost.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The decoded pictures of the same run, to see the map over them. Any size will do.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE", display_name="map", tooltip="One map per picture, over the picture if one was connected."
                )
            ],
        )

    @classmethod
    def execute(cls, report: Report, metric: str, opacity: float, image: torch.Tensor | None = None) -> io.NodeOutput:
        if metric not in charts.METRICS:
            raise ValueError(f"metric must be one of {', '.join(charts.METRICS)}; got {metric!r}.")
        cells = charts.METRICS[metric](report)  # [B, rows, columns]
        if image is None:
            return io.NodeOutput(charts.enlarge(on_ramp(cells) / 255, report.height, report.width))
        if len(image) != len(cells):
            raise ValueError(f"The report is of {len(cells)} pictures, the image has {len(image)}.")
        coloured = charts.enlarge(on_ramp(cells) / 255, *image.shape[1:3]).to(image)
        return io.NodeOutput(torch.lerp(image[..., :3], coloured, opacity))


class SJDCompare(Words):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SJDCompare",
            display_name="SJD Compare",
            category="SJD/analysis",
            description="Sets two runs side by side: passes, seconds, and which tokens differ. An exact decoder "
            "beside the sequential one, with the same seed, differs in none.",
            search_aliases=["speed", "faster", "difference", "lossless", "same picture", "autoregressive"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                ReportType.Input("report_a", tooltip="The report of the run to judge, for instance the faster one."),
                ReportType.Input("report_b", tooltip="The report of the run to measure it against."),
                TokensType.Input(
                    "tokens_a", optional=True, tooltip="Tokens of the first run, to count those that differ. No cost."
                ),
                TokensType.Input(
                    "tokens_b", optional=True, tooltip="Tokens of the second run, drawn with the same seed. No cost."
                ),
            ],
            outputs=[
                io.String.Output("STRING", display_name="text", tooltip="The comparison in words, as on the node."),
                io.Float.Output(
                    "SPEED_UP",
                    display_name="speed-up",
                    tooltip="How many times faster run A was than run B, by the clock: 2 is half the time.",
                ),
                io.Float.Output(
                    "FEWER_STEPS",
                    display_name="fewer steps",
                    tooltip="How many times fewer forward passes run A took than run B, on any device.",
                ),
                io.Mask.Output(
                    "MASK",
                    display_name="differing tokens",
                    tooltip="White where the two runs chose different tokens, at picture size; black without tokens.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, report_a: Report, report_b: Report, tokens_a: Tokens | None = None, tokens_b: Tokens | None = None
    ) -> io.NodeOutput:
        differing = None
        if tokens_a is not None and tokens_b is not None:
            differing = charts.differing(tokens_a, tokens_b)  # [B, rows, columns]
        text = charts.compare(report_a, report_b, differing)
        cells = torch.zeros(1, 1, 1) if differing is None else differing.float()
        mask = charts.enlarge(cells[..., None], report_a.height, report_a.width)[..., 0]
        speed_up = report_b.seconds / report_a.seconds
        show_text(cls.hidden and cls.hidden.unique_id, text)
        return io.NodeOutput(text, speed_up, report_b.passes / report_a.passes, mask)
