import torch
from transformers import LlamaConfig, LlamaModel

from sjd_pipelines import CanvasCache
from sjd_pipelines.decoding import cache_keyword


def test_ragged_rows_and_rejected_drafts_reproduce_the_full_forward():
    with torch.random.fork_rng(devices=[]):
        config = LlamaConfig(
            vocab_size=32,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        model = LlamaModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(32, (2, 12), generator=generator)
    junk = torch.randint(32, (2, 12), generator=generator)
    with torch.no_grad():
        full = model(tokens).last_hidden_state
        cache = CanvasCache(16)
        hidden = torch.zeros_like(full)
        fronts = [0, 0]
        # Each pass feeds `good` true tokens and one wrong draft, at a pace of its own in each row.
        for advances in ([3, 1], [2, 4], [4, 1], [2, 5]):
            width = max(advances) + 1
            slots = torch.tensor(fronts)[:, None] + torch.arange(width)
            right = torch.arange(width) < torch.tensor(advances)[:, None]
            inside = slots.clamp(max=11)
            ids = torch.where(right, tokens.gather(1, inside), junk.gather(1, inside))
            extent = int(slots.max()) + 1
            mask = torch.arange(extent) <= slots[..., None]
            cache.place(slots, extent)
            out = model(
                inputs_embeds=model.embed_tokens(ids),
                attention_mask=mask[:, None],
                position_ids=slots,
                use_cache=True,
                **{cache_keyword(): cache},
            ).last_hidden_state
            for row, advance in enumerate(advances):
                hidden[row, fronts[row] : fronts[row] + advance] = out[row, :advance]
                fronts[row] += advance
    assert fronts == [11, 11]
    assert torch.allclose(hidden[:, :11], full[:, :11], atol=1e-5)
    assert cache.nbytes == 2 * 2 * 2 * 16 * 2 * 8 * 4  # layers, keys and values, rows, slots, heads, dim, bytes


def test_what_moves_leaves_the_rest_in_place():
    cache = CanvasCache(6)
    states = torch.arange(2.0 * 3 * 6 * 4).view(2, 3, 6, 4)  # [rows, heads, slots, dim]
    cache.place(torch.arange(6).expand(2, -1), 6)
    keys, values = cache.update(states, -states, 0)
    # The first row moves a slot that the second keeps, both keep another, the second moves a third.
    sources = torch.tensor([[4, 2, 3], [1, 2, 5]])
    targets = torch.tensor([[1, 2, 3], [1, 2, 3]])
    cache.move(sources, targets)
    moved = states.clone()
    moved[0, :, 1], moved[1, :, 3] = states[0, :, 4], states[1, :, 5]
    assert torch.equal(keys, moved)
    assert torch.equal(values, -moved)
    cache.move(targets, targets)
    assert torch.equal(keys, moved)
