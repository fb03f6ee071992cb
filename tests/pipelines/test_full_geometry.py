"""The published token grids, vocabularies and prompt layouts, end to end with random weights and two layers."""

import pytest
import torch

from sjd_pipelines import JacobiScheduler
from sjd_pipelines.benchmark.toy import toy_pipeline

pytestmark = pytest.mark.slow
PROMPT = "a red dog"


@torch.no_grad()
def settle(network, embedding, head):
    """Make the likeliest token the one before it: greedy decoding then takes few passes for many tokens."""
    for name, parameter in network.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "to_out.weight", "feed_forward.down.weight")):
            parameter.mul_(0.02)
    head.weight.copy_(embedding.weight)


def check(pipe, rows, columns, pixels):
    """Draw greedily; look at the size of the picture and at every forced position of the finished canvas."""
    canvases = []
    pipe.scheduler = JacobiScheduler(window=32)
    output = pipe(
        PROMPT,
        guidance_scale=2.0,
        temperature=0,
        output_type="np",
        callback_on_step_end=lambda pipe, step, committed, tensors: canvases.append(tensors["canvas"]),
    )
    layout = pipe.image_layout(None, None)
    assert (layout.rows, layout.columns) == (rows, columns)
    assert output.images.shape == (1, *pixels, 3)
    assert output.tokens.shape == (1, rows * columns)
    assert output.tokens.max() < layout.codebook_size
    forced = layout.forced_tokens(canvases[-1].device)
    assert (canvases[-1][0, forced >= 0] == forced[forced >= 0]).all()
    return layout


def test_llamagen_stage_2(families):
    pipe = families["llamagen"](side=32, codes=16384, slots=120, levels=5)
    settle(pipe.transformer, pipe.transformer.token_embedding, pipe.transformer.head)
    assert check(pipe, 32, 32, (512, 512)).num_tokens == 1024


def test_llamagen_classes(families):
    pipe = families["llamagen"](classes=1000, side=24, codes=16384, levels=5)
    settle(pipe.transformer, pipe.transformer.token_embedding, pipe.transformer.head)
    pipe.scheduler = JacobiScheduler(window=32)
    assert pipe(207, temperature=0, output_type="np").images.shape == (1, 384, 384, 3)


def test_janus(device):
    pipe = toy_pipeline(side=24, codebook_size=16384).to(device)
    pipe.set_progress_bar_config(disable=True)
    check(pipe, 24, 24, (48, 48))  # the toy's tokenizer has 2 pixels per token


@pytest.mark.parametrize(("recipe", "resolution", "width"), [("anole", 512, 32), ("lumina-mgpt", 768, 49)])
def test_chameleon(families, recipe, resolution, width):
    letters = str.maketrans("0123456789", "ABCDEFGHIJ")
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    words |= {f"IMGIMG{str(code).translate(letters)}Z": 4 + (5 * code + 3) % 8192 for code in range(8192)}
    words |= {"<eoss>": 8196, "<racm3:break>": 8197, "<image>": 8711}
    words |= {f"<reserved{8706 + index:05d}>": 8710 + index for index in (0, *range(2, 130))}
    pipe = families["chameleon"](recipe, resolution, 8192, words, size=65536)
    settle(pipe.model, pipe.model.get_input_embeddings(), pipe.model.lm_head)
    side = resolution // 16
    layout = check(pipe, side, side, (resolution, resolution))
    assert (layout.width, layout.num_tokens) == (width, side * width + 1)


def test_emu3(families):
    words = {"<pad>": 151643, "<s>": 151849, "</s>": 151850, "<image>": 151848, "90*90": 0}
    words |= {"<|image start|>": 151852, "<|image end|>": 151853, "<|image token|>": 151851}
    words |= {"<|extra_200|>": 151846, "<|extra_201|>": 151847}
    words |= {f"<|visual token {code:06d}|>": 151854 + code for code in range(32768)}
    pipe = families["emu3"](90, 32768, words, size=184622, levels=4)
    settle(pipe.model, pipe.model.get_input_embeddings(), pipe.model.lm_head)
    layout = check(pipe, 90, 90, (720, 720))
    assert (layout.width, layout.num_tokens) == (91, 8193)
