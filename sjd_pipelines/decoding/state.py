"""What a decoding run knows: tokens on the canvas, how far each image has come, the laws of its drafts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch

from .layout import ImageTokenLayout
from .noise import PositionNoise, SharedNoise
from .ring import PositionRing
from .target import Companion, TargetPass

if TYPE_CHECKING:  # who executes passes works on states
    from .runner import Execution

ALIGNMENT = 8  # of what a pass reads, as attention kernels like it


class NotFiniteError(ArithmeticError):
    """The model gave numbers that are not finite: damaged weights, or an overflow in their number format."""


@dataclass
class DecodingState:
    """The state of one batch. Tensors keep their shapes from the first pass to the last.

    The canvas lists tokens by position, in the order they are made. It has a margin after the image, so that a window
    may reach past the last token without clamping.

    Attributes:
        layout: the token grid.
        canvas: `[B, N + margin]` int64: committed tokens, then drafts.
        committed: `[B]` int64: how many tokens are final; with a raster window they are the first ones.
        drafted: `[B]` int64: tokens up to here (exclusive) have a draft.
        accepted_at: `[B, N + margin]` int32: the pass that committed each token, -1 before.
        forced: `[N + margin]` int64: forced ids, `FREE` elsewhere; None for a layout without forced tokens.
        laws: laws of drafts and of recent targets, where the scheduler needs them.
        neighbours: `[N + margin]` int64 to the `left` and `above`, see `ImageTokenLayout.neighbours`.
        companions: the networks at work on this run that help to guess, by name.
        shared_noise: the noise that stays with each position of the window, where the scheduler needs it.
        passes: forward passes so far.
        clock: the same on the device, `[]` int64, where passes are recorded; else None.
        window: drafts verified in the most recent pass.
        fresh: slots that enter in this pass (raster windows only).
        reads: canvas slots that this pass reads, see `extent`.
        windows: the same for every pass so far (raster windows only).
        seconds: what the most recent pass took on an idle machine, set by whoever runs the loop; else all passes are
            equal. None: nothing that tells of others.
        counts: host copy of `committed`, read once per pass.
        reaches: host copy of `drafted`, kept by raster windows.
        advances: tokens each image gained in the most recent pass (host).
        unsound: `[B]` bool: whether logits of the most recent pass were not finite; None before the first.
        dtype: in which the model computed them.
        execution: how passes were executed, where they are recorded; else None.
    """

    extents: ClassVar[int] = 7  # that passes over one canvas have, at most

    layout: ImageTokenLayout
    canvas: torch.Tensor
    committed: torch.Tensor
    drafted: torch.Tensor
    accepted_at: torch.Tensor
    forced: torch.Tensor | None
    laws: PositionRing | None
    neighbours: dict[str, torch.Tensor]
    companions: Mapping[str, Companion] = field(default_factory=dict)
    shared_noise: SharedNoise | None = None
    passes: int = 0
    clock: torch.Tensor | None = None
    window: int = 0
    fresh: int = 0
    reads: int = 0
    windows: list[int] = field(default_factory=list)
    seconds: float | None = 1.0
    counts: list[int] = field(default_factory=list)
    reaches: list[int] = field(default_factory=list)
    advances: list[int] = field(default_factory=list)
    unsound: torch.Tensor | None = None
    dtype: torch.dtype = torch.float32
    execution: "Execution | None" = None

    @classmethod
    def empty(
        cls,
        layout: ImageTokenLayout,
        batch_size: int,
        margin: int,
        law_slots: int = 0,
        device: torch.device | str = "cpu",
        companions: Mapping[str, Companion] | None = None,
    ) -> "DecodingState":
        """Nothing drafted, nothing committed; `law_slots` > 0 makes a `PositionRing` of that many laws."""
        length = layout.num_tokens + margin
        return cls(
            layout=layout,
            canvas=torch.zeros(batch_size, length, dtype=torch.int64, device=device),
            committed=torch.zeros(batch_size, dtype=torch.int64, device=device),
            drafted=torch.zeros(batch_size, dtype=torch.int64, device=device),
            accepted_at=torch.full((batch_size, length), -1, dtype=torch.int32, device=device),
            forced=layout.forced_tokens(device, length) if layout.has_forced else None,
            laws=PositionRing(batch_size, law_slots, layout.vocabulary_size, device) if law_slots else None,
            neighbours={side: layout.neighbours(side, length).to(device) for side in ("left", "above")},
            companions=companions or {},
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

    @property
    def readable(self) -> int:
        """Canvas slots that passes may read: the first of them."""
        return self.canvas.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """All that the host has decided of a pass: passes of one shape are alike to the device."""
        return self.window, self.fresh, self.reads

    @property
    def draw(self) -> int | torch.Tensor:
        """The number of this pass, on the device where passes are recorded: an address of its noise."""
        return self.passes if self.clock is None else self.clock

    def furthest(self, most: int) -> int:
        """What an image gained at most in the most recent pass; where passes are recorded the `most` that it may."""
        return max(self.advances) if self.clock is None else most

    def extent(self, needed: int) -> int:
        """Canvas slots that a pass reads which needs the first `needed`: whole blocks, so that there are few shapes.

        Blocks of equal length read the least too much for a given number of shapes.
        """
        block = -(-self.readable // (self.extents * ALIGNMENT)) * ALIGNMENT
        return min(-(-max(needed, 1) // block) * block, self.readable)

    def share_noise(self, noise: PositionNoise, reach: int, largest_reach: int) -> None:
        """Have the noise of the next `reach` positions of each image; `largest_reach` is the most there will be."""
        if self.shared_noise is None:
            last = self.canvas.shape[1] - 1
            self.shared_noise = SharedNoise(noise, largest_reach, self.layout.vocabulary_size, last)
        self.shared_noise.extend(reach, self.committed, self.counts)

    def advance(self, positions: torch.Tensor, gained: torch.Tensor) -> "DecodingState":
        """Commit `gained` `[B]` tokens per row; the pass left a token at each of `positions` `[B, 1 + W]`."""
        committed = (self.committed + gained).clamp(max=self.layout.num_tokens)
        arrived = positions < committed[:, None]
        stamps = self.accepted_at.gather(1, positions).masked_fill(arrived, self.draw)
        self.accepted_at.scatter_(1, positions, stamps)
        self.drafted = torch.maximum(self.drafted, positions[:, -1] + 1)
        self.committed = committed
        self.count_pass()
        return self

    def count_pass(self) -> None:
        """A pass is over, to the host and to the device."""
        self.passes += 1
        if self.clock is not None:
            self.clock.add_(1)

    def watch(self, seen: TargetPass) -> None:
        """Take note of logits `[B, Q, V]` that are NaN or infinite; `read` tells. Minus infinity alone is allowed."""
        self.unsound, self.dtype = ~seen.logits.amax(-1).isfinite().all(-1), seen.hidden.dtype

    def read(self, progress: torch.Tensor) -> list:
        """What each image has gained, `[B, ...]`, at least 0, on the host: the one device-to-host copy of a pass.

        Raises:
            NotFiniteError: logits of this pass were not finite.
        """
        if self.unsound is not None:
            progress = torch.where(self.unsound.unflatten(0, (-1, *[1] * (progress.dim() - 1))), -1, progress)
        values = progress.tolist()
        for image, value in enumerate(values):
            if (value[0] if isinstance(value, list) else value) < 0:
                raise NotFiniteError(
                    f"The model's logits are not finite in {str(self.dtype).removeprefix('torch.')}: image "
                    f"{image + 1} of {len(values)}, pass {self.passes}, after {self.counts[image]} tokens."
                )
        return values

    def synchronize(self) -> None:
        """Read the committed counts to the host. Raises `NotFiniteError` as `read`."""
        counts = self.read(self.committed)
        self.advances = [new - old for new, old in zip(counts, self.counts)]
        self.counts = counts
