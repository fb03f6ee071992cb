"""The text side of a pipeline: what its model can read of a prompt, and what is said where that is not all of it."""

from abc import abstractmethod
from threading import RLock

from transformers import PreTrainedTokenizerBase

from ..decoding import ImageTokenLayout
from .inputs import check_text_only
from .words import check_length, unknown_remarks

# Tokenizers keep padding and truncation of a call in themselves, so that two threads must not use one at a time; and
# nobody knows whether two pipelines share theirs.
TOKENIZING = RLock()


class TextSide:
    """The part of a family that meets prompts as text. A family with one tokenizer defines `text_tokenizer` and
    `prompt_length`; one that reads prompts in another way, `check_prompts` and `prompt_remarks`.
    """

    def prepare_prompts(self, prompt: str | list[str]) -> list[str]:
        """One text per row of the batch. Raises `ValueError` where a text asks for a picture to be read."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt) if isinstance(prompt, tuple) else prompt
        check_text_only(prompts, self.image_placeholder)
        return prompts

    def check_prompts(self, prompts: list[str], negatives: list[str] | None, layout: ImageTokenLayout) -> None:
        """Raise `ValueError` for a text that is too long for this model to read it and draw a picture."""
        limit = self.text_tokenizer.model_max_length
        room = self.model.config.get_text_config().max_position_embeddings - layout.num_tokens
        if room > 0:  # else the model draws beyond the context that it states
            limit = min(limit, room)
        for text in prompts:
            check_length(text, self.prompt_length(text, layout), limit)
        for text in negatives or ():
            check_length(text, self.prompt_length(text, layout, negative=True), limit)

    def prompt_remarks(self, texts: list[str]) -> list[str]:
        """What is lost of some prompts, in words, a line each; a call logs the same. Empty if nothing is."""
        return unknown_remarks(self.text_tokenizer, texts)

    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their indices, of a model whose prompts are classes with names."""
        return []

    @property
    def class_count(self) -> int:
        """How many classes a model has whose prompts are classes; 0 of one that reads text."""
        return 0

    @property
    def text_tokenizer(self) -> PreTrainedTokenizerBase:
        """What reads the words of a prompt."""
        return self.tokenizer

    @abstractmethod
    def prompt_length(self, text: str, layout: ImageTokenLayout, negative: bool = False) -> int:
        """Tokens of a prompt with all that the family puts around it."""

    @property
    def image_placeholder(self) -> str | None:
        """What stands for a picture in a prompt of this family's understanding mode, which is out of scope."""
        return None
