"""Optional dependencies: imported where they are used; a missing one says what to type."""

from __future__ import annotations

import importlib
from types import ModuleType

from xformer_mobile.errors import MissingDependencyError

__all__ = ["require"]


def require(module: str, *, extra: str) -> ModuleType:
    """Import ``module``; where it is not installed, name the extra that brings it.

    Raises:
        MissingDependencyError: the module, or one that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise MissingDependencyError(
            f"{missing} is not installed; type: pip install 'xformer-mobile[{extra}]'"
        ) from error
