"""What schedulers declare beside their settings: bounds, and the settings that several of them share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from ..declaration import LONGEST, Setting

AUTO = "auto"


@dataclass(frozen=True)
class Bound:
    """A setting of an approximate scheduler that trades its error against passes, for the curves of the report.

    Attributes:
        title: what to call the curve.
        bound: name of the setting.
        values: of the setting, the strictest first; by row as shares of a picture row.
        by_row: the setting counts columns of a picture row.
        settings: the others that differ from their defaults.
    """

    title: str
    bound: str
    values: tuple[float, ...]
    by_row: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


# Settings that several schedulers share.

WINDOW = Setting(
    "Tokens guessed ahead per forward pass. Larger windows save passes until guesses stop being accepted; every pass "
    "gets a little slower and needs more memory.",
    least=1,
    most=LONGEST,
    choices=(AUTO,),
    types=(int, str),
)
WindowOrAuto = Annotated[int | str, WINDOW]
Window = Annotated[int, replace(WINDOW, choices=())]
