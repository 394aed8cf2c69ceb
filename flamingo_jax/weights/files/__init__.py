"""Formats of files of weights; nothing in a file is run."""
