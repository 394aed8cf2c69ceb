"""The finished model that a command asks: `--model`, and `--mesh`, the devices that it lies on.

Of several processes (`launch.local`, a TPU slice) all ask the same prompts and have all answers;
process 0 alone writes and prints.
"""

import pathlib
import signal

import jax
from absl import flags
from jax.sharding import Mesh

from experiments import cli
from experiments.asking import loading, mesh_flag
from experiments.storage import given_model
from experiments.training import processes
from flamingo_jax import model_directory
from flamingo_jax.core import partition
from flamingo_jax.decode import serving
from flamingo_jax.model import Model
from flamingo_jax.train import accelerator

MODEL = flags.DEFINE_string(
    "model", None, "Model directory, workdir or checkpoint; may be gs://..."
)
flags.adopt_module_key_flags(mesh_flag)
flags.mark_flag_as_required("model")


def join() -> None:
    """Joins the other processes, where there are any; before anything else of JAX.

    SIGTERM ends them at once, as it does one alone: there is no step to finish.
    """
    with cli.user_input():
        processes.start()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def folder() -> pathlib.Path:
    """The model's folder, brought into the cache first where it is in a bucket or a checkpoint."""
    return given_model.folder("--model", MODEL.value)


def load() -> Model:
    """The model on its devices, its frozen parts brought into the cache first where they are not.

    All processes must call it, behind `join`.
    """
    directory = folder()
    loading.bring(directory)
    card = model_directory.read_card(directory)
    with cli.user_input():
        return model_directory.load(directory, mesh=_mesh(card))


def _mesh(card: model_directory.ModelCard) -> Mesh | None:
    """What `--mesh` says, or all devices; None for one device that is no TPU.

    A CPU alone is one device, also where it is split into virtual ones, which share its cores.
    """
    if mesh_flag.MESH.value is not None:
        mesh = partition.make_mesh(**mesh_flag.sizes(mesh_flag.MESH.value))
    elif jax.process_count() == 1 and jax.default_backend() == "cpu":
        return None
    else:
        found = processes.gather(accelerator.capacity(jax.local_devices()))
        memory = None if None in found else min(found)
        mesh = serving.make_mesh(card.config, card.dtypes, jax.devices(), memory)
    on_tpu = jax.default_backend() == "tpu"  # where kernels lie as `serving.formats` says
    return mesh if mesh.size > 1 or on_tpu else None
