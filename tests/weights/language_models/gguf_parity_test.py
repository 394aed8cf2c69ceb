"""GGUF files of every architecture against transformers, with the same random weights."""

import numpy as np
import pytest

from flamingo_jax.core.stack import plan
from flamingo_jax.weights import frozen_parts
from flamingo_jax.weights.files import gguf_file
from flamingo_jax.weights.language_models import gguf, gguf_config
from flamingo_jax.weights.language_models.hf_lm_config import read_config
from tests.torch_reference import import_torch
from tests.weights.language_models import gguf_files, hf_lm_test
from tests.weights.language_models.hf_lm_test import small

HEAD = {"head_dim": 16, "query_pre_attn_scalar": 16}


def llama_3(hf):
    rope = {"rope_type": "llama3", "rope_theta": 50_000.0, "factor": 8.0}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 8192}
    return hf.LlamaForCausalLM(hf.LlamaConfig(**small(), head_dim=16, rope_parameters=rope))


def qwen3(hf):
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**small(), head_dim=16, tie_word_embeddings=True))


def gemma2(hf):
    caps = {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 1.0}
    return hf.Gemma2ForCausalLM(hf.Gemma2Config(**small(), **HEAD, **caps, sliding_window=11))


def gemma3(hf):
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**small(), **hf_lm_test.GEMMA_3 | HEAD))


def phi3(hf):
    return hf_lm_test.phi3(hf, sliding_window=11)


FAMILIES = {
    "llama": (hf_lm_test.llama, llama_3),
    "qwen2": (hf_lm_test.qwen2,),
    "qwen3": (qwen3,),
    "gemma": (hf_lm_test.gemma,),
    "gemma2": (gemma2,),
    "gemma3": (gemma3,),
    "olmo2": (hf_lm_test.olmo2,),
    "phi3": (phi3, hf_lm_test.phi3_partial),
    "gpt2": (hf_lm_test.gpt2,),
}
CASES = [(name, make) for name, makes in FAMILIES.items() for make in makes]
THEIRS = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2")  # that they read too


@pytest.mark.reference
@pytest.mark.parametrize(("name", "make"), CASES, ids=[m.__name__ for _, m in CASES])
def test_config_and_log_probs_equal_transformers(tmp_path, name, make):
    """The config that its folder would give, too."""
    torch = import_torch()
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    model = hf_lm_test.randomised(torch, make(hf))
    state, values = hf_lm_test.state_dict(model), model.config.to_dict()
    file = gguf_file.read(gguf_files.write(tmp_path / "lm.gguf", name, values, state))
    config = gguf_config.read(file)
    frozen_parts._check_same(file.path, config, read_config(values))
    segments = plan(config.num_layers, 2, 0)
    tree = gguf.language_model(file, config, segments)
    tokens, mask = hf_lm_test.padded_tokens()
    want = hf_lm_test.log_probs(torch, model, tokens, mask)
    have = hf_lm_test.ours(config, tree, tokens, mask, segments)
    difference = np.abs(want - have)[mask].max()
    print(f"{make.__name__}: max difference {difference:.1e}")
    assert difference < 1e-4
    if name in THEIRS:  # what they read of the file is the model that it was made of
        options = {"gguf_file": "lm.gguf", "config": model.config, "dtype": "float32"}
        found = hf_lm_test.state_dict(type(model).from_pretrained(str(tmp_path), **options))
        assert found.keys() == state.keys()
        for tensor in state:
            np.testing.assert_allclose(found[tensor], state[tensor], atol=1e-6, err_msg=tensor)
