"""The losses of consistency distillation, over pictures and windows of the drafts that led to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import nll_loss

from ..decoding import FREE, PositionNoise, Purpose, Sampling
from ..pipelines import SJDAutoRegressivePipeline
from ..pipelines.prompts import EncodedPrompt
from .packed import packed_pass
from .trajectories import Trajectory

TARGETS = ("law", "tokens")


@dataclass(frozen=True)
class Weights:
    """Of the losses, each a mean over the tokens or slots that it is of.

    Attributes:
        consistency: KL from the student's own law at the fixed point, held constant, to its law behind drafts.
        choice: cross-entropy of the fixed point's token in the race of the seed's noise behind drafts.
        label: of the picture: KL from the teacher's law, or cross-entropy of its tokens.
        reverse: of the picture: KL from the student's law to the teacher's, which is high where the student may draw
            what the teacher never would (on the student's own pictures: Agarwal et al. 2024, arXiv 2306.13649).
        nearer: how much less a slot counts than the one before it.
    """

    consistency: float = 1.0
    choice: float = 0.0
    label: float = 30.0
    reverse: float = 30.0
    nearer: float = 1.0


@dataclass
class Batch:
    """B pictures with K windows each.

    Attributes:
        prompts: B of them.
        sampling: how they were drawn.
        seeds: B of them.
        final, labels: `[B, N]` int64, see `Trajectory`.
        fronts: `[B, K]` int64.
        drafts: `[B, K, W]` int64.
        wrong: `[B, K, W]` bool: slots that stand behind a wrong draft and predict a token of the picture.
    """

    prompts: list[str]
    sampling: Sampling
    seeds: list[int]
    final: torch.Tensor
    labels: torch.Tensor
    fronts: torch.Tensor
    drafts: torch.Tensor
    wrong: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        tensors = (self.final, self.labels, self.fronts, self.drafts, self.wrong)
        return Batch(self.prompts, self.sampling, self.seeds, *(tensor.to(device) for tensor in tensors))


def behind_a_wrong_draft(
    final: torch.Tensor, fronts: torch.Tensor, drafts: torch.Tensor, free: torch.Tensor
) -> torch.Tensor:
    """Slots whose context differs from that of the fixed point, and that predict a token which is not forced.

    Args:
        final: `[B, N]` int64.
        fronts: `[..., B]` int64.
        drafts: `[..., B, W]` int64.
        free: `[N]` bool.

    Returns:
        `[..., B, W]` bool; slot i predicts position `front + i + 1`.
    """
    count, window = final.shape[1], drafts.shape[-1]
    places = fronts[..., None] + torch.arange(window, device=fronts.device)
    inside = places < count
    there = final.expand(*fronts.shape[:-1], *final.shape).gather(-1, places.clamp(max=count - 1))
    wrong = (inside & (drafts != there)).cummax(-1).values
    predicted = places + 1
    return wrong & (predicted < count) & free[predicted.clamp(max=count - 1)]


def stray(final: torch.Tensor, drafts: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Drafts in which as many as chance has it for each pass are any of the tokens that its picture has.

    What the own decoding of prompts like those of the training never meets, and that of others may: parts of the
    picture where nothing of it should be.

    Args:
        final: `[B, M]` int64, what they may be.
        drafts: `[T, B, W]` int64.
        rng: chance.
    """
    ordered = final.sort(1).values
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]  # so that a rare token is as likely as a frequent one
    passes, _, window = drafts.shape
    picked = torch.multinomial(first.double(), passes * window, True, generator=rng)  # [B, T W]
    others = ordered.gather(1, picked).unflatten(1, (passes, window)).movedim(1, 0)
    share = torch.rand(drafts.shape[:2], generator=rng)[..., None]
    return torch.where(torch.rand(drafts.shape, generator=rng) < share, others, drafts)


