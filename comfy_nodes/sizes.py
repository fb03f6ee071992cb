"""Picture sizes by shape: a model draws some sizes only, and which ones differs from model to model."""

from sjd_pipelines import ImageTokenLayout, SJDAutoRegressivePipeline
from sjd_pipelines.pipelines.graphs import BY_NUMBERS, OWN_SIZE

# Shape -> width over height that it is nearest to.
SHAPES = {"square": 1.0, "landscape": 1.5, "portrait": 1 / 1.5, "wide": 2.0, "tall": 0.5}
CHOICES = (BY_NUMBERS, OWN_SIZE, *SHAPES)


def layout_of(pipe: SJDAutoRegressivePipeline, choice: str, height: int, width: int) -> ImageTokenLayout:
    """The token grid of a picture: by its numbers, where 0 is the model's own, or by its shape.

    Raises:
        ValueError: the model draws no such picture.
    """
    if choice == BY_NUMBERS:
        return pipe.image_layout(height or None, width or None)
    if choice == OWN_SIZE:
        return pipe.image_layout(None, None)
    sizes = [size for size in pipe.image_sizes() if _has_shape(choice, *size)]
    if not sizes:
        drawn = ", ".join(f"{wide} x {high}" for high, wide in pipe.image_sizes())
        raise ValueError(f"This model draws no {choice} picture; it draws {drawn}. Set size to {OWN_SIZE}.")
    ratio = SHAPES[choice]
    return pipe.image_layout(*min(sizes, key=lambda size: abs(size[1] / size[0] - ratio)))


def _has_shape(choice: str, height: int, width: int) -> bool:
    if choice == "square":
        return height == width
    return width > height if choice in ("landscape", "wide") else height > width
