"""A command whose packages are not installed says in one line which extra of setup.py has them."""

import sys
from types import TracebackType

# Of the extra `demo`, by the names that are imported; all but the last two are in `data` too.
PACKAGES = (
    *("tensorflow", "tensorflow_datasets", "importlib_resources", "google_crc32c", "av"),
    *("resvg_py", "tqdm", "apache_beam", "pyarrow", "warcio", "lxml", "py3langid", "imagehash"),
    *("matplotlib", "tensorboard"),
)


def explain(extra: str) -> None:
    """From here on, where one is missing the process ends with that line and status 2."""
    before = sys.excepthook

    def hook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if not issubclass(kind, ModuleNotFoundError) or package not in PACKAGES:
            before(kind, error, traceback)
            return
        print(
            f"error: {package} is not installed: in the repository, pip install -e '.[{extra}]'",
            file=sys.stderr,
        )
        raise SystemExit(2)

    sys.excepthook = hook
