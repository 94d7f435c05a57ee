"""Uploads that no honest caller sends, by kind: ruined and false files, bombs, broken forms, wrong requests."""

from __future__ import annotations

import gzip
import io
import json
import socket
import wave
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.hostile import OWN, TEST, TONE, bombs, ffmpeg
from benchmarks.mutations import MUTATIONS, text

NAMES = (
    "../../../../etc/passwd.mp4",
    "C:\\windows\\system32\\clip.mp4",
    "<script>alert(1)</script>.mp4",
    '"><img src=x onerror=alert(1)>.png',
    "$(rm -rf ~).mp4",
    "; DROP TABLE clips; --.wav",
    "x" * 4000 + ".mp4",
    "a\tb\x1b[31m.mp4",
    "CON",
    ".",
    "%00%2e%2e%2f.mp4",
    "\u202egpj.4pm",
)
TEXTS: tuple[dict[str, str], ...] = (
    {"noise_audio": "1e999"},
    {"noise_visual": "-3"},
    {"noise_audio": "NaN"},
    {"without": "everything"},
    {"without": "audio,visual"},
    {"run": "../../etc"},
    {"kind_audio": "__import__('os')"},
    {"black": "maybe"},
    {"question": "x" * 20_000},
    {"question": "Is there a drum?"},
    {"nobody": "knows"},
    {"view": "<script>"},
)
BOUNDARY = "b0undary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@dataclass(frozen=True)
class Upload:
    """One request: arguments of ``requests.request``; or bytes for a bare connection, after which it is closed.

    Attributes:
        hangs: nothing more is sent, and the connection stays open.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    method: str = "POST"
    path: str = "predict"
    raw: bytes = b""
    hangs: bool = False


class Hostile:
    """Draws uploads.

    Args:
        work: folder for the files that they are made of.
        max_bytes: what the service takes, for some that are larger.
    """

    def __init__(self, work: Path, max_bytes: int):
        self.work, self.max_bytes = work, max_bytes
        work.mkdir(parents=True, exist_ok=True)
        inputs = f"-f lavfi -i {TEST} -f lavfi -i {TONE}"
        self.files = [ffmpeg(f"{inputs} {codecs}", work / name) for name, codecs in OWN.items()]
        self.bombs = bombs(work)
        self.long = ffmpeg("-f lavfi -i sine=frequency=440:duration=700 -c:a libmp3lame -b:a 8k", work / "long.mp3")
        self.kinds: dict[str, Callable[[np.random.Generator], Upload]] = {
            **{name: self._mutation(name) for name in MUTATIONS},
            "empty": lambda rng: self.clip(rng, b""),
            "text, playlist, script": lambda rng: self.clip(rng, text(rng)),
            "another suffix": lambda rng: self.clip(rng, self.source(rng).read_bytes()),
            "bomb": self._bomb,
            "archive": self._archive,
            "sound and picture mixed up": self._mixed,
            "wav that lies or holds no numbers": self._wav,
            "too long": lambda rng: Upload({"files": {"clip": ("long.mp3", self.long.read_bytes())}}),
            "too many bytes": lambda rng: Upload({"files": {"clip": ("x.mp4", bytes(self.max_bytes + 1))}}),
            "hostile name": self._name,
            "wrong field": self._fields,
            "broken form": self._form,
            "huge headers": self._headers,
            "no form": self._other,
            "wrong path or method": self._path,
            "gone in the middle": self._gone,
            "never sent": self._slow,
        }

    def source(self, rng: np.random.Generator) -> Path:
        """A small sound file, in any codec."""
        return self.files[int(rng.integers(len(self.files)))]

    def clip(self, rng: np.random.Generator, content: bytes, **texts: str) -> Upload:
        """A clip under any of the suffixes."""
        return Upload({"files": {"clip": (f"clip{self.source(rng).suffix}", content)}, "data": texts})

    def draw(self, rng: np.random.Generator, number: int) -> tuple[str, Upload]:
        """Upload `number` with its kind; the kinds come in turn, the slow ones seldom."""
        seldom = ("never sent", "too many bytes", "bomb", "too long")
        usual = [kind for kind in self.kinds if kind not in seldom]
        kind = seldom[number // 12 % len(seldom)] if number % 12 == 11 else usual[number % len(usual)]
        return kind, self.kinds[kind](rng)

    def _mutation(self, name: str) -> Callable[[np.random.Generator], Upload]:
        def ruined(rng: np.random.Generator) -> Upload:
            source = self.source(rng)
            return Upload({"files": {"clip": (source.name, MUTATIONS[name](source.read_bytes(), rng))}})

        return ruined

    def _bomb(self, rng: np.random.Generator) -> Upload:
        bomb = self.bombs[int(rng.integers(len(self.bombs)))]
        return Upload({"files": {"clip": (bomb.name, bomb.read_bytes())}})

    def _archive(self, rng: np.random.Generator) -> Upload:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb", bytes(10_000_000))
        packed = gzip.compress(bytes(5_000_000))
        if rng.random() < 0.3:
            return Upload({"data": packed, "headers": {**FORM, "Content-Encoding": "gzip"}})
        return self.clip(rng, out.getvalue() if rng.random() < 0.5 else packed)

    def _mixed(self, rng: np.random.Generator) -> Upload:
        one, other = self.source(rng).read_bytes(), self.source(rng).read_bytes()
        return Upload({"files": {"audio": ("a.png", one), "image": ("b.wav", other)}})

    def _wav(self, rng: np.random.Generator) -> Upload:
        from scipy.io import wavfile

        out = io.BytesIO()
        if rng.random() < 0.5:
            wavfile.write(out, 16000, np.full(8000, rng.choice([np.nan, np.inf, -np.inf, 1e30]), np.float32))
            return Upload({"files": {"clip": ("x.wav", out.getvalue())}})
        with wave.open(out, "wb") as file:
            file.setparams((int(rng.choice([1, 2, 64])), 2, int(rng.choice([1, 16000, 10_000_000])), 0, "NONE", ""))
            file.writeframes(rng.bytes(2048))
        return Upload({"files": {"clip": ("x.wav", out.getvalue()[: int(rng.integers(1, 2092))])}})

    def _name(self, rng: np.random.Generator) -> Upload:
        name = NAMES[int(rng.integers(len(NAMES)))]
        return Upload({"files": {"clip": (name, self.source(rng).read_bytes())}, "data": {"without": "audio"}})

    def _fields(self, rng: np.random.Generator) -> Upload:
        return self.clip(rng, self.source(rng).read_bytes(), **TEXTS[int(rng.integers(len(TEXTS)))])

    def _form(self, rng: np.random.Generator) -> Upload:
        part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="clip"; filename="x.mp4"\r\n\r\n'.encode()
        content = part + self.source(rng).read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
        bodies = (
            content[: int(rng.integers(1, len(content)))],
            content.replace(b"\r\n", b"\n", 4),
            content.replace(BOUNDARY.encode(), b"other"),
            part * 1000,
            content[:-9] + content,
            part.replace(b"form-data", b"form-data; " + b"a=b; " * 2000) + b"x",
            f"--{BOUNDARY}\r\n".encode() + b"X: y\r\n" * 200_000,
            b"preamble\r\n" * 50_000 + content,
            part.replace(b"clip", b"\xff\xfe") + content,
            rng.bytes(3000),
        )
        return Upload({"data": bodies[int(rng.integers(len(bodies)))], "headers": FORM})

    def _headers(self, rng: np.random.Generator) -> Upload:
        headers = ({"X-Long": "x" * 1_000_000}, {f"X-{i}": "y" * 500 for i in range(500)}, {"Cookie": "c" * 60_000})
        files = {"clip": ("x.wav", self.source(rng).read_bytes())}
        return Upload({"files": files, "headers": headers[int(rng.integers(len(headers)))]})

    def _other(self, rng: np.random.Generator) -> Upload:
        bodies: tuple[tuple[bytes, str], ...] = (
            (json.dumps({"clip": "/etc/passwd"}).encode(), "application/json"),
            (b"clip=@/etc/passwd", "application/x-www-form-urlencoded"),
            (b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>", "application/xml"),
            (self.source(rng).read_bytes(), "video/mp4"),
            (b"", "multipart/form-data"),
            (b"x", f"multipart/form-data; boundary={'x' * 500}"),
            (b"", ""),
        )
        body, kind = bodies[int(rng.integers(len(bodies)))]
        return Upload({"data": body, "headers": {"Content-Type": kind}})

    def _path(self, rng: np.random.Generator) -> Upload:
        wrong = (
            ("GET", "../../etc/passwd"),
            ("GET", "examples/-1"),
            ("GET", "examples/99999999999999999999"),
            ("GET", "examples/..%2f..%2fetc%2fpasswd"),
            ("PUT", "predict"),
            ("DELETE", "runs"),
            ("POST", "runs"),
            ("GET", "x" * 5000),
        )
        method, path = wrong[int(rng.integers(len(wrong)))]
        return Upload({}, method, path)

    def _gone(self, rng: np.random.Generator) -> Upload:
        return Upload(raw=_head(100_000) + rng.bytes(int(rng.integers(0, 50_000))))

    def _slow(self, rng: np.random.Generator) -> Upload:
        return Upload(raw=_head(1000) + b"x", hangs=True)


def _head(length: int) -> bytes:
    """Of a request that promises so many bytes."""
    lines = ("POST /predict HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {FORM['Content-Type']}")
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def send_raw(url: str, upload: Upload, seconds: float) -> tuple[int, str]:
    """Status and body over a bare connection; status 0: closed by us before there could be one."""
    found = urlsplit(url)
    with socket.create_connection((found.hostname, found.port), timeout=seconds) as connection:
        connection.sendall(upload.raw)
        if not upload.hangs:
            return 0, ""
        answer = b""
        while b"}" not in answer and (piece := connection.recv(65536)):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else -1, body.decode(errors="replace")
