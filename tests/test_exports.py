"""Names are imported when they are used: what that must not load, and what it must not change for anybody."""

import pydoc
import subprocess
import sys

import pytest
from diffusers import ModelMixin, SchedulerMixin

import sjd_pipelines
from sjd_pipelines.cli.program import COMMANDS

from .stubs import LATE, stub, stub_file

LOADED = "*{'torch', 'diffusers', 'transformers'}.intersection(sys.modules)"
RUN_COMMANDS = f"""
import sys
from sjd_pipelines.cli import main
for line in sys.stdin.read().splitlines():
    try:
        status = main(line.split())
    except SystemExit as stop:
        status = stop.code
    print("status", status, line, {LOADED})
"""
NAMES = [command.replace("_", "-") for command in COMMANDS]
REFUSED = [
    "unknown",
    "generate",
    "generate dog --num-images 0",
    "generate dog --seed -1",
    "generate dog --window some",
    "generate dog --dtype int8",
    "generate dog --guidance inf",
    "generate dog --top-p 2",
    "generate dog --output nowhere/dog.png",
    "generate dog --grid sheet.txt",
    "generate dog --set window=3",
    "generate dog --scheduler magic",
    "verify --schedulers sjd magic",
    "step-cost --schedulers magic",
    "fidelity --schedulers magic",
    "benchmark --schedulers sjd:window=4 magic:window=4",
    "benchmark --report report --curves magic",
    "benchmark --report report --windows 1,auto",
    "benchmark --report report --top-k -1",
    "benchmark --temperature -1",
    "fidelity --top-p 0",
    "generate dog --model emoji-flow --temperature 1",
    "generate dog --model emoji-flow --gif forming.gif",
    "generate dog --model emoji-flow --guidance-scale -1",
    "generate dog --model emoji-flow --scheduler sjd",
    "generate dog --model emoji-flow --scheduler magic",
    "generate dog --scheduler frontier",
    "benchmark --model emoji-flow --windows 4",
    "benchmark --model emoji-flow --schedulers sjd",
    "verify --schedulers magic",
    "verify --samples 0",
    "verify --json nowhere/verdicts.json",
    "step-cost --window 0",
    "pass-cost --shape large",
    "convert file.pt folder --reverse --image-size 256",
    "info --json nowhere/info.json",
    "schedulers --jason",
]


def fresh_process(code, text=None):
    return subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True)


def test_importing_the_package_loads_no_torch():
    code = (
        f"import sys, sjd_pipelines; print('SJDScheduler' in dir(sjd_pipelines), sjd_pipelines.__version__, {LOADED})"
    )
    assert fresh_process(code).stdout == f"True {sjd_pipelines.__version__}\n"


@pytest.mark.parametrize(
    ("commands", "status"), [(["--help", *(f"{name} --help" for name in NAMES)], 0), (REFUSED, 2)], ids=["help", "bad"]
)
def test_what_the_command_line_knows_at_once_it_says_without_torch(commands, status):
    lines = fresh_process(RUN_COMMANDS, "\n".join(commands)).stdout.splitlines()
    assert [line for line in lines if line.startswith("status ")] == [f"status {status} {line}" for line in commands]


def test_all_names_are_there_for_a_star_import():
    code = "".join(f"from {package} import *; print(*sorted(globals()))\n" for package in LATE)
    for package, line in zip(LATE, fresh_process(code).stdout.splitlines()):
        module = sys.modules[package]
        assert set(module.__all__) <= set(line.split())
        assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("package", LATE)
def test_stub_says_the_same(package):
    assert stub_file(package).read_text(encoding="utf-8") == stub(package), "run `python tests/stubs.py`"


def test_help_shows_what_is_exported():
    text = pydoc.render_doc(sjd_pipelines, renderer=pydoc.plaintext)
    assert all(f"class {name}(" in text for name in ("SJDScheduler", "CanvasCache", "SJDJanusPipeline"))


def test_rooms_are_attributes_and_other_names_are_not():
    assert sjd_pipelines.schedulers.SJDScheduler is sjd_pipelines.SJDScheduler
    with pytest.raises(AttributeError, match="module 'sjd_pipelines' has no attribute 'SJDSchedular'"):
        _ = sjd_pipelines.SJDSchedular


def test_saved_folders_will_name_the_package():
    exported = {name: getattr(sjd_pipelines, name) for name in sjd_pipelines.__all__}
    assert set(sjd_pipelines.schedulers.__all__) <= exported.keys()
    for name in exported.keys() - {"ModelMixin", "SchedulerMixin", "DecodingScheduler", "FlowSolver"}:
        cls = exported[name]
        if isinstance(cls, type) and issubclass(cls, ModelMixin | SchedulerMixin):
            assert (cls.__module__, cls.__name__) == ("sjd_pipelines", name)


def test_settings_of_other_schedulers_are_known_before_those_are_loaded():
    code = (
        "from sjd_pipelines import AutoregressiveScheduler as cls\n"
        "print(cls.from_config({'window': 3, 'revisions': 2, 'coupling': 'gumbel', 'gap': 0.5}).window)"
    )
    run = fresh_process(code)
    assert (run.stdout, run.stderr) == ("0\n", "")


# A module that is interrupted when its import begins, as by Ctrl-C.
INTERRUPTED = """
import signal, sys
from importlib.abc import MetaPathFinder

class Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
from sjd_pipelines.cli import main
sys.exit(main(["generate", "car", "--model", "./nowhere"]))
"""


@pytest.mark.parametrize("module", ["argparse", "torch", "diffusers", "transformers"])
def test_an_interrupt_while_a_command_is_imported_is_a_line(module, tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, module]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "sjd: interrupted\n")
    assert list(tmp_path.iterdir()) == []
