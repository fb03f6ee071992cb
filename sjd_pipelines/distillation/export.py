"""Writes a trained student: as a whole model, or as an adapter on its teacher."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from ..bundled import BUNDLED, DEFAULT
from ..disk import expanded, write_json
from ..learning.runs import write_atomically
from ..learning.saved import read_weights
from ..learning.timed import run_files
from ..pipelines.adapters import CONFIG, PREFIX, WEIGHTS, is_adapter, record_base
from ..pipelines.loading import find_pipeline
from .student import NAME, load_form, student_pipeline


def export_student(folder: Path, target: Path, adapter: bool = False, scale: float = 1.0) -> Path:
    """Write the averaged weights of a run.

    Args:
        folder: of the run.
        target: the new model's folder.
        adapter: write low-rank additions alone, in float16, with the name of the teacher and the digests of its
            weights: an adapter in PEFT's layout, which `from_pretrained` merges into the teacher without PEFT.
        scale: of an adapter's additions; less than 1 keeps the student nearer to its teacher, in more passes.

    Raises:
        ValueError: it can't be an adapter: all weights were trained, or parts of several networks, or the teacher is
            an adapter itself; or a whole model should be scaled.
    """
    folder, target = Path(folder), Path(target)
    if not adapter and scale != 1:
        raise ValueError("Only an adapter can be scaled; give --adapter too.")
    if adapter:
        _write_adapter(folder, target, scale)
    else:
        student_pipeline(folder).save_pretrained(target)
    return target


def _write_adapter(folder: Path, target: Path, scale: float) -> None:
    form, weights = load_form(folder), read_weights(run_files(folder, NAME)[0])
    components = {name.partition(".")[0] for name in weights}
    if not form.rank:
        raise ValueError(f"{folder} has trained all weights of its model; export it as a whole, without --adapter.")
    if len(components) > 1:
        raise ValueError(f"{folder} has trained {', '.join(sorted(components))}; an adapter changes one network.")
    base, _ = find_pipeline(form.model or None, {})
    if is_adapter(base):
        raise ValueError(f"{base} is an adapter itself; save it as a whole model, and distil that.")
    tensors = {PREFIX + _name_in_network(name): weight.half().contiguous() for name, weight in weights.items()}
    modules = {name.removeprefix(PREFIX).partition(".lora_")[0] for name in tensors}
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / WEIGHTS, lambda path: save_file(tensors, path, {"format": "pt"}))
    record_base(target, base)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": _lasting_name(form.model),
        "r": form.rank,
        "lora_alpha": form.alpha * scale,
        "target_modules": sorted(modules),
        "bias": "none",
        "inference_mode": True,
    }
    write_json(target / CONFIG, config)  # at last: with it the folder is an adapter


def _name_in_network(name: str) -> str:
    """A weight as PEFT saves it: without its component, and without the name that PEFT gives an adapter at work."""
    return name.partition(".")[2].replace(".default.", ".")


def _lasting_name(model: str) -> str:
    """What loads the teacher from anywhere."""
    if not model or model in BUNDLED:
        return model or DEFAULT
    path = expanded(model)
    return str(path.resolve()) if path.is_dir() else model
