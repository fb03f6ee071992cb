"""The LlamaGen family: greedy tokens, conditioning, published files."""

import random

import pytest
import torch

from sjd_pipelines import AutoregressiveScheduler, JacobiScheduler, SJDAutoRegressivePipeline, SJDLlamaGenPipeline
from sjd_pipelines.models import published_llamagen_weights, published_vq_weights
from sjd_pipelines.pipelines.captions import clean_caption

PROMPTS = ["a red dog", "two blue cat on a red house"]
LABELS = [3, 0]


@torch.no_grad()
def uncached_greedy(pipe, condition, visible, guidance_scale):
    """All tokens again in every pass, without a cache. `condition` `[C, P, D]`, `visible` `[P]` of its branches."""
    model, device = pipe.transformer, pipe.device
    length, tokens = condition.shape[1], []
    for _ in range(model.config.sample_size**2):
        image = model.token_embedding(torch.tensor(tokens, dtype=torch.int64, device=device)).expand(
            len(condition), -1, -1
        )
        embeds = torch.cat([condition, image], 1)
        size = embeds.shape[1]
        mask = torch.ones(size, size, dtype=torch.bool, device=device).tril()
        mask[:, :length] &= visible
        mask |= torch.eye(size, dtype=torch.bool, device=device)
        positions = (torch.arange(size, device=device) - length).clamp(min=-1).expand(len(condition), -1)
        logits = model.head(model(embeds, mask.expand(len(condition), 1, -1, -1), positions)[:, -1])
        mixed = logits[0] if guidance_scale == 1 else logits[1] + guidance_scale * (logits[0] - logits[1])
        tokens.append(mixed.argmax().item())
    return tokens


def caption_branches(pipe, prompt):
    """Words at the end of the caption slots, and the stored features behind the same mask."""
    inputs = pipe.tokenizer(prompt, return_tensors="pt").to(pipe.device)
    words = pipe.text_encoder(inputs.input_ids).last_hidden_state[0]
    slots = pipe.transformer.config.caption_length
    features = words.new_zeros(2, slots, words.shape[-1])
    features[0, -len(words) :] = words
    features[1] = pipe.transformer.caption_embedding.unconditional
    return pipe.transformer.caption_embedding(features), torch.arange(slots, device=pipe.device) >= slots - len(words)


def class_branches(pipe, label):
    labels = torch.tensor([[label], [pipe.transformer.config.num_classes]], device=pipe.device)
    return pipe.transformer.class_embedding(labels), torch.tensor([True], device=pipe.device)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_captions_equal_an_uncached_loop(captions, guidance_scale):
    check_greedy(captions, PROMPTS, caption_branches, guidance_scale)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_classes_equal_an_uncached_loop(classes, guidance_scale):
    check_greedy(classes, LABELS, class_branches, guidance_scale)


@torch.no_grad()
def check_greedy(pipe, prompts, branches, guidance_scale):
    expected = [uncached_greedy(pipe, *branches(pipe, prompt), guidance_scale) for prompt in prompts]
    options = {"guidance_scale": guidance_scale, "output_type": "latent"}
    sequential = pipe(prompts, temperature=0, **options).tokens
    before, pipe.scheduler = pipe.scheduler, JacobiScheduler(window=7)
    jacobi = pipe(prompts, **options).tokens
    pipe.scheduler = before
    assert sequential.tolist() == expected
    assert jacobi.tolist() == expected


def test_negative_prompts_take_the_place_of_the_stored_branch(captions, classes):
    def greedy(pipe, prompt, negative):
        options = {"temperature": 0, "output_type": "latent", "guidance_scale": 3.0}
        return pipe(prompt, negative, **options).tokens.tolist()

    assert greedy(captions, PROMPTS[0], "blue cat") != greedy(captions, PROMPTS[0], None)
    # u + s (c - u) is c where the negative prompt is the prompt itself
    plain = classes(3, temperature=0, guidance_scale=1.0, output_type="latent").tokens.tolist()
    assert greedy(classes, 3, "3") == plain


def test_class_labels_as_numbers_or_texts(classes):
    options = {"temperature": 0, "output_type": "latent"}
    assert torch.equal(classes([3, 0], **options).tokens, classes(["3", "0"], **options).tokens)
    for label in (5, -1, "dog", 1.0, True, None):
        with pytest.raises(ValueError, match=r"draws classes, by index in \[0, 5\)"):
            classes(label)


def test_long_captions_are_cut(captions):
    images = captions("two blue cat on a red house left right dog car", temperature=0, output_type="np").images
    assert images.shape == (1, 8, 8, 3)


def test_one_size_only(captions):
    assert captions.image_sizes() == [(8, 8)]
    with pytest.raises(ValueError, match="draws 8x8 pixels only, got 16x8"):
        captions(PROMPTS, height=16, width=8)


def test_recipes(captions, classes):
    assert captions.sampling_defaults() == {"guidance_scale": 7.5, "temperature": 1.0, "top_k": 1000, "top_p": 1.0}
    assert classes.sampling_defaults() == {"guidance_scale": 4.0, "temperature": 1.0, "top_k": 2000, "top_p": 1.0}


def test_published_files(captions, classes, tmp_path):
    for pipe, prompts, name in [(captions, PROMPTS, "t2i_XL_stage1_256.pt"), (classes, LABELS, "c2i_B_256.pt")]:
        file, vq_file = tmp_path / name, tmp_path / f"vq_{name}"
        torch.save({"model": published_llamagen_weights(pipe.transformer)}, file)
        torch.save({"model": published_vq_weights(pipe.vq_model, "llamagen")}, vq_file)
        loaded = SJDAutoRegressivePipeline.from_single_file(
            file,
            vq_file=vq_file,
            text_encoder=pipe.text_encoder,
            tokenizer=pipe.tokenizer,
            image_size=8,
            num_attention_heads=2,
            scheduler=AutoregressiveScheduler(),
        )
        loaded.to(pipe.device).set_progress_bar_config(disable=True)
        assert isinstance(loaded, SJDLlamaGenPipeline)
        options = {"temperature": 0, "output_type": "latent"}
        assert torch.equal(loaded(prompts, **options).tokens, pipe(prompts, **options).tokens)


