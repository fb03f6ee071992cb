"""`sjd convert`: published checkpoints to folders that load anywhere, and back again."""

import argparse

from ..pipelines.families import FAMILIES
from .arguments import CommandError, path, place

OPTIONS = [option.name for family in FAMILIES for option in family.options]


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "convert",
        help="write a published checkpoint as a diffusers-layout folder of safetensors",
        description="Convert a published file, or a model by name, folder or hub id, into a folder that "
        "from_pretrained loads. Pickled files are read with weights_only. With --reverse, write the files that the "
        "authors' own code loads.",
    )
    parser.add_argument(
        "source",
        metavar="FILE|MODEL",
        type=place,
        help="what to convert; hub files as owner/name/file.pt, else as for sjd info",
    )
    parser.add_argument("target", metavar="FOLDER", type=path, help="new folder")
    published = " and ".join(family.models for family in FAMILIES if family.single_files)
    parser.add_argument(
        "--reverse", action="store_true", help=f"from such a folder to the authors' files: {published}"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="number format of the weights; default: the file's"
    )
    for family in FAMILIES:
        for option in family.options:
            parser.add_argument(
                f"--{option.name.replace('_', '-')}",
                metavar=option.metavar,
                type=option.type,
                choices=option.choices,
                help=f"{family.models}: {option.help}",
            )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    given = (*OPTIONS, "dtype")
    options = {name: getattr(arguments, name) for name in given if getattr(arguments, name) is not None}
    if arguments.reverse and options:
        raise CommandError("--reverse takes no other option: it writes the weights as they are.")

    from ..pipelines.convert import convert_model, export_published

    try:
        if arguments.reverse:
            written = export_published(arguments.source, arguments.target)
        else:
            written = [convert_model(arguments.source, arguments.target, **options)]
    except (OSError, ValueError, TypeError) as error:
        raise CommandError(f"cannot convert: {error}") from error
    for one in written:
        print(one)
    return 0
