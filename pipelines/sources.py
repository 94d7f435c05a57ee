"""Clips at an address, fetched to local files some ahead of the one that is decoded; they go when they were used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from shutil import rmtree

from pipelines.causes import MISSING_FILE, TOO_LARGE, UNREACHABLE, DecodeError
from pipelines.manifest import MEDIA, Clip
from pipelines.settings import FetchConfig
from pipelines.throttle import Throttle, Turns, requests
from shards.scratch import scratch
from shards.store import StorePath, in_order, url_of
from shards.store_errors import StoreRefused, StoreUnreachable, TooManyBytes

AHEAD = 8  # clips of a task that are fetched together
LONGEST = 100  # characters of a file's name
STREAMS = {"path": None, "audio_path": "audio", "image_path": "visual"}


@dataclass(frozen=True)
class Source:
    """A clip whose files are here.

    Attributes:
        clip: as the manifest has it.
        here: the same with local paths.
        failed: why a file is not, by the manifest's column.
    """

    clip: Clip
    here: Clip
    failed: dict[str, DecodeError] = field(default_factory=dict)

    def lost(self, keep: bool) -> tuple[str, str] | None:
        """The stream that could not be fetched, and the cause, if the other one was and is to be kept.

        Raises:
            DecodeError: there is nothing to decode.
        """
        for column, error in self.failed.items():
            stream = STREAMS[column]
            others = [name for name in MEDIA if getattr(self.clip, name) and name not in self.failed]
            if stream is None or not keep or not others:
                raise error
            return stream, error.cause
        return None

    def told(self, error: DecodeError) -> DecodeError:
        """What went wrong, in terms of the manifest."""
        message = error.message
        for name in MEDIA:
            if (path := getattr(self.here, name)) != (address := getattr(self.clip, name)):
                message = message.replace(str(path), str(address))
        return DecodeError(error.cause, message, error.remedy)


def sources(
    clips: Sequence[Clip], megabytes: int, fetch: FetchConfig | None = None, turns: Turns | None = None
) -> Iterator[Source]:
    """The clips in order; the files of one are there until the next one is asked for.

    Args:
        megabytes: of a file that is fetched.
        fetch: how.
        turns: what all workers of a run share.

    Raises:
        StoreRefused, StoreUnreachable: the store does not serve this process at all. What concerns one clip, or a
            web server, is in its `failed`.
        MachineRefused: this machine has no room or rights for the files.
    """
    if not any(url_of(getattr(clip, name)) for clip in clips for name in MEDIA):
        yield from (Source(clip, clip) for clip in clips)
        return
    tries, shared = (fetch or FetchConfig()).tries, turns or Throttle()
    with scratch() as folder:
        numbered, load = list(enumerate(clips)), partial(_source, folder, partial(_fetch, megabytes, tries, shared))
        for number, source in enumerate(in_order(load, numbered, AHEAD)):
            yield source
            rmtree(folder / str(number), ignore_errors=True)


def _source(folder: Path, fetch: Callable[[StorePath, Path], Path], numbered: tuple[int, Clip]) -> Source:
    number, clip = numbered
    here: dict[str, str] = {}
    failed: dict[str, DecodeError] = {}
    for name in MEDIA:
        if url_of(address := getattr(clip, name)):
            try:
                here[name] = str(fetch(StorePath.of(address), folder / str(number) / name))
            except DecodeError as error:
                failed[name] = error
    return Source(clip, replace(clip, **here), failed)  # type: ignore[arg-type]


def _fetch(megabytes: int, tries: int, turns: Turns, address: StorePath, folder: Path) -> Path:
    folder.mkdir(parents=True)
    file = folder / address.name[-LONGEST:]
    try:
        address.download(file, megabytes << 20, requests(address, turns, tries))
    except FileNotFoundError:
        raise DecodeError(MISSING_FILE, address.url) from None
    except TooManyBytes as error:
        message = f"{address.url} has {error}, more than max_megabytes={megabytes}"
        raise DecodeError(TOO_LARGE, message, "raise max_megabytes, or scale the clip down") from None
    except (StoreRefused, StoreUnreachable) as error:
        if not address.url.startswith(("http://", "https://")) and getattr(error, "code", "") != "AccessDenied":
            raise
        raise DecodeError(UNREACHABLE, f"{address.url}: {error.message}") from None
    return file
