"""Commands and recipes."""

import sys

from data_pipelines import missing_packages

if sys.argv[:1] == ["-m"]:  # as it is while `python -m experiments.NAME` looks for NAME
    missing_packages.explain("demo")
