"""Blocks side by side: the next one begins on the unfinished output of the one before."""

from typing import Annotated, Any

import torch
from diffusers.configuration_utils import register_to_config

from ..declaration import Card, Setting
from .base import EXACT_TOLERANCE, Start, Tolerance, new_state, replace_wild
from .correction import AffineGuess, LinearCorrection
from .frontier import FrontierFlowSolver
from .planned import check_record, measured_error
from .state import BlockState

Overlap = Annotated[
    float,
    Setting(
        "How little a block must still move, on average, for the next one to begin on what there is of it. Larger "
        "begins earlier: fewer passes one after the other, more work in each; 0 waits until a block is solved.",
        least=0,
        most=100,
        step=0.01,
    ),
]


class OverlappingFlowSolver(FrontierFlowSolver):
    """The frontier solver over the whole flow: later blocks iterate on what earlier ones have so far.

    In a serial pass every block in work is computed once, from what all of them were before the pass. A block that has
    begun follows the block before it: while that changes, it settles nothing and ends no picture; after that it is
    solved as by `FrontierFlowSolver`, from an iterate that is nearly right. With `corrections` every iterate moves on
    by what its change foretells as well, see `LinearCorrection`.

    Args:
        tolerance: as for `FrontierFlowSolver`, in every block.
        overlap: the next block begins when the mean change of all pictures (root mean square) is not above this, in
            units of the root mean square of their latents; 0 is when all are solved.
        start: first iterate, `latents` or `zeros`.
        corrections: of each block in the order of sampling, as `calibrate` fits them to a model; None is without.
        guesses: first iterates of each block in the same order, likewise, in the place of `start`.
        measured: a record of calibration, as in `PlannedFlowSolver`.
    """

    claim = f"exact at tolerance {EXACT_TOLERANCE:g}, else approximate"
    paper = "this package"
    card = Card(
        "Overlapping",
        "Works on several blocks in one pass, a later one on what the earlier ones have so far. The fewest passes one "
        "after the other, with more work in each.",
        "For a GPU, where a pass costs the same however much it computes. Calibrated for a model it foretells much of "
        "what a pass changes, and takes half as many.",
    )

    @register_to_config
    def __init__(
        self,
        *,
        tolerance: Tolerance = EXACT_TOLERANCE,
        overlap: Overlap = 0.1,
        start: Start = "latents",
        corrections: list[str] | None = None,
        guesses: list[str] | None = None,
        measured: dict[str, Any] | None = None,
    ):
        check_record(measured)
        self.corrections = _read("corrections", corrections, LinearCorrection)
        self.guesses = _read("guesses", guesses, AffineGuess)

    @property
    def window(self) -> None:
        return None

    def error_at(self, conditions: dict[str, Any]) -> float | None:
        return measured_error(self, conditions)

    def check(self, num_blocks: int, num_tokens: int) -> None:
        for name, fitted in (("corrections", self.corrections), ("guesses", self.guesses)):
            if fitted is not None and len(fitted) != num_blocks:
                raise ValueError(
                    f"{name} are of {len(fitted)} blocks; this flow has {num_blocks}. Make them with calibrate()."
                )

    def most_at_once(self, num_blocks: int) -> int:
        return num_blocks if self.config.overlap else 1

    def goes_on(self, state: BlockState) -> bool:
        return state.moving is not None and state.moving <= self.config.overlap

    def begin(self, block: int, num_blocks: int, latents: torch.Tensor) -> BlockState:
        state, index = new_state(latents, self.config.start, stop=latents.shape[1] - 1), num_blocks - 1 - block
        if self.corrections is not None:
            state.correction = self.corrections[index]
            _check_size("corrections", state.correction.size, latents)
        if self.guesses is not None:
            _check_size("guesses", self.guesses[index].size, latents)
            state.sample[:, 1:] = replace_wild(self.guesses[index](latents), latents)[:, 1:]
        return state

    def corrected(self, proposal: torch.Tensor, before: torch.Tensor, state: BlockState) -> torch.Tensor:
        if state.correction is None:
            return proposal
        further = state.correction(proposal - before, state.start, state.num_tokens)
        return replace_wild(proposal + further, proposal)


def _read(name: str, texts: list[str] | None, kind: type) -> list | None:
    """What calibration fitted, from its record; raises `ValueError` for what is none."""
    if texts is None:
        return None
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} must be a list of the texts that calibrate() wrote, one per block, or None.")
    try:
        return [kind.read(text) for text in texts]
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} must be a list of the texts that calibrate() wrote, one per block; one of them is damaged."
        ) from error


def _check_size(name: str, size: tuple[int, ...], latents: torch.Tensor) -> None:
    own = tuple(latents.shape[-len(size) :])
    if size != own:
        raise ValueError(
            f"{name} are of patches of {' x '.join(map(str, size))}; this flow has {' x '.join(map(str, own))}. Make "
            "them with calibrate()."
        )
