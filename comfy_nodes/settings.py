"""Settings of schedulers and solvers as inputs of nodes."""

from typing import Any

from comfy_api.latest import io

from sjd_pipelines.declaration import Setting, check_settings, settings_of
from sjd_pipelines.pipelines.graphs import NOT_SET, WORD, has_word, values_of

AUTO_WORDS = "found out on this device, for the least time."


def inputs_of(cls: type) -> list[io.Input]:
    """The inputs of a scheduler or solver class, one per setting."""
    return [_input(name, setting) for name, setting in settings_of(cls).items()]


def refuse(cls: type, settings: dict[str, Any]) -> None:
    """Raise `ValueError` for values that the inputs must not have. Linked ones arrive as None and are passed over."""
    given = values_of(cls, {name: value for name, value in settings.items() if value is not None})
    try:
        check_settings(cls, given)
        if len(given) == len(settings_of(cls)):
            cls(**given)  # settings that do not go together
    except ValueError as error:  # in the words of the fields
        raise ValueError(str(error).replace(" or None", f" or {NOT_SET} (not set)")) from None


def _input(name: str, setting: Setting) -> io.Input:
    if setting.is_number:
        number = float if float in setting.types else int
        make = io.Float.Input if number is float else io.Int.Input
        return make(
            name,
            default=number(NOT_SET if setting.default is None else setting.default),
            min=number(NOT_SET if setting.takes(None) else WORD if has_word(setting) else setting.least),
            max=number(setting.most),
            step=setting.step if number is float else 1,
            tooltip=f"{setting.words} {WORD} is {setting.choices[0]}: {AUTO_WORDS}"
            if setting.choices
            else setting.words,
        )
    if setting.form:
        return io.String.Input(name, default=setting.default or "", tooltip=setting.words)
    if setting.choices:
        return io.Combo.Input(name, options=list(setting.choices), default=setting.default, tooltip=setting.words)
    return io.Boolean.Input(name, default=setting.default, tooltip=setting.words)
