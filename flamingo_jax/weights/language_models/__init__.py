"""Language models as transformers, GGUF and runs of ours leave them, as parameters of ours."""
