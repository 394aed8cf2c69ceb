"""Torch for the tests that compare with it; never a dependency of the project."""

import functools
import sys
from types import ModuleType

import pytest

_libraries = []  # declared operators live as long as their library object


@functools.cache
def import_torch() -> ModuleType:
    """torch, or a skipped test where it is absent. Call before importing timm, transformers, ...

    torchvision wheels are built beside a CUDA torch; next to a CPU torch their compiled operators
    do not load and `import torchvision` (hence timm, open_clip, transformers) fails with "operator
    torchvision::nms does not exist". Declaring the operators, which no test calls, cures that.
    """
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.set_num_threads(1)
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pass  # not installed: only timm and open_clip need it
    except RuntimeError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # left over from the failed import
        from torch import library as operators

        library = operators.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _libraries.append(library)
    return torch
