"""What every family must hold, on tiny random members of all of them."""

import itertools
import subprocess
import sys

import pytest
import torch

from sjd_pipelines import (
    AutoregressiveScheduler,
    CoupledSJDScheduler,
    JacobiScheduler,
    Query,
    SeededJacobiScheduler,
    SJDAutoRegressivePipeline,
    SJDScheduler,
)
from sjd_pipelines.benchmark.exactness import sampling_noise, total_variation
from sjd_pipelines.decoding import Sampling, force, probabilities
from sjd_pipelines.schedulers import SCHEDULERS

from .tiny import MEMBERS


@pytest.fixture(params=MEMBERS)
def member(request):
    """A pipeline, its scheduler restored afterwards, and three prompts for it."""
    pipe = request.getfixturevalue(request.param)
    before = pipe.scheduler
    yield pipe, list(MEMBERS[request.param].prompts)
    pipe.scheduler = before


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("guidance_scale", [1.0, None])
def test_seeded_jacobi_equals_sequential(member, guidance_scale):
    pipe, prompts = member
    options = {"guidance_scale": guidance_scale, "output_type": "latent"}
    pipe.scheduler = AutoregressiveScheduler()
    sequential = pipe(prompts, generator=generators(1, 2, 3), **options)
    for window in (3, 50):
        pipe.scheduler = SeededJacobiScheduler(window=window)
        parallel = pipe(prompts, generator=generators(1, 2, 3), **options)
        assert torch.equal(parallel.tokens, sequential.tokens)
        assert min(parallel.statistics.forward_passes) < min(sequential.statistics.forward_passes)


def test_rows_of_a_batch_equal_singles(member, device):
    pipe, prompts = member
    pipe.scheduler = SJDScheduler(window=5)
    batch = pipe(prompts, num_images_per_prompt=2, generator=generators(*range(6)), output_type="pt")
    for row, (prompt, seed) in enumerate(zip([prompt for prompt in prompts for _ in range(2)], range(6))):
        single = pipe(prompt, generator=generators(seed), output_type="pt")
        assert torch.equal(single.tokens[0], batch.tokens[row])
        assert torch.allclose(single.images[0], batch.images[row], atol=1e-6 if device.type == "cpu" else 1e-5)


def test_tokens_stay_in_the_codebook_and_forced_ones_in_place(member):
    pipe, prompts = member
    pipe.scheduler = SJDScheduler(window=9)
    canvases = []
    pipe(
        prompts,
        generator=generators(1, 2, 3),
        output_type="latent",
        callback_on_step_end=lambda pipe, step, committed, tensors: canvases.append(tensors["canvas"]),
    )
    layout = pipe.image_layout(None, None)
    forced = layout.forced_tokens(canvases[-1].device)
    fixed = forced >= 0
    assert (canvases[-1][:, fixed] == forced[fixed]).all()
    assert (canvases[-1][:, ~fixed] < layout.codebook_size).all()


@torch.no_grad()
def picture_law(pipe, prompt, guidance_scale, top_k):
    """The probability of every picture by the chain rule, forced tokens in place: `[V ** (rows * columns)]`."""
    layout = pipe.image_layout(None, None)
    forced = layout.forced_tokens(pipe.device)
    codes = torch.tensor(list(itertools.product(range(layout.codebook_size), repeat=layout.rows * layout.columns)))
    tokens = forced.repeat(len(codes), 1)
    tokens[:, forced < 0] = codes.to(pipe.device)
    encoded = pipe.encode_prompt(pipe.prepare_prompts(prompt), None, True, len(codes), layout)
    target = pipe.prepare_target(encoded, layout, Sampling(guidance_scale))
    logits = target.run(Query.teacher_forced(tokens)).logits
    law = probabilities(force(logits, forced.expand_as(tokens), layout.codebook_size), top_k=top_k)
    return law.double().gather(-1, tokens[..., None])[..., 0].prod(-1).cpu()


def sampling_schedulers(every):
    """One of each kind of verification, or all that are exact or lossless, sample, and need no draft model."""
    if not every:
        return [SJDScheduler(window=3), CoupledSJDScheduler(window=3), SeededJacobiScheduler(window=3)]
    classes = [cls for cls in SCHEDULERS.values() if cls.label != "approximate" and not cls.parallel]
    schedulers = [cls(window=3) if "window" in cls().config else cls() for cls in classes]
    return [scheduler for scheduler in schedulers if "drafter" not in scheduler.companions]


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MEMBERS)
def test_lossless_schedulers_draw_from_the_law(device, name, every):
    pipe, prompt = MEMBERS[name].enumerable().to(device), MEMBERS[name].prompts[0]
    samples, sampling = 1000, {"guidance_scale": 2.0, "top_k": 3}
    law = picture_law(pipe, prompt, **sampling)
    assert law.sum() == pytest.approx(1)
    _, limit = sampling_noise(law, samples, seed=0)
    weights = 4 ** torch.arange(3, -1, -1)
    for scheduler in sampling_schedulers(every):
        pipe.scheduler = scheduler
        output = pipe(
            prompt,
            num_images_per_prompt=samples,
            generator=torch.Generator().manual_seed(0),
            temperature=1.0,
            top_p=1.0,
            output_type="latent",
            **sampling,
        )
        assert total_variation((output.tokens.cpu() * weights).sum(-1), law) < limit


def test_dtype_of_a_saved_pipeline(captions, tmp_path):
    captions.save_pretrained(tmp_path)
    loaded = SJDAutoRegressivePipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.transformer.dtype == loaded.vq_model.dtype == loaded.text_encoder.dtype == torch.bfloat16
    assert loaded("a red dog", output_type="np").images.shape == (1, 8, 8, 3)


def test_saved_pipelines_load_in_a_fresh_process(request, tmp_path):
    """Every family in one process, tokens compared with the ones drawn here."""
    script = ["import torch", "from sjd_pipelines import SJDAutoRegressivePipeline"]
    for name, member in MEMBERS.items():
        pipe = request.getfixturevalue(name)
        before, pipe.scheduler = pipe.scheduler, JacobiScheduler(window=4)
        pipe.save_pretrained(tmp_path / name)
        prompt = member.prompts[1]
        tokens = pipe(prompt, output_type="latent").tokens.tolist()
        pipe.scheduler = before
        script += [
            f"pipe = SJDAutoRegressivePipeline.from_pretrained({str(tmp_path / name)!r})",
            f"assert type(pipe).__name__ == {type(pipe).__name__!r}",
            "assert pipe.scheduler.config.window == 4",
            f"assert pipe({prompt!r}, output_type='latent').tokens.tolist() == {tokens!r}",
        ]
    subprocess.run([sys.executable, "-c", "\n".join(script)], check=True, capture_output=True, text=True)