def test_published_files_that_cannot_be_loaded(tmp_path):
    with pytest.raises(OSError, match="there is no such file"):
        SJDAutoRegressivePipeline.from_single_file(tmp_path / "no.pt", vq_file=tmp_path / "no.pt")
    (tmp_path / "t2i_XL_stage1_256.pt").touch()
    with pytest.raises(OSError, match="load a published file with from_single_file"):
        SJDAutoRegressivePipeline.from_pretrained(tmp_path)


def test_captions_are_cleaned():
    assert clean_caption(" A red Dog ") == "a red dog"


def test_captions_are_cleaned_of_markup():
    pytest.importorskip("bs4")
    pytest.importorskip("ftfy")
    assert clean_caption("A <b>red</b>   Dog") == "a red dog"


def test_words_for_a_model_of_classes_on_the_command_line(classes, tmp_path, sjd):
    """The last prompt is looked at before the first is drawn."""
    classes.save_pretrained(tmp_path / "model")
    run = ("generate", "3", "--model", "model", "-o", "pictures/", "--seed", 1)
    wants = "This model draws classes, by index in [0, 5); got"
    assert sjd(*run[:2], "dog", *run[2:]) == (2, "", f"sjd: error: prompt: {wants} 'dog'.\n")
    assert sjd(*run, "--negative-prompt", "fog") == (2, "", f"sjd: error: negative_prompt: {wants} 'fog'.\n")
    status, _, err = sjd(*run, "--scheduler", "revised-jacobi")
    assert (status, err.split(" and ")[0]) == (2, "sjd: error: RevisedJacobiScheduler needs a reviser")
    assert not (tmp_path / "pictures").exists()
    assert sjd(*run, "--negative-prompt", "4")[::2] == (0, "")
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["3-1.png"]


def published(pipe, folder):
    """Both files of a tiny model of classes."""
    file, vq_file = folder / "c2i_B_256.pt", folder / "vq.pt"
    torch.save({"model": published_llamagen_weights(pipe.transformer)}, file)
    torch.save({"model": published_vq_weights(pipe.vq_model, "llamagen")}, vq_file)
    return file, vq_file


@pytest.mark.parametrize("damaged", [0, 1])
def test_a_damaged_file_is_a_documented_error(classes, tmp_path, damaged):
    files = published(classes, tmp_path)
    file, options = files[damaged], {"image_size": 8, "num_attention_heads": 2, "vq_file": files[1]}
    whole, dice = file.read_bytes(), random.Random(damaged)
    refused = 0
    for _ in range(60):
        broken = bytearray(whole)
        if dice.random() < 0.2:
            del broken[dice.randrange(len(broken)) :]
        else:  # the pickle, which names everything, stands at the front
            for _ in range(dice.choice((1, 1, 8))):
                broken[dice.randrange(dice.choice((3000, len(broken))))] = dice.randrange(256)
        file.write_bytes(broken)
        try:
            SJDLlamaGenPipeline.from_single_file(files[0], **options)
        except (OSError, ValueError):
            refused += 1
    assert refused > 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights | {7: torch.zeros(1)}, "holds weights without names"),
        (
            lambda weights: weights | {"layers.99999999.ffn_norm.weight": torch.zeros(1)},
            "which are not numbered",
        ),
        (lambda weights: weights | {"layers.x.ffn_norm.weight": torch.zeros(1)}, "layers.x.ffn_norm.weight is not"),
        (lambda weights: weights | {"tok_embeddings.weight": torch.zeros(3)}, r"rows and columns, got shape \(3,\)"),
        (
            lambda weights: weights | {"spe_tok_embeddings.special_embeddings.weight": torch.zeros(0, 16)},
            "learned_embedding.weight should have rows and columns",
        ),
        (lambda weights: weights | {"norm.weight": torch.zeros(3)}, "do not fit the LlamaGen of their own shape"),
        (
            lambda weights: weights | {"cls_embedding.embedding_table.weight": torch.tensor(1.0)},
            r"class_embedding.weight should have rows and columns, got shape \(\)",
        ),
        (
            lambda weights: weights | {"cls_embedding.embedding_table.weight": torch.zeros(1, 16)},
            "num_classes must be an integer of at least 1, got 0",
        ),
    ],
)
def test_weights_that_are_no_llamagen(classes, tmp_path, change, message):
    file, vq_file = published(classes, tmp_path)
    torch.save(change(published_llamagen_weights(classes.transformer)), file)
    with pytest.raises(ValueError, match=message):
        SJDLlamaGenPipeline.from_single_file(file, vq_file=vq_file, image_size=8, num_attention_heads=2)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"image_size": -8}, "image_size must be an integer from 1 to 16384, got -8"),
        ({"image_size": 8.5}, "image_size must be an integer"),
        ({"num_attention_heads": 0}, "num_attention_heads must be an integer of at least 1, got 0"),
    ],
)
def test_sizes_that_are_none(classes, tmp_path, option, message):
    file, vq_file = published(classes, tmp_path)
    options = {"image_size": 8, "num_attention_heads": 2} | option
    with pytest.raises(ValueError, match=message):
        SJDLlamaGenPipeline.from_single_file(file, vq_file=vq_file, **options)
