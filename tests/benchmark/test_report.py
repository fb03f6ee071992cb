"""The decoder report on a toy: what is measured, and a page that stands alone."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from sjd_pipelines.benchmark.contenders import RELAXED_FAMILIES, at_defaults
from sjd_pipelines.benchmark.journal import Journal
from sjd_pipelines.benchmark.report import ReportConfig, measure_report
from sjd_pipelines.benchmark.report_page import interval, map_image, render_page
from sjd_pipelines.benchmark.toy import toy_par_pipeline

NAMES = ["autoregressive", "seeded-jacobi", "sjd", "zipar"]
CONFIG = ReportConfig(
    at_defaults(NAMES),
    "toy",
    shown=2,
    prompts=1,
    per_kind=1,
    sweeps=("window", "top_k"),
    swept=1,
    windows=(1, 4),
    families=tuple(family for family in RELAXED_FAMILIES if family.title in ("GSD", "ZipAR")),
    samples=300,
    sampling={"guidance_scale": 3.0},
)
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects what a page refers to, and holds it to closing what it opens."""

    def __init__(self):
        super().__init__()
        self.open, self.references, self.texts, self.tags = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


@pytest.fixture(scope="module")
def journal():
    return Journal()


@pytest.fixture(scope="module")
def report(toy, journal):
    before = toy.scheduler
    report = measure_report(toy, CONFIG, journal)
    assert toy.scheduler is before
    return json.loads(json.dumps(report))


def parsed(report):
    page = Page()
    text = render_page(report, "sjd benchmark --report <folder>", "2026-01-31")
    page.feed(text)
    page.close()
    assert not page.open
    return page, text


def test_everything_is_measured_for_every_scheduler(report):
    entries = {entry["name"]: entry for entry in report["schedulers"]}
    assert list(entries) == NAMES
    for entry in entries.values():
        assert entry["exactness"]["passed"]
        assert entry["speed"]["speedup"]["median"] > 0
        assert len(entry["pictures"]) == 2
        assert sum(n * count for n, count in enumerate(entry["fidelity"]["committed"])) == 3 * 16
        for picture in entry["pictures"]:
            assert max(map(max, picture["acceptance_map"])) == picture["passes"] - 1
    assert all(picture["as_sequential"] for picture in entries["seeded-jacobi"]["pictures"])
    assert not all(picture["as_sequential"] for picture in entries["zipar"]["pictures"])
    assert entries["seeded-jacobi"]["exactness"]["identical"] == 1
    assert report["library"]["passes"] == 16
    assert report["ceilings"] == {}  # the judge knows nothing of this world


def test_curves_and_bounds(report):
    window, top_k = report["sweeps"]["window"], report["sweeps"]["top_k"]
    assert window["values"] == [1, 4]
    assert [curve["name"] for curve in window["curves"]] == ["seeded-jacobi", "sjd"]
    assert all(len(curve["points"]) == 4 for curve in top_k["curves"])
    for curve in window["curves"]:
        assert curve["points"][0]["tokens_per_pass"] <= 2
    grouped, rows = report["relaxed"]
    assert [row["bound"] for row in grouped["rows"]] == [0.0, 0.15, 0.4, 1.0]
    assert [row["bound"] for row in rows["rows"]] == [4, 2, 1, 1]
    assert rows["rows"][0]["passes"] == 16  # a delay of a whole row is sequential decoding
    assert rows["rows"][-1]["passes"] == 7
    assert rows["rows"][0]["total_variation"] < rows["rows"][-1]["total_variation"]


def test_a_finished_journal_measures_nothing_again(toy, journal, report):
    known = dict(journal.measurements)
    again = json.loads(json.dumps(measure_report(toy, CONFIG, journal)))
    assert again == report
    assert journal.measurements == known


