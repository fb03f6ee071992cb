"""The model behind a command, loaded without noise where nobody watches."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..bundled import BUNDLED, DEFAULT
from ..disk import expanded, read_object
from ..pipelines.families import AUTOREGRESSIVE, FLOW, family_of_pipeline
from .arguments import CommandError

if TYPE_CHECKING:
    from ..pipelines import SJDAutoRegressivePipeline, TarFlowPipeline


def model_kind(model: str | None) -> str | None:
    """What kind of family a model is of, from its name or its folder, without torch.

    Args:
        model: as `load_pipeline` takes it.

    Returns:
        `Family.kind`; None where only its loading will tell, as of a hub id.
    """
    name = DEFAULT if model is None else model
    if name in BUNDLED:
        return family_of_pipeline(BUNDLED[name].pipeline).kind
    try:
        name = read_object(expanded(name) / "model_index.json").get("_class_name")
    except OSError:
        return None
    family = family_of_pipeline(name)
    return family and family.kind


def check_device(name: str | None) -> str:
    """The device to run on. Raises `CommandError` if this machine does not have it."""
    import torch

    from ..pipelines.devices import read_device

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(read_device(name))
    except ValueError as error:
        raise CommandError(f"--device: {error}") from error


def load_pipeline(
    model: str | None, dtype: str, device: str, progress: bool, kind: str | None = AUTOREGRESSIVE
) -> "SJDAutoRegressivePipeline | TarFlowPipeline":
    """Load a model and bring it to its device.

    Args:
        model: name of a bundled model, folder or hub id; its files say which pipeline class loads it. None is the
            default bundled model.
        dtype: name of a torch dtype.
        device: as `check_device` returns it.
        progress: show progress bars, those of later calls of the pipeline included.
        kind: of family that the command is for; None is any.

    Raises:
        CommandError: there is no such model, it cannot be loaded, or it is of another kind.
    """
    import torch

    from ..pipelines.loading import find_pipeline

    try:
        with _progress_bars(progress):
            _, cls = find_pipeline(model, {})
            if kind not in (None, family_of_pipeline(cls.__name__).kind):
                words = {AUTOREGRESSIVE: "a model that decodes tokens", FLOW: "a flow"}
                raise CommandError(f"{model} holds a {cls.__name__}; this takes {words[kind]}.")
            pipe = cls.from_pretrained(model, dtype=getattr(torch, dtype))
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot load the model: {error}") from error
    pipe.set_progress_bar_config(disable=not progress, unit="token", leave=False)
    return pipe.to(device)


def show_progress(quiet: bool) -> bool:
    """Progress bars are for people who watch a terminal."""
    return not quiet and sys.stderr.isatty()


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    """The loading bars of the libraries; their switches are global, so they are put back."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    switches = [logging for logging in (diffusers_logging, transformers_logging) if logging.is_progress_bar_enabled()]
    if not shown:
        for logging in switches:
            logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in switches:
            logging.enable_progress_bar()
