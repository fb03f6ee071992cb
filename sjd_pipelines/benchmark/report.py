"""The decoder report: everything that is claimed of the schedulers, measured in one go; `report_page` shows it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from statistics import mean
from typing import Any

from ..emoji.judge import ceilings
from ..pipelines import SJDAutoRegressivePipeline
from ..pipelines.pictures import data_uri, render_tokens, to_pictures
from .contenders import RELAXED_FAMILIES, Contender, RelaxedFamily, labels_at
from .drawing import benchmark_scenes, draw
from .exactness import enumerable_pipeline, enumerable_pipeline_for, judge
from .journal import Journal
from .library import check_library
from .machine import pipeline_facts
from .prompt_fidelity import can_be_judged, measure_fidelity
from .speed import SpeedConfig, measure_speed

SWEEPS: dict[str, tuple[float, ...]] = {
    "window": (1, 2, 4, 8, 16, 32, 64),
    "guidance_scale": (1.0, 3.0, 5.0, 7.5),
    "temperature": (0.5, 0.75, 1.0, 1.25),
    "top_k": (10, 100, 1000, 0),
}
UNSWEPT = ("autoregressive", "jacobi")  # of one token per pass, and of no sampling
TOY_WINDOW = 3
BATCH = 25  # judged pictures drawn at once
ROWS_TOY = {"side": 3, "codebook_size": 2}  # 512 images
# What a sweep varies around: the sampling at which most papers report, so that one curve meets the next.
SWEEP_SAMPLING = {"guidance_scale": 3.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True)
class ReportConfig:
    """What is measured, and how much of it.

    Attributes:
        contenders: the schedulers, at the settings they are reported with.
        model: what to call the model.
        shown: pictures of each scheduler on the page.
        prompts: timed pictures of each scheduler.
        per_kind: judged pictures of each scheduler and kind of caption.
        sweeps: which of `SWEEPS`.
        swept: pictures at each point of a curve.
        curves: names of the schedulers that are swept; None is all that are not approximate.
        windows: of the window sweep.
        families: the approximate decoders that are measured over their bounds.
        samples: pictures of the enumerable model per scheduler.
        seed: of everything.
        sampling: overrides of the checkpoint's sampling for what is timed, judged and shown.
    """

    contenders: tuple[Contender, ...]
    model: str
    shown: int = 3
    prompts: int = 3
    per_kind: int = 3
    sweeps: tuple[str, ...] = tuple(SWEEPS)
    swept: int = 2
    curves: tuple[str, ...] | None = None
    windows: tuple[int, ...] = SWEEPS["window"]
    families: tuple[RelaxedFamily, ...] = RELAXED_FAMILIES
    samples: int = 5000
    seed: int = 0
    sampling: dict[str, float] = field(default_factory=dict)


def measure_report(
    pipe: SJDAutoRegressivePipeline,
    config: ReportConfig,
    journal: Journal | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure all of it. The pipeline gets its own scheduler back.

    Args:
        pipe: any family; its progress bar should be off. Only pictures of the bundled checkpoint's world are judged.
        config: what to measure.
        journal: keeps every measurement; default in memory.
        progress: called as `progress(stage, done, total)`.

    Returns:
        JSON: `facts`, `method`, `schedulers`, `skipped`, `library`, `ceilings`, `sweeps`, `relaxed`.

    Raises:
        ValueError: the journal is of another report.
    """
    run = _ReportRun(pipe, config, journal or Journal(), progress or (lambda stage, done, total: None))
    return run.measure()


