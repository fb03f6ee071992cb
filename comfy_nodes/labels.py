"""What the label of a decoder promises, in an artist's words."""

from sjd_pipelines import DecodingScheduler, FlowSolver

LABELS = {
    "exact": "Exact: the very picture that the model draws without guessing, for the same seed.",
    "lossless": "Lossless: pictures as good and as varied as drawing one token at a time gives, but another one for "
    "the same seed.",
    "approximate": "Approximate: pictures differ a little from what the model would draw on its own.",
}
# What makes a folder of a published file, below the pack's folder. A pack is not installed, so that there is no `sjd`.
CONVERT = "sjd_pipelines/cli convert FILE.pth FOLDER"
# Of words that the model does not know, in the place of the command that lists the others.
WORDS_LISTED = "; the tooltip of prompt lists what the emoji model knows."
# Of a seed.
SEED_WORDS = (
    "Picture 1 of a batch has this seed, the others have seeds made of it that no neighbouring seed makes; the report "
    "lists them, and with its seed a picture can be drawn again alone."
)
# Of a decoder that draws without chance.
GREEDY = (
    "Approximate: the picture of temperature 0, whatever is set; exact at temperature 0 alone, where one token at a "
    "time gives the very same."
)


def promise(scheduler: type[DecodingScheduler]) -> str:
    """What a decoder promises, whatever the sampler's settings."""
    return GREEDY if scheduler.greedy_label == "exact" else LABELS[scheduler.label]


# Of solvers, by whether they are exact with the settings they start with.
FLOW_LABELS = {
    True: "Exact as it starts: the picture that drawing one patch at a time gives for the same seed, but for "
    "rounding.",
    False: "Approximate: pictures differ from those drawn one patch at a time, by as much as its settings allow.",
}


def flow_promise(solver: type[FlowSolver]) -> str:
    """What a solver promises with its default settings."""
    return FLOW_LABELS[solver().label == "exact"]
