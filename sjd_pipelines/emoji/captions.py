"""Captions for scenes, their word list, and the tokenizer and chat template built from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from .glyphs import OBJECTS
from .scenes import BACKGROUNDS, Scene

PAD, BOS, EOS, UNK, USER, ASSISTANT, BOI, EOI, IMAGE = range(9)
SPECIAL_TOKENS = (
    "<pad>", "<bos>", "<eos>", "<unk>", "<|user|>", "<|assistant|>",
    "<begin_of_image>", "<end_of_image>", "<image_placeholder>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|user|> ' if message['role'] == 'user' else '<|assistant|> ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{{ part['text'] if part['type'] == 'text' else '<image_placeholder>' }}"
    "{% endfor %}{% endif %}"
    "{{ ' ' if message['role'] == 'user' else '<eos>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

COUNT_WORDS = {1: ("one", "1"), 2: ("two", "2", "a pair of"), 3: ("three", "3")}
RELATION_PHRASES = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}
SYNONYMS = {
    "dog": "puppy", "cat": "kitten", "rabbit": "bunny", "airplane": "plane", "burger": "hamburger",
    "donut": "doughnut", "ball": "football", "flower": "sunflower", "tree": "pine",
}  # fmt: skip
ADJECTIVES = {  # what colour the glyph itself has
    "apple": "red", "banana": "yellow", "strawberry": "red", "grapes": "purple", "frog": "green", "pig": "pink",
    "bear": "brown", "fox": "orange", "crab": "red", "turtle": "green", "elephant": "gray", "fish": "blue",
    "cat": "yellow", "tree": "green", "cactus": "green", "car": "red", "key": "golden", "heart": "red",
    "star": "yellow", "robot": "gray", "crown": "golden", "pumpkin": "orange", "umbrella": "purple",
    "guitar": "red", "mushroom": "red", "donut": "brown", "rabbit": "gray", "chicken": "white", "owl": "brown",
    "snowman": "white", "bus": "blue", "clock": "red",
}  # fmt: skip
_PLURALS = {
    "fish": "fish", "butterfly": "butterflies", "strawberry": "strawberries", "grapes": "grapes", "fox": "foxes",
    "bus": "buses", "cactus": "cacti", "octopus": "octopuses", "puppy": "puppies", "bunny": "bunnies",
}  # fmt: skip
_GENERIC = ("cute", "small", "big", "little", "nice", "happy", "beautiful", "single", "colorful")
_OPENINGS = ("a picture of", "a drawing of", "an image of", "a photo of", "an emoji of", "draw", "show me", "there is")
_GREY = {"gray": "grey"}


def plural(noun: str) -> str:
    """English plural of an object's word."""
    return _PLURALS.get(noun, noun + "s")


def _noun_phrase(name: str, count: int, rng: np.random.Generator) -> str:
    noun = SYNONYMS[name] if name in SYNONYMS and rng.random() < 0.08 else name
    adjective = ""
    if name in ADJECTIVES and rng.random() < 0.15:
        adjective = ADJECTIVES[name] + " "
    elif rng.random() < 0.06:
        adjective = _GENERIC[rng.integers(len(_GENERIC))] + " "
    if count > 1:
        words = COUNT_WORDS[count]
        number = words[min(int(rng.integers(4)), len(words) - 1)] if rng.random() < 0.5 else words[0]
        return f"{number} {adjective}{plural(noun)}"
    draw = rng.random()
    article = "an" if (adjective or noun)[0] in "aeiou" else "a"
    number = COUNT_WORDS[1][rng.integers(2)] if draw < 0.12 else "the" if draw < 0.16 else article
    return f"{adjective}{noun}" if draw > 0.94 else f"{number} {adjective}{noun}"


def caption(scene: Scene, rng: np.random.Generator, plain: bool = False) -> str:
    """Describe a scene in words.

    Args:
        plain: the main phrasing only ("two dogs on a red background"), without variants or unknown words.
    """
    colour, count = scene.background, len(scene.objects)
    if plain:
        return _plain(scene)
    if scene.relation is not None:
        phrases = RELATION_PHRASES[scene.relation]
        phrase = phrases[0] if rng.random() < 0.5 else phrases[rng.integers(len(phrases))]
        subject = f"{_noun_phrase(scene.objects[0], 1, rng)} {phrase} {_noun_phrase(scene.objects[1], 1, rng)}"
    else:
        subject = _noun_phrase(scene.objects[0], count, rng)
    if colour in _GREY and rng.random() < 0.25:
        colour = _GREY[colour]
    draw = rng.random()
    if draw < 0.80:
        article = "an" if colour[0] in "aeiou" else "a"
        text = f"{subject} on {article} {colour} background"
    elif draw < 0.86:
        text = f"{subject} on {colour}"
    elif draw < 0.91:
        text = f"{subject} {colour} background"
    elif draw < 0.95:
        text = f"{subject} with a {colour} background"
    else:
        text = subject
    if rng.random() < 0.15:
        text = f"{_OPENINGS[rng.integers(len(_OPENINGS))]} {text}"
    if rng.random() < 0.05:  # words the list lacks must not break the picture
        words = text.split()
        for _ in range(int(rng.integers(1, 3))):
            words.insert(int(rng.integers(len(words) + 1)), SPECIAL_TOKENS[UNK])
        text = " ".join(words)
    return text


