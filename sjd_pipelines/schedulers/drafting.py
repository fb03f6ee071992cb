"""How a slot gets its guess: initialisation of slots that enter the window, and redrafting of slots that stay in it.

The rule that keeps a speculative scheduler lossless: given everything that happened at earlier positions, a stored
draft must have exactly the law stored with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch.nn.functional import embedding

from ..declaration import Setting
from ..decoding.sampling import race
from ..decoding.state import DecodingState


@dataclass
class FreshSlots:
    """Slots that enter the window in this pass.

    Attributes:
        positions: `[B, F]` int64.
        state: the run.
        exponential: `[B, F, V]` float32 noise to sample with.
        frontier: `[B, 1]` or `[B, F]` int64, the last position in front of each slot that has a token.
    """

    positions: torch.Tensor
    state: DecodingState
    exponential: torch.Tensor
    frontier: torch.Tensor

    def sample_uniform(self) -> torch.Tensor:
        """`[B, F]` int64 uniform codebook ids."""
        return self.exponential[..., : self.state.layout.codebook_size].argmin(-1)

    def source(self, direction: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Position of the neighbour to the `left` or `above`, and whether there is one: `[B, F]` int64, bool.

        Neighbours that are fresh themselves are replaced by the last token known (as in the SJD release).
        """
        sources = embedding(self.positions, self.state.neighbours[direction][:, None])[..., 0]
        exists = (sources >= 0) & (self.frontier >= 0)
        return sources.minimum(self.frontier).clamp(min=0), exists


Initialiser = Callable[[FreshSlots], tuple[torch.Tensor, torch.Tensor | None]]


def random_tokens(slots: FreshSlots) -> tuple[torch.Tensor, None]:
    """`random` of SJD (Teng et al. 2024, sec. 4.2): a uniform token, held to be certain (one-hot law)."""
    return slots.sample_uniform(), None


def uniform_law(slots: FreshSlots) -> tuple[torch.Tensor, torch.Tensor]:
    """A uniform token with its honest law 1/V, which survives verification far more often than a one-hot one."""
    return slots.sample_uniform(), _uniform(slots)


def repeat_neighbour(direction: str) -> Initialiser:
    """`repeat` of SJD (sec. 4.2): the neighbour's token, one-hot; random where there is no neighbour."""

    def initialise(slots: FreshSlots) -> tuple[torch.Tensor, None]:
        sources, exists = slots.source(direction)
        return torch.where(exists, slots.state.canvas.gather(1, sources), slots.sample_uniform()), None

    return initialise


def sample_neighbour(direction: str) -> Initialiser:
    """`sample` of SJD (sec. 4.2): sampled from the neighbour's law, then held to be certain (one-hot law)."""

    def initialise(slots: FreshSlots) -> tuple[torch.Tensor, None]:
        return race(_neighbour_laws(slots, direction), slots.exponential), None

    return initialise


def neighbour_law(direction: str) -> Initialiser:
    """Drawn from the neighbour's law, with that law stored: lossless, and the best start measured so far."""

    def initialise(slots: FreshSlots) -> tuple[torch.Tensor, torch.Tensor]:
        laws = _neighbour_laws(slots, direction)
        return race(laws, slots.exponential), laws

    return initialise


INITIALISERS: dict[str, Initialiser] = {
    "random": random_tokens,
    "uniform": uniform_law,
    "repeat-left": repeat_neighbour("left"),
    "repeat-above": repeat_neighbour("above"),
    "sample-left": sample_neighbour("left"),
    "sample-above": sample_neighbour("above"),
    "law-left": neighbour_law("left"),
    "law-above": neighbour_law("above"),
}
INITIALISE = Setting(
    "How a token is guessed the first time: from what was likely above or left of it (law), by copying that token "
    "(repeat), or blindly (random, uniform). Good guesses save passes, at no cost.",
    choices=tuple(INITIALISERS),
)
Initialise = Annotated[str, INITIALISE]


def one_hot(tokens: torch.Tensor, vocabulary_size: int) -> torch.Tensor:
    """`[...]` int64 -> `[..., V]` float32: the law of a token that is certain."""
    shape = (*tokens.shape, vocabulary_size)
    return torch.zeros(shape, dtype=torch.float32, device=tokens.device).scatter_(-1, tokens[..., None], 1.0)


def _uniform(slots: FreshSlots) -> torch.Tensor:
    """`[B, F, V]`: 1 / codebook size on codebook ids, 0 on structural ones."""
    layout = slots.state.layout
    law = slots.exponential.new_zeros(*slots.positions.shape, layout.vocabulary_size)
    law[..., : layout.codebook_size] = 1 / layout.codebook_size
    return law


def _neighbour_laws(slots: FreshSlots, direction: str) -> torch.Tensor:
    """`[B, F, V]`: laws of the neighbours, uniform where there is none or the neighbour's token is forced."""
    sources, exists = slots.source(direction)
    if slots.state.forced is not None:
        exists = exists & (slots.state.forced[sources] < 0)
    return torch.where(exists[..., None], slots.state.laws.read(sources), _uniform(slots))


def sample_siblings(law: torch.Tensor, exponential: torch.Tensor, count: int) -> torch.Tensor:
    """Draw `count` different tokens in order, without replacement.

    The order of arrival in an exponential race is exactly that (Gumbel top-k, Kool et al. 2019, arXiv 1903.06059).
    After the last token the law allows come tokens of probability zero, which `Speculative.choose` passes over.

    Args:
        law: `[..., V]` float32, need not be normalised.
        exponential: `[..., V]` float32 standard exponential noise.
        count: K <= V.

    Returns:
        `[..., K]` int64.
    """
    return (law / exponential).topk(count, -1).indices