def pick_windows(
    drawn: Trajectory,
    rows: torch.Tensor,
    windows: int,
    free: torch.Tensor,
    rng: torch.Generator,
    strays: float = 0.0,
) -> Batch:
    """Some pictures of a trajectory with `windows` passes of each, chosen by chance among those with a wrong draft.

    Args:
        drawn: the trajectory.
        rows: `[B]` int64, which pictures.
        windows: K, at most the passes of the longest picture; one with fewer passes has empty ones instead.
        free: `[N]` bool: positions whose token is not forced.
        rng: chance.
        strays: share of passes with some drafts replaced by other tokens of the picture, as `stray` does.
    """
    final, fronts, drafts = drawn.final[rows], drawn.fronts[:, rows], drawn.drafts[:, rows]
    if strays and free.any():
        led = torch.rand(fronts.shape, generator=rng) < strays
        places = fronts[..., None] + torch.arange(drafts.shape[-1])
        led = led[..., None] & free[places.clamp(max=len(free) - 1)]
        drafts = torch.where(led, stray(final[:, free], drafts, rng), drafts)
    wrong = behind_a_wrong_draft(final, fronts, drafts, free)  # [T, B, W]
    keys = torch.rand(fronts.shape, generator=rng).masked_fill(~wrong.any(-1), -1.0)
    chosen = keys.topk(min(windows, len(fronts)), 0).indices  # [K, B]
    used = keys.gather(0, chosen) >= 0
    index = chosen[..., None].expand(-1, -1, drafts.shape[-1])
    return Batch(
        [drawn.prompts[row] for row in rows.tolist()],
        drawn.sampling,
        [drawn.seeds[row] for row in rows.tolist()],
        final,
        drawn.labels[rows],
        fronts.gather(0, chosen).T,
        drafts.gather(0, index).movedim(0, 1),
        (wrong.gather(0, index) & used[..., None]).movedim(0, 1),
    )


