"""Every test also runs as on an accelerator, where no look is free."""

import pytest

from sjd_pipelines.decoding.look import looks


@pytest.fixture(autouse=True, params=[True, False], ids=["free-looks", "costly-looks"])
def look(request):
    with looks(free=request.param):
        yield
