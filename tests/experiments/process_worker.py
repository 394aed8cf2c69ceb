"""What each of several processes does in `processes_test`: WHAT, then DIR to work in."""

import os
import pathlib
import sys
import time

import jax
import numpy as np

from experiments import cli
from experiments.training import processes


def agree(folder: pathlib.Path) -> int:
    """Everybody tells everybody; one at a time builds; process 0 has the arrays at the end."""
    index = jax.process_index()
    told = processes.gather({"index": index, "long": "x" * 3000 * index})
    assert [one["index"] for one in told] == list(range(jax.process_count()))
    assert len(told[1]["long"]) == 3000
    with processes.one_at_a_time(folder):
        if not (folder / "built").exists():
            time.sleep(0.2)
            (folder / "built").write_text(str(index))
            (folder / f"built-by-{index}").touch()
    processes.check_shared(folder / "built")
    mesh = jax.make_mesh((jax.device_count(),), ("all",))
    where = jax.NamedSharding(mesh, jax.P("all"))
    rows = np.arange(2.0) + 2 * index
    whole = processes.to_host({"rows": jax.make_array_from_process_local_data(where, rows)})
    if processes.part():
        assert whole["rows"].tolist() == [0, 1, 2, 3]
        return 0
    return 0 if whole["rows"] is None else 1


def fail(folder: pathlib.Path) -> int:
    """Process 1 ends with what a user can mend, while process 0 waits for it in a collective."""
    processes.gather(None)
    if jax.process_index() == 1:
        raise cli.UserError("my rows are bad")
    processes.gather(None)
    return 0


def not_shared(folder: pathlib.Path) -> int:
    """Every process has a folder of its own."""
    file = folder / f"only-{jax.process_index()}"
    file.touch()
    processes.check_shared(folder / "only-0" if processes.is_first() else folder / "elsewhere")
    return 0


def programs(folder: pathlib.Path) -> int:
    """Compiled programs are kept in a folder of all, and in none where everyone has another."""
    for name, kept in (("of all", True), (f"of {jax.process_index()}", False)):
        jax.config.update("jax_compilation_cache_dir", str(folder / name))
        processes.keep_programs_together()
        assert jax.config.jax_enable_compilation_cache == kept
    processes.part()
    return 0


def interrupt(folder: pathlib.Path) -> int:
    """Ctrl-C in process 0 while process 1 waits for it."""
    processes.gather(None)
    if processes.is_first():
        raise KeyboardInterrupt
    processes.gather(None)
    return 0


def stop(folder: pathlib.Path) -> int:
    """Steps until process 1 gets a SIGTERM; all say after which step they stop."""
    request = processes.StopRequest()
    for step in range(1, 3000):
        if step == 3 and jax.process_index() == 1:
            (folder / "pid").write_text(str(os.getpid()))
        time.sleep(0.01)
        if request.after(step):
            print(f"stopped after {step}", flush=True)
            processes.part()
            return 143
    return 1


def main() -> int:
    processes.start()
    return globals()[sys.argv[1]](pathlib.Path(sys.argv[2]))


if __name__ == "__main__":
    sys.exit(cli._guarded(main))