class Objective:
    """The losses of one student.

    Args:
        pipe: the student; also the teacher, while its weights are in place.
        weights: of the losses.
        target: what the picture teaches: the teacher's `law` at every token of it, or its `tokens`, as published. A
            picture that was wrong teaches the tokens of the true one.
    """

    def __init__(self, pipe: SJDAutoRegressivePipeline, weights: Weights, target: str = "law"):
        self.pipe, self.weights, self.target = pipe, weights, target
        self.layout = pipe.image_layout(None, None)
        forced = self.layout.forced_tokens(pipe.device)
        self.free = forced == FREE  # [N]

    def log_laws(self, hidden: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        """Final hidden states `[R, Q, D]` -> `[B, Q, V]` float32 log-probabilities of codebook tokens.

        Guided, at the temperature of sampling (1 where that is greedy), not truncated.
        """
        logits = self.pipe.guided_logits(hidden, sampling.guidance_scale)[..., : self.layout.codebook_size]
        return (logits.float() / (sampling.temperature or 1.0)).log_softmax(-1)

    @torch.no_grad()
    def encode(self, batch: Batch) -> EncodedPrompt:
        """The prompts as the transformer reads them; what reads words is not trained."""
        return self.pipe.encode_prompt(batch.prompts, None, batch.sampling.guided, 1, self.layout)

    @torch.no_grad()
    def teacher(self, batch: Batch, prompt: EncodedPrompt) -> torch.Tensor:
        """`[B, N, V]`: the log-laws of every token of the pictures; the teacher's weights must be in place."""
        empty = batch.fronts[:, :0], batch.drafts[:, :0]
        hidden = packed_pass(self.pipe, prompt, self.layout, batch.final, *empty)
        return self.log_laws(hidden.fixed, batch.sampling)

    def loss(
        self, batch: Batch, prompt: EncodedPrompt, teacher: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The weighted sum of the losses, and what to log of them.

        Args:
            batch: pictures and windows.
            prompt: what `encode` made of it.
            teacher: what `teacher` gave of it.
        """
        weights = self.weights
        hidden = packed_pass(self.pipe, prompt, self.layout, batch.final, batch.fronts, batch.drafts)
        fixed = self.log_laws(hidden.fixed, batch.sampling)  # [B, N, V]
        drift = kl(teacher, fixed)[:, self.free]  # [B, free]
        right = (batch.labels == batch.final).all(1)
        label = self._label_loss(batch, prompt, fixed, drift, right)
        reverse = kl(fixed, teacher)[:, self.free].mean()
        entropy = -(fixed.detach().exp() * fixed.detach()).sum(-1)[:, self.free].mean()
        total = weights.label * label + weights.reverse * reverse
        values = {"teacher_kl": drift.mean(), "reverse_kl": reverse, "entropy": entropy, "label": label}
        slots = batch.wrong.flatten(1).nonzero(as_tuple=True)  # M of them
        if len(slots[0]) and (weights.consistency or weights.choice):
            consistency, choice = self._draft_losses(batch, hidden.windows, fixed.detach(), slots)
            total = total + weights.consistency * consistency + weights.choice * choice
            values |= {"consistency": consistency, "choice": choice}
        return total, {name: float(value.detach()) for name, value in values.items()}

    def _label_loss(
        self,
        batch: Batch,
        prompt: EncodedPrompt,
        fixed: torch.Tensor,
        drift: torch.Tensor,
        right: torch.Tensor,
    ) -> torch.Tensor:
        """What the pictures teach: a mean over their tokens.

        Args:
            batch, prompt: as `loss` has them.
            fixed: `[B, N, V]` log-laws of the pictures' tokens.
            drift: `[B, free]`, their distance from the teacher's.
            right: `[B]` bool, which pictures teach what they are.
        """
        parts = [(drift if self.target == "law" else self._surprise(fixed, batch.final))[right]]
        if not right.all():
            rows = (~right).nonzero()[:, 0]
            some = prompt_rows(prompt, rows, len(batch.final))
            empty = batch.fronts[rows, :0], batch.drafts[rows, :0]
            hidden = packed_pass(self.pipe, some, self.layout, batch.labels[rows], *empty)
            parts.append(self._surprise(self.log_laws(hidden.fixed, batch.sampling), batch.labels[rows]))
        return torch.cat(parts).mean()

    def _surprise(self, laws: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """`[B, free]`: minus the log-probability of each token that is not forced."""
        return -laws[:, self.free].gather(-1, tokens[:, self.free, None])[..., 0]

    def _draft_losses(
        self, batch: Batch, windows: torch.Tensor, fixed: torch.Tensor, slots: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Consistency and choice: means over the slots behind a wrong draft."""
        row, slot = slots
        width = batch.drafts.shape[-1]
        positions = batch.fronts.repeat_interleave(width, 1)[row, slot] + slot % width + 1  # [M]
        states = windows.unflatten(0, (-1, len(batch.final)))[:, row, slot]  # [C, M, D]
        behind = self.log_laws(states, batch.sampling)[0]  # [M, V]
        share = self.weights.nearer ** (slot % width).float()
        share = share / share.sum()
        consistency = (kl(fixed[row, positions], behind) * share).sum()
        if not self.weights.choice:
            return consistency, consistency.new_zeros(())
        scores, tokens = behind, batch.final[row, positions]
        if batch.sampling.temperature > 0:
            noise = PositionNoise([batch.seeds[index] for index in row.tolist()], behind.device)
            exponential = noise.exponential(positions[:, None], Purpose.SAMPLE, self.layout.vocabulary_size)[:, 0]
            kept = batch.sampling.law(behind.detach() * batch.sampling.temperature) > 0  # others can't win
            kept.scatter_(-1, tokens[:, None], True)
            scores = (behind - exponential[..., : behind.shape[-1]].log()).masked_fill(~kept, -torch.inf)
        surprise = nll_loss(scores.log_softmax(-1), tokens, reduction="none")
        return consistency, (surprise * share).sum()


def kl(law: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL divergence of log-laws, `[..., V]` -> `[...]` in nats."""
    return (law.exp() * (law - other)).sum(-1)


def prompt_rows(prompt: EncodedPrompt, rows: torch.Tensor, batch_size: int) -> EncodedPrompt:
    """The rows of some pictures of a batch, unconditional ones included."""
    copies = len(prompt.embeds) // batch_size
    index = torch.cat([rows + copy * batch_size for copy in range(copies)])
    return EncodedPrompt(prompt.embeds[index], prompt.visible[index], prompt.position_ids[index])
