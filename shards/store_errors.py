"""What the many errors of a store's client mean: nothing there, refused, perhaps well the next time, or this machine's
own."""

from __future__ import annotations

import errno
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

from shards.errors import InputError
from shards.redaction import redacted

RIGHTS = (
    "give this process credentials in the environment (AWS_ACCESS_KEY_ID and so on, or the machine's role) that have"
    " not expired, with the rights to read, write and list (without the last a store answers 403 for what is not"
    " there); then the same command goes on"
)
BUCKET = "make the bucket, or correct its name; then the same command goes on"
REACH = "look at the network, the store and AWS_ENDPOINT_URL; then the same command goes on"
HERE = (
    "make room there (TMPDIR and AVMEND_CACHE name other folders), or correct the rights, or raise the limit of open"
    " files (ulimit -n); then the same command goes on"
)


class StoreRefused(InputError):
    """The store does not let this process do what it asked for."""

    code: str = ""


class StoreUnreachable(InputError):
    """The store did not answer rightly, however often it was asked."""


class MachineRefused(InputError):
    """This machine, not the store, fails at its part of a request: no room, no rights, no such folder."""


class TooManyBytes(Exception):
    """An object is larger than what is to be fetched."""


_GONE, _DENIED = {404, 410}, {400, 401, 403}
_CODES = {"NoSuchKey": 404, "NoSuchBucket": 400, "404": 404, "403": 403, "400": 400, "PreconditionFailed": 412}
_CODES |= {"ConditionalRequestConflict": 409, "NotImplemented": 501, "412": 412, "501": 501}
_CODES |= dict.fromkeys(("InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"), 403)
_CODES |= dict.fromkeys(("InvalidBucketName", "PermanentRedirect", "301"), 400)
# What no answer of a store stands for.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE}
_KEYS = {"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "CredentialRetrievalError"}
_KEYS |= {"ProfileNotFound", "UnauthorizedSSOTokenError", "SSOTokenLoadError"}


def failure_of(error: Exception, url: str, file: Path | None = None) -> Exception:
    """What a failed request means: FileNotFoundError, FileExistsError, NotImplementedError, StoreRefused, what may pass
    (StoreUnreachable), MachineRefused, or, of a defect, the error itself.

    Args:
        file: the local one that the request reads or writes.
    """
    code = _code(error)
    status = _CODES.get(code, getattr(error, "status", None))
    if isinstance(error, (InputError, TooManyBytes, FileExistsError, NotImplementedError)):
        return error
    if not code and (own := _own(error, file)) is not None:
        return MachineRefused(f"this machine refuses: {own.strerror}", file=file or url, remedy=HERE)
    if status in (409, 412):
        return FileExistsError(17, "there is one", url)
    if status == 501:
        return NotImplementedError(url)
    if status in _DENIED or isinstance(error, PermissionError) or type(error).__name__ in _KEYS:
        remedy = BUCKET if "Bucket" in code else RIGHTS
        refused = StoreRefused(f"the store refuses: {_said(error, code)}", file=url, remedy=remedy)
        refused.code = code
        return refused
    if status in _GONE or isinstance(error, FileNotFoundError):
        return FileNotFoundError(2, "no such object", url)
    if isinstance(error, OSError) or _of_a_library(error):
        message = f"the store can't be reached, or fails: {_said(error, code)}"
        return StoreUnreachable(message, file=url, remedy=REACH)
    return error


def retry_after(error: BaseException) -> float | None:
    """Seconds for which a store (429, 503) asks to be left alone: its header Retry-After, seconds or a date."""
    for found in (error, error.__cause__):
        response = getattr(found, "response", None)
        inner = response.get("ResponseMetadata", {}).get("HTTPHeaders") if isinstance(response, dict) else None
        for headers in (inner, getattr(found, "headers", None)):
            text = next((str(v) for k, v in dict(headers or {}).items() if str(k).lower() == "retry-after"), None)
            if text is not None:
                return _seconds(text)
    return None


def _seconds(text: str) -> float | None:
    try:
        date = None if text.strip().isdigit() else parsedate_to_datetime(text)
        return max(date.timestamp() - time.time() if date else float(text), 0.0)
    except ValueError:
        return None


def _code(error: BaseException) -> str:
    """The store's own code of an error (``NoSuchKey``), of the error or of what it was raised from."""
    for found in (error, error.__cause__):
        response = getattr(found, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _own(error: BaseException, file: Path | None) -> OSError | None:
    """The error of this machine that a request met, in the error itself or in what it was raised over."""
    met = (found for found in (error, error.__context__) if isinstance(found, OSError))
    return next((e for e in met if e.errno in _MACHINE or (file is not None and e.filename == str(file))), None)


def _said(error: Exception, code: str) -> str:
    text = str(error) or type(error).__name__
    return redacted(f"{code}: {text}" if code and code not in text else text)


def _of_a_library(error: Exception) -> bool:
    """Whether a client of a store raised it: a lost connection, a torn answer."""
    of = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
    return bool(of & {"botocore", "aiobotocore", "aiohttp", "asyncio", "fsspec", "gcsfs", "azure", "urllib3"})
