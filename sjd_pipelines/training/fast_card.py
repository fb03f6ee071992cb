"""Text of `emoji-fast`'s model card, filled with what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_CARD = """---
license: other
license_name: see-licence-section
pipeline_tag: text-to-image
base_model: emoji-janus
tags: [janus, autoregressive, consistency-distillation, lora, tiny]
---

# Emoji Fast

What `emoji-janus` draws, in fewer forward passes: a student of it by consistency distillation (after CEED-VLA, Song et
al. 2025, arXiv 2506.13725), as low-rank additions that are merged into its weights when it is loaded. Objects,
backgrounds and words are those of its base; so is what it cannot do.

## Use

```python
from sjd_pipelines import SJDAutoRegressivePipeline

pipe = SJDAutoRegressivePipeline.from_pretrained("emoji-fast")
pipe("two apples on a blue background").images[0].save("apples.png")
```

`adapter_config.json` and `adapter_model.safetensors` are in PEFT's layout; `base.json` has the digests of the base's
weights, and others are refused. `reviser/` is a draft reviser of its own.

## How it was made

Seeded Jacobi decoding is a deterministic iteration at any temperature, and the picture of a seed its fixed point. The
student learns to be there earlier: its law behind the drafts of a pass is drawn to its own law at the fixed point,
while its law at the fixed point stays the teacher's (or learns the true picture, where a judge found the teacher's
wrong).

```
python -m sjd_pipelines.training fast-prompts --file prompts.jsonl
python -m sjd_pipelines.distillation trajectories --prompts prompts.jsonl --folder drawn \\
    --judge sjd_pipelines.training.emoji_fast:true_tokens
{trained}
python -m sjd_pipelines.distillation export --folder RUN{count} --target ADAPTER --adapter --scale {scale:g}
python -m sjd_pipelines.training reviser --model ADAPTER --folder REVISER --start EARLIER
python -m sjd_pipelines.training add-reviser --folder REVISER --target ADAPTER
```

Rank {rank}; {stages}.

The first run learned from trajectories of 3,072 pictures at the defaults, 1,024 at temperature 0 and 768 at guidance
3 without truncation, and was stopped before its learning rate had come down. The next three learned from 512, 256 and
96 others, and from 480 that the second student drew itself. The fifth run began with the fourth one's weights in half
precision and learned from pictures of students alone, drawn in turn by that one and by itself as it was after 730 and
1,530 steps (`trajectories --model ... --window 16`): 2,688 at temperature 0 and 2,080 at the defaults. It was stopped
and resumed four times, with more pictures each time; its last 23 minutes gave pictures at the defaults half of the
steps, and had `--reverse 90`.

The sixth run began likewise with the fifth student, and learned from 2,944 pictures at temperature 0 and 992 at the
defaults that this one drew, nearly half of them of plain captions with two or three objects (`fast-prompts --mix ...
--plain`), and from 672 at temperature 0.4 and 128 at the defaults that it drew itself after some 300 and 2,023 steps.
It was resumed seven times: 252 steps had no `--strays`, 711 had 0.35, 1,060 had 0.4 and `--reverse 60`, and
279 had 0.4, `--reverse 90`, `--adam-rate 3e-4` and half of the pictures at the defaults. The learning rate came down
over the last 28 minutes of the 1,060 steps and the last half of the 279. Two threads worked for 54 minutes.

What was slow of the fifth student at temperature 0 were captions that pair an object with a background as no training
caption does: its drafts there came to have parts of the object where the picture has none, which its decoding of
training captions never meets, and they led it astray pass by pass. `--strays` has it learn not to be: it replaces some
of the drafts by other tokens of the picture. A few such captions are slow still (two pizzas on white).

