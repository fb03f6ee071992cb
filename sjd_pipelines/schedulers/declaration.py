"""What a scheduler declares of itself: its settings in its constructor, words and bounds in its class.

The checks at construction, `--set` of the command line, ComfyUI's nodes and their pages, README's table and the curves
of the report are all made from this, so that they agree. Nothing here needs torch.
"""

import inspect
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType, NoneType
from typing import Annotated, Any, get_args, get_origin

AUTO = "auto"
# More tokens than any picture has. What is longer than the picture is cut to it.
LONGEST = 2**16

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 40


@dataclass(frozen=True)
class Setting:
    """Which values a setting takes and what it is for, in the annotation of a parameter of the constructor.

    `window: Annotated[int | str, Setting("Tokens guessed ahead.", least=1, most=LONGEST, choices=("auto",))] = 16`

    Attributes:
        words: what it does and what more of it costs, in an artist's words.
        least: of a number.
        most: of a number; what no machine could work with is out of range.
        step: of the arrows beside a number that need not be whole.
        choices: the strings it takes.
        types: what it takes, None among them; from the annotation.
        default: from the signature.
    """

    words: str
    least: float = 0
    most: float = 1
    step: float = 0.05
    choices: tuple[str, ...] = ()
    types: tuple[type, ...] = ()
    default: Any = None

    @property
    def is_number(self) -> bool:
        return int in self.types or float in self.types

    @property
    def expected(self) -> str:
        """What the setting takes: `an integer from 1 to 64 or None`."""
        kinds = []
        if self.is_number:
            kinds.append(f"{'a number' if float in self.types else 'an integer'} from {self.least} to {self.most}")
        if bool in self.types:
            kinds.append("True or False")
        if self.choices:
            kinds += [repr(one) for one in self.choices] if kinds else [f"one of {', '.join(self.choices)}"]
        return " or ".join(kinds + ["None"] * (NoneType in self.types))

    def takes(self, value: Any) -> bool:
        if value is None:
            return NoneType in self.types
        if isinstance(value, bool):
            return bool in self.types
        if isinstance(value, str):
            return value in self.choices
        if isinstance(value, int if float not in self.types else int | float):
            return self.is_number and self.least <= value <= self.most
        return False

    def refusal(self, value: Any) -> str | None:
        """What is wrong with a value, `must be ..., got ...`; None if nothing is."""
        if self.takes(value):
            return None
        return f"must be {self.expected}{', ' if self.is_number or not self.choices else '; '}got {shown(value)}"


@dataclass(frozen=True)
class Card:
    """What a scheduler is called and says of itself, in an artist's words.

    Attributes:
        title: its name on a node.
        summary: what it does and what it is good for; the first sentence stands alone in README's table.
        advice: when to take it.
    """

    title: str
    summary: str
    advice: str


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


@cache
def settings_of(cls: type) -> Mapping[str, Setting]:
    """Name -> setting, in the order of the constructor of a scheduler class; parameters without one are left out."""
    parameters = inspect.signature(cls, eval_str=True).parameters.values()
    declared = {one.name: _declared(one.annotation, one.default) for one in parameters}
    return MappingProxyType({name: setting for name, setting in declared.items() if setting is not None})


def check_settings(cls: type, values: Mapping[str, Any]) -> None:
    """Raise `ValueError` for the first of `values` that a setting of the scheduler class does not take."""
    for name, setting in settings_of(cls).items():
        if name in values and (refusal := setting.refusal(values[name])):
            raise ValueError(f"{name} {refusal}.")


def shown(value: Any) -> str:
    """A value as messages quote it: cut short where it is long."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {int(value.bit_length() * math.log10(2)) + 1} digits"
    return _SHORT.repr(value)


def _declared(annotation: Any, default: Any) -> Setting | None:
    if get_origin(annotation) is not Annotated:
        return None
    kind, *notes = get_args(annotation)
    setting = next((one for one in notes if isinstance(one, Setting)), None)
    return setting and replace(setting, types=get_args(kind) or (kind,), default=default)


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
