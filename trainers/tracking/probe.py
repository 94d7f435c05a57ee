"""Whether the store of a folder of runs can be used, for who asks before a run."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from shards.errors import InputError
from shards.redaction import redacted
from trainers.tracking.address import NO_SERVER, connect, is_server, sqlite_file, store_errors, store_uri
from trainers.tracking.schema import is_incomplete, try_write


def probe_store(root: Path | str) -> str:
    """What the store of a folder of runs is, after it was opened and a write tried: in SQLite one that is
    rolled back, on a server a tag of one experiment.

    Raises:
        InputError: it does not open, takes no writes, or is of another version of MLflow.
    """
    uri = store_uri(root)
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        return f"none yet; the first run makes {file}"
    if file is not None and is_incomplete(file):
        return f"none yet: the making of {file} was interrupted; the first run makes it anew"
    if file is not None:
        try_write(file)
    elif is_server(uri):
        _ask(uri)
    with store_errors(uri):
        client = connect(uri)
        found = client.search_experiments(max_results=1000)
        if file is None and found:
            client.set_experiment_tag(found[-1].experiment_id, "avmend.probe", str(int(time.time())))
    return f"{redacted(uri)}: opens, takes writes, {len(found)} experiments"


def _ask(uri: str) -> None:
    """Ask once whether somebody is there."""
    parts = urlsplit(uri)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    try:
        with urllib.request.urlopen(f"{bare.rstrip('/')}/health", timeout=5):
            pass
    except urllib.error.HTTPError:
        return  # it answers; what it refuses is told by the request that counts
    except (OSError, ValueError) as error:
        raise InputError(f"no MLflow server answers: {error}", file=uri, remedy=NO_SERVER) from None
