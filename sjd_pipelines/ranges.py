"""Numbers and names as scripts send them: read, held to what there is and quoted in one place, without torch."""

import math
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 40


@dataclass(frozen=True)
class Range:
    """Which numbers are taken.

    Attributes:
        least: the smallest.
        most: the largest; what no machine could work with is out of range.
        whole: integers only.
        above: `least` itself is left out.
        zero: 0 is taken too, below `least`.
    """

    least: float
    most: float = math.inf
    whole: bool = False
    above: bool = False
    zero: bool = False

    @property
    def expected(self) -> str:
        """What is taken: `an integer from 1 to 64`."""
        kind = "an integer" if self.whole else "a number"
        if self.above:
            words = f"{kind} above {_plainly(self.least)}"
            words += "" if math.isinf(self.most) else f", at most {_plainly(self.most)}"
        elif math.isinf(self.most):
            words = f"{kind} of at least {_plainly(self.least)}"
        else:
            words = f"{kind} from {_plainly(self.least)} to {_plainly(self.most)}"
        return f"0 or {words}" if self.zero else words

    def takes(self, value: Any) -> bool:
        """Whether a value, as `plain` returns it, is such a number."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if self.zero and value == 0:
            return True
        above = self.least < value if self.above else self.least <= value
        return above and value <= self.most and (isinstance(value, int) or math.isfinite(value))

    def refusal(self, value: Any) -> str | None:
        """What is wrong with a value, `must be ..., got ...`; None if nothing is."""
        return None if self.takes(plain(value)) else f"must be {self.expected}, got {shown(value)}"

    def check(self, name: str, value: Any) -> int | float:
        """The value as Python's own number. Raises `ValueError` if it is out of range, or none."""
        if refusal := self.refusal(value):
            raise ValueError(f"{name} {refusal}.")
        return plain(value)


def plain(value: Any) -> Any:
    """A number as Python's own `int` or `float`, a truth value as its `bool`; anything else as it is.

    NumPy's numbers are numbers, and fractions, and tensors and arrays without dimensions.
    """
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        try:
            value = value.item()
        except (RuntimeError, TypeError, ValueError):  # a tensor on device meta has no number
            return value
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        try:
            return float(value)
        except OverflowError:
            return value
    return value


def shown(value: Any) -> str:
    """A value as messages quote it, on one line and cut short where it is long."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {int(value.bit_length() * math.log10(2)) + 1} digits"
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python writes no integer of many thousand digits
        return f"a {type(value).__name__} of large numbers"


def near(name: Any, known: Iterable[str]) -> str:
    """How a message goes on that there is no such name: `; did you mean ...`, or all there are."""
    known = sorted(known)
    return meant(name, known) or (f"; known are {', '.join(known)}" if known else "; there is none")


def meant(name: Any, known: Iterable[str]) -> str:
    """The same, or nothing where no name is near."""
    found = get_close_matches(name, list(known), 1) if isinstance(name, str) else []
    return f"; did you mean {found[0]}" if found else ""


def _plainly(bound: float) -> str:
    """A bound as people write it: `2**63 - 1` is not read by its digits."""
    if isinstance(bound, int) and bound >= 2**31 and bound & (bound + 1) == 0:
        return f"2**{bound.bit_length()} - 1"
    return f"{bound}"
