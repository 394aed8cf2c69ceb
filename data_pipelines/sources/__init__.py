"""Where documents come from, one file a kind of input; `source.py` says what a source has to be."""
