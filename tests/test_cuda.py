"""What a GPU alone shows: noise with the CPU's bits, tokens of both, CUDA graphs and the memory they hold.

`pytest --device cuda` runs the tests of schedulers, families and flows there, too.
"""

import copy
import gc

import pytest
import torch

from sjd_pipelines import SJDAutoRegressivePipeline
from sjd_pipelines.benchmark.toy import toy_par_pipeline, toy_pipeline
from sjd_pipelines.decoding import PositionNoise, Purpose
from sjd_pipelines.schedulers import SCHEDULERS

from .conftest import small
from .pipelines.tiny import MEMBERS

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),
    pytest.mark.filterwarnings("ignore:Please use the new API settings to control TF32:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # by inductor
]
RECORDABLE = [name for name, kind in SCHEDULERS.items() if kind.recordable]
PROMPTS = {False: ["a red dog", "car"], True: ["0", "1"]}
DRAW = {"guidance_scale": 2.0, "top_k": 12, "seeds": [1, 2], "output_type": "latent"}


def quiet(pipe, device="cuda"):
    pipe.to(device).set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def models():
    """By whether they make several tokens at once."""
    return {False: quiet(toy_pipeline(4, 16, layers=1)), True: quiet(toy_par_pipeline(4, 16))}


@pytest.fixture
def fresh(models):
    """A pipeline of its own, that draws two pictures."""
    pipe = copy.deepcopy(models[False])

    def draw(scheduler="seeded-jacobi", **options):
        return pipe(PROMPTS[False], scheduler=scheduler, **DRAW | options)

    return pipe, draw