class _ReportRun:
    """One report in the making: a method per section."""

    def __init__(
        self,
        pipe: SJDAutoRegressivePipeline,
        config: ReportConfig,
        journal: Journal,
        progress: Callable[[str, int, int], None],
    ):
        self.pipe, self.config, self.journal, self.progress = pipe, config, journal, progress
        self.skipped = {c.name: reason for c in config.contenders if (reason := c.missing(pipe))}
        self.contenders = [contender for contender in config.contenders if contender.name not in self.skipped]
        self.families = [family for family in config.families if family.at(1, 1).missing(pipe) is None]
        self.sampling = pipe.sampling_defaults() | config.sampling
        try:
            check_library(pipe, self.sampling["guidance_scale"])
        except ValueError as error:
            self.skipped["library"] = str(error)

    def measure(self) -> dict[str, Any]:
        """Every section, in the order of the page."""
        config = self.config
        own = ("shown", "prompts", "per_kind", "sweeps", "swept", "curves", "windows", "samples", "seed")
        method = {name: getattr(config, name) for name in own}
        method |= {"sampling": self.sampling, "sweep_sampling": SWEEP_SAMPLING}
        method |= {"families": [family.title for family in config.families]}
        facts = {"model": config.model} | pipeline_facts(self.pipe)
        temperature = self.sampling["temperature"]
        contenders = labels_at(self.contenders, temperature)
        self.journal.begin({"facts": facts, "method": method, "contenders": contenders})
        labels, seconds = self.labels(), self.seconds()
        entries = [
            {
                "name": contender.name,
                "label": contender.label_at(temperature),
                "paper": contender.scheduler.paper,
                "settings": contender.settings,
                "exactness": verdict,
                "speed": seconds[contender.name],
                "fidelity": drawn,
                "pictures": pictures,
            }
            for contender, verdict, drawn, pictures in zip(
                self.contenders, labels, self.fidelity(self.contenders, self.stage("fidelity")), self.pictures()
            )
        ]
        judged = can_be_judged(self.pipe)
        return {
            "facts": facts,
            "method": method,
            "schedulers": entries,
            "skipped": self.skipped,
            "library": seconds.get("library"),
            "ceilings": self.journal.measure(
                "ceilings", ceilings, partial(render_tokens, self.pipe), config.per_kind, config.seed
            )
            if judged
            else {},
            "sweeps": self.curves(),
            "relaxed": self.relaxed(),
        }

    def stage(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(name, done, total)

    def labels(self) -> list[dict[str, Any]]:
        """Each scheduler's images of the enumerable model against their law."""
        verdicts = []
        for index, contender in enumerate(self.contenders):
            scheduler = contender.scheduler
            if "window" in contender.settings:  # wider than the enumerable picture shows less
                scheduler = type(scheduler).from_config(scheduler.config, window=TOY_WINDOW)
            toy = enumerable_pipeline_for(type(scheduler), self.config.seed)
            verdicts.append(self.verdict(toy, Contender(contender.name, scheduler), self.sampling["temperature"]))
            self.progress("labels", index + 1, len(self.contenders))
        return verdicts

    def verdict(
        self, toy: SJDAutoRegressivePipeline, contender: Contender, temperature: float = 1.0
    ) -> dict[str, Any]:
        key = f"label {toy.image_layout(None, None).num_tokens} tokens temperature={temperature} {contender.key}"
        config = self.config
        return self.journal.measure(
            key, lambda: asdict(judge(toy, contender.scheduler, config.samples, config.seed, temperature))
        )

    def seconds(self) -> dict[str, dict[str, Any]]:
        """Timed runs by scheduler name, the library's among them if it can run."""
        config = self.config
        timed = SpeedConfig(
            tuple(contender for contender in self.contenders if contender.name != "autoregressive"),
            config.model,
            config.prompts,
            repeats=1,
            seed=config.seed,
            library="library" not in self.skipped,
            sampling=config.sampling,
        )
        report = measure_speed(self.pipe, timed, self.stage("seconds"), self.journal.part("seconds"))
        return {result.name: asdict(result) for result in report.results}

    def fidelity(
        self, contenders: Sequence[Contender], progress: Callable[[int, int], None] | None = None
    ) -> list[dict[str, Any]]:
        config = self.config
        return measure_fidelity(
            self.pipe, contenders, config.per_kind, self.journal, config.seed, BATCH, config.sampling, progress
        )

    def pictures(self) -> list[list[dict[str, Any]]]:
        """Pictures of the same captions and seeds by every scheduler, with the pass that committed each token."""
        captions = [caption for caption, _ in benchmark_scenes(self.pipe, self.config.shown, self.config.seed)]
        drawn = {}
        for index, contender in enumerate(self.contenders):
            drawn[contender.name] = self.journal.measure(
                f"pictures {contender.key}", self.portraits, contender, captions
            )
            self.progress("pictures", index + 1, len(self.contenders))
        sequential = [picture["tokens"] for picture in drawn.get("autoregressive", ())]
        if not sequential:
            return list(drawn.values())
        return [
            [picture | {"as_sequential": picture["tokens"] == tokens} for picture, tokens in zip(pictures, sequential)]
            for pictures in drawn.values()
        ]

    def portraits(self, contender: Contender, captions: list[str]) -> list[dict[str, Any]]:
        run = draw(self.pipe, contender.scheduler, captions, self.config.seed, self.sampling)
        columns = self.pipe.image_layout(None, None).columns
        return [
            {
                "caption": caption,
                "seed": self.config.seed + index,
                "passes": run.passes[index],
                "picture": data_uri(picture),
                "tokens": run.tokens[index].tolist(),
                "acceptance_map": run.acceptance_map[index, :, :columns].tolist(),
            }
            for index, (caption, picture) in enumerate(
                zip(captions, to_pictures(render_tokens(self.pipe, run.tokens)))
            )
        ]

    def curves(self) -> dict[str, dict[str, Any]]:
        """Tokens per pass and seconds per picture over window, guidance, temperature and top-k."""
        wanted, labels = self.config.curves, labels_at(self.contenders, SWEEP_SAMPLING["temperature"])
        drawn = [
            contender
            for contender in self.contenders
            if contender.name not in UNSWEPT
            and (labels[contender.key] != "approximate" if wanted is None else contender.name in wanted)
        ]
        captions = [caption for caption, _ in benchmark_scenes(self.pipe, self.config.swept, self.config.seed)]
        sweeps = {}
        for name in self.config.sweeps:
            values = self.config.windows if name == "window" else SWEEPS[name]
            swept = [contender for contender in drawn if name != "window" or "window" in contender.settings]
            points: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in swept}
            # Value by value, so that the schedulers' seconds are taken in turns.
            for step, (value, contender) in enumerate(product(values, swept)):
                key = f"{name}={value} {contender.key}"
                points[contender.name].append(self.journal.measure(key, self.point, contender, name, value, captions))
                self.progress(f"curves over {name}", step + 1, len(values) * len(swept))
            curves = [{"name": c.name, "label": labels[c.key], "points": points[c.name]} for c in swept]
            sweeps[name] = {"values": list(values), "curves": curves}
        return sweeps

    def point(self, contender: Contender, name: str, value: float, captions: list[str]) -> dict[str, float]:
        scheduler, sampling = contender.scheduler, SWEEP_SAMPLING
        if name == "window":
            scheduler = type(scheduler).from_config(scheduler.config, window=value)
        else:
            sampling = sampling | {name: value}
        run = draw(self.pipe, scheduler, captions, self.config.seed, sampling)
        passes = mean(run.passes)
        return {
            "passes": passes,
            "tokens_per_pass": run.tokens.shape[1] / passes,
            "seconds": run.seconds / len(captions),
        }

    def relaxed(self) -> list[dict[str, Any]]:
        """Approximate decoders over their bounds: realised total variation on enumerable models, passes, fidelity."""
        toys = {
            by_row: enumerable_pipeline(self.config.seed, **(ROWS_TOY if by_row else {})) for by_row in (False, True)
        }
        columns = self.pipe.image_layout(None, None).columns
        points = [(family, value) for family in self.families for value in family.values]
        rows: dict[str, list[dict[str, Any]]] = {family.title: [] for family in self.families}
        for index, (family, value) in enumerate(points):
            toy, contender = toys[family.by_row], family.at(value, columns)
            verdict = self.verdict(toy, family.at(value, toy.image_layout(None, None).columns, TOY_WINDOW))
            (drawn,) = self.fidelity([contender])
            rows[family.title].append(
                {
                    "bound": contender.settings[family.bound],
                    "total_variation": verdict["total_variation"],
                    "noise_floor": verdict["noise_floor"],
                    "passes": drawn["passes"],
                    "tokens_per_pass": drawn["tokens_per_pass"],
                    "fidelity": drawn["scores"].get("all"),
                }
            )
            self.progress("relaxed decoders", index + 1, len(points))
        return [
            {"title": family.title, "name": family.name, "bound": family.bound, "rows": rows[family.title]}
            for family in self.families
        ]
