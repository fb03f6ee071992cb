"""What the label of a decoder promises, in an artist's words."""

LABELS = {
    "exact": "Exact: the very picture that drawing one token at a time gives for the same seed.",
    "lossless": "Lossless: pictures as good and as varied as drawing one token at a time gives, but another one for "
    "the same seed.",
    "approximate": "Approximate: pictures differ a little from what the model would draw on its own.",
}
