"""The two stages before Flamingo's own: the vision encoder's and the language model's."""
