r"""One command at every point of a grid of settings, and a table of what came out.

    python -m launch.sweep --workdir=runs/rates --grid=optim.learning_rate=1e-4,3e-4 \
        --grid=optim.warmup_steps=5,15 --parallel=2 -- python -m experiments.train \
        --config=experiments/configs/flamingo.py:demo

Every point has a folder in `--workdir`, named by its settings. The same command goes on where it
stopped: points with their report are left alone, others go on from their checkpoints. One that
fails is named and stops no other. Ctrl-C and SIGTERM are passed on, so that all save. At the end
`sweep.md` and `sweep.json` have every point, the best by `--metric` first. `--workdir` may be
gs://BUCKET/FOLDER.

With `--launcher` the command of each point is handed to another one, as in

    --launcher='python -m launch.slurm submit --name=rates-{index} --gpus_per_node=8'

where {index} is the point's number, {name} its name and {slot} which of `--parallel` it is. A point
that the launcher took is not handed over again; the same sweep later shows what is finished.
"""

import argparse
import os
import pathlib
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from launch import arguments, sweep_points, sweep_table
from launch.local import describe
from launch.places import Place
from launch.sweep_folder import Folder, Outcome
from launch.sweep_runs import SLOT, Ended, Job, Runs
from launch.sweep_table import Row

WAITING, RUNNING, STOPPED, HANDED_OVER = "waiting", "running", "stopped", "handed over"
FINISHED = "finished"
_AT_ONCE = 16  # points whose folders are asked together


class Sweep:
    """Where every point stands; a line for each change."""

    def __init__(self, options: argparse.Namespace, jobs: Sequence[Job]):
        self._options = options
        self._jobs = jobs
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # a bucket takes a while to answer
            before = pool.map(lambda job: _before(job, options.resubmit), jobs)
        self._status: dict[int, str] = {}
        self._outcomes: dict[int, Outcome | None] = {}
        for job, (status, outcome) in zip(jobs, before, strict=True):
            self._status[job.number], self._outcomes[job.number] = status, outcome
        self._runs = Runs(options.parallel, self._started, self._ended, self._signalled)

    def due(self) -> list[Job]:
        """Those that are neither finished nor handed over."""
        return [job for job in self._jobs if self._status[job.number] == WAITING]

    def run(self) -> int:
        """Runs what is due; 0, 1 where a point failed, or the status of the signal that came.

        OSError, before anything is started, for a bucket that cannot be written.
        """
        due, metric = self.due(), self._options.metric
        self._write_table()
        _say(f"{len(self._jobs)} points, {len(due)} to run, {self._options.parallel} at a time")
        self._runs.run(due)
        self._write()
        finished = [row for row in self._rows() if row.status == FINISHED]
        if finished and all(row.value(metric) is None for row in finished):
            _say(f"no report has {metric}: give --metric=loss, or the path of a number in one")
        print(self._options.workdir / "sweep.md")
        if self._runs.signal:
            return 128 + self._runs.signal
        return int(any(status.startswith("failed") for status in self._status.values()))

    def _started(self, job: Job) -> None:
        self._status[job.number] = RUNNING
        self._tell(job, f"started, its output goes to {job.folder.output}")
        self._write()

    def _ended(self, ended: Ended) -> None:
        try:
            status, more = self._outcome_of(ended)
        except OSError as error:
            status, more = "failed (not known)", f"{error}: give the same sweep again"
        self._status[ended.job.number] = status
        self._tell(ended.job, f"{status}, {more}")
        self._write()

    def _outcome_of(self, ended: Ended) -> tuple[str, str]:
        """Its status, and what to say of it."""
        job, folder = ended.job, ended.job.folder
        if not ended.status and folder.is_finished():
            outcome = self._outcomes[job.number] = folder.outcome()
            value = outcome.value(self._options.metric)
            reached = "" if value is None else f", {self._options.metric} {value:.4g}"
            return FINISHED, f"in {ended.wall_s:.0f} s{reached}"
        if not ended.status and self._options.launcher:
            folder.begin(handed_over=True)
            return HANDED_OVER, folder.last_line()
        if self._runs.signal and ended.status:
            return STOPPED, "the same sweep goes on with it"
        why = ended.why or f"{describe(ended.status)}: {folder.last_line()}"
        why = why if ended.status else "it ended well but left no report.json"
        return f"failed ({ended.status})", why

    def _signalled(self, number: signal.Signals, num_running: int) -> None:
        _say(f"{number.name}: passed on to the {num_running} running; no other is started")

    def _tell(self, job: Job, text: str) -> None:
        _say(f"{job.number} of {len(self._jobs)}, {job.folder.point.name}: {text}")

    def _rows(self) -> list[Row]:
        numbers = {job.number: job.folder for job in self._jobs}
        return [Row(f, self._status[n], self._outcomes[n]) for n, f in numbers.items()]

    def _write(self) -> None:
        """A table that a bucket does not take is left to the next one."""
        try:
            self._write_table()
        except OSError as error:
            _say(f"the table is not written: {error}")

    def _write_table(self) -> None:
        options = self._options
        order = options.metric, options.largest_first
        sweep_table.write(options.workdir, self._rows(), options.command, *order)


