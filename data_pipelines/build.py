"""The command that turns raw pages, and other people's datasets, into a TFDS dataset of records.

    python -m data_pipelines.build --source=html --input='pages/*.html' --output=data/pages/1.0.0

An Apache Beam pipeline: what this command does not know it takes for an option of Beam's, such as
`--runner=FlinkRunner`. Paper: appendix on data; what is done where the paper is silent stands in
docs/data.md.
"""

import argparse
import glob
import logging
import re
import sys

from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath

from data_pipelines import commands
from data_pipelines.building import build_pipeline
from data_pipelines.building.staging import Job
from data_pipelines.reading import bucket_files
from data_pipelines.sources import (
    benchmark,
    coco,
    html,
    mmc4,
    obelics,
    text,
    warc,
    webdataset,
    webvid,
)

SOURCES = {
    "html": html,
    "warc": warc,
    "mmc4": mmc4,
    "obelics": obelics,
    "webdataset": webdataset,
    "webvid": webvid,
    "coco": coco,
    "text": text,
    "benchmark": benchmark,
}

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def main() -> None:
    """Parses the flags, builds, prints what was read, kept and dropped."""
    logging.getLogger().setLevel(logging.ERROR)  # Beam warns of Python types it does not know
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # it raises them too
    args, source, options = _parse(sys.argv[1:])
    output = epath.Path(args.output)
    job = Job(
        source=source,
        paths=_input_files(args),
        folder=f"{output}.unfinished",
        name=_dataset_name(output),
        records_per_chunk=args.records_per_chunk,
        shard_bytes=args.shard_mib << 20,
        output=str(output) if bucket_files.is_address(output) else None,
    )
    print(build_pipeline.run(job, str(output), options))
    print(f"dataset: {output}")


def _parse(argv: list[str]):
    """The arguments, the source that they describe, and Beam's options."""
    first = commands.Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--source", choices=sorted(SOURCES))
    name = first.parse_known_args(argv)[0].source
    parser = commands.Parser(
        prog="python -m data_pipelines.build",
        description=__doc__.partition("\n")[0],
        epilog="example: python -m data_pipelines.build --source=html --input='pages/**/*.html' "
        "--output=data/pages/1.0.0. With --source=NAME --help shows the flags of that source too. "
        "Any other flag is Beam's: --direct_num_workers=8 --direct_running_mode=multi_processing, "
        "--runner=FlinkRunner --flink_master=HOST:8081, ...",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--source", required=True, choices=sorted(SOURCES), help="what kind of input to read")
    add(
        "--input",
        required=True,
        metavar="GLOB",
        help="input files; ** goes into folders; a benchmark's name",
    )
    output = "the dataset's folder, best NAME/1.0.0"
    add("--output", required=True, type=commands.place, metavar="DIR", help=output)
    add("--records_per_chunk", type=_positive, default=500, help="lost at most by a kill, a worker")
    add("--shard_mib", type=_positive, default=256, help="size of the dataset's shards")
    if name:
        SOURCES[name].add_flags(parser.add_argument_group(f"--source={name}"))
    args, rest = parser.parse_known_args(argv)
    _check_beam_flags(rest)
    return args, SOURCES[args.source].source(args), PipelineOptions(rest)


def _check_beam_flags(rest: list[str]) -> None:
    """Beam passes over what it does not know, so a misspelt flag would be lost."""
    beam = commands.Parser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    kinds = [PipelineOptions]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if "_add_argparse_args" in vars(kind):
            kind._add_argparse_args(beam)
    unknown = beam.parse_known_args(rest)[1]
    if unknown and not unknown[0].startswith("-"):
        raise ValueError(f"unexpected argument {unknown[0]}: put the pattern of --input in quotes")
    if unknown:
        raise ValueError(f"unknown argument {unknown[0]}: neither ours nor Beam's (see --help)")


def _input_files(args: argparse.Namespace) -> tuple[str, ...]:
    """All files that match, or that the source itself knows, sorted; ValueError for none."""
    if known := getattr(SOURCES[args.source], "input_files", None):
        return known(args)
    pattern = args.input
    if "://" in pattern:
        fixed = pattern.partition("*")[0].rpartition("/")[0]
        found = [str(path) for path in epath.Path(fixed).glob(pattern[len(fixed) + 1 :])]
    else:
        found = [path for path in glob.glob(pattern, recursive=True) if epath.Path(path).is_file()]
    if not found and epath.Path(pattern).is_dir():
        raise ValueError(f"--input={pattern} is a folder: give a pattern, such as '{pattern}/*'")
    if not found:
        raise ValueError(f"--input={pattern}: no such file: check the pattern, and quote it")
    return tuple(sorted(found))


def _dataset_name(output: epath.Path) -> str:
    """TFDS's name of the dataset: that of the folder, or of the one above a version.

    TFDS finds the shards of names in ASCII only.
    """
    name = output.parent.name if _VERSION.fullmatch(output.name) else output.name
    name = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")
    return name if name[:1].isalpha() else f"data_{name}".rstrip("_")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: want a whole number, 1 or more")
    return int(text)


if __name__ == "__main__":
    commands.run(main)
