"""What every pipeline of the package shares, whatever it decodes: runs, seeds, offloading."""

import secrets
from collections.abc import Callable, Collection
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, NoReturn, ParamSpec, TypeVar

import diffusers
import torch
from diffusers import DiffusionPipeline
from packaging.version import Version

from ..disk import as_new_files
from ..flows.registry import FLOW_SOLVERS
from ..ranges import near, shown
from ..schedulers.registry import SCHEDULERS
from .adapters import has_adapters, without_adapters
from .devices import read_device
from .options import COMMON
from .runs import runs_of

REGISTRIES = (SCHEDULERS, FLOW_SOLVERS)  # no name is in both
_Arguments, _Output = ParamSpec("_Arguments"), TypeVar("_Output")


def drawing(call: Callable[_Arguments, _Output]) -> Callable[_Arguments, _Output]:
    """A pipeline's call as users meet it: without gradients, and an option that it does not have is told its place."""
    known = signature(call).parameters.keys() - {"self"}

    @wraps(call)
    @torch.no_grad()
    def checked(self: "SJDPipeline", *args: Any, **options: Any) -> Any:
        for name in options:
            if name not in known:
                raise TypeError(f"a call has no {shown(name)}{self._place_of(name, options, known)}.")
        return call(self, *args, **options)

    return checked


