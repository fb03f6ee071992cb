"""`sjd convert`: published checkpoints to folders that load anywhere, and LlamaGen back again."""

import argparse
from pathlib import Path

from .arguments import CommandError

OPTIONS = ("vq_file", "image_size", "text_encoder", "tokenizer", "vq_model", "recipe", "resolution")


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "convert",
        help="write a published checkpoint as a diffusers-layout folder of safetensors",
        description="Convert a published LlamaGen file, or a folder or hub id, into a folder that from_pretrained "
        "loads. Pickled files are read with weights_only. With --reverse, write LlamaGen's own files again.",
    )
    parser.add_argument("source", metavar="FILE|FOLDER|ID", help="what to convert; hub files as owner/name/file.pt")
    parser.add_argument("target", metavar="FOLDER", type=Path, help="new folder")
    parser.add_argument("--reverse", action="store_true", help="from a LlamaGen folder to LlamaGen's own two files")
    parser.add_argument("--vq-file", metavar="FILE", help="LlamaGen: its image tokenizer (vq_ds16_t2i.pt, ...)")
    parser.add_argument("--image-size", metavar="PIXELS", type=int, help="LlamaGen: where the name does not say it")
    parser.add_argument("--text-encoder", metavar="FOLDER|ID", help="LlamaGen: T5 encoder of a text model")
    parser.add_argument("--tokenizer", metavar="FOLDER|ID", help="LlamaGen: tokenizer of the T5 encoder")
    parser.add_argument("--vq-model", metavar="FILE|FOLDER", help="Chameleon: its VQGAN, where the model has none")
    parser.add_argument("--recipe", choices=("anole", "lumina-mgpt"), help="Chameleon: whose prompts and defaults")
    parser.add_argument("--resolution", metavar="PIXELS", type=int, help="Lumina-mGPT: where the name does not say it")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    options = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    if arguments.reverse and options:
        raise CommandError("--reverse takes no other option.")

    from ..pipelines.convert import convert_model, export_llamagen

    try:
        if arguments.reverse:
            written = export_llamagen(arguments.source, arguments.target)
        else:
            written = [convert_model(arguments.source, arguments.target, **options)]
    except (OSError, ValueError, TypeError) as error:
        raise CommandError(f"cannot convert: {error}") from error
    for path in written:
        print(path)
    return 0
