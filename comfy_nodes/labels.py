"""What the label of a decoder promises, in an artist's words."""

from sjd_pipelines import DecodingScheduler

LABELS = {
    "exact": "Exact: the very picture that drawing one token at a time gives for the same seed.",
    "lossless": "Lossless: pictures as good and as varied as drawing one token at a time gives, but another one for "
    "the same seed.",
    "approximate": "Approximate: pictures differ a little from what the model would draw on its own.",
}
# Of a decoder that draws without chance.
GREEDY = (
    "Approximate: the picture of temperature 0, whatever is set; exact at temperature 0 alone, where one token at a "
    "time gives the very same."
)


def promise(scheduler: type[DecodingScheduler]) -> str:
    """What a decoder promises, whatever the sampler's settings."""
    return GREEDY if scheduler.greedy_label == "exact" else LABELS[scheduler.label]
