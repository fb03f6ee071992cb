"""What is lost of a prompt on its way into a model: words that its tokenizer does not know, and what is cut."""

import re
import string
import unicodedata
from difflib import get_close_matches

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase

MANY_WORDS = 2000  # a longer word list is neither searched nor told
CLOSENESS = 0.8  # of two spellings, as difflib measures it: "yelow" means "yellow", "lemons" does not mean "lions"
MOST_NAMED = 10  # words in one line
LONGEST = 40  # characters of a word or a quotation
LISTED = "; `sjd info` of it lists its words."  # ends a line about words of a model that can tell those it knows


def unknown_words(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """The words of a text, as they stand there, that become the tokenizer's unknown token or vanish.

    A tokenizer of whole words says which ones these are; one of parts of words says which sign it lacks, and the word
    around it is named. Punctuation does not count, emoji do.
    """
    spans = _tokens(tokenizer, text)
    seen = [(start, end) for token, start, end in spans if token == tokenizer.unk_token_id] + _dropped(text, spans)
    whole = _is_word_level(tokenizer)
    words = []
    for start, end in sorted(seen):
        while unicodedata.combining(text[end : end + 1] or " "):  # accents that stand behind their letter
            end += 1
        part = text[start:end].strip()
        if part != tokenizer.unk_token and _says_something(part):
            words.append(part if whole else _word_around(text, start + text[start:end].index(part), part))
    return list(dict.fromkeys(words))


def unknown_remarks(tokenizer: PreTrainedTokenizerBase, texts: list[str], typed: list[str] | None = None) -> list[str]:
    """One line that names the unknown words of all texts, or none.

    Args:
        tokenizer: of the model.
        texts: prompts as the tokenizer gets them.
        typed: the same as the user typed them, where they are cleaned before.
    """
    found: dict[str, None] = {}
    for text, original in zip(texts, texts if typed is None else typed):
        found |= dict.fromkeys(_as_typed(word, original) for word in unknown_words(tokenizer, text))
    if not found:
        return []
    known = word_list(tokenizer.backend_tokenizer) if tokenizer.is_fast else []
    near = {word: _nearest(word.lower(), known) for word in list(found)[:MOST_NAMED]}
    close = {word: f" (close: {spelling})" for word, spelling in near.items() if spelling}
    line = "This model does not know " + _listed(list(found), close)
    return [line + LISTED if known and not all(near.values()) else f"{line}."]


def cleaned_remarks(texts: list[str], cleaned: list[str]) -> list[str]:
    """One line that names the words that cleaning has taken out of the texts, or none."""
    found: dict[str, None] = {}
    for text, rest in zip(texts, cleaned):
        rest = unicodedata.normalize("NFKC", rest).casefold()
        words = re.findall(r"\w+|[^\w\s]+", text)
        lost = [word for word in words if unicodedata.normalize("NFKC", word).casefold() not in rest]
        found |= dict.fromkeys(word for word in lost if _says_something(word))
    return [f"This model's captions are cleaned of {_listed(list(found), {})}."] if found else []


def cut_remarks(tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int) -> list[str]:
    """A line for each text of which a model that reads `length` tokens leaves out the end."""
    lines, special = [], tokenizer.num_special_tokens_to_add()
    for text in texts:
        spans = _tokens(tokenizer, text)
        if len(spans) + special > length:
            rest = text[spans[length - special][1] :]
            lines.append(
                f"{_quoted(text)} takes {len(spans) + special} tokens and this model reads {length}; "
                f"cut off: {_quoted(rest)}."
            )
    return lines


def check_length(text: str, tokens: int, limit: int) -> None:
    """Raise `ValueError` for a text of more `tokens` than the model can read."""
    if tokens > limit:
        raise ValueError(
            f"{_quoted(text)} takes {tokens} tokens, with what this model puts around it, and {limit} are the "
            f"most it reads; shorten it by {tokens - limit}."
        )


def word_list(tokenizer: Tokenizer) -> list[str]:
    """The words of a vocabulary of whole words, sorted; empty for any other kind and for more than `MANY_WORDS`."""
    if not isinstance(tokenizer.model, WordLevel):
        return []
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    words = sorted(set(tokenizer.get_vocab()) - special)
    return words if len(words) <= MANY_WORDS else []


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int, int]]:
    """Id, start and end in the text of each token; a tokenizer that tells no places is asked word by word."""
    options = {"add_special_tokens": False, "verbose": False}  # else a long text is a line in the log already
    if tokenizer.is_fast:
        encoded = tokenizer(text, return_offsets_mapping=True, **options)
        return [(token, *span) for token, span in zip(encoded["input_ids"], encoded["offset_mapping"])]
    words = re.finditer(r"\S+", text)
    return [(token, *word.span()) for word in words for token in tokenizer(word[0], **options)["input_ids"]]


def _dropped(text: str, spans: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Where there are emoji that no token stands for."""
    rest = list(text)
    for _, start, end in spans:
        rest[start:end] = " " * (end - start)
    runs = re.finditer(r"\S+", "".join(rest))
    return [run.span() for run in runs if any(map(_is_picture, run[0]))]


def _word_around(text: str, start: int, part: str) -> str:
    """The word in which a sign stands; the sign alone where no spaces part the words."""
    word = re.search(r"\S*$", text[:start])[0] + re.match(r"\S*", text[start:])[0]
    word = word.strip(string.punctuation)
    return word if len(word) <= LONGEST else part


def _as_typed(word: str, original: str) -> str:
    found = re.search(re.escape(word), original, re.IGNORECASE)
    return found[0] if found else word


def _is_word_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer.is_fast and isinstance(tokenizer.backend_tokenizer.model, WordLevel)


def _says_something(text: str) -> bool:
    return any(sign.isalnum() or _is_picture(sign) for sign in text)


def _is_picture(sign: str) -> bool:
    return unicodedata.category(sign) == "So"


def _listed(words: list[str], notes: dict[str, str]) -> str:
    named = ", ".join(_quoted(word) + notes.get(word, "") for word in words[:MOST_NAMED])
    return named if len(words) <= MOST_NAMED else f"{named} and {len(words) - MOST_NAMED} more"


def _nearest(word: str, known: list[str]) -> str | None:
    """The known word that a word is a misspelling of; None if it is none."""
    slips = [other for other in known if len(word) > 2 and _is_one_slip(word, other)]
    return next(iter(slips or get_close_matches(word, known, 1, CLOSENESS)), None)


def _is_one_slip(word: str, other: str) -> bool:
    """Whether two words differ by two neighbouring letters in the wrong order, as "dgo" and "dog" do."""
    differ = [place for place, (one, two) in enumerate(zip(word, other)) if one != two]
    if len(word) != len(other) or len(differ) != 2 or differ[1] != differ[0] + 1:
        return False
    first, second = differ
    return word[first] == other[second] and word[second] == other[first]


def _quoted(text: str) -> str:
    text = " ".join(text.split())
    return f"'{text}'" if len(text) <= LONGEST else f"'{text[:LONGEST].rstrip()} …'"
