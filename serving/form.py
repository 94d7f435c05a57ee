"""``multipart/form-data`` read as it comes, in memory, within limits; nothing is written anywhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder

from serving.refusal import TOO_MUCH, UNFIT, Refusal
from serving.request import Upload

MOST_PARTS = 32
TEXT_BYTES = 8192  # of one field that is no file
HEADERS = 16384  # bytes of one part's
NAME = 120  # characters of a file's name that are kept
_BLANK = re.compile(rb"\r\n\r\n|\r\r|\n\n")
REMEDY = "send multipart/form-data, as a browser's form or curl -F do"


@dataclass
class Form:
    """Files and texts by field; a field may hold several texts."""

    files: dict[str, Upload] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)


def boundary_of(content_type: str) -> bytes:
    """What separates the parts.

    Raises:
        Refusal: the request is no form.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not 1 <= len(boundary) <= 200 or not boundary.isascii():
        raise Refusal(UNFIT, f"'{content_type[:80]}' is no form with files", REMEDY, "Content-Type")
    return boundary.encode()


async def read_form(pieces: AsyncIterator[bytes], boundary: bytes, max_bytes: int) -> Form:
    """The form in a request's body.

    Raises:
        Refusal: larger than `max_bytes`, more parts than there are fields, or no form.
    """
    body = bytearray()
    async for piece in pieces:
        if len(body) + len(piece) > max_bytes:
            raise too_large(max_bytes)
        body += piece
    return await asyncio.to_thread(parsed, body, boundary)


def parsed(body: bytearray, boundary: bytes) -> Form:
    """The form in a whole body: werkzeug's decoder, fed piece by piece, adds bytes to a file where a piece ends within
    the last boundary.

    Raises:
        Refusal: more parts than there are fields, or no form.
    """
    _check_headers(body, boundary)
    decoder = MultipartDecoder(boundary, max_parts=MOST_PARTS)
    decoder.buffer = body  # as `receive_data` would, without a copy
    decoder.receive_data(None)
    form, part, content = Form(), None, b""
    try:
        while not isinstance(event := decoder.next_event(), Epilogue):
            if isinstance(event, (File, Field)):
                part, content = event, b""
            elif isinstance(event, Data):
                content = content + event.data if content else event.data
                if part is not None and not event.more_data:
                    _keep(form, part, content)
    except RequestEntityTooLarge:
        raise Refusal(TOO_MUCH, f"more than {MOST_PARTS} parts", REMEDY) from None
    except (ValueError, AttributeError) as error:  # what werkzeug raises for bytes that are no form
        raise Refusal(UNFIT, f"the form can't be read: {error}", REMEDY) from None
    return form


def _check_headers(body: bytearray, boundary: bytes) -> None:
    """Refuse parts with more headers than anyone needs, before each becomes a Python object."""
    for begin in re.finditer(rb"(?:^|[\r\n])--%s[ \t]*[\r\n]" % re.escape(boundary), body):
        if not _BLANK.search(body, begin.end() - 1, begin.end() + HEADERS):
            raise Refusal(UNFIT, f"a part's headers do not end within {HEADERS} bytes", REMEDY)


def _keep(form: Form, part: File | Field, content: bytes) -> None:
    if not part.name:
        raise ValueError("a part without a name")
    if not isinstance(part, File):
        if len(content) > TEXT_BYTES:
            remedy = f"at most {TEXT_BYTES} bytes; files need a name"
            raise Refusal(TOO_MUCH, f"a text of more than {TEXT_BYTES} bytes", remedy, part.name[:NAME])
        form.texts.setdefault(part.name, []).append(content.decode())
        return
    if not part.filename and not content:
        return  # a form's file that nobody chose
    if part.name in form.files:
        raise Refusal(UNFIT, f"'{part.name[:NAME]}' was sent twice", "send one clip at a time", part.name[:NAME])
    form.files[part.name] = Upload(shown_name(part.filename), content)


def too_large(max_bytes: int) -> Refusal:
    """The refusal of a request with too many bytes."""
    said = f"too large: more than {max_bytes / (1 << 20):g} MiB"
    return Refusal(TOO_MUCH, said, "cut or re-encode the clip, or start the service with a greater max_mb", "max_mb")


def shown_name(name: str) -> str:
    """The last part of a file's name as it was sent, what can't be printed escaped; never a path."""
    last = name.replace("\\", "/").rpartition("/")[2]
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in last)
    return (f"{text[: NAME - 10]}...{text[-7:]}" if len(text) > NAME else text) or "unnamed"
