"""Text of the bundled checkpoint's model card, filled with the numbers that were measured."""

from __future__ import annotations

from ..emoji.captions import VOCABULARY
from ..emoji.codes import BACKGROUND_CODES, CODEBOOK
from ..emoji.glyphs import OBJECTS
from ..emoji.scenes import BACKGROUNDS

_CARD = """---
license: other
license_name: see-licence-section
pipeline_tag: text-to-image
library_name: transformers
tags: [janus, autoregressive, tiny]
---

# Emoji Janus

A Janus-Pro in miniature: the unmodified transformers classes `JanusForConditionalGeneration` and `JanusProcessor`, the
same files and the same way of generating, with {parameters:.1f} million parameters. It draws emoji on coloured
backgrounds, 128 x 128 pixels from 256 image tokens, and exists so that every decoder of this package can be tried,
tested and measured on a CPU in seconds, on a model whose pictures can be judged right or wrong.

## What it draws

- **Objects** ({object_count}): {objects}.
- **Backgrounds** ({background_count}): {backgrounds}.
- **Counts** one to three: "two dogs on a red background", "3 cats".
- **Relations** of two objects: "an apple left of a car on a blue background", right of, above, below (and variants
  such as "to the left of", "under").

Natural phrasings work ("a picture of a cute cat on a blue background"); words outside the list of {words} become
`<unk>` and are ignored as far as possible.

## What it cannot do

Anything else. It knows no other object, no colour of an object other than the one the emoji has, no count above three,
no scene of two different objects without a relation, no style. {encoder}

## Use

```python
from sjd_pipelines import SJDAutoRegressivePipeline

pipe = SJDAutoRegressivePipeline.from_pretrained()
pipe("two apples on a blue background").images[0].save("apples.png")
```

Default sampling (`generation_config.json`): {sampling}.

## How it was made

`python -m sjd_pipelines.training all` makes it from nothing but the glyph sheet.

- **Pictures** are drawn while training: glyphs on the token grid (10 x 10 cells alone, 7 x 7 in company) over a
  background with soft random shading. No picture is stored or downloaded.
- **Tokens** come from k-means over 8 x 8 glyph patches, {glyph_codes} codes, plus {background_codes} background codes
  (colour x brightness). A cell's token depends on its own patch only, so an object has the same tokens wherever it
  stands. The codebook vectors and the Janus pixel decoder were then trained to turn tokens into pixels (L1, L2 and
  edge differences).
- **Transformer**: a six-layer Llama of width 256, trained along the model's own image generation path (10 % of the
  captions dropped in the layout Janus uses for guidance), Muon and AdamW, bf16 autocast, averaged weights. In training
  only, inner states also had to say where the second of two nouns stands, and how many objects have begun and are to
  come. `sjd_pipelines/training/phases.py` declares the course.
- **Draft model** (`drafter/`, with a card of its own): one layer that guesses the transformer's next hidden state,
  trained on rendered scenes and on pictures that the model drew itself.
- **Draft reviser** (`reviser/`, likewise): a gated layer that says how the transformer's logits change with the
  tokens around them, trained on passes over the model's own drafts.
- **Held out**: a tenth of all (object, background) pairs and of all (object, object, relation) triples, chosen by
  hash, never occurred in training. All scores below are on these.

## Measured

{measured}

The judge (`sjd_pipelines/emoji/judge.py`) matches glyph templates on pixels and knows nothing of the model.

## Licence

The weights and the pictures they draw derive from the glyphs of Noto Color Emoji, whose font is licensed under the SIL
Open Font License 1.1 (Copyright Google Inc.). The code is licensed as the package is.
"""


def model_card(results: dict, parameters: int, sampling: dict) -> str:
    """Fill the card; `results` may be empty, then no figure is claimed."""
    lines = []
    training = results.get("training", {})
    if training:
        lines.append(
            f"Transformer: {training['images']:,} pictures in {training['steps']:,} steps, "
            f"{training['seconds'] / 60:.0f} minutes on {training.get('machine', 'two CPU threads')}."
        )
    rows = results.get("scores", {})
    if rows:
        columns = ("n", "object", "count", "background", "relation", "all")
        lines += ["", "| pictures | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for name, row in rows.items():
            cells = ["-" if c not in row else str(row[c]) if c == "n" else f"{100 * row[c]:.1f} %" for c in columns]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    encoder = results.get("encoder_accuracy")
    encoder_text = (
        f"The encoder recovers {100 * encoder:.0f} % of the tokens of such pictures."
        if encoder is not None
        else "The encoder (pixels to tokens) and the vision tower are untrained."
    )
    if encoder is not None:
        encoder_text += " The vision tower (image understanding) is untrained."
    return _CARD.format(
        parameters=parameters / 1e6,
        object_count=len(OBJECTS),
        objects=", ".join(OBJECTS),
        background_count=len(BACKGROUNDS),
        backgrounds=", ".join(BACKGROUNDS),
        words=len(VOCABULARY),
        encoder=encoder_text,
        sampling=", ".join(f"{name} {value}" for name, value in sampling.items() if name != "do_sample"),
        glyph_codes=f"{CODEBOOK - BACKGROUND_CODES:,}",
        background_codes=BACKGROUND_CODES,
        measured="\n".join(lines) or "Nothing yet.",
    )
