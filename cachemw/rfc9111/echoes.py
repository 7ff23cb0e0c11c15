"""Pages that show what a cookie says: a token that a form repeats, or a number by which somebody is known.

Middlewares that check such tokens set the cookie once, and add nothing to Vary for the forms that repeat it. That a
visitor has the cookie tells nothing: scripts read it, too, and most pages of such a visitor are for everybody.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from cachemw.rfc9111.messages import Head
from cachemw.rfc9111.syntax import OWS

__all__ = ["shows_cookie"]

#: From this length in octets, a value is not in a page by accident: tokens have 20 and more, words hardly ever as many.
_TELLING: Final = 16
#: How many octets of a Cookie field are looked at: servers and browsers hardly let more pass.
_LONGEST: Final = 16_384
#: How many octets are searched in all, counting the body once for each value: a hostile client can make one octet cost
#: 3 ns, and an event loop waits.
_MOST: Final = 32 * 1024 * 1024
#: Kinds of content that contain nothing which a script or a form could send back.
_WORDLESS: Final = ("image/", "video/", "audio/", "font/")
_WBITS: Final = 32 + zlib.MAX_WBITS  # zlib or gzip, as its header says
#: Parts of the names of cookies that pages repeat.
_TOKENS: Final = ("csrf", "xsrf")


def shows_cookie(lines: Sequence[str], head: Head, body: bytes, *, most: int) -> bool:
    """Does the body repeat the value of a cookie in these lines of Cookie fields?

    A body that cannot be read may do so, if a cookie looks like a token: one in a content coding other than gzip, or of
    more than `most` octets. So may any body, if there is too much to search.
    """
    if sum(map(len, lines)) > _LONGEST:
        return True
    values = {value for line in lines for value in _telling_values(line)}
    kind = (head.value("content-type") or "").lower()
    if not values or (kind.startswith(_WORDLESS) and "xml" not in kind):
        return False
    plain = _decoded(head, body, most)
    if plain is None:
        return any(token in line.lower() for line in lines for token in _TOKENS)
    return len(values) * len(plain) > _MOST or any(value in plain for value in values)


def _telling_values(line: str) -> set[bytes]:
    """The values in a Cookie field that are long enough to tell something, as they are and percent-decoded."""
    values = [pair.partition("=")[2].strip(OWS).strip('"').encode("latin-1", "replace") for pair in line.split(";")]
    return {one for value in values for one in (value, unquote_to_bytes(value)) if len(one) >= _TELLING}


def _decoded(head: Head, body: bytes, most: int) -> bytes | None:
    """The body without its content coding; None if it cannot be decoded."""
    coding = ",".join(head.lines("content-encoding")).strip(OWS).lower()
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        return None
    decompressor = zlib.decompressobj(_WBITS)
    try:
        plain = decompressor.decompress(body, most)
    except zlib.error:
        return None
    return plain if decompressor.eof and not decompressor.unused_data else None
