"""``multipart/form-data`` read as it comes, in memory, within limits; nothing is written anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from serving.refusal import TOO_MUCH, UNFIT, Refusal
from serving.request import Upload

MOST_PARTS = 32
TEXT_BYTES = 8192  # of one field that is no file
PIECE = 1 << 16  # bytes that are parsed at a time
HELD = 1 << 20  # bytes of headers, or of what stands before the first part
NAME = 120  # characters of a file's name that are kept
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
    reader = _Reader(MultipartDecoder(boundary, HELD, max_parts=MOST_PARTS))
    total = 0
    try:
        async for piece in pieces:
            total += len(piece)
            if total > max_bytes:
                raise too_large(max_bytes)
            for at in range(0, len(piece), PIECE):
                reader.take(piece[at : at + PIECE])
        reader.take(None)
    except RequestEntityTooLarge:
        raise Refusal(TOO_MUCH, f"more than {MOST_PARTS} parts, or headers beyond any sense", REMEDY) from None
    except (ValueError, AttributeError) as error:  # what werkzeug raises for bytes that are no form
        raise Refusal(UNFIT, f"the form can't be read: {error}", REMEDY) from None
    return reader.form


def too_large(max_bytes: int) -> Refusal:
    """The refusal of a request with too many bytes."""
    said = f"too large: more than {max_bytes / (1 << 20):g} MiB"
    return Refusal(TOO_MUCH, said, "cut or re-encode the clip, or start the service with a greater max_mb", "max_mb")


def shown_name(name: str) -> str:
    """The last part of a file's name as it was sent, what can't be printed escaped; never a path."""
    last = name.replace("\\", "/").rpartition("/")[2]
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in last)
    return (f"{text[: NAME - 10]}...{text[-7:]}" if len(text) > NAME else text) or "unnamed"


class _Reader:
    """The parts so far, and the one that is being read."""

    def __init__(self, decoder: MultipartDecoder):
        self.decoder, self.form = decoder, Form()
        self.part: File | Field | None = None
        self.content = bytearray()

    def take(self, piece: bytes | None) -> None:
        """The next bytes; None: that was all."""
        self.decoder.receive_data(piece)
        while not isinstance(event := self.decoder.next_event(), (NeedData, Epilogue)):
            if isinstance(event, (File, Field)):
                self.part, self.content = event, bytearray()
            elif isinstance(event, Data):
                self._data(event)

    def _data(self, event: Data) -> None:
        assert self.part is not None
        self.content += event.data
        text = not isinstance(self.part, File)
        if text and len(self.content) > TEXT_BYTES:
            remedy = f"at most {TEXT_BYTES} bytes; files need a name"
            raise Refusal(TOO_MUCH, f"a text of more than {TEXT_BYTES} bytes", remedy, self.part.name)
        if not event.more_data:
            self._keep(self.part)

    def _keep(self, part: File | Field) -> None:
        if not part.name:
            raise ValueError("a part without a name")
        if not isinstance(part, File):
            self.form.texts.setdefault(part.name, []).append(self.content.decode())
            return
        if not part.filename and not self.content:
            return  # a form's file that nobody chose
        if part.name in self.form.files:
            raise Refusal(UNFIT, f"'{part.name}' was sent twice", "send one clip at a time", part.name)
        self.form.files[part.name] = Upload(shown_name(part.filename), bytes(self.content))
        self.content = bytearray()
