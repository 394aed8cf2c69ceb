"""The demo's language model, from its GGUF file, against transformers reading the same file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.core import params
from flamingo_jax.core.stack import Execution, plan
from flamingo_jax.models.lm import LanguageModel
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights.files import gguf_file
from flamingo_jax.weights.language_models import gguf, gguf_config
from tests.parts import find
from tests.torch_reference import import_torch

TEXTS = (
    "The capital of France is Paris.",
    "A photo of a flamingo standing in the ocean, seen from very far away",
)


@pytest.mark.reference
def test_log_probs_equal_transformers():
    path = find("SmolLM2-135M-Instruct.Q4_1.gguf")
    torch = import_torch()
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype="float32"
    )
    file = gguf_file.read(path)
    config = gguf_config.read(file)
    segments = plan(config.num_layers, 4, 14)
    tree = jax.tree.map(jnp.asarray, gguf.language_model(file, config, segments))
    graph, _, _ = params.abstract(
        lambda rngs: LanguageModel(config, Execution(), segments, rngs=rngs)
    )
    tokenizer = Tokenizer.from_gguf(file.metadata)
    run = jax.jit(lambda p, tokens: jax.nn.log_softmax(nnx.merge(graph, p)(tokens)))
    worst = 0.0
    for text in TEXTS:
        tokens = np.asarray([tokenizer.encode(text)], np.int32)
        ours = np.asarray(run(tree, tokens))
        with torch.no_grad():
            logits = reference(torch.as_tensor(tokens, dtype=torch.long)).logits
        theirs = torch.log_softmax(logits.float(), -1).numpy()
        worst = max(worst, float(np.abs(ours - theirs).max()))
    print(f"max abs difference of log-probs: {worst:.2e}")
    assert worst < 1e-3
