"""Writes a trained student: as a whole model, or as an adapter on its teacher."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from ..bundled import BUNDLED, DEFAULT
from ..disk import check_new_folder, expanded, new_folder, write_json
from ..learning.saved import read_weights
from ..learning.timed import run_files
from ..pipelines.adapters import CONFIG, PREFIX, WEIGHTS, is_adapter, record_base
from ..pipelines.loading import find_pipeline
from ..ranges import Range
from .student import NAME, load_form, student_pipeline

SCALE = Range(0, 10, above=True)


def export_student(folder: Path, target: Path, adapter: bool = False, scale: float = 1.0) -> Path:
    """Write the averaged weights of a run.

    Args:
        folder: of the run.
        target: the new model's folder, which must not exist.
        adapter: write low-rank additions alone, in float16, with the name of the teacher and the digests of its
            weights: an adapter in PEFT's layout, which `from_pretrained` merges into the teacher without PEFT.
        scale: of an adapter's additions; less than 1 keeps the student nearer to its teacher, in more passes.

    Raises:
        OSError: there is no run, it is damaged, or `target` exists.
        ValueError: it can't be an adapter: all weights were trained, or parts of several networks, or the teacher is
            an adapter itself; or `scale` is out of its range, or of a whole model.
    """
    folder, target = Path(folder), Path(target)
    SCALE.check("scale", scale)
    if not adapter and scale != 1:
        raise ValueError("Only an adapter can be scaled; give --adapter too.")
    check_new_folder(target)
    if adapter:
        _write_adapter(folder, target, scale)
    else:
        student = student_pipeline(folder)
        with new_folder(target) as temporary:
            student.save_pretrained(temporary)
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
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": _lasting_name(form.model),
        "r": form.rank,
        "lora_alpha": form.alpha * scale,
        "target_modules": sorted(modules),
        "bias": "none",
        "inference_mode": True,
    }
    with new_folder(target) as temporary:
        save_file(tensors, temporary / WEIGHTS, {"format": "pt"})
        record_base(temporary, base)
        write_json(temporary / CONFIG, config)


def _name_in_network(name: str) -> str:
    """A weight as PEFT saves it: without its component, and without the name that PEFT gives an adapter at work."""
    return name.partition(".")[2].replace(".default.", ".")


def _lasting_name(model: str) -> str:
    """What loads the teacher from anywhere."""
    if not model or model in BUNDLED:
        return model or DEFAULT
    path = expanded(model)
    return str(path.resolve()) if path.is_dir() else model
