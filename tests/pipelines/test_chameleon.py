"""Anole and Lumina-mGPT against a plain loop without a cache, their published weights, and their sizes."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from sjd_pipelines import JacobiScheduler, SJDAutoRegressivePipeline, SJDChameleonPipeline
from sjd_pipelines.models import published_vq_weights
from sjd_pipelines.pipelines.chameleon_recipes import image_vocabulary_ids, lumina_sizes

PROMPTS = ["a red dog", "two blue cat on a red house"]
END_OF_TURN = "<reserved08706>"


def anole_ids(words, encode, prompt, layout):
    start = [words["<racm3:break>"]]
    return [0, *encode(prompt), words[END_OF_TURN], *start], [0, *start]


def lumina_ids(words, encode, prompt, layout):
    size = f"{layout.columns * 16}x{layout.rows * 16}"
    text = f"Generate an image of {size} according to the following prompt:\n{prompt}"
    sides = [words[f"<reserved{8800 + side // 2:05d}>"] for side in (layout.rows, layout.columns)]
    start = [words["<racm3:break>"], *sides]
    return [0, *encode(text), words[END_OF_TURN], *start], start


@torch.no_grad()
def uncached_greedy(pipe, make_ids, prompt, guidance_scale, **size):
    """One picture, one token at a time, every pass over the whole sequence."""
    words, layout = pipe.model.config.vocabulary_map, pipe.image_layout(size.get("height"), size.get("width"))
    encode = lambda text: pipe.tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
    codebook = image_vocabulary_ids(words)
    branches = make_ids(words, encode, prompt, layout)
    tokens = []
    for position in range(layout.rows * layout.width):
        if layout.row_end is not None and position % layout.width == layout.columns:
            token = words["<reserved08799>"]
        else:
            logits = []
            for branch in branches:
                hidden = pipe.model.model(torch.tensor([branch], device=pipe.device)).last_hidden_state[0, -1]
                logits.append(pipe.model.lm_head(hidden)[codebook])
            mixed = logits[0] if guidance_scale == 1 else logits[1] + guidance_scale * (logits[0] - logits[1])
            tokens.append(mixed.argmax().item())
            token = codebook[tokens[-1]]
        branches = [[*branch, token] for branch in branches]
    return tokens


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_anole_greedy_tokens_equal_an_uncached_loop(anole, guidance_scale):
    check_greedy(anole, anole_ids, guidance_scale)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_lumina_greedy_tokens_equal_an_uncached_loop(lumina, guidance_scale):
    check_greedy(lumina, lumina_ids, guidance_scale, height=32, width=128)


def check_greedy(pipe, make_ids, guidance_scale, **size):
    expected = [uncached_greedy(pipe, make_ids, prompt, guidance_scale, **size) for prompt in PROMPTS]
    options = {"guidance_scale": guidance_scale, "output_type": "latent", **size}
    sequential = pipe(PROMPTS, temperature=0, **options).tokens
    before, pipe.scheduler = pipe.scheduler, JacobiScheduler(window=5)
    jacobi = pipe(PROMPTS, **options).tokens
    pipe.scheduler = before
    assert sequential.tolist() == expected
    assert jacobi.tolist() == expected


def test_codebook_order_is_read_from_the_names(anole):
    words = anole.model.config.vocabulary_map
    ids = image_vocabulary_ids(words)
    assert ids[12] == words["IMGIMGBCZ"]
    assert ids != sorted(ids)
    with pytest.raises(ValueError, match="does not name every image token"):
        image_vocabulary_ids({name: token for name, token in words.items() if name != "IMGIMGBCZ"})


def test_lumina_sizes():
    sizes = lumina_sizes(768)
    assert sizes[0] == (768, 768)
    assert (1536, 384) in sizes
    assert (512, 1152) in sizes
    assert all(height * width <= 768 * 768 and height % 32 == width % 32 == 0 for height, width in sizes)
    assert max(max(size) / min(size) for size in sizes) == 4


def test_sizes(lumina, anole):
    assert lumina("car", height=128, width=32, output_type="np").images.shape == (1, 128, 32, 3)
    with pytest.raises(ValueError, match=r"draws 64x64, .* got 64x160"):
        lumina.image_layout(64, 160)
    with pytest.raises(ValueError, match="draws 64x64; got 32x64"):
        anole.image_layout(32, None)


def test_pictures_as_input_are_refused(anole):
    with pytest.raises(ValueError, match="pictures as input are out of scope"):
        anole("<image> in the style of a red house")


def test_recipes(anole, lumina):
    assert anole.sampling_defaults() == {"guidance_scale": 3.0, "temperature": 0.7, "top_k": 0, "top_p": 0.9}
    assert lumina.sampling_defaults() == {"guidance_scale": 4.0, "temperature": 1.0, "top_k": 2000, "top_p": 1.0}
    with pytest.raises(ValueError, match="recipe must be one of anole, lumina-mgpt"):
        SJDChameleonPipeline(anole.model, anole.vq_model, anole.tokenizer, anole.scheduler, recipe="chameleon")


def test_anole_folder_with_the_decoder_among_its_weights(anole, tmp_path):
    folder = tmp_path / "Anole-tiny-hf"
    save_transformers_folder(anole, folder)
    weights = load_file(folder / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("model.vqmodel.")}
    vq = published_vq_weights(anole.vq_model, "taming")
    weights |= {f"model.vqmodel.{name}": tensor.contiguous() for name, tensor in vq.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    check_loaded(anole, SJDAutoRegressivePipeline.from_pretrained(folder, resolution=64))


def test_lumina_folder_as_published(lumina, tmp_path):
    """No VQGAN inside, norms stored once per shard, sizes told by the name alone."""
    folder = tmp_path / "Lumina-mGPT-7B-768"
    save_transformers_folder(lumina, folder)
    weights = load_file(folder / "model.safetensors")
    weights = {
        name: tensor[:1] if "q_norm" in name or "k_norm" in name else tensor
        for name, tensor in weights.items()
        if not name.startswith("model.vqmodel.")
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"has no VQGAN decoder. Pass vq_model=, the path of Meta's vqgan.ckpt"):
        SJDAutoRegressivePipeline.from_pretrained(folder)
    vqgan = tmp_path / "vqgan.ckpt"
    torch.save({"state_dict": published_vq_weights(lumina.vq_model, "taming")}, vqgan)
    loaded = SJDAutoRegressivePipeline.from_pretrained(folder, vq_model=vqgan)
    assert (loaded.config.recipe, loaded.config.resolution) == ("lumina-mgpt", 768)
    assert loaded.image_sizes()[0] == (768, 768)
    check_loaded(lumina, SJDAutoRegressivePipeline.from_pretrained(folder, vq_model=vqgan, resolution=64))


def test_folder_that_does_not_say_how_it_draws(anole, tmp_path):
    save_transformers_folder(anole, tmp_path / "model")
    with pytest.raises(ValueError, match="pass recipe='anole' or recipe='lumina-mgpt'"):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path / "model")


def save_transformers_folder(pipe, folder):
    pipe.model.save_pretrained(folder)
    pipe.tokenizer.save_pretrained(folder)


def check_loaded(pipe, loaded):
    loaded.to(pipe.device).set_progress_bar_config(disable=True)
    options = {"temperature": 0, "output_type": "np"}
    expected, output = pipe(PROMPTS, **options), loaded(PROMPTS, **options)
    assert torch.equal(output.tokens, expected.tokens)
    assert abs(output.images - expected.images).max() < 1e-5
