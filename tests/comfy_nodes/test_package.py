"""What ComfyUI, its Manager and its registry read: the root file, requirements, project data, documents."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sjd_pipelines import SCHEDULERS, __version__
from sjd_pipelines.bundled import bundled_folder

from .make_docs import COMMAND, documents

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def listed(name: str, text: str = PROJECT) -> list[str]:
    """The strings of a list in pyproject.toml; `tomllib` came with Python 3.11 only."""
    return re.findall(r'"([^"]+)"', re.search(rf"^{name} = \[(.*?)\]", text, re.DOTALL | re.MULTILINE).group(1))


def test_requirements_are_the_dependencies_without_torch():
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert sorted(required) == sorted(one for one in listed("dependencies") if not re.match(r"torch\b", one))


def test_project_data():
    table = PROJECT[PROJECT.index("[tool.comfy]") :].split("\n\n")[0]
    values = dict(re.findall(r'^([\w-]+) = "(.*)"$', table, re.MULTILINE))
    assert {"PublisherId", "DisplayName", "Icon"} <= set(values)
    assert values["requires-comfyui"].startswith(">=")
    with Image.open(ROOT / values["Icon"]) as icon:
        assert icon.width == icon.height <= 400
    assert (ROOT / "LICENSE").is_file()
    # The registry reads a version that is not written in the table itself from a file.
    file = re.search(r'^\[tool.comfy.version\]\npath = "(.+)"$', PROJECT, re.MULTILINE)[1]
    assert f'__version__ = "{__version__}"' in (ROOT / file).read_text("utf-8")


def test_what_is_not_published_exists_or_is_made():
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").split()
    assert "tests/" in lines
    assert not {"sjd_pipelines/", "comfy_nodes/", "workflows/"} & set(lines)


def test_the_root_file_is_empty_without_comfyui():
    code = (
        "import importlib.util as util, sys;"
        f"spec = util.spec_from_file_location('pack', {str(ROOT / '__init__.py')!r}, submodule_search_locations=['']);"
        "module = util.module_from_spec(spec); spec.loader.exec_module(module);"
        "assert not hasattr(module, 'comfy_entrypoint'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Imports the root file of a pack as ComfyUI does, after what another pack may have done.
START = """
import importlib.util as util, sys
from pathlib import Path
root = Path({root!r})
pack = root / "custom_nodes" / {name!r}
sys.path.append(str(root / "comfyui"))
{before}
name = str(pack).replace(".", "_x_")
spec = util.spec_from_file_location(name, pack / "__init__.py", submodule_search_locations=[str(pack)])
module = sys.modules[name] = util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.comfy_entrypoint)
"""
BEFORE = {
    "nothing": "",
    "custom_nodes on the path": "sys.path.insert(0, str(pack.parent))",
    "the pack imported as the library": "sys.path.insert(0, str(pack.parent)); import sjd_pipelines.inner",
    "another version imported": "sys.path.insert(0, str(root / 'other')); import sjd_pipelines.inner",
}


def start(tmp_path, name, before="", requirements="numpy>=1"):
    """Start the real root file over a library and nodes in miniature: what Python printed, and its complaints."""
    pack = tmp_path / "custom_nodes" / name
    files = {
        "comfyui/comfy_api/__init__.py": "",
        "other/sjd_pipelines/__init__.py": "",
        "other/sjd_pipelines/inner.py": "word = 'other'",
        f"custom_nodes/{name}/requirements.txt": requirements,
        f"custom_nodes/{name}/comfy_nodes/__init__.py": "from sjd_pipelines.inner import word as comfy_entrypoint",
        f"custom_nodes/{name}/sjd_pipelines/__init__.py": "",
        f"custom_nodes/{name}/sjd_pipelines/inner.py": "word = 'own'",
    }
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    shutil.copy(ROOT / "__init__.py", pack)
    code = START.format(root=str(tmp_path), name=name, before=before)
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    return made.stdout, made.stderr


@pytest.mark.parametrize(
    ("before", "name"),
    [*((before, "sjd_pipelines") for before in BEFORE), ("custom_nodes on the path", "ComfyUI-SJD.v2(copy)")],
)
def test_no_other_pack_takes_the_library_away(tmp_path, before, name):
    assert start(tmp_path, name, BEFORE[before]) == ("own\n", "")


@pytest.mark.parametrize("name", ["sjd main (1)", "Emojis für alle", "a#b"])
def test_a_folder_name_that_no_address_has_is_told(tmp_path, name):
    printed, complaint = start(tmp_path, name)
    assert printed == "own\n"
    assert re.fullmatch(
        rf"SJD nodes: ComfyUI shows no templates .* Rename custom_nodes/{re.escape(name)}, .*\n", complaint
    )


@pytest.mark.parametrize(("name", "quote"), [("sjd", ""), ("sjd main", '"')])
def test_what_is_missing_is_said_with_what_to_type(tmp_path, name, quote):
    *_, last = start(tmp_path, name, requirements="numpy>=999.1\npip>=1\nnot-there-at-all>=2")[1].splitlines()
    file = tmp_path / "custom_nodes" / name / "requirements.txt"
    command = f"{sys.executable} -m pip install -r {quote}{file}{quote}"
    missing = "numpy>=999.1 (here is X), not-there-at-all>=2 (there is none)"
    found = re.sub(r"here is [\d.]+", "here is X", last)
    assert found == f"ImportError: The SJD nodes need {missing}. Type: {command} and start ComfyUI again."


def test_the_torch_that_is_needed():
    assert re.search('^_TORCH = "(.+?)"', (ROOT / "__init__.py").read_text("utf-8"), re.MULTILINE)[1] in listed(
        "dependencies"
    )


def test_the_pack_leaves_comfyuis_names_alone(pack):
    assert pack.__all__ == ["WEB_DIRECTORY", "comfy_entrypoint"]
    assert "comfy_nodes" not in sys.modules
    assert (ROOT / pack.WEB_DIRECTORY).is_dir()


@pytest.mark.parametrize("word", ["eval(", "exec(", "subprocess", "manual_seed_all", ".cuda("])
def test_what_the_registry_forbids(word):
    for file in (ROOT / "comfy_nodes").glob("*.py"):
        assert word not in file.read_text(encoding="utf-8"), file.name


def test_only_runtime_touches_comfyui():
    for file in (ROOT / "comfy_nodes").glob("*.py"):
        foreign = re.findall(
            r"^(?:import|from) (comfy\.|folder_paths|nodes\b|server\b)", file.read_text(), re.MULTILINE
        )
        assert bool(foreign) == (file.name == "runtime.py"), file.name


def test_every_node_has_a_page_that_names_its_inputs_and_outputs(nodes):
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "comfy_nodes/web/docs").glob("*.md")}
    assert set(pages) == set(nodes)
    for node_id, node in nodes.items():
        schema = node.define_schema()
        assert pages[node_id].startswith(f"# {schema.display_name}\n")
        for one in schema.inputs:
            assert f"| {one.id} |" in pages[node_id], node_id
        for one in schema.outputs:
            assert f"| {one.display_name} |" in pages[node_id], node_id


def test_the_samplers_page_says_what_the_bundled_model_knows():
    page = " ".join((ROOT / "comfy_nodes/web/docs/SJDSampler.md").read_text(encoding="utf-8").split())
    words = json.loads((bundled_folder() / "words.json").read_text(encoding="utf-8"))
    kinds = {kind: ", ".join(word.split(" (")[0] for word in words[kind]) for kind in ("objects", "backgrounds")}
    assert f"side by side: {kinds['objects']}. Backgrounds: {kinds['backgrounds']}. " in page


def test_every_scheduler_has_a_node_with_its_settings(nodes):
    made = {node.scheduler: node.define_schema() for node in nodes.values() if hasattr(node, "scheduler")}
    assert list(made) == list(SCHEDULERS)
    for name, schema in made.items():
        settings = {key: value for key, value in SCHEDULERS[name]().config.items() if not key.startswith("_")}
        starts = {one.id: None if one.default == -1 else one.default for one in schema.inputs}
        assert starts == settings
        for one in schema.inputs:
            if hasattr(one, "min"):
                assert one.min <= one.default <= one.max


def test_pages_and_readme_say_what_is_declared(nodes):
    made = documents(nodes)
    stale = [path.name for path, text in made.items() if not path.is_file() or path.read_text("utf-8") != text]
    assert not stale, f"run `{COMMAND}`"
