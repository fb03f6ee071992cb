"""Passes that are recorded, compiled and replayed: the same tokens, one graph of each shape, none made twice."""

import copy
import gc
from threading import Barrier, Thread

import accelerate
import pytest
import torch
from torch._dynamo.utils import counters

from sjd_pipelines import RowParallelScheduler, SeededJacobiScheduler
from sjd_pipelines.benchmark.toy import toy_par_pipeline, toy_pipeline
from sjd_pipelines.decoding import DecodingState, PositionNoise, Sampling, decode
from sjd_pipelines.schedulers import SCHEDULERS

from ..conftest import small
from ..meta import watched, without_numbers
from .tiny import MEMBERS

DRAW = {"guidance_scale": 2.0, "top_k": 12, "seeds": [1, 2], "output_type": "latent"}


def family_scheduler(pipe):
    return SCHEDULERS["par" if pipe.image_layout(None, None).parallel > 1 else "seeded-jacobi"](window=8)


@pytest.fixture(autouse=True)
def uncollected():
    """Tracing makes so many objects that a quarter of its time would go into looking for garbage among them."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def models(device):
    """By whether they make several tokens at once: few layers, so that there is little to compile."""
    found = {False: toy_pipeline(side=4, codebook_size=16, layers=1), True: toy_par_pipeline(4, 16)}
    for pipe in found.values():
        pipe.to(device).set_progress_bar_config(disable=True)
    return found


@pytest.fixture
def toy(models):
    yield models[False]
    models[False].disable_compile()


def told(caplog):
    return [record.message for record in caplog.records if record.name.startswith("sjd_pipelines")]


def compiled():
    """What dynamo has counted: graphs, and breaks in them."""
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


@pytest.mark.parametrize("name", [name for name, kind in SCHEDULERS.items() if kind.recordable])
def test_one_graph_without_breaks_draws_the_same_tokens(models, one_extent, name):
    pipe, scheduler = models[SCHEDULERS[name].parallel], small(name)
    prompts = ["0", "1"] if scheduler.parallel else ["a red dog", "car"]
    expected = pipe(prompts, scheduler=scheduler, **DRAW).tokens
    graphs, breaks = compiled()
    pipe.enable_compile("aot_eager")
    try:
        first = pipe(prompts, scheduler=scheduler, **DRAW)
        made = len(pipe.runner)
        second = pipe(prompts, scheduler=type(scheduler)(**dict(scheduler.settings)), **DRAW)
    finally:
        pipe.disable_compile()
    assert torch.equal(first.tokens, expected)
    assert torch.equal(second.tokens, expected)
    assert compiled() == (graphs + made, breaks)
    assert made == first.statistics.execution.graphs == 1
    assert (second.statistics.execution.graphs, second.statistics.execution.seconds) == (0, 0.0)
    assert second.statistics.execution.replayed >= max(second.statistics.forward_passes) - 2
    assert second.statistics.execution.as_recorded == 0


def test_as_many_graphs_as_shapes(toy):
    toy.enable_compile("eager")
    output = toy("car", scheduler="autoregressive", seeds=1, output_type="latent")
    layout = toy.image_layout(None, None)
    state = DecodingState.empty(layout, 1, margin=1)
    assert len(toy.runner) == len({state.extent(count) for count in range(layout.num_tokens)})
    assert output.statistics.execution.nbytes > 0


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_prompts_of_another_length_share_graphs(toy, one_extent, guidance):
    draw = {"scheduler": "seeded-jacobi", "seeds": 1, "output_type": "latent", "guidance_scale": guidance}
    toy.enable_compile("eager")
    toy("car", **draw)
    made = len(toy.runner)
    longer = toy("two blue cat on a green house", **draw)
    assert len(toy.runner) == made == 1
    toy.disable_compile()
    written = toy("two blue cat on a green house", **draw)
    assert torch.equal(longer.tokens, written.tokens)


def test_a_second_run_beside_the_first_draws_its_own_picture(toy, one_extent, caplog):
    expected = [toy("car", scheduler="sjd", seeds=seed, output_type="latent").tokens for seed in (1, 2)]
    toy.enable_compile("eager")
    toy("car", scheduler="sjd", seeds=3, output_type="latent")
    drawn = {}

    def draw(seed, **options):
        drawn[seed] = toy("car", scheduler="sjd", seeds=seed, output_type="latent", **options)

    def beside(pipe, pass_index, committed, tensors):
        if pass_index == 2:
            thread = Thread(target=draw, args=(2,))
            thread.start()
            thread.join()

    draw(1, callback_on_step_end=beside)
    assert [torch.equal(drawn[seed].tokens, tokens) for seed, tokens in zip((1, 2), expected)] == [True, True]
    assert drawn[1].statistics.execution.replayed > 0
    assert drawn[2].statistics.execution.replayed == 0
    assert len(toy.runner) == 1
    assert len([message for message in told(caplog) if "another run is at work" in message]) == 1


@pytest.mark.parametrize("known", [True, False], ids=["recorded", "new"])
def test_two_runs_at_once(toy, one_extent, known):
    """Both record, or both ask for one graph."""

    def draw(seed):
        return toy("car", scheduler="sjd", seeds=seed, output_type="latent")

    expected = {seed: draw(seed).tokens for seed in (1, 2)}
    toy.enable_compile("eager")
    if known:
        draw(3)
    drawn, barrier = {}, Barrier(2)

    def run(seed):
        barrier.wait(timeout=60)
        drawn[seed] = draw(seed)

    threads = [Thread(target=run, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [torch.equal(drawn[seed].tokens, tokens) for seed, tokens in expected.items()] == [True, True]
    assert len(toy.runner) == 1
    assert sum(output.statistics.execution.replayed for output in drawn.values()) > 0


def test_a_later_run_leaves_the_tokens_of_an_earlier_one_alone(toy, one_extent):
    toy.enable_compile("eager")
    first = toy("car", scheduler="seeded-jacobi", seeds=1, output_type="latent")
    second = toy("car", scheduler="seeded-jacobi", seeds=1, output_type="latent")
    kept = second.tokens.clone()
    toy("a red dog", scheduler="seeded-jacobi", seeds=2, output_type="latent")
    assert torch.equal(second.tokens, kept)
    assert torch.equal(first.tokens, kept)


def test_a_run_goes_on_at_the_addresses_of_its_graph(toy, one_extent):
    seen = []

    class Watching(SCHEDULERS["seeded-jacobi"]):
        def prepare(self, state, noise):
            super().prepare(state, noise)
            held = (
                state.canvas,
                state.committed,
                state.accepted_at,
                state.laws.values,
                state.shared_noise.ring.values,
            )
            seen.append((state.passes, [tensor.data_ptr() for tensor in held]))

    toy.enable_compile("eager")
    for seed in (1, 2):
        toy("car", scheduler=Watching(window=4), seeds=seed, output_type="latent")
    # The first two passes of the first run are written and recorded, the first of the second is written.
    starts = [index for index, (passes, _) in enumerate(seen) if passes == 0]
    first, second = seen[starts[0] + 2 : starts[1]], seen[starts[1] + 2 :]
    assert len({tuple(addresses) for _, addresses in first[1:] + second}) == 1


def test_windows_of_another_size_are_chosen_among_few(toy):
    toy.enable_compile("eager")
    output = toy("car", scheduler=SCHEDULERS["seeded-jacobi"](window="auto"), seeds=1, output_type="latent")
    expected = toy("car", scheduler="autoregressive", seeds=1, output_type="latent")
    assert torch.equal(output.tokens, expected.tokens)
    assert set(output.statistics.windows) <= {4, 8}


@pytest.mark.parametrize("name", MEMBERS)
def test_logits_of_half_precision_weights_in_float32(name):
    pipe = MEMBERS[name].make().to(torch.bfloat16)
    count = pipe.embed_image_tokens(torch.zeros(1, 1, dtype=torch.int64)).shape[-1]
    hidden = torch.randn(2, 3, count, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    rough, fine = pipe.image_logits(hidden), pipe.image_logits(hidden.float())
    assert (rough.dtype, fine.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(rough.float(), fine, rtol=0.05, atol=0.05)
    pipe.to(torch.float32)
    torch.testing.assert_close(pipe.image_logits(hidden.float()), fine)


def test_a_run_asks_for_float32_logits(toy):
    rows = {}
    half = copy.deepcopy(toy).to(torch.bfloat16)

    class Watching(SCHEDULERS["autoregressive"]):
        def step(self, probabilities, query, state, noise):
            rows.setdefault(half.float32_logits, []).append(probabilities)
            return super().step(probabilities, query, state, noise)

    half("car", scheduler=Watching(), seeds=1, output_type="latent", guidance_scale=1.0)
    half.enable_float32_logits()
    half("car", scheduler=Watching(), seeds=1, output_type="latent", guidance_scale=1.0)
    half.disable_float32_logits()
    assert not half.float32_logits
    # Logits of three digits repeat: so do their probabilities.
    assert len(rows[True][0].unique()) >= len(rows[False][0].unique())
    assert not torch.equal(rows[True][0], rows[False][0])


def test_rows_are_executed_as_written(toy, caplog):
    expected = toy("car", scheduler="zipar", seeds=1, output_type="latent")
    toy.enable_compile("eager")
    output = toy("car", scheduler="zipar", seeds=1, output_type="latent")
    assert torch.equal(output.tokens, expected.tokens)
    assert output.statistics.execution is None
    assert len([record for record in caplog.records if "not recorded" in record.message]) == 1
    assert issubclass(SCHEDULERS["zipar"], RowParallelScheduler)


def test_what_cannot_be_compiled_is_refused(toy):
    with pytest.raises(ValueError, match="backend must be one of inductor, aot_eager, eager, got 'fast'"):
        toy.enable_compile("fast")


def test_offloaded_weights_are_refused_until_they_stay(toy, one_extent):
    pipe, draw = copy.deepcopy(toy), {"scheduler": "autoregressive", "seeds": 1, "output_type": "latent"}
    pipe.enable_compile("eager")
    accelerate.cpu_offload(pipe.model, execution_device=pipe.device)
    for refused in (pipe.enable_compile, lambda: pipe("car", **draw)):
        with pytest.raises(ValueError, match="remove the offloading first"):
            refused()
    pipe.disable_compile()
    expected = pipe("car", **draw).tokens
    accelerate.hooks.remove_hook_from_submodules(pipe.model)
    pipe.enable_compile("eager")
    output = pipe("car", **draw)
    assert torch.equal(output.tokens, expected)
    assert output.statistics.execution.replayed > 0


def half_done(module, inputs):
    """A backend of `torch.compile` whose code fails when a pass has been computed."""

    def call(*tensors):
        module(*tensors)
        raise RuntimeError("out of order")

    return call


@pytest.mark.parametrize("backend", ["no such compiler", half_done])
def test_a_compiler_that_fails_leaves_passes_as_recorded(toy, one_extent, caplog, backend):
    expected = toy("car", scheduler="seeded-jacobi", seeds=1, output_type="latent")
    toy.enable_compile("eager")
    toy.runner.backend = backend
    output = toy("car", scheduler="seeded-jacobi", seeds=1, output_type="latent")
    assert torch.equal(output.tokens, expected.tokens)
    assert (output.statistics.execution.graphs, output.statistics.execution.replayed > 0) == (1, True)
    assert output.statistics.execution.as_recorded == output.statistics.execution.replayed
    assert [f"are not compiled: {backend} failed: " in message for message in told(caplog)] == [False, True]


def test_a_compiler_is_announced_once(toy, caplog):
    toy.enable_compile("eager")
    toy.runner.backend = "no such compiler"
    for seed in (1, 2):
        toy("car", scheduler="autoregressive", seeds=seed, output_type="latent")
    assert len(toy.runner) > 1
    assert ["this may take minutes for each shape" in message for message in told(caplog)] == [True, False]


@pytest.mark.parametrize("name", MEMBERS)
def test_every_family(request, one_extent, name):
    pipe, prompts = request.getfixturevalue(name), list(MEMBERS[name].prompts[:2])
    draw = {"seeds": [1, 2], "output_type": "latent", "scheduler": family_scheduler(pipe)}
    expected = pipe(prompts, **draw).tokens
    pipe.enable_compile("eager")
    try:
        output = pipe(prompts, **draw)
    finally:
        pipe.disable_compile()
    assert torch.equal(output.tokens, expected)
    assert output.statistics.execution.graphs == 1


@pytest.mark.parametrize("name", MEMBERS)
def test_every_family_reads_the_device_once_a_pass(request, name):
    pipe, model = request.getfixturevalue(name), MEMBERS[name].make().to("meta")
    prompt = pipe.encode_prompt(list(MEMBERS[name].prompts[:2]), None, True, 1)
    sampling = Sampling(2.0, 0.7, top_k=8, top_p=0.9)
    assert set(watched(model, without_numbers(prompt), family_scheduler(pipe), sampling)) == {(1, 0)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor uses it
@pytest.mark.parametrize("name", ["autoregressive", "revised-jacobi", "coupled-sjd"])
def test_inductor_draws_the_bundled_models_pictures(device, one_extent, name):
    from sjd_pipelines import SJDAutoRegressivePipeline

    pipe = SJDAutoRegressivePipeline.from_pretrained().to(device)
    pipe.set_progress_bar_config(disable=True)
    draw = {"seeds": [1], "output_type": "latent", "scheduler": name}
    expected = pipe("a red dog left of a blue car", **draw).tokens
    pipe.enable_compile()
    assert torch.equal(pipe("a red dog left of a blue car", **draw).tokens, expected)
    second = pipe("a red dog left of a blue car", **draw)
    assert torch.equal(second.tokens, expected)
    execution = second.statistics.execution
    assert (execution.replayed > 0, execution.as_recorded, execution.graphs) == (True, 0, 0)


@torch.no_grad()
def test_who_looks_on_is_called_in_every_pass(toy, one_extent, caplog):
    """A graph calls nobody, so that such a run has none; the scheduler's own companions are part of it."""

    class Counter:
        calls = 0

        def observe(self, seen):
            self.calls += 1

    toy.enable_compile("eager")
    layout, scheduler = toy.image_layout(None, None), SeededJacobiScheduler(window=3)
    prompt = toy.encode_prompt(["car"], None, False, 1, layout)
    for _ in range(2):
        target = toy.prepare_target(prompt, layout, Sampling(), scheduler.margin(layout))
        counter = Counter()
        state = decode(target, scheduler, PositionNoise([1], toy.device, target.length), {"counter": counter})
        assert counter.calls == state.passes > 3
    assert len(toy.runner) == 0
    assert told(caplog) == ["Passes that others look at are not recorded: they are executed as written."] * 2


def test_a_pass_without_a_graph_is_told(toy, one_extent, caplog):
    caplog.set_level("INFO", "sjd_pipelines")
    toy.enable_compile("eager")
    statistics = toy("car", scheduler="seeded-jacobi", seeds=1, output_type="latent").statistics
    execution = statistics.execution
    written = statistics.forward_passes[0] - execution.replayed - execution.graphs
    assert ["executed as written: it has no graph yet" in message for message in told(caplog)] == [True] * written
    assert written > 0