class SJDPipeline(DiffusionPipeline):
    """Base of all pipelines. Interruption and guidance belong to a call, not to the pipeline.

    Attributes:
        scheduler_type: base class of the schedulers that it takes.
        scheduler_words: what these are called, for messages.
        works_by: why it takes no others, for messages.
        loader_schedulers: words that the loader of published files takes for one.
    """

    scheduler_type: ClassVar[type]
    scheduler_words: ClassVar[str]
    works_by: ClassVar[str]
    loader_schedulers: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def load_diffusers_folder(cls, folder: Path, **kwargs: Any):
        """Load what `save_pretrained` wrote."""
        if "dtype" in kwargs and Version(diffusers.__version__) < Version("0.40"):  # ignored `dtype` in silence
            kwargs["torch_dtype"] = kwargs.pop("dtype")
        return super().from_pretrained(str(folder), **kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write a folder that holds the whole model; adapters that PEFT has put into it are merged into its weights.

        Args:
            save_directory: the folder.
            **kwargs: as diffusers takes them.
        """
        merged = {name: without_adapters(part) for name, part in self.components.items() if has_adapters(part)}
        super(SJDPipeline, self.from_pipe(self, **merged) if merged else self).save_pretrained(
            save_directory, **kwargs
        )
        as_new_files(Path(save_directory), "*.safetensors")

    def load_lora_weights(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Adapters load like models instead. Raises `NotImplementedError`, which says how."""
        raise NotImplementedError(
            "LoRA adapters load like models: SJDAutoRegressivePipeline.from_pretrained(FOLDER), of a folder (or a hub "
            "id) with adapter_config.json and adapter_model.safetensors, as PEFT writes them."
        )

    @classmethod
    def export_published_files(cls, folder: Path, target: Path) -> list[Path]:
        """Write a diffusers-layout folder as its authors' own code loads it; returns the files.

        Raises:
            ValueError: no such layout of this family is known.
        """
        raise ValueError(f"{folder} holds a {cls.__name__}, whose models are not published as single files.")

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any):
        """Another pipeline on the same components, which are shared and stay as they are.

        Args:
            pipeline: of this class, or of a subclass, which the new one then is of.
            **kwargs: components and settings of the constructor in the place of those of `pipeline`.

        Raises:
            ValueError: it is of another class, or there is no such component or setting.
        """
        family = type(pipeline)
        if not issubclass(family, cls):
            raise ValueError(f"{cls.__name__}.from_pipe takes a {cls.__name__}, got a {family.__name__}.")
        parts = {
            name: pipeline.components.get(name, pipeline.config.get(name)) for name in signature(family).parameters
        }
        for name in kwargs:
            if name not in parts:
                raise ValueError(f"{family.__name__} has no component or setting {shown(name)}{near(name, parts)}.")
        return family(**parts | kwargs)

    def to(self, *args: Any, **kwargs: Any):
        """Move and cast, as a module's `to` does. Raises `ValueError` for a device that this machine has not."""
        for place in [*args, kwargs.get("device")]:
            if isinstance(place, str | torch.device) and str(place) != "meta":  # shapes alone may be of use
                read_device(place)
        return super().to(*args, **kwargs)

    def register_modules(self, **modules: Any) -> None:
        """Take components, a scheduler by its name too; raises `ValueError` for a scheduler of the wrong kind."""
        if modules.get("scheduler") is not None:
            modules["scheduler"] = self.read_scheduler(modules["scheduler"])
        super().register_modules(**modules)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "scheduler" or value is None:
            super().__setattr__(name, value)
            return
        value = self.read_scheduler(value)
        instead_of_none = self.__dict__.get(name, value) is None
        super().__setattr__(name, value)
        if instead_of_none:  # which diffusers would go on saving
            super().register_modules(scheduler=value)

    @classmethod
    def read_scheduler(cls, scheduler: Any) -> Any:
        """A scheduler of the kind that this pipeline works with, also by its registered name.

        Raises:
            ValueError: it is none.
        """
        if scheduler is None:
            known = ", ".join(cls.scheduler_type.registry)
            raise ValueError(f"pipe.scheduler is None, so that nothing can be drawn: set it to one of {known}.")
        if isinstance(scheduler, str):  # what is one of another kind of model is refused as such, not as unknown
            scheduler = next((known[scheduler]() for known in REGISTRIES if scheduler in known), scheduler)
        scheduler = cls.scheduler_type.made_of(scheduler)
        if not isinstance(scheduler, cls.scheduler_type):
            kind = type(scheduler).__name__
            words = f"scheduler must be one of this package's {cls.scheduler_words}, got {kind}."
            raise ValueError(f"{cls.works_by}: {words}")
        return scheduler

    def _place_of(self, name: str, options: dict[str, Any], known: Collection[str]) -> str:
        """How a message goes on about an option that a call does not have: where it belongs, or what it may mean."""
        scheduler = options.get("scheduler") or self.scheduler
        if place := self.scheduler_type.place_of_setting(name, type(self.read_scheduler(scheduler))):
            return place
        if name in COMMON:
            return "; it is an option of from_pretrained"
        return near(name, known)

    @property
    def guidance_scale(self) -> float | None:
        """Strength of guidance: in a callback of its own run, else of the latest run at work; None without one."""
        runs = runs_of(self)
        return runs[-1].guidance_scale if runs else None

    @property
    def interrupt(self) -> bool:
        """Set to True to stop after the current pass: by a callback its own run, from elsewhere all runs at work.

        False where no run is to stop, also before the first call.
        """
        return any(run.interrupted for run in runs_of(self))

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        for run in runs_of(self):
            run.interrupted = value

    def prepare_seeds(self, generator: torch.Generator | list[torch.Generator] | None, batch_size: int) -> list[int]:
        """One 63-bit seed per picture. The global random state is neither read nor moved."""
        if generator is None:
            return [secrets.randbits(63) for _ in range(batch_size)]
        generators = generator if isinstance(generator, list) else [generator] * batch_size
        return [
            torch.randint(2**63 - 1, (), dtype=torch.int64, generator=source, device=source.device).item()
            for source in generators
        ]

    def onload(self, *components: torch.nn.Module) -> None:
        """Bring offloaded components to the execution device; hooks fire on `forward` only, which is not called."""
        for component in components:
            hook = getattr(component, "_hf_hook", None)
            if hook is not None:
                hook.pre_forward(component)
