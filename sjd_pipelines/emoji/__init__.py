"""The world of the bundled models: emoji on coloured backgrounds, with captions, tokens, and a judge of pictures."""
