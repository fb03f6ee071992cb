"""The timed run that trains a network beside a frozen pipeline, and its export into the pipeline's folder.

Warmup, plateau, linear decay, as for the transformer. A saved run resumes and can be given more minutes; so can one
whose target has been trained on in the meantime.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import ModelMixin

from ..learning.saved import last_entry, read_weights
from ..learning.timed import TimedRecipe, TimedRun, run_files
from ..pipelines import SJDAutoRegressivePipeline


def frozen_target(recipe: TimedRecipe, pipe: SJDAutoRegressivePipeline | None = None) -> SJDAutoRegressivePipeline:
    """The pipeline that a run learns from, `pipe` or the recipe's; nothing in it is trained."""
    pipe = pipe or SJDAutoRegressivePipeline.from_pretrained(recipe.model or None)
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False)
    return pipe.to(recipe.device)


class CompanionRun(TimedRun):
    """One run, resumed where it was saved.

    Args:
        name: of the network's files.
        network: what is trained; gets the saved weights if there are any.
        recipe: its settings.
    """

    def __init__(self, name: str, network: ModelMixin, recipe: TimedRecipe):
        self.network = network.to(recipe.device).train()
        super().__init__(name, dict(network.named_parameters()), recipe)


def export_companion(
    name: str, build: Callable[[dict[str, torch.Tensor]], ModelMixin], folder: Path, target: Path, card: str
) -> Path:
    """Write the averaged weights of a run, in float16, as the folder `name` of a pipeline's folder.

    Args:
        name: of the run's files and of the component.
        build: makes a network of the right shape for these weights.
        folder: the run's.
        target: the pipeline's.
        card: of the network, to be filled with the last log entry and `parameters`, in millions.

    Raises:
        FileNotFoundError: the run has saved nothing, or the target does not exist.
        ValueError: the run was stopped before its end, so that there is nothing to say of it.
    """
    average_file, _, log_file = run_files(folder, name)
    weights, last = read_weights(average_file), last_entry(log_file)
    if "machine" not in last:  # which the entry of its end has, with what was measured
        raise ValueError(f"{folder} was stopped before it was measured; start its command again, and let it end.")
    if not target.is_dir():
        raise FileNotFoundError(f"{target} is no folder; give the folder of the pipeline that the {name} is for.")
    destination = target / name
    temporary, previous = destination.with_suffix(".tmp"), destination.with_suffix(".old")
    for leftover in (temporary, previous):
        shutil.rmtree(leftover, ignore_errors=True)
    network = build(weights)
    network.load_state_dict(weights)
    network.half().save_pretrained(temporary)
    for file in temporary.iterdir():
        file.chmod(0o644)  # weights are written for their owner alone, which a wheel would keep
    (temporary / "README.md").write_text(card.format(parameters=network.num_parameters() / 1e6, **last))
    if destination.exists():
        destination.rename(previous)
    temporary.rename(destination)
    shutil.rmtree(previous, ignore_errors=True)
    return destination