What a student should have done in its own pictures is told by the teacher's law, both ways. The KL from that law to
the student's, which the first four runs had alone, costs little where a student now and then draws what its teacher
never would. The KL the other way (`--reverse`; on the student's own pictures: Agarwal et al. 2024, arXiv 2306.13649)
is high there. The seed's noise is no input of the network: a law that knew what it will be sampled with would be no
law of a token any more, and decoding with it exact for nothing.

The reviser is that of the fifth student, which went on from that of the fourth.

## Measured

Student and teacher with the same captions (held out), seeds and decoder; `results.json` has all.

{gates}

Goals beyond these:

{goals}

**Passes** (the prompt's not counted), means of the same pictures:

{passes}

The law at the teacher's pictures: {kl:.4f} nats a token from the teacher's, entropy {entropy:.3f} of {before:.3f}.

**Judged** by `sjd_pipelines/emoji/judge.py`, right in every respect, defaults:

{judge}

**Grounds and places**: Kolmogorov-Smirnov distances from the teacher's pictures with other seeds, of the student's
pictures and of the teacher's own; chance exceeds the last column once in a hundred times.

{distributions}
{exits}{others}
## Licence

The weights and the pictures they draw derive from the glyphs of Noto Color Emoji, whose font is licensed under the SIL
Open Font License 1.1 (Copyright Google Inc.). The code is licensed as the package is.
"""

_EXITS = """
**Early exit** (`early-exit`, window 16): passes, share of right pictures, and share of tokens that are those of the
same model's exact decoding, when a token is kept after so many iterations at most.

{table}
"""

_OTHERS = """
**Other students**, from the teacher with the same 864 and 1,408 pictures and the same time on one CPU thread, to tell
the losses apart: times fewer passes (window 16), KL, share of the teacher's entropy, and right pictures: at the
defaults, and when tokens are kept after 2 and 4 iterations.

{table}
"""


def fast_card(results: dict[str, Any]) -> str:
    """The card of what `summarise` made, with `training`."""
    training, laws = results["training"], results["laws"]
    runs = training["runs"]
    return _CARD.format(
        trained="\n".join(_command(number, run["options"]) for number, run in enumerate(runs, 1)),
        count=len(runs),
        scale=training["scale"],
        rank=training["rank"],
        stages=", then ".join(_stage(run) for run in runs),
        gates=_promises(results["gates"]),
        goals=_promises(results["goals"]),
        passes=_table(
            ("decoder", "sampling", "teacher", "student", "times fewer", "tokens a pass"),
            [
                [row["decoder"], row["sampling"], *(f"{row[who]:.1f}" for who in ("teacher", "student"))]
                + [f"{row[what]:.2f}" for what in ("fewer", "tokens_per_pass")]
                for row in results["passes"]
            ],
        ),
        kl=laws["kl"],
        entropy=laws["entropy"],
        before=laws["teacher_entropy"],
        judge=_table(
            ("pictures", "n", "teacher", "teacher, other seeds", "student"),
            [
                [kind, str(row["n"])]
                + [f"{100 * row[who]:.1f} %" for who in ("teacher", "teacher_other_seeds", "student")]
                for kind, row in results["judge"].items()
            ],
        ),
        distributions=_table(
            ("quantity", "teacher, mean and deviation", "student", "its distance", "the teacher's", "by chance"),
            [
                [quantity, *(f"{row[who][0]:.2f}, {row[who][1]:.2f}" for who in ("teacher", "student"))]
                + [f"{row[one]:.3f}" for one in ("distance", "teacher_distance", "chance")]
                for quantity, row in results["distributions"].items()
            ],
        ),
        exits=_exits(results["exits"]),
        others=_others(results["others"]),
    )


def _command(number: int, options: str) -> str:
    """That of the n-th run; each but the first begins with the one before."""
    start = f" --start RUN{number - 1}" if number > 1 else ""
    return f"python -m sjd_pipelines.distillation train --trajectories drawn --folder RUN{number}{start} {options}"


def _stage(run: dict[str, Any]) -> str:
    minutes = run["seconds"] / 60
    return f"{run['step']:,} steps over {run['images']:,} pictures, {minutes:.0f} minutes on {run['machine']}"


def _promises(rows: Sequence[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        bound = f"at least {row['at_least']:.3g}" if "at_least" in row else f"at most {row['at_most']:.3g}"
        cells.append([row["what"], f"{row['value']:.3g}", bound, "held" if row["held"] else "**not held**"])
    return _table(("", "measured", "promised", ""), cells)


def _exits(found: dict[str, dict[str, dict[str, float]]]) -> str:
    counts = next(iter(found.values()))
    if not counts:
        return ""
    head = ("iterations", *(f"{who}: passes, right, tokens" for who in found))
    return _EXITS.format(table=_table(head, [[k, *(_exit(one[k]) for one in found.values())] for k in counts]))


def _exit(figures: dict[str, float]) -> str:
    return f"{figures['passes']:.1f}, {100 * figures['right']:.0f} %, {100 * figures['agreement']:.0f} %"


def _others(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    known = ("model", "kl", "entropy_share", "right", "exits")
    samplings = list(dict.fromkeys(name for row in rows for name in row if name not in known))
    cells = [
        [row["model"], *(f"{row[name]:.2f}" if name in row else "-" for name in samplings)]
        + [f"{row['kl']:.4f}", f"{row['entropy_share']:.3f}"]
        + [f"{100 * row['right']:.1f} %" if "right" in row else "-"]
        + [f"{100 * row['exits'][k]['right']:.0f} %" if k in row.get("exits", {}) else "-" for k in ("2", "4")]
        for row in rows
    ]
    head = ("student", *samplings, "KL", "entropy", "right", "after 2", "after 4")
    return _OTHERS.format(table=_table(head, cells))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
