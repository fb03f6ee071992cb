"""The strategy strings of GS-Jacobi (Liu & Qin 2025, arXiv 2505.12849): which blocks are cut, and how often."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GaussSeidelStrategy:
    """A parsed `stack-segments-passes-else` string.

    Attributes:
        stack: dominant blocks, counted from the picture.
        segments: how many segments each is cut into.
        passes: Jacobi passes over each segment, at most.
        others: Jacobi passes over every other block, at most.
    """

    stack: tuple[int, ...]
    segments: tuple[int, ...]
    passes: tuple[int, ...]
    others: int

    @classmethod
    def parse(cls, text: str) -> "GaussSeidelStrategy":
        """Read a string such as `6-8-32-10`, or `0/7-256/8-1/13-6` for two blocks; one number stands for all.

        Raises:
            ValueError: it is not of this form.
        """
        try:
            stack, segments, passes, others = (
                tuple(int(number) for number in part.split("/")) for part in str(text).split("-")
            )
            segments, passes = (part * len(stack) if len(part) == 1 else part for part in (segments, passes))
            fits = len(segments) == len(passes) == len(stack) == len(set(stack)) and len(others) == 1
        except ValueError:
            fits = False
        if not fits or min(*segments, *passes, *others) < 1:
            raise ValueError(
                f"strategy must read stack-segments-passes-else, such as 6-8-32-10 or 0/7-256/8-1/13-6; got {text!r}."
            )
        return cls(stack, segments, passes, others[0])

    def of_block(self, block: int) -> tuple[int, int]:
        """Segments and passes over each of a block."""
        if block in self.stack:
            index = self.stack.index(block)
            return self.segments[index], self.passes[index]
        return 1, self.others

    def check(self, num_blocks: int, num_tokens: int) -> None:
        """Raise `ValueError` if the flow has not these blocks, or cannot be cut like this."""
        beyond = [block for block in self.stack if block >= num_blocks]
        if beyond:
            raise ValueError(f"strategy names block {beyond[0]}; this flow has blocks 0 to {num_blocks - 1}.")
        odd = [segments for segments in self.segments if num_tokens % segments]
        if odd:
            raise ValueError(f"strategy cuts {num_tokens} tokens into {odd[0]} segments; they must come out even.")
