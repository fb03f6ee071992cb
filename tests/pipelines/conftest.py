"""A fixture for every tiny member of a family, and the builders; and PEFT."""

import pytest
from packaging.version import Version
from transformers.integrations.peft import MIN_PEFT_VERSION

from .tiny import MEMBERS
from .tiny.chameleon import chameleon_pipeline
from .tiny.emu3 import emu3_pipeline
from .tiny.llamagen import llamagen_pipeline


def _fixture(name, make):
    return pytest.fixture(scope="session", name=name)(lambda device: make().to(device))


globals().update({f"_{name}": _fixture(name, member.make) for name, member in MEMBERS.items()})


@pytest.fixture(scope="session")
def families(device):
    """The builders, for tests that need a model of their own."""
    builders = {"llamagen": llamagen_pipeline, "emu3": emu3_pipeline, "chameleon": chameleon_pipeline}
    return {
        name: lambda *args, _make=make, **options: _make(*args, **options).to(device)
        for name, make in builders.items()
    }


@pytest.fixture
def peft():
    """The package, if transformers takes the one that is installed."""
    module = pytest.importorskip("peft")
    if Version(module.__version__) < Version(MIN_PEFT_VERSION):
        pytest.skip(f"this transformers needs peft {MIN_PEFT_VERSION}")
    return module
