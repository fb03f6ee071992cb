"""Fidelity by scheduler on a random model with the grid and codebook of the bundled one."""

import pytest

from sjd_pipelines.benchmark.contenders import RELAXED_FAMILIES, Contender, at_defaults
from sjd_pipelines.benchmark.journal import Journal
from sjd_pipelines.benchmark.prompt_fidelity import can_be_judged, measure_fidelity
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.emoji.codes import CODEBOOK
from sjd_pipelines.emoji.scenes import KINDS
from sjd_pipelines.schedulers import SCHEDULERS, SeededJacobiScheduler


@pytest.fixture(scope="module")
def random_painter():
    pipe = toy_pipeline(side=16, codebook_size=CODEBOOK, layers=1)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_every_kind_is_judged_and_passes_are_counted(random_painter, pipe):
    assert can_be_judged(random_painter)
    assert not can_be_judged(pipe)
    contenders = [Contender("seeded-jacobi", SeededJacobiScheduler(window=64))]
    journal, calls = Journal(), []
    (result,) = measure_fidelity(
        random_painter, contenders, 2, journal, batch_size=2, progress=lambda *counts: calls.append(counts)
    )
    assert calls == [(done, 3) for done in range(1, 4)]
    assert {kind: scores["n"] for kind, scores in result["scores"].items()} == {**dict.fromkeys(KINDS, 2), "all": 6}
    assert result["scores"]["all"]["all"] == 0  # noise shows nothing
    by_kind = dict(result["passes_by_kind"])
    assert by_kind.pop("all") == result["passes"] == pytest.approx(sum(by_kind[kind] for kind in KINDS) / 3)
    assert len(set(by_kind.values())) > 1
    committed = result["committed"]
    assert sum(committed) == pytest.approx(6 * result["passes"])
    assert sum(tokens * passes for tokens, passes in enumerate(committed)) == 6 * 256
    again = measure_fidelity(random_painter, contenders, 2, journal, batch_size=2)
    assert again == [result]
    assert len(journal.measurements) == 3


def test_a_missing_draft_model_is_named(pipe):
    eagle = Contender("eagle", SCHEDULERS["eagle"]())
    assert eagle.missing(pipe) is None
    drafter = pipe.drafter
    pipe.register_modules(drafter=None)
    try:
        assert eagle.missing(pipe) == "needs a drafter and this model has none"
    finally:
        pipe.register_modules(drafter=drafter)


def test_contenders_are_told_apart_and_stand_once():
    assert [contender.name for contender in at_defaults(["sjd", "gsd", "sjd"])] == ["sjd", "gsd"]
    keys = [family.at(value, columns=16).key for family in RELAXED_FAMILIES for value in family.values]
    assert len(set(keys)) == len(keys)
    by_row = [family for family in RELAXED_FAMILIES if family.by_row]
    assert [family.name for family in by_row] == ["zipar", "pjd"]
    assert [family.at(0.5, columns=3, window=2).settings["delay"] for family in by_row] == [2, 2]
