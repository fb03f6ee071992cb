"""As much of ComfyUI as the nodes need to be imported and run: its interface, none of its behaviour.

The end-to-end tests run the same nodes in the real program.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch


class InterruptProcessing(BaseException):
    """What ComfyUI raises when the user cancels."""


class Part:
    """An input, an output or a schema: remembers what it was declared with."""

    def __init__(self, *args: Any, **options: Any):
        self.id = args[0] if args else None
        self.tooltip = self.display_name = None
        self.optional = False
        vars(self).update(options)


class NodeOutput:
    def __init__(self, *args: Any, ui: Any = None):
        self.args = args
        self.ui = ui


class ComfyNode:
    hidden: Any = None


class ComfyExtension:
    pass


class ModelPatcher:
    def __init__(self, model: torch.nn.Module, load_device: torch.device, offload_device: torch.device):
        model.device = offload_device  # refused by library models, which is why they are wrapped
        self.model, self.load_device, self.offload_device = model, load_device, offload_device

    def detach(self, unpatch_all: bool = True) -> torch.nn.Module:
        if unpatch_all:
            self.model.to(self.offload_device)
        return self.model


class Server:
    """What the tests see and set.

    Attributes:
        loaded: `(patcher, memory_required)` per call of `load_models_gpu`.
        updates: `(value, total, preview)` per movement of a progress bar.
        cancel_at: progress at which the user cancels.
        folders: kind -> model folders.
        texts: `(node id, text)` per text written on a node.
    """

    Interrupt = InterruptProcessing

    def __init__(self, models_dir: str):
        self.loaded: list[tuple[ModelPatcher, float]] = []
        self.updates: list[tuple[int, int, Any]] = []
        self.cancel_at: int | None = None
        self.texts: list[tuple[str, str]] = []
        self.models_dir = models_dir
        self.folders: dict[str, list[str]] = {"diffusers": [f"{models_dir}/diffusers"]}

    def load_models_gpu(self, patchers: list[ModelPatcher], memory_required: float, force_full_load: bool) -> None:
        assert force_full_load
        self.loaded += [(patcher, memory_required) for patcher in patchers]

    def throw_exception_if_processing_interrupted(self) -> None:
        if self.cancel_at is not None and self.updates and self.updates[-1][0] >= self.cancel_at:
            self.cancel_at = None
            raise InterruptProcessing

    def progress_bar(self, total: int) -> SimpleNamespace:
        return SimpleNamespace(
            update_absolute=lambda value, total, preview: self.updates.append((value, total, preview))
        )

    def add_model_folder_path(self, kind: str, path: str) -> None:
        self.folders.setdefault(kind, []).append(path)

    def get_save_image_path(self, prefix: str, folder: str) -> tuple[str, str, int, str, str]:
        inside, _, name = prefix.rpartition("/")
        return f"{folder}/{inside}", name, 1, inside, prefix

    def modules(self) -> dict[str, ModuleType]:
        """The modules the pack imports."""
        types = ("Int", "Float", "Boolean", "Combo", "String", "Image", "Mask")
        io = SimpleNamespace(
            **{name: _io_type(name) for name in types},
            Custom=_io_type,
            Hidden=SimpleNamespace(unique_id="unique_id"),
            Input=Part,
            Schema=Part,
            NodeOutput=NodeOutput,
            ComfyNode=ComfyNode,
        )
        cpu = torch.device("cpu")
        management = {
            "get_torch_device": lambda: cpu,
            "unet_offload_device": lambda: cpu,
            "intermediate_device": lambda: cpu,
            "should_use_bf16": lambda device: False,
            "should_use_fp16": lambda device: False,
            "load_models_gpu": self.load_models_gpu,
            "throw_exception_if_processing_interrupted": self.throw_exception_if_processing_interrupted,
        }
        contents = {
            "comfy_api": {},
            "comfy_api.latest": {
                "io": io,
                "ComfyExtension": ComfyExtension,
            },
            "comfy": {},
            "comfy.model_management": management,
            "comfy.utils": {"ProgressBar": self.progress_bar},
            "comfy.model_patcher": {"ModelPatcher": ModelPatcher},
            "server": {
                "PromptServer": SimpleNamespace(
                    instance=SimpleNamespace(
                        send_progress_text=lambda text, node_id: self.texts.append((node_id, text))
                    )
                )
            },
            "folder_paths": {
                "models_dir": self.models_dir,
                "add_model_folder_path": self.add_model_folder_path,
                "get_folder_paths": self.folders.__getitem__,
                "get_output_directory": lambda: f"{self.models_dir}/../output",
                "get_input_directory": lambda: f"{self.models_dir}/../input",
                "get_save_image_path": self.get_save_image_path,
            },
        }
        return {name: _module(name, content) for name, content in contents.items()}


def forget(prefix: str) -> None:
    """Take a package and all inside it out of `sys.modules`."""
    for name in [name for name in sys.modules if name.split(".")[0] == prefix]:
        del sys.modules[name]


def _io_type(name: str) -> SimpleNamespace:
    return SimpleNamespace(
        Input=type(f"{name}Input", (Part,), {"io_type": name.upper()}),
        Output=type(f"{name}Output", (Part,), {"io_type": name.upper()}),
    )


def _module(name: str, content: dict[str, Any]) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    vars(module).update(content)
    return module
