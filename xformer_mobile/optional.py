"""Optional dependencies: imported where they are used; a missing one says what to type."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from xformer_mobile.chatter import silenced
from xformer_mobile.errors import MissingDependencyError

__all__ = ["import_coremltools", "import_tensorflow", "require"]

NOT_NEEDED = ("tensorflow", "sklearn", "xgboost", "libsvm", "executorch", "torchao", "transformers")
"""What coremltools imports where it finds it, to convert models made with it. Nothing here needs that: it takes long,
it is loud, and with TensorFlow it can crash the process (tensorflow 2.21 before torchao 0.18 or triton 3.8)."""

BEFORE_TENSORFLOW = "triton"
"""What has to be imported before TensorFlow where it is installed: tensorflow 2.21 crashes the process when triton 3.8
comes later, which torchao and torch's compiler bring."""

SETTINGS = {"onnxruntime": ("ORT_DISABLE_TELEMETRY", "1"), "tensorflow": ("TF_CPP_MIN_LOG_LEVEL", "3")}
"""Environment variables that a package reads when it is imported, unless the user has set them. From 1.29 on, ONNX
Runtime's builds send what is run to Microsoft by default, in threads of its own (microsoft/onnxruntime, pull request
27379); nothing that is run here is anyone's business but the user's. TensorFlow's log shows nothing but what is fatal.
"""


def require(module: str, *, extra: str) -> ModuleType:
    """Import ``module``; where it is not installed, name the extra that brings it.

    Raises:
        MissingDependencyError: the module, or one that it needs, is not installed.
    """
    package = module.partition(".")[0]
    if package in SETTINGS:
        os.environ.setdefault(*SETTINGS[package])
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise MissingDependencyError(
            f"{missing} is not installed; type: pip install 'xformer-mobile[{extra}]'"
        ) from error


@functools.cache
def import_coremltools() -> ModuleType:
    """Import coremltools without what it has to say about the versions it finds and the frameworks it misses.

    Frameworks of :data:`NOT_NEEDED` that this process has not imported stay out of it, so that coremltools can't
    convert their models until it is imported anew. Its log shows errors only.

    Raises:
        MissingDependencyError: coremltools is not installed.
    """
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with _hidden(name for name in NOT_NEEDED if name not in sys.modules), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escape sequences, the first time its files are compiled
        return require("coremltools", extra="coreml")


@functools.cache
def import_tensorflow() -> ModuleType:
    """Import TensorFlow without what it has to say about the processor, and after what it can't go before.

    Raises:
        MissingDependencyError: TensorFlow is not installed.
    """
    with silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of its own
        if importlib.util.find_spec("tensorflow") is not None:
            with contextlib.suppress(ImportError):
                importlib.import_module(BEFORE_TENSORFLOW)
        return require("tensorflow", extra="tensorflow")


@contextlib.contextmanager
def _hidden(names: Iterable[str]) -> Iterator[None]:
    """Make the import of each of these modules fail meanwhile."""
    hidden: dict[str, Any] = dict.fromkeys(names)
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
