"""Commands and recipes."""

import os
import sys

from data_pipelines import missing_packages

# etils, with it orbax, reads gs:// with gcsfs also where TensorFlow is installed, see bucket.py; no
# process remembers listings, as others write there too.
os.environ.setdefault("EPATH_USE_TF", "false")
os.environ.setdefault("FSSPEC_GCS", '{"use_listings_cache": false}')

if sys.argv[:1] == ["-m"]:  # as it is while `python -m experiments.NAME` looks for NAME
    missing_packages.explain("demo")
