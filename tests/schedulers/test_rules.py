"""Every acceptance rule in every topology: neutral it is the plain rule bit for bit, relaxed it saves passes."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from sjd_pipelines import (
    CoupledSJDScheduler,
    EagleScheduler,
    ParallelJacobiScheduler,
    SJDPACScheduler,
    SJDScheduler,
    ZipARScheduler,
)
from sjd_pipelines.schedulers import rules
from sjd_pipelines.schedulers.rules.annealed import Annealed
from sjd_pipelines.schedulers.rules.grouped import Grouped
from sjd_pipelines.schedulers.rules.lantern import Lantern
from sjd_pipelines.schedulers.rules.speculative import Speculative

from .conftest import run

# Each with its neutral setting and one that relaxes.
RULES = {
    "grouped": (lambda: Grouped(10, gap=0.0, distance=1.0), lambda: Grouped(10, gap=0.5, distance=None)),
    "grouped-published": (lambda: Grouped(1, 0.5, None, False), lambda: Grouped(10, 0.5, None, False)),
    "lantern": (lambda: Lantern(0.0, 10, True, False), lambda: Lantern(0.5, 10, True, False)),
    "lantern++": (lambda: Lantern(1.0, 10, False, False), lambda: Lantern(6.0, 10, False, False)),
    "lantern-release": (lambda: Lantern(1.0, 10, False, True), lambda: Lantern(6.0, 10, False, True)),
    "annealed": (lambda: Annealed(1.0, 0.0), lambda: Annealed(3.0, 0.3)),
}
TOPOLOGIES = {
    "window": lambda: SJDScheduler(window=9),
    "coupled-window": lambda: CoupledSJDScheduler(window=9),
    "gumbel-window": lambda: CoupledSJDScheduler(window=9, coupling="gumbel"),
    "siblings": lambda: SJDPACScheduler(window=9, branches=2, depth=2),
    "chain": lambda: EagleScheduler(window=5, depth=5, branches=1),
    "tree": lambda: EagleScheduler(window=12, depth=4, branches=3),
    "rows": lambda: ParallelJacobiScheduler(window=5, delay=8),
    "open-rows": lambda: ParallelJacobiScheduler(window=5, coupled=True),
    "row-starts": lambda: ZipARScheduler(delay=1, adaptive=True),
}


@pytest.fixture(scope="module")
def drawn(wide):
    """What a topology draws under a rule."""
    known = {}

    def draw(topology, rule):
        if (topology, rule) not in known:
            scheduler = TOPOLOGIES[topology]()
            scheduler.acceptance = rule()
            known[topology, rule] = run(wide, scheduler)
        return known[topology, rule]

    return draw


def test_every_rule_is_tried():
    for file in sorted(Path(rules.__file__).parent.glob("*.py")):
        import_module(f"{rules.__name__}.{file.stem}")
    ours = {cls for cls in Speculative.__subclasses__() if cls.__module__.startswith(rules.__name__)}
    assert {type(build()) for pair in RULES.values() for build in pair} == ours, "a line in RULES is missing"


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("name", RULES)
def test_a_neutral_rule_is_the_plain_one(drawn, topology, name):
    plain, neutral = drawn(topology, Speculative), drawn(topology, RULES[name][0])
    assert torch.equal(plain.tokens, neutral.tokens)
    assert torch.equal(plain.statistics.acceptance_map, neutral.statistics.acceptance_map)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("name", RULES)
def test_a_relaxed_rule_saves_passes(drawn, topology, name):
    plain, relaxed = drawn(topology, Speculative), drawn(topology, RULES[name][1])
    assert sum(relaxed.statistics.forward_passes) < sum(plain.statistics.forward_passes)
