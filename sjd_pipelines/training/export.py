"""Writes the bundled folder: a Janus checkpoint any transformers user can load, with its processor and model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, JanusForConditionalGeneration, JanusImageProcessor, JanusProcessor

from ..bundled import bundled_folder
from ..companions import COMPANIONS
from ..disk import read_object
from ..emoji.captions import BOI, BOS, CHAT_TEMPLATE, EOS, PAD, build_tokenizer, words_by_kind
from ..emoji.glyphs import CELL, GRID
from ..learning.runs import write_atomically
from ..learning.saved import read_weights
from .architecture import build_config, build_model
from .bundle import RESULTS_FILE, kept_results, write_bundle
from .model_card import model_card
from .pixels import DECODER_PARTS, ENCODER_PARTS, PixelRecipe
from .transformer import AVERAGE_FILE, LOG_FILE, trained_parameters

BUNDLED = bundled_folder("emoji-janus")
WORDS_FILE = "words.json"  # `sjd info` tells it
SAMPLING = {"do_sample": True, "guidance_scale": 1.5, "temperature": 1.0, "top_k": 0, "top_p": 0.9}


def load_trained(folder: str | Path) -> JanusForConditionalGeneration:
    """The model with the averaged weights of a run; parts that were not trained keep their random weights.

    Raises:
        FileNotFoundError: the transformer has not been saved yet.
    """
    folder = Path(folder)
    model = build_model(build_config())
    model.load_state_dict(read_weights(folder / AVERAGE_FILE), strict=False)
    model.tie_weights()
    for side in ("decoder", "encoder"):
        weights = PixelRecipe(folder, side).weights_file
        if weights.exists():
            model.model.vqmodel.load_state_dict(read_weights(weights), strict=False)
    return model.eval()


def build_processor() -> JanusProcessor:
    """Image processor, tokenizer and chat template, as `JanusProcessor.from_pretrained` will find them."""
    side = GRID * CELL
    image_processor = JanusImageProcessor(
        size={"height": side, "width": side}, min_size=CELL, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return JanusProcessor(
        image_processor, build_tokenizer(), chat_template=CHAT_TEMPLATE, num_image_tokens=GRID * GRID
    )


def export(folder: str | Path, target: str | Path = BUNDLED, results: dict | None = None) -> Path:
    """Write a run as a float16 transformers checkpoint, replacing `target` only when all files are there.

    Args:
        folder: of the training run.
        results: scores and training facts for `results.json` and the model card; kept from `target` if left out, as
            its draft model and reviser are.
    """
    target, model = Path(target), load_trained(folder).half()
    if results is None:
        results = kept_results(target) if (target / RESULTS_FILE).exists() else {}
    model.generation_config = GenerationConfig(
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, generation_kwargs={"boi_token_id": BOI}, **SAMPLING
    )

    def write(bundle: Path) -> None:
        model.save_pretrained(bundle)
        build_processor().save_pretrained(bundle)
        for name in COMPANIONS:
            if (target / name).exists():  # drafts stay valid, if less good, when the target has been trained on
                shutil.copytree(target / name, bundle / name)
        (bundle / WORDS_FILE).write_text(json.dumps(words_by_kind(), indent=2) + "\n")

    return write_bundle(target, write, results, model_card(results, model.num_parameters(), SAMPLING))


def restore(folder: str | Path, source: str | Path = BUNDLED) -> Path:
    """Make a run's folder out of an exported checkpoint, so that its training can go on elsewhere.

    Weights and progress come back; the optimizer starts anew.

    Raises:
        FileExistsError: the folder already holds a run.
        FileNotFoundError: the checkpoint is not there.
    """
    folder, source = Path(folder), Path(source)
    if (folder / AVERAGE_FILE).exists():
        raise FileExistsError(f"{folder} already holds a run; choose another folder.")
    if not (source / RESULTS_FILE).is_file():
        raise FileNotFoundError(f"{source} has no {RESULTS_FILE}, so that no run can be made of it.")
    folder.mkdir(parents=True, exist_ok=True)
    model = JanusForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    training = read_object(source / RESULTS_FILE).get("training", {"steps": 0, "images": 0, "seconds": 0.0})
    progress = {"step": training["steps"], "images": training["images"], "seconds": training["seconds"]}
    with (folder / LOG_FILE).open("w") as log:
        log.write(json.dumps(progress) + "\n")
    vqmodel = model.model.vqmodel
    for side, parts in (("decoder", DECODER_PARTS), ("encoder", ENCODER_PARTS)):
        weights = {name: p.detach().clone() for name, p in vqmodel.named_parameters() if name.startswith(parts)}
        write_atomically(PixelRecipe(folder, side).weights_file, lambda path, held=weights: save_file(held, path))
    weights = {name: p.detach().clone() for name, p in trained_parameters(model).items()}
    write_atomically(folder / AVERAGE_FILE, lambda path: save_file(weights, path))
    return folder
