"""Holds every scheduler to its label: its images against the enumerated law of a toy model."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import torch

from ..decoding import ImageTokenLayout, ParallelSequence, Sampling
from ..pipelines import SJDAutoRegressivePipeline
from ..schedulers import SCHEDULERS, DecodingScheduler
from ..schedulers.adaptive_window import AUTO, takes_auto
from ..schedulers.sequential import sequential_scheduler
from .toy import toy_par_pipeline, toy_pipeline

PROMPT = "a red dog"
SAMPLING = {"guidance_scale": 2.0, "temperature": 1.0, "top_k": 3}
WINDOWS = (1, 2, 3, 8)


@dataclass
class Verdict:
    """Measured total variation of one scheduler at one window.

    Attributes:
        scheduler: its registered name.
        label: `exact`, `lossless` or `approximate`.
        temperature: of the call.
        window: drafts per pass (0: sequential), or "auto".
        total_variation: between the sampled images and the enumerated law.
        noise_floor: total variation expected of that many samples of the law itself.
        limit: 99.99 % quantile of the same.
        identical: share of images equal to sequential decoding with the same seed.
        passes: mean forward passes per image.
        passed: an exact scheduler draws identical images, a lossless one stays below the limit; an approximate one
            claims nothing.
    """

    scheduler: str
    label: str
    temperature: float
    window: int | str
    total_variation: float
    noise_floor: float
    limit: float
    identical: float
    passes: float
    passed: bool


def verify(
    names: list[str] | None = None,
    windows: Sequence[int | str] = WINDOWS,
    samples: int = 20_000,
    seed: int = 0,
) -> list[dict]:
    """Measure the schedulers called `names` (default all): a dict per scheduler, window and claim, as in `Verdict`."""
    verdicts = []
    for name in names or list(SCHEDULERS):
        cls = SCHEDULERS[name]
        pipe = enumerable_pipeline_for(cls, seed)
        for window in windows_of(cls, windows) or (None,):
            scheduler = cls() if window is None else cls(window=window)
            for temperature in (1.0, 0.0) if cls.greedy_label else (1.0,):
                verdicts.append(asdict(judge(pipe, scheduler, samples, seed, temperature)))
    return verdicts


def enumerable_pipeline(seed: int = 0, side: int = 2, codebook_size: int = 4) -> SJDAutoRegressivePipeline:
    """By default 2 x 2 tokens from a codebook of 4: 256 images, 81 of them possible after top-k 3."""
    pipe = toy_pipeline(side=side, codebook_size=codebook_size, seed=seed, logit_scale=0.6, layers=1)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def enumerable_par_pipeline(seed: int = 0) -> SJDAutoRegressivePipeline:
    """2 x 6 tokens of a codebook of 2, four at once: 4,096 images. Two groups, of which one sees the other."""
    pipe = toy_par_pipeline(6, codebook_size=2, seed=seed, logit_scale=1.5, names=(PROMPT,), rows=2)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def enumerable_pipeline_for(cls: type[DecodingScheduler], seed: int = 0) -> SJDAutoRegressivePipeline:
    """A model that schedulers of this class decode."""
    return enumerable_par_pipeline(seed) if cls.parallel else enumerable_pipeline(seed)


def windows_of(cls: type[DecodingScheduler], windows: Iterable[int | str]) -> list[int | str]:
    """Those of `windows` that a scheduler takes: none without such a setting, "auto" only where it is meant."""
    if "window" not in cls().config:
        return []
    return [window for window in windows if window != AUTO or takes_auto(cls)]


def judge(
    pipe: SJDAutoRegressivePipeline, scheduler: DecodingScheduler, samples: int, seed: int, temperature: float = 1.0
) -> Verdict:
    """Draw `samples` images in one ragged batch and compare them with the law and with sequential decoding."""
    sampling, label = SAMPLING | {"temperature": temperature}, scheduler.label_at(temperature)
    law = image_law(pipe, **sampling)
    plain = sequential_scheduler(pipe.image_layout(None, None))
    reference, _ = draw(pipe, plain, samples, seed, **sampling)
    images, passes = draw(pipe, scheduler, samples, seed, **sampling)
    distance = total_variation(images, law)
    floor, limit = sampling_noise(law, samples, seed)
    identical = (images == reference).float().mean().item()
    passed = {"exact": identical == 1 and distance <= limit, "lossless": distance <= limit, "approximate": True}
    return Verdict(
        scheduler=SCHEDULERS.name_of(type(scheduler)),
        label=label,
        temperature=temperature,
        window=scheduler.config.get("window", scheduler.window),
        total_variation=distance,
        noise_floor=floor,
        limit=limit,
        identical=identical,
        passes=passes,
        passed=passed[label],
    )


@torch.no_grad()
def image_law(
    pipe: SJDAutoRegressivePipeline,
    guidance_scale: float,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    prompt: str = PROMPT,
) -> torch.Tensor:
    """The probability of every image, by the chain rule: `[V ** N]` float64 on the CPU, see `image_index`.

    Teacher-forced forward passes over all sequences; no scheduler takes part.
    """
    layout = pipe.image_layout(None, None)
    every = list(product(range(layout.codebook_size), repeat=layout.num_tokens))
    tokens = torch.tensor(every, device=pipe.device)  # [V ** N, N]
    encoded = pipe.encode_prompt(pipe.prepare_prompts(prompt), None, guidance_scale > 1, len(tokens))
    sequence = ParallelSequence(layout)
    target = pipe.prepare_target(encoded, layout, Sampling(guidance_scale, temperature, top_k, top_p), sequence.margin)
    query = sequence.teacher_forced(tokens)
    law = target.law(target.run(query).logits, query.predicts)  # [V ** N, N, V]
    law = law.double().gather(-1, tokens[..., None])[..., 0].prod(-1).cpu()  # [V ** N]
    return torch.empty_like(law).scatter_(0, image_index(layout.image_tokens(tokens.cpu()), layout), law)


def draw(
    pipe: SJDAutoRegressivePipeline, scheduler: DecodingScheduler, samples: int, seed: int, **sampling: float
) -> tuple[torch.Tensor, float]:
    """`samples` images of one prompt in one call, as indices into `image_law` `[samples]`, and mean passes."""
    output = pipe(
        PROMPT,
        num_images_per_prompt=samples,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        scheduler=scheduler,
        **sampling,
    )
    passes = output.statistics.forward_passes
    return image_index(output.tokens.cpu(), pipe.image_layout(None, None)), sum(passes) / len(passes)


def image_index(tokens: torch.Tensor, layout: ImageTokenLayout) -> torch.Tensor:
    """`[B, N]` tokens in raster order -> `[B]` index of the image in `image_law`, the first most significant."""
    weights = layout.codebook_size ** torch.arange(layout.num_tokens - 1, -1, -1)
    return (tokens * weights).sum(-1)


def total_variation(images: torch.Tensor, law: torch.Tensor) -> float:
    """Half the L1 distance between the frequencies of `images` and `law`."""
    frequencies = images.bincount(minlength=len(law)).double() / len(images)
    return 0.5 * (frequencies - law).abs().sum().item()


def sampling_noise(law: torch.Tensor, samples: int, seed: int, trials: int = 1000) -> tuple[float, float]:
    """Mean and 99.99 % point (normal tail over `trials`) of the total variation of `samples` true draws."""
    weights = (law / law.sum()).numpy()
    counts = np.random.default_rng(seed).multinomial(samples, weights, size=trials)  # [trials, V ** N]
    distances = 0.5 * np.abs(counts / samples - weights).sum(-1)
    return float(distances.mean()), float(distances.mean() + 3.72 * distances.std())
