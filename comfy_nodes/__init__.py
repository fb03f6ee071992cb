"""ComfyUI nodes over `sjd_pipelines`. Only `runtime` touches ComfyUI beneath its public node interface."""

from comfy_api.latest import ComfyExtension, io

from .analysis import SJDAcceptanceMap, SJDCompare, SJDReport
from .decoder import SJDDecoder
from .decoders import DECODER_NODES
from .flows import FLOW_NODES
from .images import SJDDecodeTokens, SJDPictureComparison, SJDPictureGrid
from .loader import SJDModelLoader
from .sampler import SJDSampler
from .solvers import SOLVER_NODES
from .token_files import SJDLoadTokens, SJDSaveTokens

NODES: list[type[io.ComfyNode]] = [
    SJDModelLoader,
    SJDDecoder,
    *DECODER_NODES,
    SJDSampler,
    SJDDecodeTokens,
    SJDSaveTokens,
    SJDLoadTokens,
    SJDPictureGrid,
    SJDPictureComparison,
    SJDReport,
    SJDAcceptanceMap,
    SJDCompare,
    *FLOW_NODES,
    *SOLVER_NODES,
]


class SJDExtension(ComfyExtension):
    """What ComfyUI asks for the nodes of this pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> ComfyExtension:
    return SJDExtension()
