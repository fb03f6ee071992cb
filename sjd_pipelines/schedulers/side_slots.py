"""Tokens beside the window: several guesses for one position, whose keys and values live in slots after it."""

import torch

from ..decoding.query import Query


def beside(
    main: Query,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    visible: torch.Tensor,
    moves: tuple[torch.Tensor, torch.Tensor] | None,
) -> Query:
    """The query of a window with further tokens beside it.

    Args:
        main: the query of the window alone, which reads as far as the side slots.
        tokens: `[B, N]` int64.
        positions: `[B, N]` int64, where they stand.
        slots: `[B, N]` int64, where their keys and values are kept until their path is taken.
        visible: `[B, N, S]` bool, what each may attend to, with S that of the window.
        moves: as in `Query`.
    """
    return Query(
        token_ids=torch.cat([main.token_ids, tokens], 1),
        positions=torch.cat([main.positions, positions], 1),
        predicts=torch.cat([main.predicts, positions + 1], 1),
        visible=torch.cat([main.visible, visible], 1),
        slots=torch.cat([main.positions, slots], 1),
        moves=moves,
        prompt_end=main.prompt_end,
    )
