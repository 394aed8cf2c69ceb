"""From pictures and pages on disk to batches: fetching, building, reading in tf.data."""

import logging
import os
import sys

# TensorFlow only reads data here; its notes on drivers and kernels would bury our own lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# While it is imported Beam warns that it lacks Google's clients, which only Dataflow needs.
logging.getLogger().addFilter(lambda record: "apitools not found" not in str(record.msg))

if sys.argv[:1] == ["-m"]:  # as it is while `python -m data_pipelines.NAME` looks for NAME
    from data_pipelines import missing_packages

    missing_packages.explain("data")
