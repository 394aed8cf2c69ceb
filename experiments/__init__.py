"""Commands and recipes."""

import gc
import os
import sys

from data_pipelines import missing_packages

# Modules are no garbage: looking for it while they are imported takes a seventh of that time.
gc.set_threshold(10_000)

# etils, with it orbax, reads gs:// with gcsfs also where TensorFlow is installed, see bucket.py; no
# process remembers listings, as others write there too.
os.environ.setdefault("EPATH_USE_TF", "false")
os.environ.setdefault("FSSPEC_GCS", '{"use_listings_cache": false}')

if sys.argv[:1] == ["-m"]:  # as it is while `python -m experiments.NAME` looks for NAME
    missing_packages.explain("demo")
