"""Images whose tokens are not made row by row: regions in turn, and a small grid before the picture's."""

import dataclasses

import pytest
import torch

from sjd_pipelines import (
    SCHEDULERS,
    AutoregressiveScheduler,
    CanvasCache,
    CoupledSJDScheduler,
    PositionNoise,
    Purpose,
    SeededJacobiScheduler,
    SJDJanusPipeline,
    SJDPACScheduler,
    SJDScheduler,
    TreeJacobiScheduler,
)
from sjd_pipelines.benchmark.exactness import enumerable_pipeline, judge
from sjd_pipelines.decoding import Sampling, race
from sjd_pipelines.pipelines.target import attention_bias

PROMPTS = ["a red dog", "two blue cat on a green house"]
# 4 x 4 cells in four quadrants: the first cell of each, then the second of each, and so on.
QUADRANTS = tuple(
    row + column + corner for row in (0, 4) for column in (0, 1) for corner in (0, 2, 8, 10)
)  # fmt: skip
REVERSED = (3, 2, 1, 0)
SAMPLING = {"guidance_scale": 2.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "output_type": "latent"}


class Ordered(SJDJanusPipeline):
    """A Janus that makes its tokens in some order, each with the rotary position of its cell."""

    order: tuple[int, ...] | None = None
    earlier_grids: tuple[tuple[int, int], ...] = ()

    def image_layout(self, height, width):
        layout = super().image_layout(height, width)
        return dataclasses.replace(layout, order=self.order, earlier_grids=self.earlier_grids)


def ordered(pipe, **settings):
    changed = Ordered(pipe.model, pipe.processor, AutoregressiveScheduler(), pipe.drafter, pipe.reviser)
    changed.set_progress_bar_config(disable=True)
    for name, value in settings.items():
        setattr(changed, name, value)
    return changed


@torch.no_grad()
def plain_loop(pipe, prompts, seeds):
    """Token after token in the layout's order, the whole sequence anew for each: `[B, N]` by position."""
    layout, sampling = pipe.image_layout(None, None), Sampling(SAMPLING["guidance_scale"])
    encoded = pipe.encode_prompt(prompts, None, True, 1)
    rows, length, _ = encoded.embeds.shape
    tokens = torch.zeros(len(prompts), 0, dtype=torch.int64)
    noise = PositionNoise(seeds)
    cells = torch.tensor(layout.order)
    for position in range(layout.num_tokens):
        embeds = torch.cat([encoded.embeds, pipe.embed_image_tokens(torch.cat([tokens, tokens]))], 1)
        ids = encoded.position_ids[:, -1:] + 1 + cells[:position]
        total = length + position
        causal = torch.ones(total, total, dtype=torch.bool).tril().expand(rows, -1, -1).clone()
        causal[:, :, :length] &= encoded.visible[:, None]
        causal |= torch.eye(total, dtype=torch.bool)
        cache = CanvasCache(total)
        cache.place(torch.arange(total).expand(rows, -1), total)
        mask = attention_bias(causal, embeds.dtype)
        hidden = pipe.run_transformer(embeds, mask, torch.cat([encoded.position_ids, ids], 1), cache)
        law = sampling.law(pipe.guided_logits(hidden[:, -1:], sampling.guidance_scale))
        at = torch.full((len(prompts), 1), position)
        token = race(law, noise.exponential(at, Purpose.SAMPLE, layout.codebook_size))
        tokens = torch.cat([tokens, token], 1)
    return tokens


def test_regions_are_decoded_in_their_order(pipe):
    """Exactly as a plain loop that knows nothing of canvas, cache or windows, and the picture the right way up."""
    regions = ordered(pipe, order=QUADRANTS)
    output = regions(PROMPTS, generator=torch.Generator().manual_seed(3), **SAMPLING)
    tokens = plain_loop(regions, PROMPTS, output.statistics.seeds)
    picture = torch.empty_like(tokens)
    picture[:, list(QUADRANTS)] = tokens
    assert torch.equal(output.tokens, picture)
    made = output.statistics.acceptance_map[0]
    assert made.tolist() == [[0, 4, 1, 5], [8, 12, 9, 13], [2, 6, 3, 7], [10, 14, 11, 15]]
    raster = ordered(pipe)(PROMPTS, generator=torch.Generator().manual_seed(3), **SAMPLING)
    assert not torch.equal(output.tokens, raster.tokens)


@pytest.mark.parametrize("settings", [{"order": QUADRANTS}, {"earlier_grids": ((2, 3),)}], ids=["regions", "grids"])
@pytest.mark.parametrize("window", [1, 5, 40])
def test_exact_schedulers_keep_to_the_order(pipe, settings, window):
    changed = ordered(pipe, **settings)
    reference = changed(PROMPTS, generator=torch.Generator().manual_seed(1), **SAMPLING)
    for scheduler in (
        SeededJacobiScheduler(window=window),
        SeededJacobiScheduler(window=window, initialise="repeat-left"),
        TreeJacobiScheduler(window=window),
    ):
        output = changed(PROMPTS, generator=torch.Generator().manual_seed(1), scheduler=scheduler, **SAMPLING)
        assert torch.equal(output.tokens, reference.tokens)
    assert output.tokens.shape == (2, 16)


@pytest.mark.parametrize(
    "scheduler",
    [SJDScheduler(window=3), CoupledSJDScheduler(window=2), SJDPACScheduler(window=3, branches=2)],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_lossless_schedulers_keep_the_law_in_any_order(scheduler):
    verdict = judge(ordered(enumerable_pipeline(), order=REVERSED), scheduler, 6000, seed=2)
    assert verdict.passed, verdict


def test_a_wrong_pair_is_refused_with_the_reason(pipe):
    """Schedulers that think in rows; loops over all of them survive."""
    regions = ordered(pipe, order=QUADRANTS)
    layout = regions.image_layout(None, None)
    refused = {name for name, cls in SCHEDULERS.items() if cls().unsuited(layout, regions.companions()) is not None}
    assert refused == {
        "zipar", "pjd", "eagle", "seeded-eagle", "lantern-eagle", "corrected-jacobi", "revised-jacobi", "par"
    }  # fmt: skip
    for name in refused - {"par"}:
        with pytest.raises(ValueError, match=r"Scheduler decodes one grid in raster order, and this model makes"):
            regions(PROMPTS, scheduler=SCHEDULERS[name](), **SAMPLING)
