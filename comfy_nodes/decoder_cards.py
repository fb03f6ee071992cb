"""What each decoder is called and says of itself, in an artist's words. One card per registered scheduler."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sjd_pipelines.schedulers.drafting import INITIALISERS
from sjd_pipelines.schedulers.lantern import RESIDUALS, RULES
from sjd_pipelines.schedulers.parallel_jacobi import ROW_INITIALISERS
from sjd_pipelines.schedulers.sjd_plus_plus import CONFIDENCES
from sjd_pipelines.schedulers.speculative_jacobi import COUPLINGS

# Stands for None in the number fields of settings that may be left out; no such setting takes it as a value.
NOT_SET = -1


@dataclass(frozen=True)
class Setting:
    """One input of a decoder node: what it says, and the values it offers."""

    tooltip: str
    least: float = 0
    most: float = 1
    step: float = 0.05
    options: Sequence[str] = ()


@dataclass(frozen=True)
class Card:
    """One decoder node. `settings` has exactly the settings of the scheduler, in its order."""

    node_id: str
    display_name: str
    description: str
    settings: dict[str, Setting] = field(default_factory=dict)


LABELS = {
    "exact": "Exact: the very picture that drawing one token at a time gives for the same seed.",
    "lossless": "Lossless: pictures as good and as varied as drawing one token at a time gives, but another one for "
    "the same seed.",
    "approximate": "Approximate: pictures differ a little from what the model would draw on its own.",
}

WINDOW = Setting(
    "Tokens guessed ahead per forward pass. Larger windows save passes until guesses stop being accepted; every pass "
    "gets a little slower and needs more memory.",
    1,
    1024,
    1,
)


def _initialise(options: Sequence[str] = tuple(INITIALISERS)) -> Setting:
    return Setting(
        "How a token is guessed the first time: from what was likely above or left of it (law), by copying that "
        "token (repeat), or blindly (random, uniform). Good guesses save passes, at no cost.",
        options=options,
    )


def _relaxation() -> dict[str, Setting]:
    return {
        "rule": Setting(
            "How the bound is meant: as a multiple of the guess's own probability (multiplicative, LANTERN++), as "
            "probability that look-alikes add (additive, LANTERN), or as a bonus that fades along the window "
            "and has no look-alikes (annealed, Cool-SD).",
            options=RULES,
        ),
        "relaxation": Setting(
            "The bound: how much more readily guesses pass. Higher is faster and less faithful. The least is "
            "lossless: 1, and for additive 0 (which takes at most 1).",
            0,
            100,
        ),
        "neighbours": Setting(
            "How many look-alikes may count. More is faster and less faithful, up to the bound.", 1, 1000, 1
        ),
        "decay": Setting(
            "For annealed: how quickly the bonus fades along the window. No effect on the other rules.", 0, 10
        ),
        "residual": Setting(
            "How a rejected guess is replaced: vanilla keeps to the bound, release does as LANTERN's published "
            "code does and strays further. Same speed.",
            options=RESIDUALS,
        ),
    }


def _tree() -> dict[str, Setting]:
    return {
        "window": Setting(
            "Tokens guessed ahead per forward pass, over all branches. Larger windows save passes until guesses stop "
            "being accepted; every pass gets a little slower and needs more memory.",
            1,
            1024,
            1,
        ),
        "depth": Setting(
            "How many tokens ahead the draft model looks. Further saves passes where it is good; each step costs a "
            "run of the draft model.",
            1,
            64,
            1,
        ),
        "branches": Setting(
            "How many guesses for one place are tried at most. More saves passes where the draft model is unsure; 1 "
            "spends the whole window on a single line of guesses.",
            1,
            64,
            1,
        ),
    }


CARDS: dict[str, Card] = {
    "autoregressive": Card(
        "SJDDecoderSequential",
        "SJD Decoder: Sequential",
        "One token per forward pass, the plain way. Slowest; what all other decoders are measured against.",
    ),
    "jacobi": Card(
        "SJDDecoderJacobi",
        "SJD Decoder: Jacobi (greedy)",
        "Guesses many tokens ahead and keeps those that are the model's first choice. Draws without chance: the "
        "picture is that of temperature 0, whatever temperature and seed are set.",
        {"window": WINDOW, "initialise": _initialise()},
    ),
    "seeded-jacobi": Card(
        "SJDDecoderSeededJacobi",
        "SJD Decoder: Seeded Jacobi",
        "Guesses many tokens ahead and keeps those that the seed would have chosen anyway: fewer passes than "
        "sequential, and not a pixel differs.",
        {"window": WINDOW, "initialise": _initialise()},
    ),
    "tree-jacobi": Card(
        "SJDDecoderTreeJacobi",
        "SJD Decoder: Tree Jacobi",
        "Seeded Jacobi that also tries the runner-up where a choice was close: fewer passes still, and not a pixel "
        "differs. Each pass works on more tokens.",
        {
            "window": WINDOW,
            "branches": Setting(
                "How many close choices are tried both ways per pass. More saves passes; each makes passes slower by "
                "depth tokens.",
                1,
                64,
                1,
            ),
            "depth": Setting(
                "How far each of those side ways is followed. Longer saves passes where guesses are good; each token "
                "makes passes slower.",
                1,
                64,
                1,
            ),
            "initialise": _initialise(),
        },
    ),
    "sjd": Card(
        "SJDDecoderSpeculative",
        "SJD Decoder: Speculative Jacobi",
        "Speculative Jacobi Decoding: accepts a guess as often as the model itself would have drawn it, and draws the "
        "others again.",
        {"window": WINDOW, "initialise": _initialise()},
    ),
    "sjd++": Card(
        "SJDDecoderPlusPlus",
        "SJD Decoder: SJD++",
        "Speculative Jacobi that keeps guesses it is confident of instead of drawing them again. Fewer passes; the "
        "picture gets slightly safer.",
        {
            "window": WINDOW,
            "initialise": _initialise(),
            "confidence": Setting(
                "What counts as confident: how the guess's probability compares with before (ratio), or the "
                "probability itself. No cost.",
                options=CONFIDENCES,
            ),
            "reuse_threshold": Setting(
                "Guesses above this confidence stay. Lower keeps more: fewer passes, further from the model's own "
                "pictures. With probability, above 1 keeps none and is lossless.",
                0,
                10,
            ),
        },
    ),
    "coupled-sjd": Card(
        "SJDDecoderCoupled",
        "SJD Decoder: Coupled Speculative Jacobi",
        "Speculative Jacobi whose new guesses stay close to the old ones, so that they settle sooner "
        "and fewer passes are needed.",
        {
            "window": WINDOW,
            "initialise": _initialise(),
            "coupling": Setting(
                "How new guesses are tied to old ones: maximal changes as few as possible, gumbel uses the same dice "
                "for the same place. Both are lossless; which is faster depends on the model.",
                options=COUPLINGS,
            ),
        },
    ),
    "gsd": Card(
        "SJDDecoderGrouped",
        "SJD Decoder: Grouped (GSD)",
        "Accepts a guess for any token that looks and ranks alike. Fewer passes on models with many similar tokens.",
        {
            "window": WINDOW,
            "initialise": _initialise(),
            "group_size": Setting(
                "How many similar tokens may stand in for each other. Larger is faster and less faithful; 1 is "
                "lossless.",
                1,
                1024,
                1,
            ),
            "gap": Setting(
                "How different in probability members of a group may be. Larger is faster and less faithful.",
                0,
                1,
                0.01,
            ),
            "distance": Setting(
                "How different members of a group may look, where 1 is the usual distance of two tokens. Larger is "
                "faster and less faithful; -1 looks at probabilities only.",
                NOT_SET,
                10,
            ),
        },
    ),
    "lantern": Card(
        "SJDDecoderLantern",
        "SJD Decoder: LANTERN",
        "Accepts a guess more readily if tokens that look like it are likely too, up to a bound that you set. "
        "Fewer passes; fine texture may soften.",
        {
            "window": WINDOW,
            "initialise": _initialise(),
            **_relaxation(),
        },
    ),
    "zipar": Card(
        "SJDDecoderZipAR",
        "SJD Decoder: ZipAR",
        "Draws several rows at once, each a little behind the one above. Very few passes; a token does not see the "
        "right end of the row above, so large shapes may break.",
        {
            "delay": Setting(
                "How many tokens a row stays behind the one above. Smaller is faster and less faithful; -1 is a "
                "quarter of the row, a whole row is sequential drawing.",
                NOT_SET,
                1024,
                1,
            ),
            "adaptive": Setting(
                "Start a row only once its first token has proved stable. A few more passes, fewer broken shapes."
            ),
        },
    ),
    "pjd": Card(
        "SJDDecoderParallelJacobi",
        "SJD Decoder: Parallel Jacobi (PJD)",
        "Speculative Jacobi in several rows at once. Very few passes; a token does not see the right end of "
        "the row above, so large shapes may break.",
        {
            "window": Setting(
                "Tokens guessed ahead per row and pass. Larger windows save passes until guesses stop being "
                "accepted, at the price of slower passes and more memory.",
                1,
                1024,
                1,
            ),
            "initialise": _initialise(ROW_INITIALISERS),
            "delay": Setting(
                "How many tokens of the row above must be final before a row starts. Smaller is faster and less "
                "faithful; -1 is a quarter of the row, a whole row is lossless.",
                NOT_SET,
                1024,
                1,
            ),
            "coupled": Setting(
                "Keep new guesses close to the old ones, as Coupled Speculative Jacobi does. Usually fewer passes; "
                "the quality stays the same."
            ),
        },
    ),
    "eagle": Card(
        "SJDDecoderEagle",
        "SJD Decoder: EAGLE",
        "A small draft model guesses how the picture goes on, several ways at once; the model keeps what it would "
        "have drawn itself. Needs a model that comes with a draft model.",
        _tree(),
    ),
    "seeded-eagle": Card(
        "SJDDecoderSeededEagle",
        "SJD Decoder: Seeded EAGLE",
        "A small draft model guesses what the seed will choose; the model keeps the guesses that are right: fewer "
        "passes than sequential, and not a pixel differs. Needs a model that comes with a draft model.",
        _tree(),
    ),
    "lantern-eagle": Card(
        "SJDDecoderLanternEagle",
        "SJD Decoder: LANTERN with EAGLE",
        "EAGLE that accepts a guess more readily if tokens that look like it are likely too, up to a bound that you "
        "set. Needs a model that comes with a draft model.",
        _tree() | _relaxation(),
    ),
    "sjd-pac": Card(
        "SJDDecoderPAC",
        "SJD Decoder: SJD-PAC",
        "Coupled Speculative Jacobi that makes several guesses for the very next tokens and tries every combination. "
        "Fewer passes; each works on more tokens.",
        {
            "window": WINDOW,
            "branches": Setting(
                "How many guesses are made for each of the next tokens. More saves passes, but each pass works on "
                "many more tokens: branches to the power of depth. 1 is Coupled Speculative Jacobi.",
                1,
                8,
                1,
            ),
            "depth": Setting(
                "For how many of the next tokens several guesses are made. More saves passes, but each pass works on "
                "many more tokens: branches to the power of depth.",
                1,
                3,
                1,
            ),
            "initialise": _initialise(),
        },
    ),
    "corrected-jacobi": Card(
        "SJDDecoderCorrectedJacobi",
        "SJD Decoder: Corrected Jacobi",
        "Seeded Jacobi whose guesses a small draft model corrects before the model sees them: the fewest passes, and "
        "not a pixel differs from sequential. Needs a model that comes with a draft model.",
        {
            "window": WINDOW,
            "reach": Setting(
                "How many of the guesses are corrected, the first ones. More saves passes and makes the runs of the "
                "draft model a little longer.",
                1,
                1024,
                1,
            ),
            "corrections": Setting(
                "How often the draft model goes over them before each pass. More saves passes where it is good; each "
                "costs a run of the draft model.",
                1,
                16,
                1,
            ),
            "branches": Setting(
                "How many side chains are tried where another token came close. More saves passes, but each pass "
                "works on more tokens.",
                1,
                64,
                1,
            ),
            "depth": Setting(
                "Tokens of a side chain. Longer ones save passes where the draft model is good; each token costs a "
                "small run of the draft model.",
                1,
                64,
                1,
            ),
            "initialise": _initialise(),
        },
    ),
    "revised-jacobi": Card(
        "SJDDecoderRevisedJacobi",
        "SJD Decoder: Revised Jacobi",
        "Seeded Jacobi whose guesses a tiny network revises before the model sees them: fewer passes at hardly any "
        "cost, and not a pixel differs from sequential. Needs a model that comes with a draft reviser.",
        {
            "window": WINDOW,
            "reach": Setting(
                "How many of the guesses are revised, the first ones. More saves a few passes and takes a little "
                "longer each time.",
                1,
                1024,
                1,
            ),
            "revisions": Setting(
                "How often they are revised before each pass. More saves passes where the network is good, and takes "
                "longer each time.",
                1,
                16,
                1,
            ),
            "initialise": _initialise(),
        },
    ),
}