def _plain(scene: Scene) -> str:
    def one(name: str) -> str:
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"

    name, count = scene.objects[0], len(scene.objects)
    if scene.relation is not None:
        subject = f"{one(name)} {RELATION_PHRASES[scene.relation][0]} {one(scene.objects[1])}"
    else:
        subject = one(name) if count == 1 else f"{COUNT_WORDS[count][0]} {plural(name)}"
    return f"{subject} on {one(scene.background)} background"


def word_list() -> list[str]:
    """Every word a caption can hold, sorted."""
    phrases = [
        *OBJECTS,
        *SYNONYMS.values(),
        *BACKGROUNDS,
        *_GREY.values(),
        *ADJECTIVES.values(),
        *_GENERIC,
        *_OPENINGS,
    ]
    phrases += [plural(noun) for noun in (*OBJECTS, *SYNONYMS.values())]
    phrases += [phrase for group in (*COUNT_WORDS.values(), *RELATION_PHRASES.values()) for phrase in group]
    phrases += ["a", "an", "the", "on", "with", "background", "in", "and", "of", "to", "is", "are", "there"]
    return sorted({word for phrase in phrases for word in phrase.split()})


def words_by_kind() -> dict[str, list[str]]:
    """What a caption can ask for: objects, backgrounds, counts and relations, other words for them in brackets."""
    phrases = [f"{words[0]} ({', '.join(words[1:])})" for words in (*COUNT_WORDS.values(), *RELATION_PHRASES.values())]
    return {
        "objects": [f"{name} ({SYNONYMS[name]})" if name in SYNONYMS else name for name in OBJECTS],
        "backgrounds": [f"{name} ({_GREY[name]})" if name in _GREY else name for name in BACKGROUNDS],
        "counts": phrases[: len(COUNT_WORDS)],
        "relations": phrases[len(COUNT_WORDS) :],
    }


VOCABULARY: dict[str, int] = {word: index for index, word in enumerate([*SPECIAL_TOKENS, *word_list()])}


def encode_caption(text: str) -> list[int]:
    """Prompt ids of a caption in the chat template: BOS, user, words, assistant, BOI.

    Equals what `JanusProcessor` makes of the templated caption; training uses this direct way because it is faster.
    """
    return [BOS, USER, *(VOCABULARY.get(word, UNK) for word in text.split()), ASSISTANT, BOI]


def second_noun(scene: Scene, prompt: Sequence[int]) -> int:
    """Where in the prompt of a relation's caption the noun of the second object is, by whatever word it is called.

    Raises:
        ValueError: the prompt does not name it.
    """
    name = scene.objects[1]
    words = {name, SYNONYMS.get(name, name)}
    ids = {VOCABULARY[form] for word in words for form in (word, plural(word))}
    for index, token in enumerate(prompt):
        if token in ids:
            return index
    raise ValueError(f"The prompt does not name {name!r}.")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The word-level tokenizer `JanusProcessor` needs: lowercase, punctuation dropped, unknown words to `<unk>`."""
    backend = Tokenizer(models.WordLevel(VOCABULARY, unk_token=SPECIAL_TOKENS[UNK]))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\s]"), " ")]
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL_TOKENS[BOS]} $A",
        pair=f"{SPECIAL_TOKENS[BOS]} $A $B",
        special_tokens=[(SPECIAL_TOKENS[BOS], BOS)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=SPECIAL_TOKENS[PAD],
        bos_token=SPECIAL_TOKENS[BOS],
        eos_token=SPECIAL_TOKENS[EOS],
        unk_token=SPECIAL_TOKENS[UNK],
        extra_special_tokens={
            "user_token": SPECIAL_TOKENS[USER],
            "assistant_token": SPECIAL_TOKENS[ASSISTANT],
            "boi_token": SPECIAL_TOKENS[BOI],
            "eoi_token": SPECIAL_TOKENS[EOI],
            "image_token": SPECIAL_TOKENS[IMAGE],
        },
        padding_side="left",
        model_max_length=64,
        chat_template=CHAT_TEMPLATE,
    )
