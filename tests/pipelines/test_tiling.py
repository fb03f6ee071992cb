"""Tiled pictures of every family, and of trained weights."""

import pytest
import torch

from sjd_pipelines import SJDAutoRegressivePipeline

from .tiny import MEMBERS


@torch.no_grad()
@pytest.mark.parametrize("name", MEMBERS)
def test_pictures_keep_their_size(name, request):
    pipe = request.getfixturevalue(name)
    layout = pipe.image_layout(None, None)
    shape = (2, layout.rows * layout.columns)
    tokens = torch.randint(layout.codebook_size, shape, generator=torch.Generator().manual_seed(0))
    whole = pipe.decode_tokens(tokens, layout)
    height, width = pipe.image_sizes()[0]
    assert whole.shape == (2, 3, height, width)
    try:
        pipe.enable_vae_tiling(tile=2, overlap=1)
        tiled = pipe.decode_tokens(tokens, layout)
        assert tiled.shape == whole.shape
        assert not torch.equal(tiled, whole)
        assert torch.equal(pipe.decode_tokens(tokens[1:], layout), tiled[1:])
        pipe.enable_vae_tiling(tile=4, overlap=2)  # as large as the picture
        assert torch.equal(pipe.decode_tokens(tokens, layout), whole)
    finally:
        pipe.disable_vae_tiling()
    assert torch.equal(pipe.decode_tokens(tokens, layout), whole)


@torch.no_grad()
def test_seams_of_a_trained_decoder_do_not_show():
    """Two tiles a side: tones differ from the picture in one piece, but no line is added where quarters would show."""
    pipe = SJDAutoRegressivePipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    prompts = ["a red apple on a blue background", "a dog left of a car on a green background"]
    tokens = pipe(prompts, generator=torch.Generator().manual_seed(0), output_type="latent").tokens
    layout = pipe.image_layout(None, None)
    whole = pipe.decode_tokens(tokens, layout)
    side = layout.rows // 2
    rows = tokens.unflatten(1, (layout.rows, layout.columns)).split(side, 1)
    quarters = torch.cat([torch.cat([pipe.render_grid(part) for part in row.split(side, 2)], 3) for row in rows], 2)
    pipe.enable_vae_tiling(tile=3 * side // 2, overlap=side // 2)
    tiled = pipe.decode_tokens(tokens, layout)
    assert (tiled - whole).square().mean().sqrt() < 2 * 8 / 255
    for axis in (2, 3):
        blended, cut = (
            (picture - whole).diff(dim=axis).abs().mean((0, 1, 5 - axis)).max() for picture in (tiled, quarters)
        )
        assert blended < cut / 3


def test_bad_tiles_are_refused(toy):
    with pytest.raises(ValueError, match="overlap must be an integer"):
        toy.enable_vae_tiling(tile=8, overlap=7)
