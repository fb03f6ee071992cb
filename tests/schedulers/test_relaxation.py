"""Relaxed decoders: their rules on small laws, what they become at the neutral setting, and the bias they admit to."""

import pytest
import torch

from sjd_pipelines import (
    GroupedSJDScheduler,
    LanternEagleScheduler,
    LanternScheduler,
    SJDPlusPlusScheduler,
    SJDScheduler,
)
from sjd_pipelines.benchmark.exactness import SAMPLING as TRUNCATED
from sjd_pipelines.benchmark.exactness import draw, enumerable_pipeline, image_law, judge
from sjd_pipelines.decoding import Memory, Sampling
from sjd_pipelines.schedulers.rules.annealed import annealed_factors
from sjd_pipelines.schedulers.rules.grouped import Grouped, groups
from sjd_pipelines.schedulers.rules.lantern import Lantern, nearest_codes, neighbour_mass
from sjd_pipelines.schedulers.rules.speculative import Drafted, lookup, residual, speculative_accept
from sjd_pipelines.schedulers.sjd_plus_plus import confident
from sjd_pipelines.schedulers.verification import at_drafts

PROMPTS = ["a red dog", "two blue cat on a green house", "car", "three dog left of a house"]
SAMPLING = {"guidance_scale": 3.0, "temperature": 1.0, "output_type": "latent"}
CODES = 12
ONE = Sampling(guidance_scale=2.0)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def laws(seed, rows=1, certain=False):
    """Target and draft law `[1, rows, CODES]`, each slot with every code as its draft in turn."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(1, rows, CODES, generator=generator).mul(2).softmax(-1)
    draft_law = torch.randn(1, rows, CODES, generator=generator).mul(2).softmax(-1)
    if certain:
        draft_law = torch.nn.functional.one_hot(draft_law.argmax(-1), CODES).float()
    return target, draft_law


def codebook(seed=0):
    return torch.nn.functional.normalize(torch.randn(CODES, 3, generator=torch.Generator().manual_seed(seed)), dim=-1)


RULES = {
    "additive": lambda p, target, drafts: p + neighbour_mass(target, drafts, nearest_codes(codebook(), 5), 0.2),
    "multiplicative": lambda p, target, drafts: (
        p + neighbour_mass(target, drafts, nearest_codes(codebook(), 5), (4 - 1) * p[..., None])
    ),
    "annealed": lambda p, target, drafts: p * 1.7,
}


def one_step(rule, target, draft_law):
    """Law of one token after relaxed acceptance and the vanilla residual, and the acceptance with and without."""
    every = torch.arange(CODES)[None]  # [1, V]: each code as the draft
    wide, wide_q = target.expand(1, CODES, CODES), draft_law.expand(1, CODES, CODES)
    mass, p, q = RULES[rule](at_drafts(wide, every), wide, every), at_drafts(wide, every), at_drafts(wide_q, every)
    accepted = q * (mass / q.clamp(min=1e-30)).clamp(max=1)  # [1, V]
    rest = residual(target, draft_law)
    output = accepted + (1 - accepted.sum()) * (rest / rest.sum())[:, 0]
    return output, accepted.sum(), torch.minimum(p, q).sum()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rule", RULES)
def test_total_variation_is_the_gain_in_acceptance(rule, seed):
    target, draft_law = laws(seed)
    output, relaxed, vanilla = one_step(rule, target.double(), draft_law.double())
    assert output.sum().item() == pytest.approx(1)
    variation = 0.5 * (output - target[:, 0]).abs().sum()
    assert relaxed > vanilla + 0.01
    assert variation.item() == pytest.approx((relaxed - vanilla).item(), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_additive_bound_bounds_the_variation_of_certain_drafts(seed):
    target, draft_law = laws(seed, certain=True)
    output, _, _ = one_step("additive", target.double(), draft_law.double())
    assert 0.5 * (output - target[:, 0]).abs().sum() <= 0.2 + 1e-6


def test_acceptance_frequencies_follow_the_masses():
    uniforms = torch.rand(1, 100_000, generator=torch.Generator().manual_seed(0))
    mass, draft_mass = torch.full_like(uniforms, 0.2), torch.full_like(uniforms, 0.5)
    assert speculative_accept(mass, draft_mass, uniforms).float().mean().item() == pytest.approx(0.4, abs=0.01)
    assert speculative_accept(draft_mass, mass, uniforms).all()
    assert not speculative_accept(torch.zeros_like(mass), mass, uniforms).any()


def test_neighbours_are_nearest_first_without_oneself():
    vectors = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    assert nearest_codes(vectors, 2).tolist() == [[1, 2], [0, 2], [3, 1], [2, 1]]
    assert nearest_codes(vectors, 9).shape == (4, 3)


def test_many_codes_are_compared_in_pieces():
    vectors = torch.randn(2500, 4, generator=torch.Generator().manual_seed(0))
    distances = torch.cdist(vectors, vectors).fill_diagonal_(torch.inf)
    assert torch.equal(nearest_codes(vectors, 3), distances.topk(3, largest=False).indices)


def test_neighbours_count_until_the_bound_is_crossed():
    target = torch.tensor([[[0.4, 0.1, 0.2, 0.3]]])
    neighbours = torch.tensor([[1, 2, 3], [0, 2, 3], [3, 0, 1], [2, 1, 0]])
    for bound, mass in ((0.05, 0.0), (0.1, 0.1), (0.29, 0.1), (0.31, 0.3), (0.9, 0.6)):
        assert neighbour_mass(target, torch.tensor([[0]]), neighbours, bound).item() == pytest.approx(mass)
    assert neighbour_mass(target, torch.tensor([[9]]), neighbours, 0.25).item() == pytest.approx(0.2)  # structural id


def group_masses(target, draft_law, drafts, *bounds):
    tokens, member = groups(target, drafts, *bounds)
    return [law.gather(-1, tokens).masked_fill(~member, 0.0).sum(-1) for law in (target, draft_law)]


def naive_group(target, draft_law, draft, size, gap, vectors, distance):
    """By the definition: rank everything, take those around the draft, drop what is too far."""
    order = sorted(range(len(target)), key=lambda token: (-target[token], token != draft))
    rank = order.index(draft)
    around = order[max(rank - size // 2, 0) : rank] + order[rank + 1 : rank + 1 + (size - 1) // 2]
    near = [
        token
        for token in around
        if abs(target[token] - target[draft]) < gap
        and (vectors is None or (vectors[token] - vectors[draft]).norm() < distance)
    ]
    return sum(target[token] for token in [draft, *near]), sum(draft_law[token] for token in [draft, *near])


@pytest.mark.parametrize("vectors", [None, codebook()], ids=["rank", "rank-and-distance"])
@pytest.mark.parametrize("size", [1, 2, 5, 8, 40])
def test_groups_are_the_neighbours_in_rank(size, vectors):
    target, draft_law = laws(3, rows=CODES)
    target = target * (target > 0.01)  # as top-k leaves it
    drafts = torch.arange(CODES)[None]
    mass, draft_mass = group_masses(target, draft_law, drafts, size, 0.1, vectors, 1.2)
    for slot in range(CODES):
        if target[0, slot, slot] == 0:
            continue  # ties: which of the impossible tokens join is left open, and changes q alone
        expected = naive_group(target[0, slot], draft_law[0, slot], slot, size, 0.1, vectors, 1.2)
        assert mass[0, slot].item() == pytest.approx(float(expected[0]), abs=1e-6)
        if vectors is None and (target[0, slot] > 0).all():
            assert draft_mass[0, slot].item() == pytest.approx(float(expected[1]), abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7, 700])
def test_groups_reach_into_a_long_ranking(size):
    """Of more tokens than are ranked at first, drafts at every rank."""
    target = torch.randn(1, 300, 300, generator=torch.Generator().manual_seed(0)).softmax(-1)
    drafts = torch.arange(300)[None]
    mass, draft_mass = group_masses(target, target.flip(-1), drafts, size, 0.004, None, 0.0)
    for slot in range(300):
        expected = naive_group(target[0, slot], target[0, slot].flip(-1), slot, size, 0.004, None, 0.0)
        assert mass[0, slot].item() == pytest.approx(float(expected[0]), abs=1e-6)
        assert draft_mass[0, slot].item() == pytest.approx(float(expected[1]), abs=1e-6)


def test_groups_of_one_are_plain_verification():
    target, draft_law = laws(3, rows=CODES)
    drafts = torch.arange(CODES)[None]
    uniforms = torch.rand(1, CODES, generator=torch.Generator().manual_seed(0))
    masses = group_masses(target, draft_law, drafts, 1, 0.5, None, 0.0)
    expected = speculative_accept(at_drafts(target, drafts), at_drafts(draft_law, drafts), uniforms)
    assert torch.equal(speculative_accept(*masses, uniforms), expected)


def test_confidence():
    probability, draft_probability = torch.tensor([[0.6, 0.8]]), torch.tensor([[0.9, 0.5]])
    assert confident(probability, draft_probability, "probability", 0.7).tolist() == [[False, True]]
    assert confident(probability, draft_probability, "ratio", 1.0).tolist() == [[False, True]]
    assert confident(probability, draft_probability, "ratio", 0.5).tolist() == [[True, True]]


def test_annealed_factors_fall_and_keep_their_mean():
    factors = annealed_factors(4, 2.0, 0.2, "cpu")
    assert (factors.diff() < 0).all()
    assert factors.mean().item() == pytest.approx(2)
    assert torch.allclose(factors[1:] / factors[:-1], torch.tensor(0.2).neg().exp())
    assert annealed_factors(8, 1.1, 0.7, "cpu").min() == 1
    assert annealed_factors(5, 1.0, 0.0, "cpu").tolist() == [1.0] * 5
    assert annealed_factors(6, 2.0, 0.2, "cpu", torch.tensor(4))[:4].tolist() == factors.tolist()


def test_annealed_pictures_do_not_depend_on_their_neighbours(toy):
    """What a picture can still use of the window near its end is its own affair."""
    options = {"output_type": "latent", "scheduler": LanternScheduler(rule="annealed")}
    both = toy(["a red dog", "car"], seeds=[9, 109], **options).tokens  # here it mattered
    assert torch.equal(both[1:], toy("car", seeds=109, **options).tokens)
    factors = annealed_factors(6, 2.0, 0.2, "cpu", torch.tensor([[4], [6]]))
    for row, spread in zip(factors, (4, 6)):
        assert torch.allclose(row, annealed_factors(6, 2.0, 0.2, "cpu", spread))


def test_annealed_factors_may_be_bound_to_a_depth():
    assert annealed_factors(16, 1.0, 0.7, "cpu")[0].item() == pytest.approx(8.06, abs=0.01)
    bound = annealed_factors(16, 1.0, 0.7, "cpu", spread=5)
    assert bound[0].item() == pytest.approx(2.60, abs=0.01)
    for window in (1, 3, 5, 64):  # whatever the window
        assert torch.allclose(annealed_factors(window, 1.0, 0.7, "cpu", spread=5)[:16], bound[:window])


NEUTRAL = {
    "sjd++": lambda window: SJDPlusPlusScheduler(window=window, confidence="probability", reuse_threshold=1.0),
    "gsd-one": lambda window: GroupedSJDScheduler(window=window, group_size=1),
    "gsd-gap": lambda window: GroupedSJDScheduler(window=window, gap=0.0),
    "lantern-additive": lambda window: LanternScheduler(window=window, rule="additive", relaxation=0.0),
    "lantern-multiplicative": lambda window: LanternScheduler(window=window, relaxation=1.0),
    "lantern-annealed": lambda window: LanternScheduler(window=window, rule="annealed", relaxation=1.0, decay=0.0),
    "lantern-release": lambda window: LanternScheduler(window=window, relaxation=1.0, residual="release"),
}


@pytest.mark.parametrize("window", [1, 4, 100])
@pytest.mark.parametrize("name", NEUTRAL)
def test_the_neutral_setting_is_sjd_bit_for_bit(pipe, name, window):
    pipe.scheduler = SJDScheduler(window=window)
    reference = pipe(PROMPTS, generator=generators(1, 2, 3, 4), **SAMPLING)
    pipe.scheduler = NEUTRAL[name](window)
    output = pipe(PROMPTS, generator=generators(1, 2, 3, 4), **SAMPLING)
    assert torch.equal(output.tokens, reference.tokens)
    assert torch.equal(output.statistics.acceptance_map, reference.statistics.acceptance_map)


RELAXED = {
    "sjd++": SJDPlusPlusScheduler(window=3, confidence="probability", reuse_threshold=0.2),
    "gsd": GroupedSJDScheduler(window=3, distance=None),
    "lantern-additive": LanternScheduler(window=3, rule="additive", relaxation=0.2),
    "lantern-multiplicative": LanternScheduler(window=3, relaxation=4.0),
    "lantern-release": LanternScheduler(window=3, relaxation=4.0, residual="release"),
    "lantern-annealed": LanternScheduler(window=3, rule="annealed", relaxation=2.0),
}


@pytest.fixture(scope="module")
def enumerable(device):
    return enumerable_pipeline().to(device)


@pytest.fixture(scope="module")
def lossless_passes(enumerable):
    return judge(enumerable, SJDScheduler(window=3), 6000, seed=4).passes


@pytest.mark.parametrize("name", RELAXED)
def test_relaxation_buys_passes_with_bias(enumerable, lossless_passes, name):
    verdict = judge(enumerable, RELAXED[name], 6000, seed=4)
    assert verdict.label == "approximate"
    assert verdict.passed  # an approximate scheduler claims nothing
    assert verdict.total_variation > verdict.limit, verdict
    assert verdict.passes < lossless_passes


TRADES = {
    "lantern": [LanternScheduler(window=3, relaxation=relaxation) for relaxation in (1.0, 2.0, 8.0)],
    "gsd": [GroupedSJDScheduler(window=3, gap=gap) for gap in (0.0, 0.15, 0.4, 1.0)],
}


@pytest.mark.parametrize("name", TRADES)
def test_more_relaxation_more_bias_fewer_passes(enumerable, name):
    verdicts = [judge(enumerable, scheduler, 6000, seed=4) for scheduler in TRADES[name]]
    passes = [verdict.passes for verdict in verdicts]
    biases = [verdict.total_variation for verdict in verdicts]
    assert passes == sorted(passes, reverse=True)
    assert biases == sorted(biases)
    assert verdicts[0].total_variation <= verdicts[0].limit


@pytest.mark.parametrize("keep_truncation", [True, False])
def test_groups_draw_what_truncation_excludes_only_as_published(enumerable, keep_truncation):
    possible = image_law(enumerable, **TRUNCATED) > 0
    scheduler = GroupedSJDScheduler(window=3, gap=1.0, distance=None, keep_truncation=keep_truncation)
    images, _ = draw(enumerable, scheduler, 6000, 4, **TRUNCATED)
    assert possible[images].all() == keep_truncation


class Lender:
    """What a rule asks of a target."""

    def __init__(self, vectors):
        self.vectors, self.memory, self.asked = vectors, Memory(), 0

    def codebook(self):
        self.asked += 1
        return self.vectors


def test_the_neighbour_table_is_made_once_per_codebook():
    target = Lender(codebook())
    rule = LanternScheduler(neighbours=3).acceptance
    running = rule.running(target)
    assert torch.equal(running.table, nearest_codes(codebook(), 4))
    assert torch.equal(running.lending, nearest_codes(codebook(), 3))
    assert rule.table is None
    again = LanternEagleScheduler(neighbours=3).acceptance.running(target)  # another object, another setting
    assert again.table is running.table
    target.vectors[0] = target.vectors[1]  # other weights in the same place
    assert torch.equal(rule.running(target).table, nearest_codes(target.vectors, 4))
    tables = [Lantern(2.0, count, False, False).running(target).table for count in (3, 5, 6, 3)]
    assert [table.shape[1] for table in tables] == [4, 6, 7, 4]
    assert tables[0] is not tables[3]  # so many are not kept


def test_codebooks_are_what_the_picture_decoder_looks_up(pipe):
    target = pipe.prepare_target(pipe.encode_prompt(PROMPTS[:1], None, True, 1), pipe.image_layout(None, None), ONE)
    lengths = target.codebook().norm(dim=-1)
    assert torch.allclose(lengths, torch.ones_like(lengths))  # as Janus' quantiser has it
    assert torch.equal(Lantern(2.0, 3, False, False).running(target).table, nearest_codes(target.codebook(), 4))
    vectors = Grouped(4, 0.1, 1.0).running(target).vectors
    assert torch.cdist(vectors, vectors).square().sum().item() == pytest.approx(16 * 15, rel=1e-4)


NEEDS_NONE = {
    "sjd": SJDScheduler(),
    "lantern-annealed": LanternScheduler(rule="annealed"),
    "gsd": GroupedSJDScheduler(distance=None),
}


@pytest.mark.parametrize("name", NEEDS_NONE)
def test_rules_that_need_no_codebook_ask_for_none(name):
    rule, target = NEEDS_NONE[name].acceptance, Lender(codebook())
    assert rule.running(target) is rule
    assert not target.asked


@pytest.mark.parametrize("vectors", [torch.randn(1, 4), torch.ones(1, 1), torch.ones(5, 3), torch.zeros(2, 3)])
@pytest.mark.parametrize("name", ["lantern", "release", "grouped"])
def test_codebooks_without_differences(name, vectors):
    """One entry that has no neighbour, or several that look the same."""
    rules = {"grouped": Grouped(4, 1.0, 1.0), "lantern": Lantern(4.0, 9, False, False)}
    rule = rules.get(name, Lantern(4.0, 9, False, True)).running(Lender(vectors))
    count = len(vectors)
    target = torch.full((1, 2, count), 1 / count)
    tokens = torch.zeros(1, 2, dtype=torch.int64)
    mass, draft_mass = rule.masses(Drafted(target, tokens, lookup(target), span=2))
    assert (mass > 1 / count).all() if count > 1 else (mass == 1).all()
    assert (draft_mass >= 1 / count).all()
    assert rule.residual(target, target, tokens).isfinite().all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SJDPlusPlusScheduler(confidence="entropy"), r"confidence must be one of ratio, probability"),
        (
            lambda: SJDPlusPlusScheduler(reuse_threshold=-1),
            r"reuse_threshold must be a number from 0 to 100, got -1\.",
        ),
        (lambda: GroupedSJDScheduler(group_size=0), r"group_size must be an integer from 1 to 1024, got 0\."),
        (lambda: GroupedSJDScheduler(gap="wide"), r"gap must be a number from 0 to 1, got 'wide'\."),
        (lambda: LanternScheduler(relaxation=0.5), r"rule='multiplicative': at least 1, got 0\.5\."),
        (lambda: LanternScheduler(rule="additive"), r"rule='additive': at most 1, got 2\.0\."),
        (lambda: LanternScheduler(rule="annealed", residual="release"), r"rule='annealed' has not\."),
        (lambda: LanternScheduler(residual="none"), r"residual must be one of vanilla, release; got 'none'\."),
    ],
)
def test_bad_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
