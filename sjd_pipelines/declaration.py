"""What a scheduler, or the solver of a flow, declares of itself: its settings in its constructor, words in its class.

The checks at construction, `--set` of the command line, ComfyUI's nodes and their pages, and README's tables are all
made from this, so that they agree. Nothing here needs torch.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType, NoneType
from typing import Annotated, Any, get_args, get_origin

from .ranges import Range, plain, shown

# More tokens than any picture has. What is longer than the picture is cut to it.
LONGEST = 2**16
LONGEST_TEXT = 10_000  # characters

# In the order they are tried: what a text may stand for, by the types of a setting.
_READERS: dict[type, Callable[[str], Any]] = {
    NoneType: {"none": None, "None": None}.__getitem__,
    bool: {"true": True, "True": True, "false": False, "False": False}.__getitem__,
    int: int,
    float: float,
}


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
        form: the regular expression of a text that is not chosen but written.
        example: such a text, for messages.
        types: what it takes, None among them; from the annotation.
        default: from the signature.
    """

    words: str
    least: float = 0
    most: float = 1
    step: float = 0.05
    choices: tuple[str, ...] = ()
    form: str = ""
    example: str = ""
    types: tuple[type, ...] = ()
    default: Any = None

    @property
    def is_number(self) -> bool:
        return int in self.types or float in self.types

    @property
    def range(self) -> Range:
        """Of its numbers."""
        return Range(self.least, self.most, whole=float not in self.types)

    @property
    def expected(self) -> str:
        """What the setting takes: `an integer from 1 to 64 or None`."""
        kinds = []
        if self.is_number:
            kinds.append(self.range.expected)
        if bool in self.types:
            kinds.append("True or False")
        if self.choices:
            kinds += [repr(one) for one in self.choices] if kinds else [f"one of {', '.join(self.choices)}"]
        if self.form:
            kinds.append(f"a text such as {self.example}")
        return " or ".join(kinds + ["None"] * (NoneType in self.types))

    def takes(self, value: Any) -> bool:
        value = plain(value)
        if value is None:
            return NoneType in self.types
        if isinstance(value, bool):
            return bool in self.types
        if isinstance(value, str):
            return value in self.choices or self._has_form(value)
        return self.is_number and self.range.takes(value)

    def read(self, text: str) -> Any:
        """What a text stands for; one that stands for nothing the setting takes comes back, to be refused."""
        for kind, reader in _READERS.items():
            if kind in self.types:
                try:
                    return reader(text)
                except (KeyError, ValueError):
                    continue
        return text

    def _has_form(self, text: str) -> bool:
        return bool(self.form) and len(text) <= LONGEST_TEXT and re.fullmatch(self.form, text) is not None

    def refusal(self, value: Any) -> str | None:
        """What is wrong with a value, `must be ..., got ...`; None if nothing is."""
        if self.takes(value):
            return None
        separator = "; " if self.form or (self.choices and not self.is_number) else ", "
        return f"must be {self.expected}{separator}got {shown(value)}"


@dataclass(frozen=True)
class Card:
    """What a scheduler or a solver is called and says of itself, in an artist's words.

    Attributes:
        title: its name on a node.
        summary: what it does and what it is good for; the first sentence stands alone in README's table.
        advice: when to take it.
    """

    title: str
    summary: str
    advice: str


@cache
def settings_of(cls: type) -> Mapping[str, Setting]:
    """Name -> setting, in the order of the constructor of a class; parameters without one are left out."""
    parameters = inspect.signature(cls, eval_str=True).parameters.values()
    declared = {one.name: _declared(one.annotation, one.default) for one in parameters}
    return MappingProxyType({name: setting for name, setting in declared.items() if setting is not None})


def check_settings(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, numbers as Python's own; raises `ValueError` for the first that a setting does not take."""
    checked = dict(values)
    for name, setting in settings_of(cls).items():
        if name in values:
            if refusal := setting.refusal(values[name]):
                raise ValueError(f"{name} {refusal}.")
            checked[name] = plain(values[name])
    return checked


def _declared(annotation: Any, default: Any) -> Setting | None:
    if get_origin(annotation) is not Annotated:
        return None
    kind, *notes = get_args(annotation)
    setting = next((one for one in notes if isinstance(one, Setting)), None)
    return setting and replace(setting, types=get_args(kind) or (kind,), default=default)
