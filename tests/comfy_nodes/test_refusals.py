"""What is wrong is said before anything is queued, once, in words that are not Python's."""

import math

import pytest

SAMPLING = {"prompt": "a dog", "guidance": -1.0, "temperature": -1.0, "top_k": -1, "top_p": -1.0, "size": None}
LANTERN = {"window": 16, "initialise": "law-above", "neighbours": 10, "decay": 0.7, "residual": "vanilla"}


@pytest.mark.parametrize(
    ("node", "values", "message"),
    [
        ("SJDSampler", SAMPLING | {"prompt": " \n"}, "The prompt is empty: say what to draw."),
        (
            "SJDSampler",
            SAMPLING | {"top_p": 0.0},
            "top_p must be a number above 0, at most 1, got 0.0; -1 is the model's own.",
        ),
        (
            "SJDSampler",
            SAMPLING | {"guidance": math.nan},
            "guidance must be a number from 0 to 1000, got nan; -1 is the model's own.",
        ),
        (
            "SJDSampler",
            SAMPLING | {"temperature": -0.5},
            "temperature must be 0 or a number from 1e-06 to 1000, got -0.5; -1 is the model's own.",
        ),
        (
            "SJDDecoderSpeculative",
            {"window": 16, "initialise": "crystal-ball"},
            "initialise must be one of .*; got 'crystal-ball'.",
        ),
        (
            "SJDDecoderGrouped",
            {"distance": -0.5},
            r"distance must be a number from 0 to 100 or -1 \(not set\), got -0.5.",
        ),
        (
            "SJDDecoderLantern",
            LANTERN | {"rule": "additive", "relaxation": 2.0, "spread": -1},
            "relaxation bounds a probability under rule='additive': at most 1, got 2.0.",
        ),
        ("SJDSolverFrontier", {"window": 0}, "window must be .*, got 0."),
    ],
)
def test_bad_values_are_refused_before_the_queue(nodes, node, values, message):
    # ComfyUI would repeat what is returned for every input: one error for one fault is raised.
    with pytest.raises(ValueError, match=f"^{message}$"):
        nodes[node].validate_inputs(**values)


@pytest.mark.parametrize(
    ("node", "values"),
    [
        ("SJDSampler", SAMPLING),
        ("SJDSampler", dict.fromkeys(SAMPLING)),  # all linked
        ("SJDDecoderLantern", LANTERN | {"rule": "additive", "relaxation": None, "spread": None}),
        ("SJDDecoderSequential", {}),
        ("SJDSolverFrontier", {"tolerance": None, "window": -1, "start": None}),
    ],
)
def test_what_is_right_or_linked_is_not(nodes, node, values):
    assert nodes[node].validate_inputs(**values) is True


def test_a_missing_input_is_left_to_comfyui_to_tell(nodes):
    checking = [node for node in nodes.values() if hasattr(node, "validate_inputs")]
    assert {"SJDModelLoader", "SJDSampler", "SJDLoadTokens"} <= {node.__name__ for node in checking}
    assert all(node.validate_inputs() is True for node in checking)
