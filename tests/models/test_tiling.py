"""Decoding in tiles against decoding at once."""

import pytest
import torch
from diffusers import VQModel

from sjd_pipelines.models import Tiling, render_codes, render_tiled
from sjd_pipelines.models.tiling import _shares


def local_decoder() -> VQModel:
    """A VQGAN decoder with nothing in it that looks at the whole picture: no attention, no norms."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VQModel(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(16, 16),
            norm_num_groups=8,
            latent_channels=16,
            num_vq_embeddings=32,
            vq_embed_dim=8,
            mid_block_add_attention=False,
            lookup_from_codebook=True,
        )
        model.quantize.embedding.weight.data.normal_()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, torch.nn.Identity())
    return model.eval()


@pytest.fixture(scope="module")
def decoder():
    return local_decoder()


def tokens(*shape):
    return torch.randint(32, shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_local_decoder_is_reproduced(decoder):
    """A cut-off quarter of the overlap covers the receptive field: 13 tokens (1 + 4 + 4 below, 7 / 2 above)."""
    grid = tokens(1, 70, 150)
    whole = render_codes(decoder, grid)
    tiled = render_tiled(lambda part: render_codes(decoder, part), grid, Tiling(104, 52))
    assert whole.shape == tiled.shape == (1, 3, 140, 300)
    assert torch.allclose(tiled, whole, atol=1e-5)
    narrow = render_tiled(lambda part: render_codes(decoder, part), grid, Tiling(104, 1))
    assert (narrow - whole).abs().max() > 1e-3  # without their surroundings, edges differ


@torch.no_grad()
def test_no_tile_is_larger_than_it_may_be(decoder):
    shapes = []

    def render(part):
        shapes.append(tuple(part.shape))
        return render_codes(decoder, part)

    assert render_tiled(render, tokens(1, 7, 20), Tiling(8, 3)).shape == (1, 3, 14, 40)
    assert shapes == [(1, 7, 8)] * 4  # at columns 0, 5, 10, 12
    shapes.clear()
    assert render_tiled(render, tokens(2, 9, 9), Tiling(8, 4)).shape == (2, 3, 18, 18)
    assert shapes == [(2, 8, 8)] * 4


@torch.no_grad()
def test_a_picture_that_fits_is_rendered_as_it_is(decoder):
    grid = tokens(1, 8, 5)
    assert torch.equal(
        render_tiled(lambda part: render_codes(decoder, part), grid, Tiling(8, 4)), render_codes(decoder, grid)
    )


@pytest.mark.parametrize(("size", "tile", "overlap"), [(9, 8, 1), (9, 8, 4), (48, 32, 8), (90, 32, 8), (5, 2, 1)])
def test_shares_add_up_to_one_and_leave_the_cut_edges_out(size, tile, overlap):
    """Constant tiles make a constant picture: the blend has no seam of its own."""
    starts = [*range(0, size - tile, tile - overlap), size - tile]
    shares = _shares(starts, tile, size, overlap, scale=8)
    assert torch.allclose(shares.sum(0), torch.ones(size * 8))
    for share, start in zip(shares, starts):
        assert (share[: start * 8] == 0).all()
        assert (share[(start + tile) * 8 :] == 0).all()
        if start > 0:
            assert (share[start * 8 : start * 8 + 2 * overlap] == 0).all()  # a quarter of the overlap, in pixels
    grid = torch.zeros(1, size, size, dtype=torch.int64)
    picture = render_tiled(lambda part: torch.full((1, 3, *part.shape[1:]), 0.5), grid, Tiling(tile, overlap))
    assert torch.allclose(picture, torch.full((1, 3, size, size), 0.5))


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (1, 1, "tile must be an integer of at least 2 tokens, got 1"),
        (8.0, 1, "tile must be an integer"),
        (8, 5, r"overlap must be an integer in \[1, tile / 2 = 4\], got 5"),
        (8, 0, "overlap must be an integer"),
    ],
)
def test_bad_settings_are_refused(tile, overlap, message):
    with pytest.raises(ValueError, match=message):
        Tiling(tile, overlap)
