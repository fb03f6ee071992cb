"""Passes of a picture have a handful of shapes, so that they can be compiled or captured."""

import pytest
import torch

from sjd_pipelines import AutoregressiveScheduler, RowParallelScheduler, SeededJacobiScheduler
from sjd_pipelines.companions import COMPANIONS
from sjd_pipelines.decoding import ImageTokenLayout, PositionNoise, decode
from sjd_pipelines.schedulers import SCHEDULERS
from sjd_pipelines.schedulers.adaptive_window import WINDOWS

CODES = 8
BUNDLED, JANUS = (ImageTokenLayout(side, side, CODES) for side in (16, 24))
EMU3 = ImageTokenLayout(90, 90, CODES, structural_tokens=1, row_end=CODES)  # 8,190 tokens
# At that size: a window, trees, a draft model's tree, drafts that companions correct, and rows; the others have the
# shapes of one of these.
LARGE = ("seeded-jacobi", "sjd-pac", "revised-jacobi", "zipar", "pjd")
LARGE_AND_SLOW = ("eagle", "corrected-jacobi")


def queries(table_target, scheduler, layout, batch_size=1):
    """What the passes of some pictures ask of a model whose laws come from a table."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(CODES, layout.vocabulary_size, generator=generator).mul(2)
    table[:, CODES:] = -torch.inf
    fed = layout.vocabulary_size + layout.parallel - 1
    rows = table[torch.arange(fed) % CODES]
    target = table_target(rows.softmax(-1), layout, batch_size)
    size = layout.vocabulary_size
    companions = {
        name: COMPANIONS[name].stand_in(lambda *places: torch.full((*places, size), 1 / size))
        for name in scheduler.companions
    }
    noise = PositionNoise(list(range(batch_size)), num_positions=layout.num_tokens + scheduler.margin(layout))
    decode(target, scheduler, noise, companions)
    return target.queries


@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, layout) for layout in (BUNDLED, JANUS) for name in SCHEDULERS if not SCHEDULERS[name].parallel]
    + [(name, EMU3) for name in LARGE]
    + [pytest.param(name, EMU3, marks=pytest.mark.slow) for name in LARGE_AND_SLOW]
    + [("par", ImageTokenLayout.in_regions(24, 24, CODES, parallel)) for parallel in (4, 16)],
    ids=lambda value: value if isinstance(value, str) else f"{value.num_tokens}-tokens-{value.parallel}",
)
def test_a_picture_has_few_shapes(table_target, name, layout):
    scheduler = SCHEDULERS[name]()
    shapes = {query.visible.shape[1:] for query in queries(table_target, scheduler, layout)}
    if isinstance(scheduler, RowParallelScheduler):
        assert len(shapes) <= 16
        return
    assert len(shapes) <= 8
    slots = {slots for slots, _ in shapes}
    assert len(slots - {1}) == (name != "autoregressive")  # a draft model has nothing to go by in the first pass


@pytest.mark.parametrize("settings", [{"delay": 1}, {"delay": 3}, {"delay": 8}, {"delay": 24}], ids=str)
@pytest.mark.parametrize("name", ["zipar", "pjd"])
def test_rows_have_few_shapes_however_many_are_open(table_target, name, settings):
    for layout in (BUNDLED, JANUS):
        asked = queries(table_target, SCHEDULERS[name](**settings), layout)
        assert len({query.visible.shape[1:] for query in asked}) <= 16


@pytest.mark.parametrize("window", [5, 64, 1000])
def test_a_window_is_the_same_to_the_end_in_a_batch_too(table_target, window):
    asked = queries(table_target, SeededJacobiScheduler(window=window), BUNDLED, batch_size=3)
    assert {query.token_ids.shape for query in asked} == {(3, 1 + min(window, 256))}


def test_changing_windows_have_the_shapes_of_those_on_the_menu(table_target):
    asked = queries(table_target, SeededJacobiScheduler(window="auto"), BUNDLED)
    shapes = {query.visible.shape[1:] for query in asked}
    assert {slots - 1 for slots, _ in shapes} <= set(WINDOWS)
    assert len({slots for slots, _ in shapes}) > 1
    assert len({extent for _, extent in shapes}) <= 7


def test_a_pass_reads_little_more_than_it_needs(table_target):
    asked = queries(table_target, AutoregressiveScheduler(), BUNDLED)
    spare = [query.visible.shape[-1] - number for number, query in enumerate(asked)]
    assert min(spare) >= 0
    assert max(spare) <= 40
