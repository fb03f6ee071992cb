"""Draft-model schedulers: exact by statistics, whatever the drafter is worth; broken twins are caught."""

import pytest
import torch

from sjd_pipelines import (
    AutoregressiveScheduler,
    EagleScheduler,
    ImageTokenLayout,
    LanternEagleScheduler,
    PositionNoise,
    SeededEagleScheduler,
)
from sjd_pipelines.benchmark.exactness import enumerable_pipeline, judge
from sjd_pipelines.decoding import decode, race
from sjd_pipelines.schedulers.rules.speculative import Drafted, Speculative, lookup, residual, speculative_accept

SAMPLES = 6000
PROMPTS = ["a red dog", "two blue cat on a green house", "car", "three dog left of a house"]
TREES = [
    {"window": 1},
    {"window": 3, "branches": 1},
    {"window": 3, "depth": 1},
    {"window": 8, "depth": 3, "branches": 2},
    {"window": 16},
]


@pytest.fixture(scope="module")
def enumerable(device):
    """Its drafter has random weights: lossless decoding must not care."""
    return enumerable_pipeline().to(device)


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_chains_and_trees_draw_from_the_law(enumerable, tree):
    verdict = judge(enumerable, EagleScheduler(**tree), SAMPLES, seed=tree["window"])
    assert verdict.passed, verdict
    assert verdict.passes < 4


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_seeded_drafts_give_the_sequential_picture(pipe, tree):
    sampling = {"guidance_scale": 3.0, "output_type": "latent", "top_k": 9, "top_p": 0.9}
    seeds = [torch.Generator().manual_seed(seed) for seed in range(4)]
    pipe.scheduler = AutoregressiveScheduler()
    reference = pipe(PROMPTS, generator=seeds, **sampling).tokens
    seeds = [torch.Generator().manual_seed(seed) for seed in range(4)]
    pipe.scheduler = SeededEagleScheduler(**tree)
    output = pipe(PROMPTS, generator=seeds, **sampling)
    assert torch.equal(output.tokens, reference)
    assert len(set(output.statistics.forward_passes)) > 1  # rows advance on their own
    assert sum(output.statistics.forward_passes) < 4 * 16


class IndependentSiblings(EagleScheduler):
    """Tests every sibling against the untouched laws, and takes the first that passes."""

    class Rule(Speculative):
        def choose(self, target, draft_law, siblings, uniforms, *places):
            keep = speculative_accept(target.gather(-1, siblings), draft_law.gather(-1, siblings), uniforms)
            accepted = torch.where(keep.any(-1), keep.long().argmax(-1), keep.shape[-1])
            return accepted, residual(target, draft_law)

    acceptance = Rule()


class DraftedTwice(EagleScheduler):
    """Forgets that a sibling was drawn without the ones before it."""

    class Rule(Speculative):
        def choose(self, target, draft_law, siblings, uniforms, *places):
            accepted, count = None, siblings.shape[-1]
            for rank, (token, uniform) in enumerate(zip(siblings.split(1, -1), uniforms.split(1, -1))):
                passed, target = super().choose(target, draft_law, token, uniform)
                passed = torch.where(passed == 0, rank, count)
                accepted = passed if accepted is None else torch.minimum(accepted, passed)
            return accepted, target

    acceptance = Rule()


class TargetInsteadOfResidual(EagleScheduler):
    """Draws the token behind a rejection from p."""

    class Rule(Speculative):
        def choose(self, target, *others):
            return super().choose(target, *others)[0], target

    acceptance = Rule()


class ResidualByTheDraftsNoise(EagleScheduler):
    """Draws the token behind a rejection with the noise that its rejected drafts were drawn with."""

    def redraft(self, slots):
        return race(slots.at_end(slots.left), slots.state.shared_noise.read(slots.at_end(slots.positions)))


class KeysStay(EagleScheduler):
    """Leaves keys, values and hidden states of an accepted branch where they are."""

    def plan(self, state, noise):
        state.moves = None
        return super().plan(state, noise)


