"""What the label of a decoder promises, in an artist's words."""

from sjd_pipelines import DecodingScheduler

LABELS = {
    "exact": "Exact: the very picture that drawing one token at a time gives for the same seed.",
    "lossless": "Lossless: pictures as good and as varied as drawing one token at a time gives, but another one for "
    "the same seed.",
    "approximate": "Approximate: pictures differ a little from what the model would draw on its own.",
}


def promise(scheduler: type[DecodingScheduler]) -> str:
    """What a decoder promises, whatever the sampler's settings."""
    if scheduler.greedy_label is None:
        return LABELS[scheduler.label]
    return (
        f"At temperature 0 {_begin_small(LABELS[scheduler.greedy_label])} Else {_begin_small(LABELS[scheduler.label])}"
    )


def _begin_small(text: str) -> str:
    return text[0].lower() + text[1:]