def allocated():
    """Bytes of device memory that are in use or reserved; memory that can be given back has been."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


@pytest.mark.parametrize("num_positions", [None, 100])
def test_noise_has_the_bits_of_the_cpus(num_positions):
    positions = torch.arange(100).expand(3, -1)
    host, device = (PositionNoise([1, 2**63, 2**64 - 1], place, num_positions) for place in ("cpu", "cuda"))
    for purpose in Purpose:
        for draw in (0, 7, 40):
            mine, theirs = (noise.uniform(positions.to(noise.device), purpose, draw) for noise in (device, host))
            assert torch.equal(mine.cpu(), theirs)
        mine, theirs = (noise.exponential(positions.to(noise.device), purpose, 500) for noise in (device, host))
        assert torch.equal(mine.cpu(), theirs)


def test_sequential_tokens_are_those_of_the_cpu():
    host, device = quiet(toy_pipeline(8, 32), "cpu"), quiet(toy_pipeline(8, 32))
    expected = host(PROMPTS[False], **DRAW).tokens
    assert torch.equal(device(PROMPTS[False], **DRAW).tokens.cpu(), expected)
    greedy = [pipe("car", temperature=0, output_type="latent").tokens.tolist() for pipe in (host, device)]
    assert greedy[0] == greedy[1]


@pytest.mark.parametrize("name", MEMBERS)
def test_seeded_jacobi_is_sequential_decoding(name):
    pipe, prompts = quiet(MEMBERS[name].make()), list(MEMBERS[name].prompts[:2])
    parallel = pipe.image_layout(None, None).parallel > 1
    first, second = ("par", "par") if parallel else ("autoregressive", "seeded-jacobi")
    options = {"seeds": [1, 2], "output_type": "latent"}
    sequential = pipe(prompts, scheduler=SCHEDULERS[first](), **options)
    window = pipe(prompts, scheduler=SCHEDULERS[second](window=8), **options)
    assert torch.equal(window.tokens, sequential.tokens)
    assert window.tokens.is_cuda


@pytest.mark.parametrize("name", RECORDABLE)
def test_captured_passes_draw_the_same_tokens(models, one_extent, name):
    """The second picture, which makes no graph, is drawn when what the first one left lying about is gone."""
    pipe, scheduler = models[SCHEDULERS[name].parallel], small(name)
    expected = pipe(PROMPTS[scheduler.parallel], scheduler=scheduler, **DRAW).tokens
    pipe.enable_compile("eager")
    try:
        first = pipe(PROMPTS[scheduler.parallel], scheduler=scheduler, **DRAW)
        made, execution = len(pipe.runner), first.statistics.execution
        allocated()
        rubbish = [torch.full((size,), torch.nan, device="cuda") for size in (1, 16, 100, 4000) for _ in range(100)]
        second = pipe(PROMPTS[scheduler.parallel], scheduler=small(name), **DRAW)
        del rubbish
    finally:
        pipe.disable_compile()
    assert torch.equal(first.tokens, expected)
    assert torch.equal(second.tokens, expected)
    assert made == execution.graphs == 1
    assert execution.nbytes > 0
    assert second.statistics.execution.graphs == 0
    assert second.statistics.execution.replayed >= max(second.statistics.forward_passes) - 2


def test_memory_of_a_graph_is_told_beside_that_of_its_tensors(fresh, one_extent):
    pipe, draw = fresh
    pipe.enable_compile("eager", capture=False)
    without = draw().statistics.execution
    pipe.enable_compile("eager")
    captured = draw().statistics.execution
    assert captured.nbytes > without.nbytes > 0
    assert draw(seeds=[3, 4]).statistics.execution.nbytes == captured.nbytes


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize(
    "release",
    [
        lambda pipe: pipe.drop_graphs(),
        lambda pipe: pipe.disable_compile(),
        lambda pipe: pipe.to("cpu").to("cuda"),
        lambda pipe: pipe.enable_compile("eager"),
    ],
    ids=["drop", "disable", "to", "again"],
)
def test_memory_is_given_back(fresh, one_extent, backend, release):
    pipe, draw = fresh
    pipe.enable_compile(backend)
    for _ in range(2):  # libraries have their workspaces after the first time
        before = allocated()
        assert draw("sjd").statistics.execution.graphs == 1
        assert draw("sjd").statistics.execution.graphs == 0
        during = allocated()
        release(pipe)
        after = allocated()
        pipe.enable_compile(backend)
    assert during[0] > before[0]
    assert after[0] <= before[0]
    assert after[1] <= before[1]


def test_the_memory_of_a_pipeline_is_given_back_with_it(models, one_extent):
    def draw_and_forget():
        pipe = copy.deepcopy(models[False])
        pipe.enable_compile("eager")
        assert pipe("car", scheduler="sjd", seeds=1, output_type="latent").statistics.execution.graphs == 1

    draw_and_forget()
    before = allocated()
    draw_and_forget()
    after = allocated()
    assert after[0] <= before[0]
    assert after[1] <= before[1]


def test_a_pipeline_that_was_moved_draws_on(fresh, one_extent):
    pipe, draw = fresh
    expected = draw().tokens
    pipe.enable_compile("eager")
    draw()
    pipe.to("cpu")
    assert len(pipe.runner) == 0
    assert torch.equal(draw().tokens, expected.cpu())
    pipe.to("cuda")
    assert torch.equal(draw().tokens, expected)
    assert torch.equal(draw().tokens, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("float32_logits", [False, True])
def test_half_precision(fresh, one_extent, dtype, float32_logits):
    pipe, draw = fresh
    pipe.to(dtype)
    if float32_logits:
        pipe.enable_float32_logits()
    pipe.enable_compile("eager", capture=False)  # prompts are as long as with capture
    expected = draw().tokens
    pipe.enable_compile("eager")
    captured = draw()
    assert torch.equal(captured.tokens, expected)
    assert captured.statistics.execution.replayed > 0


@pytest.mark.parametrize("name", ["autoregressive", "revised-jacobi", "coupled-sjd"])
def test_inductor_draws_the_bundled_models_pictures(one_extent, name):
    pipe = quiet(SJDAutoRegressivePipeline.from_pretrained())
    draw = {"seeds": [1], "output_type": "latent", "scheduler": name}
    expected = pipe("a red dog left of a blue car", **draw).tokens
    pipe.enable_compile()
    first, second = (pipe("a red dog left of a blue car", **draw) for _ in range(2))
    assert torch.equal(first.tokens, expected)
    assert torch.equal(second.tokens, expected)
    assert (len(pipe.runner), second.statistics.execution.graphs) == (1, 0)
    assert second.statistics.execution.replayed > second.statistics.execution.as_recorded == 0
