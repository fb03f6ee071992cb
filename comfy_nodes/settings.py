"""Settings of schedulers and solvers as inputs of nodes."""

from comfy_api.latest import io

from sjd_pipelines.declaration import Setting, settings_of
from sjd_pipelines.pipelines.graphs import NOT_SET


def inputs_of(cls: type) -> list[io.Input]:
    """The inputs of a scheduler or solver class, one per setting."""
    return [_input(name, setting) for name, setting in settings_of(cls).items()]


def _input(name: str, setting: Setting) -> io.Input:
    if setting.is_number:
        number = float if float in setting.types else int
        make = io.Float.Input if number is float else io.Int.Input
        return make(
            name,
            default=number(NOT_SET if setting.default is None else setting.default),
            min=number(NOT_SET if setting.takes(None) else setting.least),
            max=number(setting.most),
            step=setting.step if number is float else 1,
            tooltip=setting.words,
        )
    if setting.form:
        return io.String.Input(name, default=setting.default or "", tooltip=setting.words)
    if setting.choices:
        return io.Combo.Input(name, options=list(setting.choices), default=setting.default, tooltip=setting.words)
    return io.Boolean.Input(name, default=setting.default, tooltip=setting.words)
