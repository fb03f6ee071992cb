"""Measurements that outlive an interruption: each is handed on to be saved as soon as it is made."""

import json
from collections.abc import Callable
from typing import Any


class Journal:
    """Measurements by key. A run that finds its journal goes on where it stopped.

    Args:
        saved: what `save` was last given, in an earlier process; None starts afresh.
        save: takes the journal as JSON after every new measurement; None keeps it in memory.
    """

    def __init__(self, saved: dict[str, Any] | None = None, save: Callable[[dict[str, Any]], None] | None = None):
        self._saved = saved or {}
        self._save = save
        self.measurements: dict[str, Any] = self._saved.get("measurements", {})

    def begin(self, settings: dict[str, dict[str, Any]]) -> None:
        """Say what the measurements depend on, in named groups.

        Raises:
            ValueError: the saved ones were made with other settings.
        """
        settings = json.loads(json.dumps(settings))  # as they look when they come back from a file
        known = self._saved.get("settings", settings)
        if known != settings:
            names = [
                f"{group}.{name}"
                for group in settings
                for name, value in settings[group].items()
                if known.get(group, {}).get(name) != value
            ]
            raise ValueError(f"The unfinished run has other settings: {', '.join(names) or 'more of them'}.")
        self._saved = {"settings": settings, "measurements": self.measurements}

    def measure(self, key: str, measurement: Callable[..., Any], *arguments: Any) -> Any:
        """The value under `key`: from the journal, or else what `measurement(*arguments)` returns now (JSON types)."""
        if key not in self.measurements:
            self.measurements[key] = measurement(*arguments)
            if self._save is not None:
                self._save(self._saved)
        return self.measurements[key]

    def part(self, name: str) -> "Journal":
        """A journal within this one, with settings of its own, saved together with it."""

        def save(part: dict[str, Any]) -> None:
            self.measurements[name] = part
            if self._save is not None:
                self._save(self._saved)

        return Journal(self.measurements.get(name), save)
