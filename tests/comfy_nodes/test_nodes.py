"""Every node's `execute`: the bundled model where a picture matters, a random toy where only the machinery does."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sjd_pipelines import SCHEDULERS, SJDAutoRegressivePipeline
from sjd_pipelines.companions import COMPANIONS
from sjd_pipelines.pipelines.graphs import picture_seeds

PROMPT = "a heart on a green background"
SEED = 3


@pytest.fixture(scope="module")
def drawn(nodes, bundled):
    """Tokens and report of one bundled picture, drawn with the fewest passes that are exact."""
    sampler = nodes["SJDSampler"]
    decoder = nodes["SJDDecoderSeededJacobi"].execute(window=32, initialise="law-above").args[0]
    values = {one.id: one.default for one in sampler.define_schema().inputs if hasattr(one, "default")}
    return sampler.execute(**values | {"model": bundled, "decoder": decoder, "prompt": PROMPT, "seed": SEED}).args


@pytest.fixture
def sample(run, toy):
    """Draw with the toy: tokens, report."""

    def draw(**values):
        return run("SJDSampler", **{"model": toy, "prompt": "a red dog", "preview_seconds": 0} | values)

    return draw


def test_the_bundled_model_draws_what_the_library_draws(run, bundled, drawn):
    tokens, report = drawn
    (image,) = run("SJDDecodeTokens", model=bundled, tokens=tokens)
    assert image.shape == (1, 128, 128, 3)
    assert image.dtype == torch.float32
    assert 0 <= image.min() < image.max() <= 1

    pipe = SJDAutoRegressivePipeline.from_pretrained(dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(PROMPT, generator=torch.Generator().manual_seed(SEED), output_type="pt")
    assert torch.equal(tokens.ids, expected.tokens)
    torch.testing.assert_close(image.movedim(-1, 1), expected.images)
    assert report.seeds == [SEED]
    assert report.passes < 256 == report.tokens


def test_the_report_in_words_and_numbers(run, drawn):
    _, report = drawn
    text, tokens_per_step, steps, seconds = run("SJDReport", report=report)
    assert text.startswith(f"seeded-jacobi window=32 initialise=law-above\n{steps} passes")
    assert f"\nprompt: {PROMPT}\nguidance 1.5, temperature 1, top_k 0, top_p 0.9\n" in text
    assert "\n128 x 128 pixels from 256 tokens\nExact: " in text
    assert f"picture 1: seed {SEED}, {steps} passes" in text
    assert tokens_per_step == pytest.approx(256 / steps)
    assert steps == report.statistics.forward_passes[0]
    assert seconds > 0


def test_a_compiled_model_draws_the_same_and_leaves_no_graphs_behind(run, sample, one_extent):
    """As in ComfyUI, in inference mode; weights that leave the device take their graphs along at once."""
    with torch.inference_mode():
        (model,) = run("SJDModelLoader", model="toy", dtype="fp32", compile=True)
        assert model.pipe.runner.backend == "inductor"
        model.pipe.enable_compile("eager")  # compiles nothing, which takes long
        tokens, report = sample(model=model)
        assert torch.equal(tokens.ids, sample()[0].ids)
    execution = report.statistics.execution
    assert execution.graphs == len(model.pipe.runner) == 1
    made = f"1 graph made in {execution.seconds:.1f} s, {execution.nbytes / 2**20:.1f} MiB"
    assert f"\ncompiled: {execution.replayed} passes replayed, {made}\n" in run("SJDReport", report=report)[0]
    execution.as_recorded = execution.replayed  # as where the compiler is missing
    failed = f" passes replayed ({execution.replayed} uncompiled: the compiler failed), {made}\n"
    assert failed in run("SJDReport", report=report)[0]
    model.patcher.detach(unpatch_all=False)  # of a copy that ComfyUI throws away: the weights stay
    assert len(model.pipe.runner) == 1
    model.patcher.detach()
    assert len(model.pipe.runner) == 0


@pytest.mark.parametrize("metric", ["step", "together"])
def test_the_acceptance_map_alone_and_over_the_picture(run, bundled, drawn, metric):
    tokens, report = drawn
    (image,) = run("SJDDecodeTokens", model=bundled, tokens=tokens)
    (alone,) = run("SJDAcceptanceMap", report=report, metric=metric)
    assert alone.shape == image.shape
    assert alone.unflatten(1, (16, 8)).unflatten(3, (16, 8)).var((2, 4)).max() == 0  # one colour per token
    (over,) = run("SJDAcceptanceMap", report=report, metric=metric, opacity=1.0, image=image)
    torch.testing.assert_close(over, alone)
    (under,) = run("SJDAcceptanceMap", report=report, metric=metric, opacity=0.0, image=image)
    torch.testing.assert_close(under, image)
    if metric == "step":  # later is brighter
        first, last = alone[0, 0, 0].sum(), alone[0, -1, -1].sum()
        assert first < last


def test_an_exact_decoder_beside_the_sequential_one(run, sample, decoder):
    tokens_a, report_a = sample(decoder=decoder("seeded-jacobi"), batch_size=2)
    tokens_b, report_b = sample(decoder=decoder("autoregressive"), batch_size=2)
    both = {"report_a": report_a, "report_b": report_b, "tokens_a": tokens_a, "tokens_b": tokens_b}
    text, speed_up, fewer_steps, mask = run("SJDCompare", **both)
    assert "All tokens are equal" in text
    assert speed_up == pytest.approx(report_b.seconds / report_a.seconds)
    assert fewer_steps == pytest.approx(64 / report_a.passes)
    assert mask.shape == (2, 16, 16)
    assert mask.sum() == 0


def test_differing_tokens_are_white_in_the_mask(run, sample):
    tokens_a, report_a = sample(seed=0)
    tokens_b, report_b = sample(seed=1)
    _, _, _, mask = run("SJDCompare", report_a=report_a, report_b=report_b, tokens_a=tokens_a, tokens_b=tokens_b)
    expected = (tokens_a.ids != tokens_b.ids).unflatten(1, (8, 8))
    assert torch.equal(mask[:, ::2, ::2].bool(), expected)
    assert expected.any()
    text, _, _, blank = run("SJDCompare", report_a=report_a, report_b=report_b)
    assert "differ" not in text
    assert blank.shape == (1, 16, 16)


def test_runs_of_other_sizes_are_not_compared(run, sample):
    tokens_a, report_a = sample()
    tokens_b, report_b = sample(batch_size=2)
    with pytest.raises(ValueError, match="same model, size and batch_size"):
        run("SJDCompare", report_a=report_a, report_b=report_b, tokens_a=tokens_a, tokens_b=tokens_b)


@pytest.mark.parametrize("name", [name for name, cls in SCHEDULERS.items() if not cls.parallel])
def test_every_decoder_draws(sample, decoder, name):
    tokens, report = sample(decoder=decoder(name))
    assert tokens.ids.shape == (1, 64)
    assert report.decoder == name
    assert report.statistics.label == SCHEDULERS[name].label_at(1.0)
    assert report.passes <= 64


def test_numbers_that_may_be_left_out(decoder):
    assert decoder("gsd", distance=-1.0).settings["distance"] is None
    assert decoder("gsd", distance=0.5).settings["distance"] == 0.5
    assert decoder("pjd", delay=-1).settings["delay"] is None


def test_a_bad_setting_is_told_on_the_decoder(run):
    with pytest.raises(ValueError, match=r"initialise must be one of random, .*; got 'crystal-ball'"):
        run("SJDDecoderSpeculative", initialise="crystal-ball")
    with pytest.raises(ValueError, match=r"^distance must be a number from 0 to 100 or None, got inf\.$"):
        run("SJDDecoderGrouped", distance=float("inf"))


def test_without_a_decoder_the_models_own_is_used_and_kept(sample, toy, decoder):
    own = toy.pipe.scheduler
    sample(decoder=decoder("sjd"))
    assert toy.pipe.scheduler is own
    _, report = sample()
    assert report.decoder == "autoregressive"
    assert toy.pipe.scheduler is own


def test_the_look_alikes_of_a_codebook_are_found_once(sample, toy, decoder):
    sample(decoder=decoder("lantern"))
    (table,) = toy.pipe.memory._kept["nearest codes"].values()
    sample(decoder=decoder("lantern"), seed=1)
    assert [one is table for one in toy.pipe.memory._kept["nearest codes"].values()] == [True]


def test_what_is_learned_of_windows_stays_with_the_model(sample, toy, monkeypatch):
    """A run makes a scheduler of its own; what slots cost is found out in the first one all the same."""
    monkeypatch.setattr(toy.pipe, "scheduler", SCHEDULERS["seeded-jacobi"](window="auto"))
    first, second = (sample(seed=seed)[1].statistics.windows[:6] for seed in (1, 2))
    assert first == [16] * 4 + [8] * 2
    assert second != first  # which windows it takes depends on the seconds of the day


def test_a_picture_of_a_batch_can_be_drawn_again_alone(sample):
    batch, report = sample(seed=7, batch_size=3)
    assert report.seeds[0] == 7
    for index, seed in enumerate(report.seeds):
        alone, _ = sample(seed=seed)
        assert torch.equal(batch.ids[index : index + 1], alone.ids)


def test_batches_of_neighbouring_seeds_repeat_no_picture():
    seeds = [seed for first in (*range(200), 2**64 - 1) for seed in picture_seeds(first, 64)]
    assert len(set(seeds)) == len(seeds)
    assert 0 <= picture_seeds(-5, 1)[0] < 2**53
    assert picture_seeds(5, 64)[:3] == picture_seeds(5, 3)
    assert all(0 <= seed < 2**53 for seed in seeds[:-64])  # as a web page can hold it


def test_no_global_random_state_is_touched(sample):
    before = torch.get_rng_state()
    sample()
    assert torch.equal(before, torch.get_rng_state())


def test_sampling_options_are_the_models_own_or_given(sample, toy):
    own = toy.pipe.sampling_defaults()
    named = {"guidance": own["guidance_scale"], "top_k": own["top_k"], "top_p": own["top_p"]}
    assert torch.equal(sample()[0].ids, sample(**named)[0].ids)
    assert not torch.equal(sample()[0].ids, sample(guidance=1.0)[0].ids)
    assert torch.equal(sample(temperature=0.0, seed=0)[0].ids, sample(temperature=0.0, seed=1)[0].ids)
    with pytest.raises(ValueError, match="draws 16x16 pixels only, got 16x24"):
        sample(width=24)


def test_negative_prompt(sample):
    assert torch.equal(sample()[0].ids, sample(negative_prompt=" ")[0].ids)
    assert not torch.equal(sample()[0].ids, sample(negative_prompt="car")[0].ids)


def test_progress_counts_committed_tokens(sample, server):
    sample(batch_size=2)
    values = [value for value, _, _ in server.updates]
    assert values == sorted(values)
    assert values[-1] == 128
    assert {(total, preview) for _, total, preview in server.updates} == {(128, None)}


@pytest.fixture
def texts(nodes, server, monkeypatch):
    """What is written on nodes, each of which has the number 7."""
    for node in nodes.values():
        monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id="7"))
    server.texts.clear()
    return server.texts


def test_unknown_words_stand_on_the_node_and_in_the_report(run, sample, texts):
    line = (
        "This model does not know 'lemon', 'bluee' (close: blue); the tooltip of prompt lists what the emoji model "
        "knows."
    )
    _, report = sample(prompt="a red lemon", negative_prompt="bluee")
    assert texts[-1][1].endswith(f" s.\n{line}")
    assert run("SJDReport", report=report)[0].endswith(f"\n{line}")
    _, report = sample(prompt="a red lemon", negative_prompt="bluee", guidance=1.0)
    assert "bluee" not in run("SJDReport", report=report)[0]
    _, report = sample(prompt="a red dog")
    assert "know" not in run("SJDReport", report=report)[0]
    assert "know" not in texts[-1][1]


def test_progress_is_told_in_words(sample, texts, decoder, clock):
    sample(decoder=decoder("autoregressive"), batch_size=2)
    assert texts[0] == ("7", "2/128 tokens, 1.0 per pass.")
    assert re.fullmatch(r"64 tokens in 64 passes, 1\.0 per pass, [\d.]+ s\.", texts[-1][1])


def test_reports_and_comparisons_are_written_on_their_nodes(run, sample, texts):
    _, report = sample()
    for node_id, reports in (
        ("SJDReport", {"report": report}),
        ("SJDCompare", {"report_a": report, "report_b": report}),
    ):
        text, *_ = run(node_id, **reports)
        number, shown = texts[-1]
        assert number == "7"
        assert [line.rstrip(".") for line in shown.splitlines()] == [line.rstrip(".") for line in text.splitlines()]
        assert all(line.endswith(".") for line in shown.splitlines())


@pytest.fixture
def clock(pack, monkeypatch):
    """A clock that every look moves by a minute, so that every pass is due."""
    ticks = iter(range(0, 10**6, 60))
    preview = sys.modules[f"{pack.__name__}.comfy_nodes.preview"]
    monkeypatch.setattr(preview, "perf_counter", lambda: next(ticks))
    return preview


def test_the_forming_picture_is_shown_and_the_last_one_is_finished(
    run, sample, server, toy, decoder, clock, monkeypatch
):
    monkeypatch.setattr(clock, "SHARE", 1.0)
    tokens, _ = sample(preview_seconds=1, decoder=decoder("zipar"))
    *sketches, last = [update for update in server.updates if update[2]]
    assert sketches
    for value, _, (kind, picture, _) in sketches:
        assert kind == "JPEG"
        assert picture.size == (16, 16)
        cells = torch.tensor(np.asarray(picture)).flatten(0, 1).unflatten(0, (8, 2, 8, 2))
        grey = (cells == 128).all(-1).all(1).all(-1)
        assert grey.sum() == 64 - value
    (image,) = run("SJDDecodeTokens", model=toy, tokens=tokens)
    assert last[:2] == (64, 64)
    assert np.array_equal(np.asarray(last[2][1]), (image[0] * 255).round().to(torch.uint8).numpy())


def test_sketches_take_a_fiftieth_of_the_time_at_most(sample, server, clock, decoder):
    sample(preview_seconds=1, decoder=decoder("autoregressive"))
    assert sum(1 for update in server.updates if update[2]) == 2  # the first, which was unknown to be slow; the last


def test_sketches_look_like_pictures(bundled, drawn):
    tokens, _ = drawn
    ids = tokens.ids[:1]
    pictures = sys.modules["sjd_pipelines.pipelines.pictures"]
    (small,) = pictures.sketch(bundled.patches, tokens.layout, ids, torch.ones_like(ids, dtype=torch.bool))
    true = (bundled.pipe.decode_tokens(ids, tokens.layout).float() / 2 + 0.5).clamp(0, 1)
    shown = torch.tensor(np.asarray(small)).movedim(-1, 0)[None] / 255
    true = torch.nn.functional.adaptive_avg_pool2d(true, shown.shape[-2:])
    assert torch.corrcoef(torch.stack([shown.flatten(), true.detach().flatten()]))[0, 1] > 0.8


def test_cancel_stops_within_a_pass_and_the_next_run_is_right(sample, server, toy, decoder):
    expected, _ = sample(seed=5)
    own = toy.pipe.scheduler
    sequential = decoder("autoregressive")
    server.updates.clear()
    server.cancel_at = 20
    with pytest.raises(server.Interrupt):
        sample(seed=6, decoder=sequential)
    assert server.updates[-1][0] == 20
    assert toy.pipe.scheduler is own
    again, _ = sample(seed=5)
    assert torch.equal(again.ids, expected.ids)


def test_weights_are_handed_to_comfyui_with_room_for_the_canvas(sample, server, toy):
    server.loaded.clear()
    sample(guidance=1.0)
    sample(guidance=5.0)
    sample(guidance=5.0, batch_size=2)
    needs = [need for patcher, need in server.loaded if patcher is toy.patcher]
    assert len(needs) == 3
    tokens = 64
    assert needs[0] > toy.token_bytes / 2 * tokens
    assert needs[1] > toy.token_bytes * tokens
    assert needs[2] == 2 * needs[1]
    held = {parameter.data_ptr() for parameter in toy.patcher.model.parameters()}
    modules = [part for part in toy.pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert len(modules) == 1 + len(COMPANIONS)  # which go along
    assert held == {parameter.data_ptr() for module in modules for parameter in module.parameters()}


def test_out_of_memory_says_what_to_lower(toy):
    message = r"Out of memory: lower batch_size, .*window.*\(tried to allocate 9 GiB\)"
    with pytest.raises(torch.OutOfMemoryError, match=message), toy.ready(0):
        raise torch.OutOfMemoryError("tried to allocate 9 GiB")


def test_half_precision(run):
    (model,) = run("SJDModelLoader", model="someone/small", dtype="bf16")
    assert model.pipe.dtype == torch.bfloat16
    tokens, _ = run("SJDSampler", model=model, prompt="car")
    (image,) = run("SJDDecodeTokens", model=model, tokens=tokens)
    assert image.dtype == torch.float32
    (again,) = run("SJDModelLoader", model="someone/small", dtype="fp32")
    (same,) = run("SJDDecodeTokens", model=again, tokens=tokens)
    assert same.shape == image.shape


def test_tokens_of_another_codebook_are_refused(run, toy, drawn):
    with pytest.raises(ValueError, match="connect the model that drew them"):
        run("SJDDecodeTokens", model=toy, tokens=drawn[0])


def test_a_sheet_of_pictures(run):
    images = torch.rand(5, 6, 8, 3)
    (sheet,) = run("SJDPictureGrid", images=images, columns=3)
    assert sheet.shape == (1, 2 * 6 + 4, 3 * 8 + 2 * 4, 3)
    torch.testing.assert_close(sheet[0, :6, 12:20], images[1])
    torch.testing.assert_close(sheet[0, 10:, 12:20], images[4])
    assert (sheet[0, 6:10] == 1).all()
    assert (sheet[0, 10:, 20:] == 1).all()
    (single,) = run("SJDPictureGrid", images=images[:1])
    torch.testing.assert_close(single, images[:1])
