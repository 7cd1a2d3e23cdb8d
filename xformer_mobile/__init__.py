"""XFormer on phones: the model, its export-friendly form, and what runs an exported bundle.

Importing this package is light: PyTorch and the engines are imported where they are used.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
