"""Metadata and dependencies; everything else about tools is in pyproject.toml.

The core installs without TensorFlow. jax and flax are pinned as a pair that was tested together,
as are optax and orbax with them; newer ones come by raising all of them at once.
"""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "flamingo_jax/__init__.py").read_text())[1]

OURS = ("flamingo_jax", "data_pipelines", "experiments", "launch")
CORE = [
    "jax==0.10.2",
    "jaxlib==0.10.2",
    "flax==0.12.8",
    "chex==0.1.92",
    "optax==0.2.8",
    "orbax-checkpoint==0.12.8",
    "ml-collections==1.1.0",
    "absl-py>=2.1",
    "gguf>=0.19,<0.20",
    "numpy>=2.1",
    "pillow>=11",
    "safetensors>=0.5",
    "sentencepiece>=0.2",
    "tokenizers>=0.21",
]
DATA = [
    "tensorstore>=0.1.86",  # buckets; orbax brings it too
    # It only reads data, so where there is a build without CUDA, half as large, that one.
    "tensorflow-cpu==2.21.0; platform_machine == 'x86_64' or platform_machine == 'AMD64'",
    "tensorflow==2.21.0; platform_machine != 'x86_64' and platform_machine != 'AMD64'",
    "tensorflow-datasets==4.9.10",
    "importlib_resources",  # tensorflow-datasets imports it without saying so
    "google-crc32c>=1.5",
    "av==18.1.0",  # video
    "resvg-py==0.5.0",  # its drawings are part of the demo's data
    "tqdm",
    "apache-beam==2.77.0",
    "pyarrow==25.0.1",
    "warcio==1.8.1",
    "lxml>=6,<7",  # pages
    "py3langid>=0.4,<0.5",
    "imagehash>=4.3,<5",
]
DEMO = [*DATA, "matplotlib>=3.9", "tensorboard>=2.19"]
# NLTK splits and tags the answers to NExT-QA's questions; the other benchmarks do without.
EVALUATE = [*DEMO, "nltk==3.10.4"]
# What the packages of tests/reference-requirements.txt need, which are installed without theirs.
REFERENCE = ["torch==2.13.0", "einops", "einops-exts", "ftfy", "huggingface-hub", "regex", "typer"]
GCS = ["gcsfs>=2026.4", "google-cloud-storage>=3.10,<4"]  # runs, models and data in buckets
TEST = [
    *EVALUATE,
    *GCS,
    "gcp-storage-emulator==2026.7.19",
    "pytest>=8",
    "pytest-xdist>=3.7",
    "hypothesis>=6",
    "ruff==0.17.5",
]

setup(
    name="flamingo_jax",
    version=VERSION,
    description="Flamingo (Alayrac et al. 2022), a few-shot visual language model, in JAX and Flax",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=[f"{top}{below}" for top in OURS for below in ("", ".*")]),
    package_data={"data_pipelines": ["*.css"]},
    install_requires=CORE,
    extras_require={
        "data": DATA,
        "demo": DEMO,
        "evaluate": EVALUATE,
        "gcs": GCS,
        "tpu": ["jax[tpu]==0.10.2"],
        "cuda": ["jax[cuda12]==0.10.2"],
        "test": TEST,
        "reference": REFERENCE,
        "benchmark": ["webdataset==1.0.2"],  # what streams are compared with
    },
)
