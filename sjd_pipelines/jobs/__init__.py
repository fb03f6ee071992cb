"""Many pictures: a table of prompts, batches, what a picture remembers of how it was drawn, jobs that resume.

Nothing here imports torch before something is drawn.
"""

from ..exports import lazy

SOURCES = {".again": ("draw_again",)}

__all__, __getattr__, __dir__ = lazy(__name__, SOURCES)
