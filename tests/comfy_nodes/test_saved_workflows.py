"""Workflows saved by an earlier version of the pack run, and draw what they drew then."""

import json

import pytest

from ..fixtures.recording import RECORDED, fingerprints
from .graph_run import sampled_tokens

SAVED = [
    pytest.param(version, workflow, id=f"{version.name}-{workflow.stem}")
    for version in RECORDED
    for workflow in sorted((version / "workflows").glob("*.json"))
]


@pytest.fixture
def saved_models(server, nodes):
    """Models of an earlier version among those to choose from."""
    folders = server.folders["sjd"]
    before = list(folders)
    yield lambda version: folders.append(str(version))
    folders[:] = before


@pytest.mark.parametrize(("version", "workflow"), SAVED)
def test_a_saved_workflow_draws_what_it_drew(version, workflow, nodes, saved_models):
    saved_models(version)
    tokens = sampled_tokens(json.loads(workflow.read_text(encoding="utf-8")), nodes, model="janus")
    recorded = json.loads((version / "workflows.json").read_text(encoding="utf-8"))
    assert {number: fingerprints(rows) for number, rows in tokens.items()} == recorded[workflow.stem]
