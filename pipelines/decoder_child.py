"""The child of ``pipelines.decoder_process``: reads requests from standard input, answers on standard output."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from typing import IO

from pipelines.causes import TOO_LARGE, UNDECODABLE, DecodeError, machine_at_fault
from pipelines.decode import Request, decode
from pipelines.decoder_process import pack, read_message, write_message
from pipelines.ffmpeg import executable


def main() -> None:
    """Serve until standard input ends or the parent is gone. Arguments: memory in MiB, parent's process."""
    memory_mb, parent = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    if memory_mb:
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers
    executable()  # found now: later there may be no more files to open
    write_message(answers, {"ready": True}, [])
    while (request := read_message(sys.stdin.buffer)) is not None:
        _answer(answers, Request(**request))


def _answer(answers: IO[bytes], request: Request) -> None:
    try:
        head, arrays = pack(decode(request))
    except DecodeError as error:
        head, arrays = {"cause": error.cause, "message": error.message, "remedy": error.remedy}, []
    except MemoryError:
        head, arrays = {"cause": TOO_LARGE, "message": "does not fit into memory_mb"}, []
    except OSError as error:
        head, arrays = {"cause": UNDECODABLE, "message": f"{type(error).__name__}: {error}"}, []
        if machine_at_fault(error, executable()):
            head |= {"errno": error.errno}
    except Exception as error:
        head, arrays = {"cause": UNDECODABLE, "message": f"{type(error).__name__}: {error}"}, []
    write_message(answers, head, arrays)


def _follow(parent: int) -> None:
    """End this process and its ffmpeg soon after the parent's end, even in the middle of a clip."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