@pytest.mark.parametrize(("temperature", "label"), [(0.0, "exact"), (0.5, "approximate")])
def test_labels_are_those_of_the_temperature(toy, temperature, label):
    config = ReportConfig(
        at_defaults(["autoregressive", "jacobi"]),
        "toy",
        shown=1,
        prompts=1,
        per_kind=1,
        sweeps=(),
        families=(),
        samples=100,
        sampling={"temperature": temperature},
    )
    journal = Journal()
    entry = measure_report(toy, config, journal)["schedulers"][1]
    verdict = entry["exactness"]
    assert [part["label"] for part in (entry, verdict, entry["speed"], entry["fidelity"])] == [label] * 4
    assert (verdict["temperature"], verdict["identical"] == 1) == (temperature, label == "exact")
    assert verdict["passed"]
    with pytest.raises(ValueError, match=r"other settings: method\.sampling"):
        measure_report(toy, replace(config, sampling={"temperature": 1.0}), journal)


def test_the_page_stands_alone_and_names_every_scheduler(report):
    page, text = parsed(report)
    assert set(NAMES) <= set(page.texts)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.references
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "sjd benchmark --report <folder>" in page.texts
    for reference in page.references:
        kind, data = re.fullmatch(r"data:image/(\w+);base64,(.+)", reference).groups()
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            picture.load()
            assert picture.format.lower() == kind
            assert picture.size == ((4, 4) if kind == "png" else (8, 8))
    assert page.tags.count("svg") == 4 + 1 + 1 + 1 + 1 + len(NAMES) - 1  # meters, curves, relaxed, histograms


def test_a_report_without_curves_and_bounds_is_a_page_too(report):
    page, _ = parsed(report | {"sweeps": {}, "relaxed": [], "library": None, "skipped": {"eagle": "no draft model"}})
    assert "Curves" not in page.texts
    assert any("eagle" in text for text in page.texts)


def test_judged_pictures_get_a_table_with_intervals(report):
    scores = {"n": 3, "object": 1.0, "count": 2 / 3, "background": 1.0, "relation": 0.0, "all": 1 / 3}
    judged = json.loads(json.dumps(report))
    for entry in judged["schedulers"]:
        entry["fidelity"]["scores"] = {"all": scores}
    judged["ceilings"] = {"rendered (ceiling)": scores}
    page, text = parsed(judged)
    assert "Prompt fidelity" in page.texts
    assert text.count("67% <span class='soft'>[") == 1 + len(NAMES)  # an interval follows rates alone


def test_a_broken_label_is_shown(report):
    broken = json.loads(json.dumps(report))
    broken["schedulers"][2]["exactness"]["passed"] = False
    page, _ = parsed(broken)
    assert page.texts.count("breaks its label") == 1


def test_wilsons_interval():
    assert interval(0.5, 10**6) == pytest.approx((0.5, 0.5), abs=2e-3)
    assert interval(1.0, 9) == pytest.approx((0.701, 1.0), abs=1e-3)
    assert interval(0.0, 9) == pytest.approx((0.0, 0.299), abs=1e-3)


def test_maps_rise_in_brightness():
    pixels = map_image([[0, 1, 2], [3, 4, 5]]).convert("L")
    brightness = list(pixels.tobytes())
    assert brightness == sorted(brightness)
    assert brightness[0] < 10
    assert brightness[-1] > 230


def test_a_model_that_makes_tokens_in_groups():
    pipe = toy_par_pipeline(4)
    pipe.set_progress_bar_config(disable=True)
    report = measure_report(
        pipe, replace(CONFIG, contenders=at_defaults(["sjd", "par"]), sweeps=("window",), sampling={})
    )
    (entry,) = report["schedulers"]
    assert list(report["skipped"]) == ["sjd", "library"]
    assert (entry["label"], entry["exactness"]["passed"], entry["fidelity"]["passes"]) == ("exact", True, 7)
    assert [curve["name"] for curve in report["sweeps"]["window"]["curves"]] == ["par"]
    assert "same pictures" in parsed(report)[1]
