"""What a model that makes tokens in groups is fed, in which order, and how far each token sees (PAR)."""

from dataclasses import dataclass

import torch

from .layout import ImageTokenLayout
from .query import Query


@dataclass(frozen=True)
class ParallelSequence:
    """The sequence of PAR (Wang et al. 2024, arXiv 2412.15119): N tokens, n at once.

    The first n tokens are made one by one. A group of n is fed to make the next one, and all that is in it sees one
    another; the first group is token n - 1 with n - 1 learned tokens, which stand for the n - 1 made before it. The
    last group is fed to nobody. Whatever is fed at slot s, s-th after the prompt, predicts token s + 1.

    Learned tokens have the ids after the vocabulary's, and positions after the image: they have no cell.

    Args:
        layout: of the tokens; `parallel` is n.
    """

    layout: ImageTokenLayout

    @property
    def margin(self) -> int:
        """Positions after the image, one for each learned token."""
        return self.layout.parallel - 1

    def positions(self, length: int) -> torch.Tensor:
        """`[length]` int64: the position of what each slot feeds; after the image they go on."""
        group, slots = self.layout.parallel, torch.arange(length)
        after = torch.where(self._learned(length), slots - group + self.layout.num_tokens, slots - group + 1)
        return torch.where(slots < group, slots, after)

    def learned_ids(self, length: int) -> torch.Tensor:
        """`[length]` int64: the id of the learned token that each slot feeds, -1 where it feeds an image token."""
        ids = torch.arange(length) - self.layout.parallel + self.layout.vocabulary_size
        return torch.where(self._learned(length), ids, -1)

    def ends(self, length: int) -> torch.Tensor:
        """`[length]` int64: each slot sees those before this one, the others of its group among them."""
        group, slots = self.layout.parallel, torch.arange(length)
        begun = torch.div(slots - group + 1, group, rounding_mode="floor") + 1  # groups
        return torch.where(slots < group - 1, slots + 1, group - 1 + begun * group)

    def fed(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[B, N]` tokens by position -> `[B, N - 1]` ids of all slots: what a teacher-forced pass feeds."""
        learned = self.learned_ids(tokens.shape[1] - 1).to(tokens.device)
        positions = self.positions(tokens.shape[1] - 1).to(tokens.device)
        return torch.where(learned < 0, tokens[:, torch.where(learned < 0, positions, 0)], learned)

    def teacher_forced(self, tokens: torch.Tensor) -> Query:
        """The one pass that gives the law of every token as decoding does: `[B, N]` int64 tokens, by position."""
        count, device = tokens.shape[1], tokens.device
        predicts = torch.arange(count, device=device)
        first = predicts.new_zeros(1)  # the end of the prompt: what it says of ids and positions means nothing
        positions = torch.cat([first, self.positions(count - 1).to(device)])
        ends = torch.cat([first, self.ends(count - 1).to(device)])
        return Query(
            torch.cat([first.expand(len(tokens), 1), self.fed(tokens)], 1),
            positions.expand_as(tokens),
            predicts.expand_as(tokens),
            (predicts < ends[:, None]).expand(len(tokens), -1, -1),
            slots=(predicts - 1).clamp(min=0).expand_as(tokens),
            prompt_end=True,
        )

    def _learned(self, length: int) -> torch.Tensor:
        slots, group = torch.arange(length), self.layout.parallel
        return (slots >= group) & (slots < 2 * group - 1)
