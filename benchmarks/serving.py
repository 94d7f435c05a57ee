"""The service: time to an answer, hostile uploads, replicas that are killed.

    python -m benchmarks.serving RUN [RUN ...] --work DIR

Each part starts ``avmend serve`` on a Ray of its own, as a user does, and speaks HTTP with it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests

from benchmarks.hostile import TEST, TONE, ffmpeg
from benchmarks.processes import ROOT, Marked, stoppable
from benchmarks.report import RESULTS, machine, positive, save_folder, table
from benchmarks.uploads import Hostile, Upload, send_raw

CLIP = "-f lavfi -i testsrc2=size=1280x720:rate=30:duration=10 -f lavfi -i sine=frequency=440:duration=10"
CLIP += " -c:v libx264 -preset veryfast -b:v 2M -pix_fmt yuv420p -c:a aac"
SMALL = f"-f lavfi -i {TEST} -f lavfi -i {TONE} -c:v libx264 -pix_fmt yuv420p -c:a aac"
CLIENTS = (1, 4, 16)
ANSWERER = "ServeReplica:avmend:answerer"
MAX_MB = 8
LOOP = """
import json, sys, time
import avmend
models = [avmend.load(run, "cpu") for run in sys.argv[2:-1]]
for model in models:
    model.predict(sys.argv[1])
begin, count = time.monotonic(), int(sys.argv[-1])
for _ in range(count):
    for model in models:
        model.predict(sys.argv[1])
print(count / (time.monotonic() - begin))
"""


@dataclass(frozen=True)
class Latency:
    """Requests of so many clients at a time: seconds to the answer, answers per second."""

    clients: int
    requests: int
    p50: float
    p99: float
    rate: float


@dataclass(frozen=True)
class Held:
    """What the service's processes hold: how many, the most open files of a decoder or replica, MiB, files."""

    processes: int
    files: int
    resident: int
    left: int


@dataclass
class Served:
    """A service that runs.

    Attributes:
        folder: its temporary files.
    """

    run: Marked
    url: str
    folder: Path

    def held(self) -> Held:
        """Now."""
        roles = self.run.held()
        files = max((roles[role][1] for role in ("decoder", "worker") if role in roles), default=0)
        left = sum(len(names) for _, _, names in os.walk(self.folder))
        return Held(len(self.run.pids()), files, self.run.resident(), left)

    def metrics(self) -> dict[str, float]:
        """Its own figures."""
        lines = requests.get(f"{self.url}metrics", timeout=30).text.splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}


@contextmanager
def service(runs: Sequence[Path], work: Path, *settings: str) -> Iterator[Served]:
    """``avmend serve`` until the block ends.

    Raises:
        RuntimeError: it did not start; with the end of its log.
    """
    folder, log = Path(tempfile.mkdtemp(dir=work, prefix="t-")), work / "serve.log"
    begin = log.stat().st_size if log.exists() else 0
    ray = tempfile.mkdtemp(prefix="avs-")  # sockets and logs: elsewhere, in a short path
    environment = {"TMPDIR": str(folder), "RAY_TMPDIR": ray, "RAY_USAGE_STATS_ENABLED": "0"}
    words = ["-m", "serving.app", *map(str, runs), "--port", "0", *settings]
    with Marked.start(*words, log=log, **environment) as run:
        for _ in range(600):
            said = log.read_text(errors="replace")[begin:]
            if "ready" in said or run.process.poll() is not None:
                break
            time.sleep(0.5)
        address = next((line for line in said.splitlines() if line.startswith("http")), None)
        if address is None or "ready" not in said:
            raise RuntimeError(said[-2000:])
        yield Served(run, address, folder)
        run.process.terminate()
        run.process.wait(120)
    shutil.rmtree(ray, ignore_errors=True)


def ask(url: str, clip: Path, session: requests.Session, **texts: str) -> requests.Response:
    """One upload of a file."""
    return session.post(f"{url}predict", files={"clip": (clip.name, clip.read_bytes())}, data=texts, timeout=300)


def latency(url: str, clip: Path, clients: int, count: int) -> Latency:
    """`count` requests by `clients` at a time, each sending the next when it has its answer."""

    def one(_: int) -> float:
        begin = time.monotonic()
        with requests.Session() as session:
            answer = ask(url, clip, session)
        assert answer.status_code == 200, answer.text
        return time.monotonic() - begin

    begin = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        seconds = list(pool.map(one, range(count)))
    rate = count / (time.monotonic() - begin)
    p50, p99 = (float(np.percentile(seconds, share)) for share in (50, 99))
    return Latency(clients, count, round(p50, 3), round(p99, 3), round(rate, 3))


