"""Node ids, inputs and their order are a file format: old graphs keep loading. Only append to this."""

import pytest

SAMPLING = [
    "model", "prompt", "seed", "width", "height", "batch_size", "guidance", "temperature", "top_k", "top_p",
    "preview_seconds", "decoder", "negative_prompt", "size",
]  # fmt: skip
TREE = ["window", "depth", "branches"]
LANTERN = ["window", "initialise", "rule", "relaxation", "neighbours", "decay", "residual", "spread"]

# node id -> inputs, outputs
FROZEN = {
    "SJDModelLoader": (["model", "dtype", "compile"], ["MODEL"]),
    "SJDDecoderSequential": ([], ["DECODER"]),
    "SJDDecoderJacobi": (["window", "initialise"], ["DECODER"]),
    "SJDDecoderSeededJacobi": (["window", "initialise"], ["DECODER"]),
    "SJDDecoderTreeJacobi": (["window", "branches", "depth", "initialise"], ["DECODER"]),
    "SJDDecoderSpeculative": (["window", "initialise"], ["DECODER"]),
    "SJDDecoderPlusPlus": (["window", "initialise", "confidence", "reuse_threshold"], ["DECODER"]),
    "SJDDecoderCoupled": (["window", "initialise", "coupling"], ["DECODER"]),
    "SJDDecoderGrouped": (["window", "initialise", "group_size", "gap", "distance", "keep_truncation"], ["DECODER"]),
    "SJDDecoderLantern": (LANTERN, ["DECODER"]),
    "SJDDecoderZipAR": (["delay", "adaptive"], ["DECODER"]),
    "SJDDecoderParallelJacobi": (["window", "initialise", "delay", "coupled", "release"], ["DECODER"]),
    "SJDSampler": (SAMPLING, ["TOKENS", "REPORT"]),
    "SJDDecodeTokens": (["model", "tokens"], ["IMAGE"]),
    "SJDPictureGrid": (["images", "columns"], ["IMAGE"]),
    "SJDReport": (["report"], ["STRING", "TOKENS_PER_STEP", "STEPS", "SECONDS"]),
    "SJDAcceptanceMap": (["report", "metric", "opacity", "image"], ["IMAGE"]),
    "SJDCompare": (
        ["report_a", "report_b", "tokens_a", "tokens_b"],
        ["STRING", "SPEED_UP", "FEWER_STEPS", "MASK"],
    ),
    "SJDDecoderEagle": (TREE, ["DECODER"]),
    "SJDDecoderSeededEagle": (TREE, ["DECODER"]),
    "SJDDecoderLanternEagle": (TREE + LANTERN[2:], ["DECODER"]),
    "SJDDecoderPAC": (["window", "branches", "depth", "initialise"], ["DECODER"]),
    "SJDDecoderCorrectedJacobi": (["window", "reach", "corrections", "branches", "depth", "initialise"], ["DECODER"]),
    "SJDDecoderRevisedJacobi": (["window", "reach", "revisions", "initialise"], ["DECODER"]),
    "SJDDecoderEarlyExit": (["window", "exit_after", "margin", "block", "initialise"], ["DECODER"]),
    "SJDFlowLoader": (["model", "dtype"], ["FLOW"]),
    "SJDFlowCalibrate": (["flow", "mode", "objective", "batch_size", "guidance"], ["SOLVER", "STRING"]),
    "SJDFlowSampler": (
        ["flow", "class_name", "seed", "batch_size", "guidance", "solver"],
        ["PATCHES", "STRING", "STEPS"],
    ),
    "SJDFlowDecode": (["flow", "patches", "denoise"], ["IMAGE"]),
    "SJDSolverSequential": ([], ["SOLVER"]),
    "SJDSolverJacobi": (["tolerance", "max_iterations", "start"], ["SOLVER"]),
    "SJDSolverGaussSeidelJacobi": (["strategy", "starts", "tolerance"], ["SOLVER"]),
    "SJDSolverFrontier": (["tolerance", "window", "start"], ["SOLVER"]),
    "SJDSolverOverlapping": (["tolerance", "overlap", "start"], ["SOLVER"]),
    "SJDSolverPlanned": (["plan"], ["SOLVER"]),
    "SJDDecoderParallelGroups": (["window"], ["DECODER"]),
    "SJDDecoder": (["preset", "window"], ["DECODER"]),
    "SJDSaveTokens": (["tokens", "filename_prefix"], []),
    "SJDLoadTokens": (["model", "file"], ["TOKENS"]),
    "SJDPictureComparison": (
        ["image_1", "report_1", "image_2", "report_2", "image_3", "report_3", "image_4", "report_4"],
        ["IMAGE"],
    ),
}


def test_ids_inputs_and_order_are_frozen(nodes):
    schemas = {node_id: node.define_schema() for node_id, node in nodes.items()}
    assert {
        node_id: ([one.id for one in schema.inputs], [one.id for one in schema.outputs])
        for node_id, schema in schemas.items()
    } == FROZEN, "a new node is appended to FROZEN; what is there stays"


@pytest.mark.parametrize("node_id", FROZEN)
def test_everything_says_what_it_does(nodes, node_id):
    schema = nodes[node_id].define_schema()
    assert schema.display_name.startswith("SJD ")
    assert schema.category.startswith("SJD/")
    assert schema.description.endswith((".", ")"))
    for one in (*schema.inputs, *schema.outputs):
        assert one.tooltip.strip().endswith("."), one.id
    assert all(one.display_name for one in schema.outputs)


def test_optional_inputs_come_last(nodes):
    # The page shows required inputs first, and saves widgets in that order.
    for node in nodes.values():
        optional = [one.optional for one in node.define_schema().inputs]
        assert optional == sorted(optional)


def test_decoders_say_whether_they_change_the_picture(nodes):
    for node in nodes.values():
        schema = node.define_schema()
        if schema.category == "SJD/decoders":
            words = ("Exact:", "Lossless:", "Approximate:")
            assert sum(word in schema.description for word in words) == 1
            assert sum(word in schema.outputs[0].tooltip for word in words) == 1
