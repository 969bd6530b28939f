"""Text for XML files."""

import re
from xml.sax.saxutils import escape

# What XML 1.0 allows, "Char", and half an emoji or a byte that is not UTF-8 are not among it.
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(value: str) -> str:
    """The text for an element, or for an attribute in double quotes.

    Raises ValueError for characters that XML cannot hold.
    """
    if found := _NOT_XML.search(value):
        raise ValueError(f"{value!r}: XML cannot hold the character {found[0]!r}; rename it")
    return escape(value, {'"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"})
