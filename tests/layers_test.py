"""Imports go one way: every file is parsed, and what it imports of ours is held against a table."""

import ast
import pathlib
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("flamingo_jax", "data_pipelines", "experiments", "launch")

# Of the library, who may import whom: a folder or a module directly under it, by its own name. The
# leaves import nothing of ours but config, so that what only reads data stays light.
LEAVES = {"batch", "cache", "checked_dict", "config", "images", "prompts", "tokenizer", "videos"}
LIBRARY = {
    "batch": set(),
    "cache": set(),
    "checked_dict": set(),
    "config": {"checked_dict", "config_checks", "rope_config"},
    "config_checks": set(),
    "rope_config": {"config_checks"},
    "contrastive_config": {"config"},
    "images": {"config"},
    "prompts": set(),
    "tokenizer": {"gguf_vocabulary", "published_vocabulary", "tokenizer_models"},
    "gguf_vocabulary": {"published_vocabulary", "sentencepiece_proto", "tokenizer_models"},
    "published_vocabulary": {"tokenizer_models"},
    "sentencepiece_proto": set(),
    "tokenizer_models": set(),
    "videos": {"config", "images"},
    "core": {"core", "config"},
    "aot": {"aot"},
    "models": {"models", "core", "config", "contrastive_config", "batch"},
    "train": {"train", "models", "core", "config", "contrastive_config", "batch"},
    "decode": {"decode", "models", "core", *LEAVES},
    "eval": {"eval", "weights", "decode", "models", "core", *LEAVES},
    "weights": {"weights", "models", "core", "contrastive_config", *LEAVES},
    "model": {"decode", "models", "core", *LEAVES},
    "model_directory": {"model", "decode", "weights", "models", "core", *LEAVES},
    "contrastive_model": {"train", "weights", "models", "core", "contrastive_config", *LEAVES},
    "same_model": {"model_directory", "weights", *LEAVES},
    "exported_model": {"model_directory", "weights", "core", *LEAVES},
    "__init__": {"model_directory"},
}
DATA_MAY_IMPORT = {"batch", "cache", "config", "images", "tokenizer", "videos"}
DATA_MAY_ALSO_IMPORT = {"flamingo_jax.weights.files.gguf_file"}  # reads files, needs no jax
READS_BENCHMARKS = "data_pipelines/sources/benchmark.py"  # by what evaluation reads them with
BENCHMARKS = {"eval", "prompts"}
FOREIGN = {
    "flamingo_jax": {"tensorflow", "tensorflow_datasets", "tf_keras", "torch", "ml_collections"},
    "data_pipelines": {"torch", "jax", "flax", "ml_collections"},
    "launch": {"jax", "flax", "torch", "tensorflow"},
    "experiments": {"torch"},
}


def imported(source: str) -> list[str]:
    """Dotted names of everything a file imports, inside functions and under conditions too."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def violations(path: str, source: str) -> list[str]:
    """What file `path` (from the root, such as `flamingo_jax/core/stack.py`) must not import."""
    package, *inner = pathlib.PurePosixPath(path).with_suffix("").parts
    wrong = []
    for name in imported(source):
        top, *rest = name.split(".")
        target = rest[0] if rest else "__init__"
        if top in FOREIGN[package]:
            wrong.append(name)
        elif top not in PACKAGES:
            continue
        elif package == "launch":
            if top != package:
                wrong.append(name)
        elif package == "data_pipelines":
            if name in DATA_MAY_ALSO_IMPORT:
                continue
            may = DATA_MAY_IMPORT | (BENCHMARKS if path == READS_BENCHMARKS else set())
            if top != package and not (top == "flamingo_jax" and target in may):
                wrong.append(name)
        elif package == "flamingo_jax" and (top != package or target not in LIBRARY[inner[0]]):
            wrong.append(name)
    return wrong


def files() -> list[str]:
    return sorted(
        p.relative_to(ROOT).as_posix() for top in PACKAGES for p in (ROOT / top).rglob("*.py")
    )


@pytest.mark.parametrize("path", files())
def test_a_file_imports_only_what_its_layer_may(path):
    assert violations(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("flamingo_jax/models/lm.py", "from flamingo_jax.train import step"),
        ("flamingo_jax/models/lm.py", "from flamingo_jax.weights import frozen_parts"),
        ("flamingo_jax/core/stack.py", "import flamingo_jax.models.flamingo"),
        ("flamingo_jax/train/step.py", "from flamingo_jax.decode import beam"),
        ("flamingo_jax/config.py", "from flamingo_jax import batch"),
        ("flamingo_jax/images.py", "def f():\n    import tensorflow as tf"),
        ("flamingo_jax/model.py", "from experiments import cli"),
        ("flamingo_jax/model.py", "from data_pipelines.errors import BadRecord"),
        ("data_pipelines/streams/stream.py", "from flamingo_jax.prompts import Prompt"),
        ("data_pipelines/streams/stream.py", "from flamingo_jax.eval.task import Task"),
        ("data_pipelines/streams/stream.py", "import flamingo_jax"),
        ("data_pipelines/streams/stream.py", "from experiments import cli"),
        ("launch/local.py", "from flamingo_jax import config"),
    ],
)
def test_the_rule_finds_what_it_should(path, line):
    assert len(violations(path, line)) == 1


def test_every_module_of_the_library_has_a_place_in_the_table():
    modules = {
        pathlib.PurePosixPath(p).with_suffix("").parts[1] for p in files() if p.startswith("fl")
    }
    assert modules == set(LIBRARY)


def test_importing_the_whole_library_brings_no_tensorflow_and_no_torch():
    script = textwrap.dedent(
        """
        import importlib, pkgutil, sys
        import flamingo_jax
        for module in pkgutil.walk_packages(flamingo_jax.__path__, "flamingo_jax."):
            importlib.import_module(module.name)
        assert "flamingo_jax.models.flamingo" in sys.modules
        found = {"tensorflow", "torch", "transformers"} & set(sys.modules)
        assert not found, found
        """
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
