"""When graphs are forgotten: with other weights, modules and adapters, in copies, and when nobody has used them."""

import copy
import pickle

import pytest
import torch

from sjd_pipelines.benchmark.toy import toy_pipeline
from sjd_pipelines.decoding import runner


@pytest.fixture
def toy(device):
    pipe = toy_pipeline(side=4, codebook_size=16, layers=1).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    "change",
    [
        lambda pipe: pipe.to("cpu"),
        lambda pipe: pipe.drop_graphs(),
        lambda pipe: pipe.model.to(torch.float64).to(torch.float32),
        lambda pipe: pipe.model.model.language_model.layers[0].mlp.register_parameter(
            "added", torch.nn.Parameter(torch.zeros(1))
        ),
    ],
    ids=["to", "drop", "cast", "added"],
)
def test_graphs_go_where_weights_change(toy, one_extent, change):
    toy.enable_compile("eager")
    toy("car", scheduler="autoregressive", seeds=1, output_type="latent")
    assert len(toy.runner) == 1
    change(toy)
    assert len(toy.runner) == 0


def test_graphs_know_which_adapters_are_at_work(peft, toy, one_extent):
    """As PEFT says it in the modules, where no weight tells."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        toy.model.add_adapter(config, "style")
    layer = toy.model.model.language_model.layers[0].self_attn.v_proj
    changes = [lambda: layer.set_scale("style", 50.0), layer.merge, toy.model.disable_adapters]

    def tokens(pipe):
        return pipe("car", scheduler="autoregressive", seeds=1, output_type="latent").tokens[0].tolist()

    toy.enable_compile("eager")
    drawn = [tokens(toy)]
    for change in changes:
        change()
        written = copy.deepcopy(toy)
        written.disable_compile()
        drawn.append(tokens(toy))
        assert drawn[-1] == tokens(written)
    assert drawn[1] == drawn[2]
    assert len({tuple(one) for one in drawn}) == 3


def test_graphs_know_what_modules_do(toy, one_extent):
    """Where no weight tells: another activation, somebody's hook, a method put in the place of another, a mode."""
    mlp = toy.model.model.language_model.layers[0].mlp
    changes = [
        lambda: setattr(mlp, "act_fn", torch.nn.Hardtanh()),
        lambda: mlp.register_forward_hook(lambda module, inputs, output: output.flip(-1)),
        lambda: mlp.register_forward_pre_hook(lambda module, inputs: (inputs[0].flip(-1),)),
        lambda: setattr(mlp, "forward", torch.ones_like),
        lambda: mlp.train(),
    ]
    draw, drawn = {"scheduler": "autoregressive", "seeds": 1, "output_type": "latent"}, []
    toy.enable_compile("eager")
    for change in changes:
        toy("car", **draw)
        assert len(toy.runner) == 1
        change()
        assert len(toy.runner) == 0
        output = toy("car", **draw)
        written = type(toy).from_pipe(toy)
        written.set_progress_bar_config(disable=True)
        assert torch.equal(output.tokens, written("car", **draw).tokens)
        drawn.append(tuple(output.tokens[0].tolist()))
    assert len(set(drawn)) == len(changes) - 1  # the mode alone changes no number here


def test_a_run_whose_model_changed_leaves_no_graphs(toy):
    """Not even where the model is then as before."""
    mlp = toy.model.model.language_model.layers[0].mlp
    draw, hooks = {"scheduler": "autoregressive", "seeds": 1, "output_type": "latent"}, []
    expected = toy("car", **draw).tokens

    def change(pipe, pass_index, committed, tensors):
        if pass_index == 2:
            hooks.append(mlp.register_forward_hook(lambda module, inputs, output: output.flip(-1)))

    toy.enable_compile("eager")
    toy("car", callback_on_step_end=change, **draw)
    hooks[0].remove()
    assert len(toy.runner) == 0
    assert torch.equal(toy("car", **draw).tokens, expected)


@pytest.mark.parametrize("stop", ["disable_compile", "drop_graphs"])
def test_a_run_whose_graphs_are_dropped_goes_on_as_written(toy, stop):
    draw = {"scheduler": "autoregressive", "seeds": 1, "output_type": "latent"}
    expected = toy("car", **draw).tokens
    toy.enable_compile("eager")

    def callback(pipe, pass_index, committed, tensors):
        if pass_index == 2:
            getattr(pipe, stop)()

    output = toy("car", callback_on_step_end=callback, **draw)
    assert torch.equal(output.tokens, expected)
    assert output.statistics.execution.graphs == 1
    assert toy.runner is None or len(toy.runner) == 0


def test_graphs_of_settings_that_are_long_gone_are_forgotten(toy, one_extent, monkeypatch):
    monkeypatch.setattr(runner, "KEPT", 2)
    toy.enable_compile("eager")

    def graphs(temperature):
        draw = {"scheduler": "autoregressive", "seeds": 1, "output_type": "latent", "temperature": temperature}
        return toy("car", **draw).statistics.execution.graphs

    assert [graphs(temperature) for temperature in (0.7, 0.8, 0.7, 0.9, 0.7, 0.8)] == [1, 1, 0, 1, 0, 1]
    assert len(toy.runner) == 2


def test_copies_begin_without_graphs(toy, one_extent):
    toy.enable_compile("eager", capture=False)
    toy("car", scheduler="autoregressive", seeds=1, output_type="latent")
    for duplicate in (copy.deepcopy(toy), pickle.loads(pickle.dumps(toy))):
        assert (len(duplicate.runner), duplicate.runner.backend, duplicate.runner.capture) == (0, "eager", False)
    assert len(toy.runner) == 1


def test_a_shallow_copy_with_another_model_shares_no_graph(toy, one_extent):
    def tokens(pipe):
        return pipe("car", scheduler="autoregressive", seeds=1, output_type="latent").tokens[0].tolist()

    toy.enable_compile("eager")
    other = copy.copy(toy)
    other.model = copy.deepcopy(toy.model)
    with torch.no_grad():
        other.model.model.generation_head.vision_head.weight.neg_()
    drawn = [tokens(pipe) for pipe in (toy, other, toy, other)]
    toy.disable_compile()
    assert drawn[0] == drawn[2] == tokens(toy)
    other.disable_compile()
    assert drawn[1] == drawn[3] == tokens(other) != drawn[0]