@pytest.mark.parametrize(
    "broken",
    [
        IndependentSiblings(window=8, depth=3, branches=3),
        DraftedTwice(window=8, depth=3, branches=3),
        TargetInsteadOfResidual(window=3, branches=1),
        ResidualByTheDraftsNoise(window=8, depth=3, branches=3),
        KeysStay(window=8, depth=3, branches=3),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_broken_twins_are_caught(enumerable, broken):
    verdict = judge(enumerable, broken, 2 * SAMPLES, seed=3)
    assert not verdict.passed, verdict


RULES = {
    "multiplicative": {"relaxation": 3.0},
    "additive": {"rule": "additive", "relaxation": 0.3},
    "annealed": {"rule": "annealed", "relaxation": 2.0},
}


CHAIN = {"window": 3, "depth": 3, "branches": 1}


@pytest.fixture(scope="module")
def lossless_passes(enumerable):
    return judge(enumerable, EagleScheduler(**CHAIN), SAMPLES, seed=4).passes


@pytest.mark.parametrize("rule", RULES)
def test_relaxed_rules_buy_passes_with_bias(enumerable, lossless_passes, rule):
    relaxed = judge(enumerable, LanternEagleScheduler(**CHAIN, **RULES[rule]), SAMPLES, seed=4)
    assert relaxed.total_variation > relaxed.limit
    assert relaxed.passes < lossless_passes


@pytest.mark.parametrize("tree", TREES, ids=str)
@pytest.mark.parametrize("rule", [{"relaxation": 1.0}, {"rule": "additive", "relaxation": 0.0}], ids=str)
def test_no_relaxation_is_eagle_bit_for_bit(pipe, tree, rule):
    sampling = {"guidance_scale": 3.0, "output_type": "latent"}
    outputs = []
    for scheduler in (EagleScheduler(**tree), LanternEagleScheduler(**tree, **rule)):
        pipe.scheduler = scheduler
        outputs.append(pipe(PROMPTS, generator=torch.Generator().manual_seed(1), **sampling))
    assert torch.equal(outputs[0].tokens, outputs[1].tokens)
    assert torch.equal(outputs[0].statistics.acceptance_map, outputs[1].statistics.acceptance_map)


class Witness(LanternEagleScheduler):
    """Records the laws that meet in verification."""

    def accept(self, slots):
        self.seen.append((slots, slots.state.draft_laws))
        return super().accept(slots)


@pytest.mark.parametrize("rule", RULES)
def test_realised_total_variation_is_the_gain_in_acceptance(pipe, rule):
    """Over one token, enumerated over every draft, with the laws of a draft model on a real run."""
    pipe.scheduler = Witness(window=4, depth=4, branches=1, **RULES[rule])
    pipe.scheduler.seen = []
    pipe(PROMPTS, generator=torch.Generator().manual_seed(1), guidance_scale=3.0, output_type="latent")
    compared = 0
    for slots, q in pipe.scheduler.seen:
        p, tree, rule = slots.target[:, slots.tree.inner], slots.tree, slots.state.acceptance
        codes = torch.arange(p.shape[-1], device=p.device).expand(p.shape).unbind(-1)
        drafted = [Drafted(p, code, lookup(q), len(tree.levels), tree.depth[tree.inner]) for code in codes]
        mass = torch.stack([rule.masses(one)[0] for one in drafted], -1)
        accepted = torch.minimum(mass, q)  # [B, M, V]: q times the chance of acceptance
        left = (p - q).clamp(min=0)
        left = left / left.sum(-1, keepdim=True)
        outcome = accepted + (1 - accepted.sum(-1, keepdim=True)) * left
        distance = 0.5 * (outcome - p).abs().sum(-1)
        gain = accepted.sum(-1) - torch.minimum(p, q).sum(-1)
        assert torch.allclose(distance, gain, atol=1e-5)
        compared += int((gain > 0.01).sum())
    assert compared > 10


class TableDrafter:
    """A drafter that knows the target: the law of a token depends on the one before it alone."""

    def __init__(self, table):
        self.table, self.calls = table, 0

    def observe(self, seen):
        """It knows the target."""

    def laws(self, query):
        self.calls += 1
        tokens = query.token_ids if query.wanted is None else query.token_ids.gather(1, query.wanted)
        return self.table[tokens]


@pytest.mark.parametrize("cls", [EagleScheduler, SeededEagleScheduler])
def test_a_perfect_drafter_is_always_believed(table_target, cls):
    table = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).softmax(-1)
    drafter, target = TableDrafter(table), table_target(table, ImageTokenLayout(4, 4, 8), 3)
    scheduler = cls(window=5, depth=5, branches=1)
    state = decode(target, scheduler, PositionNoise([3, 4, 5]), {"drafter": drafter})
    assert state.passes == 4  # one without drafts, then six tokens each: 1 + 6 + 6 + 3
    assert drafter.calls == 5 + 5 + 5


def test_no_drafter_no_work(pipe):
    drafter = pipe.drafter
    pipe.register_modules(drafter=None)
    try:
        for cls in (EagleScheduler, SeededEagleScheduler, LanternEagleScheduler):
            pipe.scheduler = cls()
            with pytest.raises(ValueError, match=rf"{cls.__name__} needs a drafter and this model has none"):
                pipe("a red dog")
    finally:
        pipe.register_modules(drafter=drafter)


@pytest.mark.parametrize("setting", ["window", "depth", "branches"])
@pytest.mark.parametrize("cls", [EagleScheduler, SeededEagleScheduler, LanternEagleScheduler])
def test_bad_settings_are_refused(cls, setting):
    with pytest.raises(ValueError, match=rf"{setting} must be an integer from 1 to \d+, got 0\."):
        cls(**{setting: 0})
