"""The companions by name, a line each. A class is imported when it is asked for, so names are known without torch."""

from ..exports import Registry, exports_of

# Name of the pipeline's component and of what a scheduler asks for -> module of this package and class of the network.
_PLACES = {
    "drafter": "drafter.EagleDrafter",
    "reviser": "reviser.DraftReviser",
}
EXPORTS = exports_of(_PLACES.values())  # module -> what the package exports of it
COMPANIONS = Registry(__package__, _PLACES)
