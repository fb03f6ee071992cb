"""What of a pipeline is trained: the layers that image tokens go through, all their weights or low-rank additions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ..decoding import ImageTokenLayout
from ..disk import read_object
from ..learning.recipe import CountOrNone, PositiveAmount, Recipe
from ..learning.runs import write_atomically
from ..learning.saved import as_saved, read_weights
from ..learning.timed import run_files
from ..pipelines import SJDAutoRegressivePipeline
from .packed import packed_pass

NAME = "student"
FORM_FILE = "student.json"


@dataclass(frozen=True)
class Form(Recipe):
    """What a run trains.

    Attributes:
        model: the teacher, which the student starts as.
        rank: of the additions to every linear layer (LoRA, Hu et al. 2021, arXiv 2106.09685); 0 trains all weights.
        alpha: what they are multiplied by is `alpha / rank`.
    """

    model: str = ""
    rank: CountOrNone = 16
    alpha: PositiveAmount = 16.0


def layers_of_image_tokens(pipe: SJDAutoRegressivePipeline, prompt: str) -> dict[str, dict[str, nn.Module]]:
    """The modules with weights of their own that a pass over image tokens goes through.

    Returns:
        Name of a component of the pipeline -> name in it -> module.
    """
    names = {
        module: (component, name)
        for component, root in pipe.components.items()
        if isinstance(root, nn.Module)
        for name, module in root.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    met: dict[nn.Module, None] = {}
    layout: ImageTokenLayout = pipe.image_layout(None, None)
    hooks = []
    with torch.no_grad():
        encoded = pipe.encode_prompt([prompt], None, False, 1, layout)
        try:
            hooks += [module.register_forward_hook(lambda module, *_: met.setdefault(module)) for module in names]
            final = torch.zeros(1, layout.num_tokens, dtype=torch.int64, device=pipe.device)
            hidden = packed_pass(pipe, encoded, layout, final, final[:, :0], final[:, :0, None])
            pipe.image_logits(hidden.fixed)
        finally:
            for hook in hooks:
                hook.remove()
    found: dict[str, dict[str, nn.Module]] = {}
    for module in met:
        component, name = names[module]
        found.setdefault(component, {})[name] = module
    return found


def trained_weights(pipe: SJDAutoRegressivePipeline, form: Form, prompt: str) -> dict[str, nn.Parameter]:
    """Make a pipeline the student: freeze all of it but what is trained, and return that by name.

    Names begin with that of the component. Low-rank additions are put in by PEFT, and change nothing yet.

    Raises:
        ImportError: PEFT is not installed, and `form.rank` is not 0.
        ValueError: `form.rank` is more than that of any layer.
    """
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            component.requires_grad_(False)
    layers = layers_of_image_tokens(pipe, prompt)
    if not form.rank:
        named = {
            f"{component}.{name}.{weight}": parameter
            for component, modules in layers.items()
            for name, module in modules.items()
            for weight, parameter in module.named_parameters(recurse=False)
        }
        for parameter in named.values():
            parameter.requires_grad_(True)
        return named
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("Low-rank training needs PEFT (pip install peft); rank 0 trains all weights.") from error
    named = {}
    linear = {component: _linear(modules) for component, modules in layers.items()}
    most = max(min(module.weight.shape) for modules in linear.values() for module in modules.values())
    if form.rank > most:
        raise ValueError(f"rank must be at most {most}, that of the model's largest linear layer, got {form.rank}.")
    for component, targets in linear.items():
        config = LoraConfig(r=form.rank, lora_alpha=form.alpha, target_modules=list(targets))
        root = getattr(pipe, component)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # PEFT draws the additions from the global generator
            inject_adapter_in_model(config, root)
        named |= {f"{component}.{name}": p for name, p in root.named_parameters() if p.requires_grad}
    return named


def _linear(modules: Mapping[str, nn.Module]) -> dict[str, nn.Linear]:
    return {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}


def check_form(folder: Path, form: Form) -> None:
    """Raise `ValueError` if the run in a folder, if there is one, trains something else."""
    if (folder / FORM_FILE).exists() and (before := load_form(folder)) != form:
        raise ValueError(f"{folder} holds a run of {asdict(before)}; choose another folder.")


def save_form(folder: Path, form: Form) -> None:
    """Note what a run trains."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FORM_FILE, lambda path: path.write_text(json.dumps(asdict(form), indent=2) + "\n"))


def load_form(folder: Path) -> Form:
    """What a run trains. Raises `OSError` where there is none."""
    file = Path(folder) / FORM_FILE
    with as_saved(file):
        kept = read_object(file)
        form = Form(**kept)
        if kept.keys() != asdict(form).keys() or not isinstance(form.model, str):
            raise ValueError("it must have the model's name, rank and alpha")
        return form


def student_pipeline(folder: Path) -> SJDAutoRegressivePipeline:
    """The teacher's pipeline with the averaged weights of a run in place of its own; it needs no PEFT."""
    form = load_form(folder)
    pipe = SJDAutoRegressivePipeline.from_pretrained(form.model or None)
    file = run_files(Path(folder), NAME)[0]
    weights = read_weights(file)
    with as_saved(file):
        merge(pipe, weights, form)
    return pipe


@torch.no_grad()
def merge(pipe: SJDAutoRegressivePipeline, weights: Mapping[str, torch.Tensor], form: Form) -> None:
    """Put trained weights into a pipeline: in the place of its own, or added to them."""
    for name, weight in weights.items():
        component, _, inner = name.partition(".")
        root = getattr(pipe, component)
        if not form.rank:
            root.get_parameter(inner).copy_(weight)
        elif ".lora_A." in inner:
            up = weights[name.replace(".lora_A.", ".lora_B.")]
            own = root.get_submodule(inner.partition(".lora_A.")[0]).weight
            own += (form.alpha / form.rank) * (up.float() @ weight.float()).to(own)
