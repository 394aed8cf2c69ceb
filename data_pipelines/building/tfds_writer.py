"""Writes a TFDS builder's records to TFRecord files, without TFDS's own lines and bars."""

import contextlib
import errno
import io
import os
import pathlib

import tensorflow_datasets as tfds


def is_built(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether the builder's data folder is whole: TFDS gives it its name in a last rename."""
    return (pathlib.Path(builder.data_dir) / "dataset_info.json").is_file()


def build(builder: tfds.core.DatasetBuilder) -> None:
    """Writes all splits, or nothing where they are there. No network is used by TFDS.

    OSError for a full disk.
    """
    tfds.disable_progress_bar()  # it draws two bars a split, and the caller has one
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of "downloads of unknown size"
            builder.download_and_prepare(file_format="tfrecord")
    except Exception as error:  # TensorFlow's, or a RuntimeError that quotes it
        full = os.strerror(errno.ENOSPC)
        if full not in str(error):
            raise
        raise OSError(errno.ENOSPC, full, str(builder.data_dir)) from error