def main(argv: Sequence[str]) -> int:
    """Runs the sweep, or prints the command of every point that is not finished."""
    own, command = arguments.split(argv)
    parser = _parser()
    options = parser.parse_args(own)
    options.command = command
    if complaint := _complaint(options):
        parser.error(complaint)
    try:
        points = (
            sweep_points.from_file(options.file)
            if options.file
            else sweep_points.from_grid(options.grid)
        )
    except ValueError as error:
        parser.error(str(error))
    jobs = [_job(options, number, point) for number, point in enumerate(points, 1)]
    try:
        sweep = Sweep(options, jobs)
        if not options.dry_run:
            return sweep.run()
    except OSError as error:
        parser.error(f"--workdir: {error}")
    for index, job in enumerate(sweep.due()):
        slot = str(index % options.parallel)
        print(arguments.typed([word.replace(SLOT, slot) for word in job.command]))
    return 0


def _job(options: argparse.Namespace, number: int, point: sweep_points.Point) -> Job:
    place = options.workdir / point.name
    own = [*options.command, *point.flags]
    prefix = [
        word.replace("{index}", str(number)).replace("{name}", point.name)
        for word in shlex.split(options.launcher)
    ]
    if any(word.startswith("launch.") for word in prefix) and "--" not in prefix:
        prefix.append("--")  # ours want it before a command
    here = _output_folder(options.workdir) / point.name
    return Job(number, Folder(place, here, point, own), [*prefix, *own, f"--workdir={place}"])


def _output_folder(workdir: Place) -> pathlib.Path:
    """On this machine, of what the points say: the workdir, or one named as that in a bucket."""
    if not workdir.in_bucket:
        return pathlib.Path(str(workdir))
    cache = os.environ.get("FLAMINGO_JAX_CACHE") or "~/.cache/flamingo_jax"
    return pathlib.Path(cache).expanduser() / "sweeps" / str(workdir).partition("://")[2]


def _before(job: Job, resubmit: bool) -> tuple[str, Outcome | None]:
    """How a point stands when the sweep begins, and what came out of it."""
    if job.folder.is_finished():
        return FINISHED, job.folder.outcome()
    if job.folder.is_handed_over() and not resubmit:
        return HANDED_OVER, None
    return WAITING, None


def _place(text: str) -> Place:
    """Of the whole sweep, as a type of an argument."""
    place = Place(text.rstrip("/") or text)
    try:
        place.check()
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return place


def _say(text: str) -> None:
    print(f"sweep: {text}", file=sys.stderr, flush=True)


def _parser() -> arguments.Parser:
    parser = arguments.Parser(prog="python -m launch.sweep", description=__doc__)
    parser.add_argument("--workdir", type=_place, required=True, help="of all the points")
    parser.add_argument("--grid", action="append", help="KEY=VALUE,VALUE of the recipe; repeat it")
    parser.add_argument("--file", type=pathlib.Path, help="one JSON object of settings a line")
    parser.add_argument("--parallel", type=arguments.positive, default=1, help="at a time")
    parser.add_argument("--launcher", default="", help="a command before each point's own")
    parser.add_argument("--resubmit", action="store_true", help="also what a launcher took before")
    parser.add_argument(
        "--metric", default="heldout.nll_right", help="path in report.json, or loss"
    )
    parser.add_argument("--largest_first", action="store_true", help="where more is better")
    parser.add_argument("--dry_run", action="store_true", help="print the commands, start nothing")
    return parser


def _complaint(options: argparse.Namespace) -> str | None:
    """What is wrong with the arguments together, and how to mend it."""
    if not options.command:
        return "no command: write it behind --, as in -- python -m experiments.train ..."
    if any(word.partition("=")[0] in ("--workdir", "-workdir") for word in options.command):
        return "--workdir behind --: leave it out, every point has its own in the sweep's"
    if bool(options.grid) == bool(options.file):
        return "give either --grid=KEY=VALUE,VALUE or --file=POINTS.jsonl"
    try:
        launcher = shlex.split(options.launcher)
    except ValueError as error:
        return f"--launcher={options.launcher}: {str(error).lower()}"
    program = (launcher or options.command)[0]
    if not options.dry_run and not shutil.which(program):
        where = "in --launcher" if launcher else "behind --"
        return f"{program} cannot be started: write a program {where}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
