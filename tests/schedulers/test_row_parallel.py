"""Row-parallel decoders: geometry, what is visible when, and the settings at which they are exact or lossless."""

from dataclasses import dataclass, field

import pytest
import torch

from sjd_pipelines import (
    AutoregressiveScheduler,
    ImageTokenLayout,
    ParallelJacobiScheduler,
    PositionNoise,
    ZipARScheduler,
)
from sjd_pipelines.benchmark.exactness import enumerable_pipeline, judge
from sjd_pipelines.decoding import Memory, Sampling, TargetPass, decode, force

PROMPTS = ["a red dog", "two blue cat on a green house", "car", "three dog left of a house"]
SAMPLING = {"guidance_scale": 3.0, "temperature": 1.0, "output_type": "latent"}
PLAIN = ImageTokenLayout(5, 6, codebook_size=8)
FRAMED = ImageTokenLayout(5, 6, codebook_size=8, structural_tokens=3, row_end=8, tail=(9, 10))
SCHEDULERS = {
    "zipar": ZipARScheduler,
    "adaptive": lambda **settings: ZipARScheduler(adaptive=True, **settings),
    "pjd": lambda **settings: ParallelJacobiScheduler(window=3, **settings),
    "coupled": lambda **settings: ParallelJacobiScheduler(window=3, coupled=True, **settings),
    "release": lambda **settings: ParallelJacobiScheduler(window=3, release=True, **settings),
}


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@dataclass
class Run:
    """A finished run on random laws: per pass, the query and what was committed before it."""

    state: object = None
    queries: list = field(default_factory=list)
    committed: list = field(default_factory=list)


class RandomTarget:
    """Another random law in every slot of every pass; forced tokens are certain."""

    def __init__(self, layout, batch_size, length):
        self.layout, self.batch_size, self.device = layout, batch_size, torch.device("cpu")
        self.length, self.sampling, self.memory, self.runner = length, Sampling(), Memory(), None
        self.forced, self.generator = layout.forced_tokens(length=length), torch.Generator().manual_seed(0)
        self.queries = []

    def run(self, query):
        self.queries.append(query)
        logits = torch.randn(*query.positions.shape, self.layout.vocabulary_size, generator=self.generator)
        return TargetPass(query, logits[..., :0], logits)

    def law(self, logits, predicts):
        return force(logits, self.forced[predicts], self.layout.codebook_size).softmax(-1)


def run(scheduler, layout, batch_size=1):
    target = RandomTarget(layout, batch_size, layout.num_tokens + scheduler.margin(layout))
    result = Run(queries=target.queries, committed=[torch.zeros(batch_size, layout.num_tokens, dtype=torch.bool)])
    noise = PositionNoise(list(range(batch_size)))
    result.state = decode(
        target, scheduler, noise, on_pass=lambda state: result.committed.append(state.acceptance_map >= 0)
    )
    return result


@pytest.mark.parametrize(
    ("layout", "delay", "passes"),
    [
        (ImageTokenLayout(90, 90, 4, structural_tokens=4, row_end=4, tail=(5, 6, 7)), 7, 713),  # Emu3 720 x 720
        (ImageTokenLayout(32, 32, 4), 5, 187),  # LlamaGen 512 x 512: the paper counts 185
        (ImageTokenLayout(24, 24, 4), None, 24 + 23 * 6),
        (ImageTokenLayout(3, 5, 4), 1, 5 + 2 * 1),
        (ImageTokenLayout(3, 5, 4), 100, 15),
        (ImageTokenLayout(1, 5, 4), 2, 5),
        (ImageTokenLayout(5, 1, 4), 2, 5),
    ],
)
def test_zipar_takes_columns_plus_a_delay_per_row(layout, delay, passes):
    result = run(ZipARScheduler(delay=delay), layout)
    assert result.state.passes == passes
    # Row r starts delay passes after row r - 1, and then goes on without a pause.
    delay = min(delay or 6, layout.columns)
    grid = result.state.acceptance_map[0, : layout.rows * layout.width].unflatten(0, (layout.rows, layout.width))
    expected = torch.arange(layout.rows)[:, None] * delay + torch.arange(layout.columns)
    assert torch.equal(grid[:, : layout.columns].long(), expected)


