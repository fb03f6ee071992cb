"""Consistency distillation (CEED-VLA, Song et al. 2025, arXiv 2506.13725): any model becomes one of fewer passes."""
