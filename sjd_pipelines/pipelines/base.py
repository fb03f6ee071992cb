"""What every pipeline of the package shares, whatever it decodes: runs, seeds, offloading."""

import secrets

import torch
from diffusers import DiffusionPipeline

from .runs import runs_of


class SJDPipeline(DiffusionPipeline):
    """Base of all pipelines. Interruption and guidance belong to a call, not to the pipeline."""

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
