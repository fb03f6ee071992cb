"""SJD Decoder: what is chosen by what it gives, the window among it; and which words find a node."""

import re
import sys

import pytest
import torch

from sjd_pipelines import SCHEDULERS, SJDAutoRegressivePipeline
from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.declaration import Setting, settings_of

FAST, FEWEST, SEQUENTIAL, ANOTHER, DIFFERENT = (
    "same picture, fast",
    "same picture, fewest passes",
    "sequential, one token at a time",
    "another picture, just as good",
    "slightly different, faster with large models",
)
OWN = "the preset's own"
NO_SETTING = Setting("")


@pytest.fixture
def chosen(run):
    """The scheduler that a preset is for a pipeline."""

    def choose(preset, pipe, window=OWN):
        (decoder,) = run("SJDDecoder", preset=preset, window=window)
        return decoder.make_for(pipe.image_layout(None, None), pipe.companions())

    return choose


def test_the_list_is_the_same_everywhere(nodes):
    preset, window = nodes["SJDDecoder"].define_schema().inputs
    assert preset.options == [FAST, FEWEST, SEQUENTIAL, ANOTHER, DIFFERENT]
    assert preset.default == FAST
    assert window.options == [OWN, "auto", "4", "8", "16", "32", "64", "128"]


@pytest.mark.parametrize(
    ("preset", "with_networks", "without", "groups", "label"),
    [
        (FAST, "revised-jacobi", "seeded-jacobi", "par", "exact"),
        (FEWEST, "corrected-jacobi", "tree-jacobi", "par", "exact"),
        (SEQUENTIAL, "autoregressive", "autoregressive", "par", "exact"),
        (ANOTHER, "coupled-sjd", "coupled-sjd", "par", "lossless"),
        (DIFFERENT, "lantern", "lantern", "par", "approximate"),
    ],
)
def test_a_preset_takes_what_the_model_has(chosen, toy, preset, with_networks, without, groups, label):
    bare = toy_pipeline(4, 64)
    bare.register_modules(drafter=None, reviser=None)
    made = chosen(preset, toy.pipe)
    assert SCHEDULERS.name_of(type(made)) == with_networks
    assert made.label == label
    assert SCHEDULERS.name_of(type(chosen(preset, bare))) == without


@pytest.mark.parametrize("window", ["auto", "64"])
def test_the_window_is_set_where_there_is_one(chosen, toy, window):
    wanted = window if window == "auto" else int(window)
    assert chosen(FAST, toy.pipe, window).config.window == wanted
    assert chosen(ANOTHER, toy.pipe, window).config.window == wanted
    assert chosen(FEWEST, toy.pipe, window).config.window == (32 if window == "auto" else 64)
    assert "window" not in chosen(SEQUENTIAL, toy.pipe, window).config


def test_the_same_picture_is_the_same(run, toy):
    def draw(preset, window=OWN):
        (decoder,) = run("SJDDecoder", preset=preset, window=window)
        return run("SJDSampler", model=toy, prompt="a red dog", preview_seconds=0, decoder=decoder)

    tokens, report = draw(SEQUENTIAL)
    for preset in (FAST, FEWEST):
        for window in (OWN, "auto", "4"):
            others, faster = draw(preset, window)
            assert torch.equal(others.ids, tokens.ids)
            assert faster.passes <= report.passes
            assert faster.title == preset
    text, *_ = run("SJDReport", report=faster)
    assert text.startswith(f"{FEWEST}: corrected-jacobi window=4 ")


def test_what_is_no_preset_is_refused(run):
    with pytest.raises(ValueError, match=re.escape(f"preset must be one of: {FAST}; ")):
        run("SJDDecoder", preset="fastest")
    with pytest.raises(ValueError, match=re.escape(f"window must be one of: {OWN}; auto; 4;")):
        run("SJDDecoder", window="5")


def test_the_detailed_nodes_offer_auto_and_are_marked(nodes, run):
    for node in nodes.values():
        if not hasattr(node, "scheduler"):
            continue
        schema = node.define_schema()
        assert schema.is_experimental
        window = next((one for one in schema.inputs if one.id == "window"), None)
        takes_auto = "auto" in settings_of(SCHEDULERS[node.scheduler]).get("window", NO_SETTING).choices
        assert takes_auto == (" 0 is auto: " in (window.tooltip if window else ""))
        if takes_auto:
            settings = {one.id: one.default for one in schema.inputs} | {"window": 0}
            assert node.execute(**settings).args[0].settings["window"] == "auto"
            assert node.validate_inputs(**settings) is True
    assert run("SJDDecoderSeededJacobi", window=0)[0].make().config.window == "auto"


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("autoregressive", "SJDModelLoader"),
        ("Janus", "SJDModelLoader"),
        ("LlamaGen", "SJDModelLoader"),
        ("emoji", "SJDModelLoader"),
        ("lossless", "SJDDecoder"),
        ("fast", "SJDDecoder"),
        ("speed", "SJDDecoder"),
        ("text to image", "SJDSampler"),
        ("TarFlow", "SJDFlowLoader"),
    ],
)
def test_words_that_artists_type_find_a_node(nodes, word, found):
    assert word in nodes[found].define_schema().search_aliases


def test_an_older_comfyui_is_not_told_what_it_does_not_know(pack):
    schema = sys.modules[f"{pack.__name__}.comfy_nodes.schema"]

    def older(name, *, default=None, tooltip=None):
        return name, default, tooltip

    assert schema.advanced(older, "top_k", default=3, tooltip="t") == ("top_k", 3, "t")


def test_sizes_by_shape(run, toy, pack, bundled):
    sizes = sys.modules[f"{pack.__name__}.comfy_nodes.sizes"]

    class Wide(SJDAutoRegressivePipeline):
        def image_sizes(self):
            return [(512, 512), (512, 768), (768, 512), (512, 1024), (384, 512)]

        def image_layout(self, height, width):
            return height, width

    pipe = object.__new__(Wide)
    layouts = {choice: sizes.layout_of(pipe, choice, 5, 7) for choice in sizes.CHOICES}
    assert layouts == {
        "width and height": (5, 7),
        "the model's own": (None, None),
        "square": (512, 512),
        "landscape": (512, 768),
        "portrait": (768, 512),
        "wide": (512, 1024),
        "tall": (768, 512),
    }
    values = {"model": toy, "prompt": "a red dog", "preview_seconds": 0}
    tokens, _ = run("SJDSampler", size="square", **values)
    assert torch.equal(tokens.ids, run("SJDSampler", **values)[0].ids)
    with pytest.raises(ValueError, match="This model draws no wide picture; it draws 16 x 16"):
        run("SJDSampler", size="wide", **values)