@pytest.mark.parametrize("layout", [PLAIN, FRAMED], ids=["plain", "row-ends"])
@pytest.mark.parametrize("delay", [1, 2, 4, 6])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_only_final_tokens_are_seen_by_other_rows_and_their_keys_are_true(name, delay, layout):
    """Plays the cache: what is visible must hold the final token, except for drafts and stand-ins of the own row."""
    scheduler = SCHEDULERS[name](delay=delay)
    result = run(scheduler, layout, batch_size=3)
    final = result.state.canvas
    length = layout.num_tokens + scheduler.margin(layout)
    written, forced = torch.full((3, length), -1), layout.forced_tokens()
    for query, committed in zip(result.queries, result.committed):
        positions = query.predicts - 1  # the slot that feeds the end of the prompt stands at -1
        assert query.prompt_end == (query is result.queries[0])
        assert torch.equal(query.positions, positions.clamp(min=0))
        assert query.predicts.max() < length
        assert all(len(set(row.tolist())) == len(row) for row in positions)
        used = (positions >= 0) & (positions < layout.num_tokens)
        for image in range(3):
            written[image, positions[image].clamp(min=-1)] = query.token_ids[image]
            for slot in used[image].nonzero()[:, 0]:
                position = positions[image, slot].item()
                seen = query.visible[image, slot].nonzero()[:, 0]
                assert seen.max() == position
                true = written[image, seen] == final[image, seen]
                row = (position + 1) // layout.width  # the row that the slot predicts, or the one below a complete row
                own = (seen >= row * layout.width - 1) | (seen // layout.width == position // layout.width)
                assert (true | own).all()
                known = committed[image, seen] | (forced[seen] >= 0)
                assert (known | own).all()
                earlier = committed[image].clone()
                earlier[position:] = False
                assert torch.isin(earlier.nonzero()[:, 0], seen).all()  # nothing final is withheld
    assert (result.state.acceptance_map >= 0).all()
    assert (final[:, : layout.num_tokens][:, forced >= 0] == forced[forced >= 0]).all()


@pytest.mark.parametrize("delay", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_counts_are_consistent(pipe, name, delay):
    pipe.scheduler = SCHEDULERS[name](delay=delay)
    statistics = pipe(PROMPTS, generator=generators(1, 2, 3, 4), **SAMPLING).statistics
    assert statistics.label == "approximate"
    for row, passes in enumerate(statistics.forward_passes):
        committed = statistics.committed_per_pass[row]
        assert (len(committed), sum(committed)) == (passes, 16)
        assert min(committed) >= 1
        grid = statistics.acceptance_map[row]
        assert (grid.diff(dim=1) >= 0).all()  # left to right
        opened = grid[1:, 0]
        assert (opened > grid[:-1, min(delay, 4) - 1]).all()  # and not before the row above is ahead
    if delay == 1:
        assert sum(statistics.forward_passes) < 4 * 16


@pytest.mark.parametrize("delay", [1, 2, 4])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_batch_equals_singles(pipe, name, delay):
    pipe.scheduler = SCHEDULERS[name](delay=delay)
    batch = pipe(PROMPTS, generator=generators(1, 2, 3, 4), **SAMPLING)
    for row, prompt in enumerate(PROMPTS):
        single = pipe(prompt, generator=generators(row + 1), **SAMPLING)
        assert torch.equal(single.tokens[0], batch.tokens[row])
        assert torch.equal(single.statistics.acceptance_map[0], batch.statistics.acceptance_map[row])


@pytest.mark.parametrize("adaptive", [False, True])
def test_zipar_that_waits_for_whole_rows_is_sequential_decoding(pipe, adaptive):
    pipe.scheduler = AutoregressiveScheduler()
    reference = pipe(PROMPTS, generator=generators(1, 2, 3, 4), **SAMPLING)
    for delay in (4, 50):
        pipe.scheduler = ZipARScheduler(delay=delay, adaptive=adaptive)
        output = pipe(PROMPTS, generator=generators(1, 2, 3, 4), **SAMPLING)
        assert torch.equal(output.tokens, reference.tokens)
        assert output.statistics.forward_passes == [16] * 4


@pytest.mark.parametrize("initialise", ["random", "uniform", "repeat-above", "sample-above", "law-above"])
def test_pjd_that_waits_for_whole_rows_is_greedy_at_temperature_zero(pipe, initialise):
    greedy = SAMPLING | {"temperature": 0}
    pipe.scheduler = AutoregressiveScheduler()
    reference = pipe(PROMPTS, **greedy).tokens
    for window in (1, 3, 20):
        pipe.scheduler = ParallelJacobiScheduler(window=window, initialise=initialise, delay=4)
        assert torch.equal(pipe(PROMPTS, **greedy).tokens, reference)


def test_adaptive_zipar_waits_longer(pipe):
    passes = []
    for adaptive in (False, True):
        pipe.scheduler = ZipARScheduler(delay=1, adaptive=adaptive)
        passes.append(pipe(PROMPTS, generator=generators(1, 2, 3, 4), **SAMPLING).statistics.forward_passes)
    assert passes[0] == [7] * 4
    assert all(10 <= count <= 16 for count in passes[1])  # a pass more for every row but the first, at least


@pytest.fixture(scope="module")
def enumerable(device):
    return enumerable_pipeline().to(device)


@pytest.mark.parametrize(
    ("coupled", "initialise"), [(False, "law-above"), (True, "law-above"), (False, "uniform"), (False, "repeat-above")]
)
def test_pjd_that_waits_for_whole_rows_is_lossless(enumerable, coupled, initialise):
    scheduler = ParallelJacobiScheduler(window=3, delay=2, coupled=coupled, initialise=initialise)
    verdict = judge(enumerable, scheduler, 6000, seed=2)
    assert verdict.total_variation <= verdict.limit, verdict


@pytest.mark.parametrize("scheduler", [ZipARScheduler(), ParallelJacobiScheduler(window=3)], ids=["zipar", "pjd"])
def test_parallel_rows_are_biased(enumerable, scheduler):
    verdict = judge(enumerable, scheduler, 6000, seed=2)
    assert verdict.label == "approximate"
    assert verdict.total_variation > 2 * verdict.limit, verdict
    assert verdict.passes <= 3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ZipARScheduler(delay=0), r"delay must be an integer from 1 to 65536 or None, got 0\."),
        (lambda: ParallelJacobiScheduler(delay=1.5), r"delay must be an integer from 1 to 65536 or None, got 1\.5\."),
        (lambda: ParallelJacobiScheduler(coupled=True, release=True), r"release=True redrafts in a way of its own"),
        (lambda: ParallelJacobiScheduler(initialise="law-left"), r"initialise must be one of random, .*'law-left'\."),
    ],
)
def test_bad_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
