"""A file server over HTTP that holds every answer back, as a storage far away does.

    python -m benchmarks.slow_store FOLDER

Prints its address, then serves until it is ended: ``/20/train-000000.tar`` is that file of the folder, after 20 ms.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import ROOT


async def _serve(folder: Path) -> None:
    from aiohttp import web

    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(int(request.match_info["delay"]) / 1000)
        path = folder / request.match_info["path"]
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)

    application = web.Application()
    application.add_routes([web.get(r"/{delay:\d+}/{path:.+}", answer)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("http://{}:{}".format(*runner.addresses[0][:2]), flush=True)
    await asyncio.Event().wait()


@contextmanager
def slow_store(folder: Path) -> Iterator[str]:
    """The address of a server of that folder; it ends with the block."""
    command = [sys.executable, "-m", "benchmarks.slow_store", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
