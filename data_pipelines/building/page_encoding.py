"""A page's bytes as text, in whatever encoding they are.

UTF-8 is tried first of all, whatever is said; then what HTTP and the page itself say, which is
often wrong; then Windows-1252, in which anything is text. UTF-16 and UTF-32 begin with a mark: what
is called so and has none is not, as tags would be full of zeros.
"""

import codecs
import re

from data_pipelines.errors import BadRecord

MAX_HTML_BYTES = 16 << 20
_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_XML_CHARSET = re.compile(rb"""^\s*<\?xml[^>]{0,100}?encoding\s*=\s*["']([\w.:-]+)""")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Python has others that no page is in, such as "hex", "punycode" and "unicode_escape".
_TEXT_CODECS = re.compile(
    r"ascii|big5.*|cp\d+|euc.*|gb.*|hz|iso.*|johab|koi8.*|mac.*|shift.*|tis.*|utf-8"
)


def decode(data: bytes, charset: str) -> str:
    """The text; `charset` is what HTTP said.

    Raises BadRecord with the reason `empty`, `too_large`, or `not_html`.
    """
    if not data.strip():
        raise BadRecord("empty", "page of 0 bytes")
    if len(data) > MAX_HTML_BYTES:
        raise BadRecord("too_large", f"page of {len(data)} bytes: more than {MAX_HTML_BYTES}")
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data.decode(name, errors="replace").replace("\0", "")
    if data.count(0, 0, 4096) > 4:
        raise BadRecord("not_html", f"{len(data)} bytes with zeros among them are no page")
    try:
        return data.decode("utf-8").replace("\0", "")
    except UnicodeDecodeError:
        pass
    head = data[:4096]
    declared = [m[1].decode() for m in (_XML_CHARSET.search(head), _META_CHARSET.search(head)) if m]
    for name in (charset, *declared, "windows-1252"):
        codec = _codec(name)
        if codec and codec != "utf-8":  # UTF-8 it is not, whatever it says
            break
    return data.decode(codec, errors="replace").replace("\0", "")


def _codec(name: str) -> str | None:
    """Python's name of a text encoding; None for an unknown one. Browsers read Latin-1 as 1252."""
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    if not _TEXT_CODECS.fullmatch(found):
        return None
    return "windows-1252" if found in ("iso8859-1", "ascii") else found