def cold(runs: Sequence[Path], clip: Path) -> float:
    """Seconds from the command to the answer."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "serving.predict", *map(str, runs), str(clip), "--device", "cpu", "--json"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    return time.monotonic() - begin


def loop_rate(runs: Sequence[Path], clip: Path, count: int) -> float:
    """Clips per second of ``model.predict`` in a loop, in a process of its own."""
    command = [sys.executable, "-c", LOOP, str(clip), *map(str, runs), str(count)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=600)
    return float(done.stdout.split()[-1])


def speed(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Cold command, warm service, loop."""
    clip = ffmpeg(CLIP, work / "clip.mp4")
    colds = [cold(args.runs, clip) for _ in range(args.cold)]
    with service(args.runs, work, "decoders=2", f"replicas={args.replicas}", *args.settings) as served:
        with requests.Session() as session:
            for _ in range(2 * args.replicas):
                ask(served.url, clip, session)
        found = [latency(served.url, clip, clients, clients * args.rounds) for clients in CLIENTS]
    rate = loop_rate(args.runs, clip, max(2 * args.rounds // len(args.runs), 3))
    return {"cold": round(statistics.median(colds), 2), "warm": [asdict(one) for one in found], "loop": round(rate, 3)}


def send(url: str, upload: Upload) -> tuple[int, str]:
    """Status and text of the answer; 0: we went away."""
    if upload.raw:
        return send_raw(url, upload, 60)
    answer = requests.request(upload.method, url + upload.path, timeout=300, **upload.options)
    return answer.status_code, answer.text


def with_cause(status: int, text: str) -> bool:
    """Whether an answer says what every run says, or what is wrong and what to do; or we did not wait for one."""
    if status == 0:
        return True
    try:
        found = json.loads(text)
    except ValueError:  # headers that the HTTP server itself refuses
        return status in (400, 431) and bool(text)
    return bool("runs" in found if status == 200 else 400 <= status < 600 and found["error"] and found["remedy"])


def hostile(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Hostile uploads, four at a time; what the service holds before and after."""
    with service(args.runs, work, f"max_mb={MAX_MB}", "timeout_s=6", "upload_s=4", *args.settings) as served:
        drawn = Hostile(work / "uploads", MAX_MB << 20)
        warm = ffmpeg(SMALL, work / "small.mp4")
        with requests.Session() as session:
            for _ in range(20):
                reference = ask(served.url, warm, session).json()["runs"]
        before, statuses, bad = served.held(), Counter[tuple[str, int]](), []

        def one(number: int) -> None:
            kind, upload = drawn.draw(np.random.default_rng([args.seed, number]), number)
            status, text = send(served.url, upload)
            statuses[kind, status] += 1
            if not with_cause(status, text) or status == 500:
                bad.append((number, kind, status, text[:500]))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(args.uploads)))
        with requests.Session() as session:
            after_answer = ask(served.url, warm, session).json()["runs"]
        time.sleep(3)
        after = served.held()
    kinds = [[kind, status, count] for (kind, status), count in sorted(statuses.items())]
    same = [run["logits"] for run in reference] == [run["logits"] for run in after_answer]
    return {"kinds": kinds, "bad": bad, "before": asdict(before), "after": asdict(after), "same_answer": same}


def kills(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """A replica is killed again and again while clients ask; every accepted request must be answered, and rightly."""
    small = ffmpeg(SMALL, work / "small.mp4")
    with service(args.runs, work, "replicas=2", "cpus=0.5", *args.settings) as served:
        with requests.Session() as session:
            wanted = [run["logits"] for run in ask(served.url, small, session).json()["runs"]]
        answered, lost, over = [0], [], threading.Event()

        def client(_: int) -> None:
            while not over.is_set():
                with requests.Session() as session:
                    answer = ask(served.url, small, session)
                right = answer.status_code == 200 and _close(answer.json()["runs"], wanted)
                answered[0] += right
                if not right:
                    lost.append((answer.status_code, answer.text[:300]))

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(client, i) for i in range(8)]
            struck = _strike(served, args.kills, random.Random(args.seed))
            over.set()
            for one in running:
                one.result()
        retries = served.metrics()["avmend_retries_total"]
    return {"kills": struck, "answered": answered[0], "lost": lost, "asked_again": int(retries)}


def _close(runs: Sequence[dict[str, Any]], wanted: Sequence[dict[str, float]]) -> bool:
    """The same logits; batches of other sizes round otherwise."""
    pairs = zip(runs, wanted, strict=True)
    return all(abs(run["logits"][name] - value) < 1e-3 for run, logits in pairs for name, value in logits.items())


def _strike(served: Served, times: int, rng: random.Random) -> int:
    """Kill a replica; the next one when there are two again, or after half a minute."""
    count = 0
    for _ in range(times):
        end = time.monotonic() + 30
        while len(served.run.pids(ANSWERER)) < 2 and time.monotonic() < end:
            time.sleep(0.2)
        time.sleep(rng.uniform(0.5, 3))
        if pids := served.run.pids(ANSWERER):
            count += served.run.kill([rng.choice(pids)])
    return count


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "speed": speed,
    "hostile": hostile,
    "kills": kills,
}


def main(argv: list[str] | None = None) -> int:
    """Exit status 1 where an upload was not answered with a cause, something grew, or a request was lost."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished runs")
    parser.add_argument("--part", choices=PARTS, action="append", help="one part alone; repeatable")
    parser.add_argument("--rounds", type=positive, default=8, help="requests of each client (default 8)")
    parser.add_argument("--cold", type=positive, default=3, help="cold commands (default 3)")
    parser.add_argument("--replicas", type=positive, default=1, help="of the timed service (default 1)")
    parser.add_argument("--uploads", type=positive, default=1000, help="hostile ones (default 1000)")
    parser.add_argument("--kills", type=positive, default=20, help="of replicas (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="key=value", help="of avmend serve")
    parser.add_argument("--work", type=Path, help="folder for clips and logs (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    args.runs = [run.absolute() for run in args.runs]
    work = (args.work or Path(tempfile.mkdtemp(prefix="serving-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    found = machine("cpu")
    record_file = work / "record.json"
    record = json.loads(record_file.read_text()) if record_file.exists() else {}
    with stoppable(f"to keep what is done, give --work {work} too"):
        for part in args.part or PARTS:
            record[part] = {**PARTS[part](args, work), "load": round(os.getloadavg()[0], 1)}
            record_file.write_text(json.dumps(record, indent=1))
            print(f"{part}: {json.dumps(record[part])[:600]}", flush=True)
    if set(record) >= set(PARTS):
        write(args.out, record | {"machine": found, "runs": [run.name for run in args.runs]})
    return int(not good(record))


def good(record: dict[str, Any]) -> bool:
    """Nothing was lost, unanswered or left."""
    uploads, killed = record.get("hostile"), record.get("kills")
    fine = uploads is None or (not uploads["bad"] and uploads["same_answer"] and not grown(uploads))
    return fine and (killed is None or not killed["lost"])


def grown(uploads: dict[str, Any]) -> list[str]:
    """What the service holds more of after the uploads: processes, open files (a few), files; memory by a half."""
    before, after = uploads["before"], uploads["after"]
    slack = {"processes": 1, "files": 5, "left": 0, "resident": before["resident"] // 2}
    return [name for name, more in slack.items() if after[name] > before[name] + more]


def write(out: Path, record: dict[str, Any]) -> None:
    """Tables and figure."""
    timed, uploads, killed = record["speed"], record["hostile"], record["kills"]
    rows: list[list[object]] = [[w["clients"], w["requests"], w["p50"], w["p99"], w["rate"]] for w in timed["warm"]]
    by_kind: dict[str, Counter[int]] = {}
    for kind, status, count in uploads["kinds"]:
        by_kind.setdefault(kind, Counter())[status] += count
    statuses = sorted({status for counts in by_kind.values() for status in counts})
    shown = ["we went away" if status == 0 else str(status) for status in statuses]
    total = sum(count for _, _, count in uploads["kinds"])
    held = [[name, uploads["before"][name], uploads["after"][name]] for name in uploads["before"]]
    lines = [
        f"## Time to the answer\n\nA 10 s 720p clip (H.264, AAC), runs: {', '.join(record['runs'])}. "
        f"Load of the machine afterwards: {timed['load']}.\n",
        f"Cold command: {timed['cold']} s. `model.predict` in a loop: {timed['loop']} clips/s "
        "(decoded once for each run; the service decodes once for all).\n",
        table(["clients", "requests", "p50 (s)", "p99 (s)", "answers/s"], rows),
        f"\n## Hostile uploads\n\n{total:,} uploads, {len(uploads['bad'])} without a cause or with a defect; the same "
        f"answer for the same clip afterwards: {'yes' if uploads['same_answer'] else 'no'}. Load: {uploads['load']}.\n",
        table(["kind", *shown], [[kind, *(counts[s] or "" for s in statuses)] for kind, counts in by_kind.items()]),
        "\n" + table(["the service's", "before", "after"], held),
        f"\n`files`: most open files of a decoder or replica; `resident`: MiB of all processes; `left`: files in its "
        f"temporary folder.\n\n## Replicas killed\n\n{killed['kills']} kills (SIGKILL, two replicas, eight clients): "
        f"{killed['answered']:,} requests answered rightly, {len(killed['lost'])} lost; {killed['asked_again']} were "
        f"asked again. Load: {killed['load']}.",
    ]
    line = [
        f"{timed['warm'][0]['p50']} s warm, {timed['cold']} s cold",
        f"{total:,} hostile uploads, {len(uploads['bad'])} without a cause",
    ]
    line += [f"{killed['kills']} kills, {len(killed['lost'])} requests lost"]
    save_folder(out, "serving", "The service", "\n".join(lines), record, _draw(timed), timed["warm"], line)


def _draw(timed: dict[str, Any]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        names = [str(w["clients"]) for w in timed["warm"]]
        left.bar(names, [w["p99"] for w in timed["warm"]], color="tab:orange", label="p99")
        left.bar(names, [w["p50"] for w in timed["warm"]], color="tab:blue", label="p50")
        left.axhline(timed["cold"], color="black", linestyle=":", label="cold command")
        left.set(xlabel="clients", ylabel="seconds to the answer")
        left.legend()
        right.bar(names, [w["rate"] for w in timed["warm"]], color="tab:blue")
        right.axhline(timed["loop"], color="black", linestyle=":", label="model in a loop")
        right.set(xlabel="clients", ylabel="answers per second")
        right.legend()

    return draw


if __name__ == "__main__":
    raise SystemExit(main())
