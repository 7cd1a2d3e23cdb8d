"""HTML from a tree of elements. Text and attributes are escaped where the tree is written, so none can be forgotten."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

__all__ = ["Node", "append", "element", "html_bytes", "printable", "stylesheet"]

Node = ET.Element | str | None
"""What an element may hold: another one, text, or nothing."""

RAW = frozenset({"script", "style"})
"""The elements whose text HTML does not escape."""

BLOCKS = frozenset({"article", "details", "div", "dl", "header", "h1", "h2", "h3", "li", "main", "p", "section", "tr"})
"""Elements with a line break behind them, so that the file can be read and compared."""


def printable(text: str) -> str:
    """Without control characters and halves of surrogate pairs, which neither XML nor UTF-8 can hold."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def element(tag: str, *children: Node | Iterable[Node], **attributes: object) -> ET.Element:
    """An element. In an attribute's name ``_`` stands for ``-`` and one at its end for nothing: ``class_``.

    An attribute that is None or False is left out; one that is True is empty; floats have six digits.

    Raises:
        ValueError: an element whose text would not be escaped.
    """
    if tag in RAW:
        raise ValueError(f"the text of {tag} is not escaped: use stylesheet for the project's own style")
    made = ET.Element(tag)
    for name, value in attributes.items():
        if value is not None and value is not False:
            made.set(name.rstrip("_").replace("_", "-"), _attribute(value))
    append(made, *children)
    if tag in BLOCKS:
        made.tail = "\n"
    return made


def _attribute(value: object) -> str:
    if value is True:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def append(parent: ET.Element, *children: Node | Iterable[Node]) -> None:
    """Put text and elements behind what an element already holds."""
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            text = printable(child)
            if len(parent):
                parent[-1].tail = (parent[-1].tail or "") + text
            else:
                parent.text = (parent.text or "") + text
        elif isinstance(child, ET.Element):
            parent.append(child)
        else:
            append(parent, *child)


def stylesheet(text: str) -> ET.Element:
    """A style element of the project's own text.

    Raises:
        ValueError: text that would end the element.
    """
    if "</" in text:
        raise ValueError("a stylesheet can't have '</'")
    made = ET.Element("style")
    made.text = text
    return made


def html_bytes(root: ET.Element) -> bytes:
    """A whole document in UTF-8, for its ``html`` element."""
    made: bytes = ET.tostring(root, encoding="utf-8", method="html")
    return b"<!DOCTYPE html>\n" + made + b"\n"
