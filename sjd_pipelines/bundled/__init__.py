"""The models that are part of the package, by name: `bundled/<name>/` holds the files of each."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BundledModel:
    """One entry of `BUNDLED`.

    Attributes:
        pipeline: name of the class that loads it.
        description: what it draws, as `sjd info --help` says it.
        base: the bundled model that it builds on: its folder holds an adapter, what it changes in the other's weights,
            and names the same base; None for a whole model.
    """

    pipeline: str
    description: str
    base: str | None = None


BUNDLED: dict[str, BundledModel] = {
    "emoji-janus": BundledModel("SJDJanusPipeline", "48 kinds of emoji, one to three of them, on ten backgrounds"),
    "emoji-flow": BundledModel(
        "TarFlowPipeline", "one of 48 kinds of emoji, by name, on a pastel ground, 32 x 32 pixels"
    ),
    "emoji-par": BundledModel(
        "SJDLlamaGenPipeline", "one of 48 kinds of emoji, by name, on ten backgrounds, several tokens at once (PAR)"
    ),
    "emoji-fast": BundledModel("SJDJanusPipeline", "what emoji-janus draws, in fewer passes", base="emoji-janus"),
}
DEFAULT = "emoji-janus"
ROOT = Path(__file__).parent


def bundled_folder(name: str = DEFAULT) -> Path:
    """The folder of the bundled model `name`."""
    return ROOT / name
