"""The caption cleaning that LlamaGen's text encoder was used with: that of DeepFloyd IF and PixArt, applied twice."""

from functools import cache
from importlib.util import find_spec

from diffusers import PixArtAlphaPipeline
from diffusers.utils import logging

logger = logging.get_logger(__name__)


def clean_caption(caption: str) -> str:
    """Lower case, without links, markup, CJK characters, file names and stray punctuation.

    Without the extra `captions` (beautifulsoup4 and ftfy) a caption is only lower-cased and stripped, which is the
    same for plain words.
    """
    if not _can_clean():
        return caption.lower().strip()
    # diffusers' cleaner calls nothing but itself on the object it belongs to.
    cleaner = PixArtAlphaPipeline.__new__(PixArtAlphaPipeline)
    return cleaner._text_preprocessing(caption, clean_caption=True)[0]


@cache
def _can_clean() -> bool:
    available = find_spec("bs4") is not None and find_spec("ftfy") is not None
    if not available:
        logger.warning("Captions are only lower-cased: install sjd-pipelines[captions] to clean them as in training.")
    return available
