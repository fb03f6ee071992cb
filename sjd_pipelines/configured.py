"""What schedulers and solvers have in common: settings that are checked, and swapped the diffusers way."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

from diffusers import ConfigMixin, SchedulerMixin

from .declaration import check_settings, settings_of
from .exports import Registry
from .ranges import near, shown


class Configured(SchedulerMixin, ConfigMixin, ABC):
    """A class with declared settings and no weights, of which a registry has all by name.

    Attributes:
        registry: the classes of its kind.
    """

    order = 1
    registry: ClassVar[Registry]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        # What model_index.json will name: the package, because files move.
        package = __name__.partition(".")[0]
        if cls.__module__.startswith(f"{package}."):
            cls.__module__ = package

    @classmethod
    def _get_compatibles(cls) -> list[type]:
        # diffusers looks compatible classes up in its own module only; ours share every setting they have in common.
        return list(cls.registry.values())

    @classmethod
    def from_config(cls, config: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any):
        """An object of this class with the settings of another one, as far as it has them.

        Args:
            config: `scheduler.config` of any scheduler of this kind, or settings by name.
            return_unused_kwargs: return a tuple of the object and what of `kwargs` it has no use for.
            **kwargs: settings in the place of those in `config`.

        Raises:
            ValueError: a setting is unknown, or out of its range.
        """
        if not isinstance(config, Mapping):
            raise ValueError(
                f"config must be the config of a scheduler or a dict of settings, got {shown(config)}; a folder is "
                "loaded by from_pretrained."
            )
        own = _parameters(cls)
        if not return_unused_kwargs:
            cls._check_names(kwargs, own)
        if any(name not in own for name in config):  # settings of another class of this kind, kept for swapping back
            cls._check_names(config, {name for other in (cls, *cls.registry.values()) for name in _parameters(other)})
        return super().from_config(dict(config), return_unused_kwargs, **kwargs)

    @classmethod
    def _check_names(cls, names: Iterable[Any], known: Collection[str]) -> None:
        for name in names:
            if name not in known and not str(name).startswith("_"):
                raise ValueError(f"{cls.__name__} has no setting {shown(name)}{near(name, settings_of(cls))}.")

    def register_to_config(self, **settings: Any) -> None:
        """Keep settings in the config, numbers as Python's own; the constructor begins with it.

        Raises:
            ValueError: one is out of its range.
        """
        super().register_to_config(**check_settings(type(self), settings))

    @classmethod
    def made_of(cls, value: Any) -> Any:
        """What a user gave as such an object: by its name in the registry it has its defaults; anything else stays.

        Raises:
            ValueError: there is no such name, or it is a class.
        """
        if isinstance(value, str):
            if value not in cls.registry:
                raise ValueError(
                    f"there is no scheduler {shown(value)}{near(cls.registry.named(value), cls.registry)}."
                )
            return cls.registry[value]()
        if isinstance(value, type) and issubclass(value, cls):
            raise ValueError(f"scheduler must be an object, got a class; pass {value.__name__}().")
        return value

    @classmethod
    def place_of_setting(cls, name: Any, chosen: type[Configured] | None = None) -> str:
        """How a message goes on about an option that is a setting of these classes; empty if it is of none.

        Args:
            name: of the option.
            chosen: the class in use; None where there is none yet.
        """
        having = {key: one for key, one in cls.registry.items() if name in settings_of(one)}
        if not having:
            return ""
        if chosen in having.values():
            made = f"{chosen.__name__}({name}=...)"
            return f"; it is a setting of the scheduler: pass scheduler={made}, or set pipe.scheduler = {made}"
        return f"; it is a setting of the schedulers {', '.join(sorted(having))}: pass scheduler=, one of them with it"


def _parameters(cls: type) -> Collection[str]:
    """What its constructor takes: settings, and records such as what calibration measured, which nobody sets."""
    return inspect.signature(cls).parameters.keys()
