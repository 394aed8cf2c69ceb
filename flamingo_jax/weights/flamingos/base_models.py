"""Which frozen parts the released OpenFlamingos were trained on, by shape, and how to get them."""

import pathlib

from flamingo_jax.weights.flamingos.open_flamingo_checkpoint import Checkpoint

# By where decoder layers lie ("" in the old layout) and their width: a name, and repositories of
# Hugging Face, the second for the checkpoints that end in -langinstruct.
_LANGUAGE_MODELS = {
    ("transformer.blocks", 2048): (
        "MPT-1B",
        "anas-awadalla/mpt-1b-redpajama-200b",
        "anas-awadalla/mpt-1b-redpajama-200b-dolly",
    ),
    ("gpt_neox.layers", 2560): (
        "RedPajama-INCITE-3B",
        "togethercomputer/RedPajama-INCITE-Base-3B-v1",
        "togethercomputer/RedPajama-INCITE-Instruct-3B-v1",
    ),
    ("transformer.blocks", 4096): ("MPT-7B", "anas-awadalla/mpt-7b"),
    ("", 4096): ("LLaMA-7B", "huggyllama/llama-7b"),
    ("model.layers", 4096): ("LLaMA-7B", "huggyllama/llama-7b"),
}
_CLIP = "openai/clip-vit-large-patch14"


def language_model_wanted(checkpoint: Checkpoint) -> str:
    """The language model that the checkpoint was trained around, in a sentence with a command."""
    num = len(checkpoint.gated)
    what = f"{checkpoint.path} has {num} gated blocks of width {checkpoint.width}"
    known = _LANGUAGE_MODELS.get((checkpoint.layers, checkpoint.width))
    if known is None:
        return (
            f"{what} before layers called {checkpoint.layers or '(not said)'}: give the folder of "
            "transformers with the language model that it was trained around, --lm=FOLDER"
        )
    name, repository, *tuned = known
    other = f" (its -langinstruct: {tuned[0]})" if tuned else ""
    return f"{what}, of {name}{other}: {_download(repository)}, then --lm={_folder(repository)}"


def image_tower_wanted(checkpoint: Checkpoint) -> str:
    """The same for its image tower."""
    width = checkpoint.shape("perceiver.latents")[1]
    if width != 1024:
        return (
            f"{checkpoint.path} reads features of width {width}: give the folder of transformers "
            "or of open_clip with the CLIP tower that it was trained on, --vision=FOLDER"
        )
    return (
        f"{checkpoint.path} reads CLIP's ViT-L/14, OpenAI's weights: {_download(_CLIP)}, then "
        f"--vision={_folder(_CLIP)}"
    )


def _folder(repository: str) -> str:
    return pathlib.PurePosixPath(repository).name


def _download(repository: str) -> str:
    return f"hf download {repository} --local-dir {_folder(repository)}"
