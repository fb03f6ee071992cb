"""What a decoding run knows: tokens on the canvas, how far each image has come, the laws behind its drafts."""

from dataclasses import dataclass, field

import torch

from .layout import ImageTokenLayout
from .noise import PositionNoise, SharedNoise
from .ring import PositionRing


@dataclass
class Query:
    """One forward pass as the model sees it.

    A slot at position -1 stands for the last prompt token, whose output predicts the first image token.

    Attributes:
        token_ids: `[B, Q]` int64.
        positions: `[B, Q]` int64 raster indices, -1 for the last prompt token.
        visible: `[B, Q, S]` bool: the canvas slots 0 .. S - 1 each token may attend to. The prompt always is visible.
        slots: `[B, Q]` int64: the canvas slot that holds each token's keys and values; None: its position. A tree has
            several slots for one position.
        moves: pairs of canvas slots `[B, M]`, from and to, copied before this pass; None: nothing moves.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    visible: torch.Tensor
    slots: torch.Tensor | None = None
    moves: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass
class DecodingState:
    """The state of one batch. Tensors keep their shapes from the first pass to the last.

    The canvas has a margin behind the image, so that a window may reach past the last token without clamping.

    Attributes:
        layout: the token grid.
        canvas: `[B, N + margin]` int64: committed tokens, then drafts.
        committed: `[B]` int64: how many tokens are final; behind a raster window they are the first ones.
        drafted: `[B]` int64: tokens up to here (exclusive) have a draft.
        accepted_at: `[B, N + margin]` int32: the pass that committed each token, -1 before.
        forced: `[N + margin]` int64: forced ids, `FREE` elsewhere; None for a layout without forced tokens.
        laws: laws of drafts and of recent targets, where the scheduler needs them.
        shared_noise: the noise that stays with each position of the window, where the scheduler needs it.
        passes: forward passes so far.
        window: drafts verified in the most recent pass.
        windows: the same for every pass so far (raster windows only).
        seconds: what the most recent pass took on an idle machine, set by whoever runs the loop; else all passes are
            equal.
        counts: host copy of `committed`, read once per pass.
        reaches: host copy of `drafted`, kept by raster windows.
        advances: tokens each image gained in the most recent pass (host).
    """

    layout: ImageTokenLayout
    canvas: torch.Tensor
    committed: torch.Tensor
    drafted: torch.Tensor
    accepted_at: torch.Tensor
    forced: torch.Tensor | None
    laws: PositionRing | None
    shared_noise: SharedNoise | None = None
    passes: int = 0
    window: int = 0
    windows: list[int] = field(default_factory=list)
    seconds: float = 1.0
    counts: list[int] = field(default_factory=list)
    reaches: list[int] = field(default_factory=list)
    advances: list[int] = field(default_factory=list)

    @classmethod
    def empty(
        cls,
        layout: ImageTokenLayout,
        batch_size: int,
        margin: int,
        law_slots: int = 0,
        device: torch.device | str = "cpu",
    ) -> "DecodingState":
        """Nothing drafted, nothing committed; `law_slots` > 0 makes a `PositionRing` of that many laws."""
        length = layout.num_tokens + margin
        forced = None
        if layout.has_forced:
            forced = torch.zeros(length, dtype=torch.int64, device=device)
            forced[: layout.num_tokens] = layout.forced_tokens(device)
        return cls(
            layout=layout,
            canvas=torch.zeros(batch_size, length, dtype=torch.int64, device=device),
            committed=torch.zeros(batch_size, dtype=torch.int64, device=device),
            drafted=torch.zeros(batch_size, dtype=torch.int64, device=device),
            accepted_at=torch.full((batch_size, length), -1, dtype=torch.int32, device=device),
            forced=forced,
            laws=PositionRing(batch_size, law_slots, layout.vocabulary_size, device) if law_slots else None,
            counts=[0] * batch_size,
            reaches=[0] * batch_size,
            advances=[0] * batch_size,
        )

    @property
    def batch_size(self) -> int:
        return self.canvas.shape[0]

    @property
    def tokens(self) -> torch.Tensor:
        """`[B, N]`: the image, drafts included while it is unfinished."""
        return self.canvas[:, : self.layout.num_tokens]

    @property
    def acceptance_map(self) -> torch.Tensor:
        """`[B, N]` int32: the pass that committed each token."""
        return self.accepted_at[:, : self.layout.num_tokens]

    @property
    def finished(self) -> bool:
        return min(self.counts) >= self.layout.num_tokens

    def share_noise(self, noise: PositionNoise, reach: int, largest_reach: int) -> None:
        """Have the noise of the next `reach` positions of each image; `largest_reach` is the most there will be."""
        if self.shared_noise is None:
            last = self.canvas.shape[1] - 1
            self.shared_noise = SharedNoise(noise, largest_reach, self.layout.vocabulary_size, last)
        self.shared_noise.extend([count + reach for count in self.counts])

    def advance(self, positions: torch.Tensor, gained: torch.Tensor) -> "DecodingState":
        """Commit `gained` `[B]` tokens per row; the pass left a token at each of `positions` `[B, 1 + W]`."""
        committed = (self.committed + gained).clamp(max=self.layout.num_tokens)
        arrived = positions < committed[:, None]
        stamps = self.accepted_at.gather(1, positions).masked_fill(arrived, self.passes)
        self.accepted_at.scatter_(1, positions, stamps)
        self.drafted = torch.maximum(self.drafted, positions[:, -1] + 1)
        self.committed = committed
        self.passes += 1
        return self

    def synchronize(self) -> None:
        """Read the committed counts to the host: the one device-to-host copy of a pass."""
        counts = self.committed.tolist()
        self.advances = [new - old for new, old in zip(counts, self.counts)]
        self.counts = counts


@dataclass
class DecodingStatistics:
    """What a run cost, per image.

    Attributes:
        scheduler: class name of the scheduler.
        label: its label, `exact`, `lossless` or `approximate`.
        seeds: the seed of each image. `pipe(prompt, seeds=[seed], ...)` with the same settings draws it again, alone
            or in any batch; where the scheduler is not exact, at the same window.
        forward_passes: passes until each image was complete.
        committed_per_pass: per image, the tokens each of its passes committed.
        acceptance_map: `[B, rows, width]` int32: the pass that committed each token (-1: none; tail tokens left out).
        seconds: wall clock of the stages `encode`, `decode` and `pixels`, for the whole batch.
        interrupted: whether the run was stopped before every image was complete.
        windows: drafts verified in each pass of the batch, of a raster window. With `window="auto"` they differ, and
            under a lossless scheduler other windows draw another picture of the same seed.
    """

    scheduler: str
    label: str
    seeds: list[int]
    forward_passes: list[int]
    committed_per_pass: list[list[int]]
    acceptance_map: torch.Tensor
    seconds: dict[str, float]
    interrupted: bool = False
    windows: list[int] = field(default_factory=list)

    @classmethod
    def from_state(
        cls, state: DecodingState, scheduler: str, label: str, seeds: list[int], seconds: dict[str, float]
    ) -> "DecodingStatistics":
        layout, accepted_at = state.layout, state.acceptance_map.cpu()
        passes = (accepted_at.max(-1).values + 1).tolist()
        committed = [
            row[row >= 0].bincount(minlength=count).tolist() for row, count in zip(accepted_at.long(), passes)
        ]
        return cls(
            scheduler=scheduler,
            label=label,
            seeds=list(seeds),
            forward_passes=passes,
            committed_per_pass=committed,
            # [B, N] -> [B, rows, width]
            acceptance_map=accepted_at[:, : layout.rows * layout.width].unflatten(1, (layout.rows, layout.width)),
            seconds=dict(seconds),
            interrupted=not state.finished,
            windows=list(state.windows),
        )
