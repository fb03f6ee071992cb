"""A saved graph run with the nodes of the pack outside ComfyUI: each node once, what it needs first."""

from collections.abc import Callable
from typing import Any

import torch

from .graphs import to_prompt

# The nodes of ComfyUI itself that the workflows use: inputs as the server lists them, and what they do.
IMAGES = {"images": ("IMAGE",)}
CORE: dict[str, tuple[dict[str, Any], Callable[..., tuple]]] = {
    "PreviewImage": (IMAGES, lambda images: (images,)),
    "SaveImage": (IMAGES | {"filename_prefix": ("STRING",)}, lambda images, filename_prefix: (images,)),
    "PreviewAny": ({"source": ("*",)}, lambda source: (source,)),  # of graphs that earlier versions saved
    "ImageBatch": (
        {"image1": ("IMAGE",), "image2": ("IMAGE",)},
        lambda image1, image2: (torch.cat([image1, image2]),),
    ),
    "PrimitiveStringMultiline": ({"value": ("STRING", {"multiline": True})}, lambda value: (value,)),
    "PrimitiveInt": ({"value": ("INT", {"control_after_generate": True})}, lambda value: (value,)),
}


def object_info(nodes: dict[str, Any]) -> dict[str, Any]:
    """What ComfyUI's server would list: node id -> its inputs, in order."""
    info = {name: {"input": {"required": inputs}} for name, (inputs, _) in CORE.items()}
    for node_id, node in nodes.items():
        listed: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
        for one in node.define_schema().inputs:
            listed["optional" if one.optional else "required"][one.id] = (one.io_type, vars(one))
        info[node_id] = {"input": listed}
    return info


def run_graph(prompt: dict[str, Any], nodes: dict[str, Any]) -> dict[str, tuple]:
    """Number of each node of a graph, as the server takes it -> its outputs. Raises what a node raises."""
    outputs: dict[str, tuple] = {}

    def output(number: str) -> tuple:
        if number not in outputs:
            node_id = prompt[number]["class_type"]
            values = {
                name: output(value[0])[value[1]] if isinstance(value, list) else value
                for name, value in prompt[number]["inputs"].items()
            }
            outputs[number] = CORE[node_id][1](**values) if node_id in CORE else nodes[node_id].execute(**values).args
        return outputs[number]

    for number in prompt:
        output(number)
    return outputs


def sampled_tokens(workflow: dict[str, Any], nodes: dict[str, Any], model: str) -> dict[str, torch.Tensor]:
    """Run a saved workflow with a model of our choice: number of each sampler -> the tokens it drew.

    Picture i of a batch once had seed + i: they are drawn one by one, and the first one with its batch.
    """
    prompt = to_prompt(workflow, object_info(nodes))
    for node in prompt.values():
        if node["class_type"] == "SJDModelLoader":
            node["inputs"]["model"] = model
    samplers = {number: node["inputs"] for number, node in prompt.items() if node["class_type"] == "SJDSampler"}
    together = run_graph(prompt, nodes)
    batches = {number: inputs["batch_size"] for number, inputs in samplers.items()}
    drawn = {number: [together[number][0].ids[:1]] for number in samplers}
    for inputs in samplers.values():
        inputs["batch_size"] = 1
    for _ in range(1, max(batches.values())):
        for inputs in samplers.values():
            inputs["seed"] += 1
        alone = run_graph(prompt, nodes)
        for number in samplers:
            drawn[number].append(alone[number][0].ids)
    return {number: torch.cat(rows[: batches[number]]) for number, rows in drawn.items()}
