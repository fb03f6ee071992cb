"""Graphs as ComfyUI's page saves them and as its server runs them, both told from the server's list of nodes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
NOTE = "MarkdownNote"  # drawn by the page, unknown to the server
WIDTH, ROW_HEIGHT, TEXT_HEIGHT, TITLE_HEIGHT = 300, 26, 80, 30
NEWER_ROW_HEIGHT, GAP = 38, 60


@dataclass
class Node:
    """One node of a workflow.

    Attributes:
        type: node id.
        column: from the left.
        values: widget values that differ from the defaults.
        links: input -> (name of another node, index of its output).
        title: shown instead of the node's own name.
        height: of the node on the page, if its content needs more than its inputs.
    """

    type: str
    column: int
    values: dict[str, Any] = field(default_factory=dict)
    links: dict[str, tuple[str, int]] = field(default_factory=dict)
    title: str | None = None
    height: int = 0


@dataclass
class App:
    """What App Mode shows of a workflow: inputs by node and widget, and the nodes whose pictures it shows."""

    inputs: list[tuple[str, str]]
    outputs: list[str]

    def extra(self, numbers: dict[str, int]) -> dict[str, Any]:
        shown = [[numbers[node], widget] for node, widget in self.inputs]
        return {"linearMode": True, "linearData": {"inputs": shown, "outputs": [numbers[one] for one in self.outputs]}}


def inputs(info: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, type and options of each input of a node, in order."""
    for kind in ("required", "optional"):
        for name, (io_type, *rest) in info["input"].get(kind, {}).items():
            options = rest[0] if rest else {}
            if isinstance(io_type, list):  # the older way to write a list of choices
                options, io_type = options | {"options": io_type}, "COMBO"
            yield name, io_type, options


def is_widget(io_type: str, options: dict[str, Any]) -> bool:
    return io_type in WIDGET_TYPES and not options.get("forceInput")


def default(options: dict[str, Any]) -> Any:
    return options.get("default", next(iter(options.get("options", [])), ""))


def _note(text: str, count: int, top: int) -> dict[str, Any]:
    """A note after `count` nodes."""
    return {
        "id": count + 1,
        "type": NOTE,
        "pos": [0, top],
        "size": [WIDTH, 210],
        "flags": {},
        "order": count,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [text],
    }


def to_page(nodes: dict[str, Node], note: str, object_info: dict[str, Any], app: App | None = None) -> dict[str, Any]:
    """A workflow as the page saves it: nodes in columns, a note beneath the first one, seeds new for every run."""
    numbers = {name: number for number, name in enumerate(nodes, 1)}
    links: list[list[Any]] = []
    drawn: dict[str, dict[str, Any]] = {}
    bottoms: dict[int, int] = {}
    for name, node in nodes.items():
        info = object_info[node.type]
        sockets, widgets, height, lines = [], [], TITLE_HEIGHT, 0
        for key, io_type, options in inputs(info):
            widget = is_widget(io_type, options)
            if widget:
                widgets.append(node.values.get(key, default(options)))
                after = "fixed" if key in node.links else "randomize"
                widgets += [after] if options.get("control_after_generate") else []
                rows = 2 if options.get("control_after_generate") else 1
                height += TEXT_HEIGHT if options.get("multiline") else rows * ROW_HEIGHT
                lines += 1
                if key not in node.links:
                    continue
            socket = {"name": key, "type": io_type, "link": None} | ({"widget": {"name": key}} if widget else {})
            if key in node.links:
                source, slot = node.links[key]
                socket["link"] = len(links) + 1
                out_type = object_info[nodes[source].type]["output"][slot]
                links.append([len(links) + 1, numbers[source], slot, numbers[name], len(sockets), out_type])
            sockets.append(socket)
            height += 0 if widget else ROW_HEIGHT
        height = max(height, node.height)
        top = bottoms.get(node.column, 0)
        # ComfyUI's newer nodes are higher: their fields are, and inputs and outputs stand above them.
        newer = TITLE_HEIGHT + NEWER_ROW_HEIGHT * (lines + max(len(sockets), len(info["output"])))
        bottoms[node.column] = top + max(height, newer) + GAP
        drawn[name] = {
            "id": numbers[name],
            "type": node.type,
            "pos": [node.column * (WIDTH + 60), top],
            "size": [WIDTH, height],
            "flags": {},
            "order": numbers[name] - 1,
            "mode": 0,
            "inputs": sockets,
            "outputs": [
                {"name": label, "type": io_type, "links": []}
                for label, io_type in zip(info["output_name"], info["output"])
            ],
            "properties": {"Node name for S&R": node.type},
            "widgets_values": widgets,
        } | ({"title": node.title} if node.title else {})
    for number, source, slot, *_ in links:
        next(one for one in drawn.values() if one["id"] == source)["outputs"][slot]["links"].append(number)
    return {
        "last_node_id": len(nodes) + 1,
        "last_link_id": len(links),
        "nodes": [*drawn.values(), _note(note, len(nodes), bottoms[0])],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {} if app is None else app.extra(numbers),
        "version": 0.4,
    }


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """A saved workflow as the server runs it: widget values by name, links by node and slot.

    Widgets that a node got after the workflow was saved start as they do on a new node.
    """
    sources = {number: [str(source), slot] for number, source, slot, *_ in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] == NOTE:
            continue
        links = {one["name"]: sources[one["link"]] for one in node["inputs"] if one["link"] is not None}
        values = iter(node["widgets_values"])
        named = {}
        for name, io_type, options in inputs(object_info[node["type"]]):
            if not is_widget(io_type, options):
                continue
            named[name] = next(values, options.get("default"))
            if options.get("control_after_generate"):
                assert next(values) in ("fixed", "randomize")
        assert next(values, None) is None, f"{node['type']} has more values than widgets"
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": named | links}
    return prompt
