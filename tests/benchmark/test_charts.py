"""Charts show the data: positions read back from the drawing, text inside the frame, names apart."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from sjd_pipelines.benchmark.charts import Axis, Series, bar_chart, line_chart, meter

LINES = [
    Series("one & only", "tone-exact-0 exact", [(0, 1.0), (2, 3.5), (5, 4.25)]),
    Series("two", "tone-lossless-0 lossless", [(0, 2.0), (2, 2.5), (5, 4.3)], ["a", "b", "c"]),
]


def drawn(svg):
    return ElementTree.fromstring(svg)


def scale(root, coordinate):
    """From pixels back to data, by the first and last tick of an axis."""
    ticks = [node for node in root.iter("text") if node.get("class") == "tick"]
    anchor = "middle" if coordinate == "x" else "end"
    ends = [(float(node.get(coordinate)), float(node.text)) for node in ticks if node.get("text-anchor") == anchor]
    (low, first), (high, last) = ends[0], ends[-1]
    shift = 0 if coordinate == "x" else -4  # the text of a horizontal line stands a little below it
    return lambda pixel: first + (pixel - low - shift) / (high - low) * (last - first)


def test_points_stand_where_the_data_is():
    x = Axis("window", 0, 5, [(0, "0"), (5, "5")])
    root = drawn(line_chart(LINES, x, Axis.spanning("tokens per pass", [1.0, 4.3])))
    across, up = scale(root, "x"), scale(root, "y")
    groups = [group for group in root.iter("g") if group.get("class").startswith("series")]
    for line, group in zip(LINES, groups, strict=True):
        marks = [(across(float(mark.get("cx"))), up(float(mark.get("cy")))) for mark in group.iter("circle")]
        assert [value for mark in marks for value in mark] == pytest.approx(
            [value for point in line.points for value in point], abs=0.02
        )
        assert len(group.find("polyline").get("points").split()) == 3
    assert [title.text for title in groups[1].iter("title")] == ["two: a", "two: b", "two: c"]
    assert {"window", "tokens per pass", "one & only", "two"} <= {node.text for node in root.iter("text")}


def test_names_of_lines_that_end_together_stand_apart():
    lines = [Series(str(index), "", [(0, 0), (1, 1 + index / 1000)]) for index in range(9)]
    root = drawn(line_chart(lines, Axis("x", 0, 1, []), Axis.spanning("y", [0, 1.01])))
    names = [group for group in root.iter("g") if group.get("class").startswith("name")]
    heights = sorted(float(group.find("text").get("y")) for group in names)
    assert min(b - a for a, b in pairwise(heights)) >= 12.9
    assert heights[0] > 0
    assert heights[-1] <= 300


def test_bars_are_as_high_as_their_shares():
    root = drawn(bar_chart([0, 0.75, 0.25], "tokens", Axis.spanning("share of passes", [0, 0.75])))
    bars = [float(bar.get("height")) for bar in root.iter("rect")]
    assert len(bars) == 2  # no pass committed nothing
    assert bars[0] == pytest.approx(3 * bars[1], abs=0.2)
    assert root.find("rect/title").text == "1 tokens: 75.0%"


def test_a_meter_never_leaves_its_track():
    root = drawn(meter(0.4, 0.1, 0.2, width=80))
    assert [float(bar.get("width")) for bar in root.iter("rect")] == [80, 80]
    assert float(root.find("line").get("x1")) == 40


@pytest.mark.parametrize("values", [[0.013], [0, 0], [3, 1000], [0.2, 0.9999]])
def test_ticks_are_round_and_hold_the_data(values):
    axis = Axis.spanning("y", values)
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 8
    assert all(re.fullmatch(r"-?\d+(\.\d{1,3})?", text) for _, text in axis.ticks)


def test_a_single_tick_is_an_axis():
    axis = Axis.between("window", [(3.0, "8")])
    assert axis.place(3.0, 10, 20) == 10
