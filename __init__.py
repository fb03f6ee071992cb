"""ComfyUI's way in: it imports this file from its `custom_nodes` folder. Anyone else finds an empty module here."""

import importlib.util as _importlib_util

# pytest and other tools import this file as well, without ComfyUI around it.
if __package__ and _importlib_util.find_spec("comfy_api") is not None:
    if _importlib_util.find_spec("sjd_pipelines") is None:
        import sys as _sys
        from pathlib import Path as _Path

        # Behind everything else, so that no name in this folder hides one of ComfyUI's.
        _sys.path.append(str(_Path(__file__).resolve().parent))

    from .comfy_nodes import comfy_entrypoint

    WEB_DIRECTORY = "./comfy_nodes/web"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
