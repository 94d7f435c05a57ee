"""This machine: versions, decoders, GPU, room, limits."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tuning.checks.finding import Finding, fail, ok, skip, warn

SHOWN = ("torch", "ray", "mlflow")
INSTALL = "make setup, or pip install -c constraints.txt -e ."
GB = 1e9
PYTHON = (3, 11)


def check_python() -> list[Finding]:
    """Pickles between nodes and pinned wheels want one minor version."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != PYTHON:
        wanted = ".".join(map(str, PYTHON))
        return [fail("python", f"{found}, not {wanted}", f"install Python {wanted}, then make setup")]
    return [ok("python", f"{found} at {sys.executable}")]


def check_versions(root: Path) -> list[Finding]:
    """What is installed, against pyproject.toml (must) and constraints.txt (tried together)."""
    project, pins = root / "pyproject.toml", root / "constraints.txt"
    if not project.is_file() or not pins.is_file():
        return [skip("versions", f"no pyproject.toml and constraints.txt at {root}")]
    wanted = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    needed = [Requirement(line) for line in wanted]
    missing = [r.name for r in needed if version(r.name) is None]
    wrong = [
        f"{r.name} {found} instead of {r.specifier}"
        for r in needed
        if (found := version(r.name)) and not r.specifier.contains(found, prereleases=True)
    ]
    if missing or wrong:
        parts = [*wrong, *(f"{name} is not installed" for name in missing)]
        return [fail("versions", "; ".join(parts), INSTALL)]
    pinned = read_pins(pins)
    names = {canonicalize_name(r.name) for r in needed} & pinned.keys()
    other = [f"{name} {version(name)} instead of {pinned[name]}" for name in sorted(names)]
    other = [text for name, text in zip(sorted(names), other, strict=True) if version(name) != pinned[name]]
    if other:
        return [warn("versions", f"not those tried together: {'; '.join(other)}", INSTALL)]
    shown = ", ".join(f"{name} {version(name)}" for name in SHOWN)
    return [ok("versions", f"{shown}; all {len(names)} as pinned")]


def read_pins(path: Path) -> dict[str, str]:
    """The `name==version` lines of a constraints file."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(n): v for n, sep, v in (line.partition("==") for line in lines) if sep}


def version(name: str) -> str | None:
    """The installed version of a distribution (without what a local build adds to it), None without one."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def check_ffmpeg() -> list[Finding]:
    """The ffmpeg that decodes sound, and the decoders of what clips commonly hold."""
    from pipelines.ffmpeg import executable

    try:
        path = executable()
        told = subprocess.run([path, "-hide_banner", "-decoders"], capture_output=True, text=True, timeout=20)
        first = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        return [fail("ffmpeg", f"does not run: {error}", "unset IMAGEIO_FFMPEG_EXE, or name a working ffmpeg")]
    there = set(re.findall(r"^ [VA]\S{5} (\S+)", told.stdout, re.MULTILINE))
    missing = {"h264", "hevc", "vp9", "av1", "aac", "mp3", "opus"} - there
    if told.returncode or missing & {"h264", "aac"}:
        lacks = ", ".join(sorted(missing)) or f"status {told.returncode}"
        return [fail("ffmpeg", f"{path} can't decode: {lacks}", "pip install -U imageio-ffmpeg")]
    name = " ".join(first.split()[1:3])
    if missing:
        lacks = ", ".join(sorted(missing))
        return [warn("ffmpeg", f"{name} can't decode: {lacks}", "pip install -U imageio-ffmpeg")]
    return [ok("ffmpeg", f"{name} at {path}")]


def check_decoders() -> list[Finding]:
    """A clip made here and now, decoded as ingestion decodes it: by PyAV and by ffmpeg."""
    from pipelines.causes import DecodeError
    from pipelines.decode import Request, decode
    from pipelines.ffmpeg import executable

    with tempfile.TemporaryDirectory() as folder:
        clip = str(Path(folder) / "clip.mp4")
        source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=0.5"]
        source += ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.5", "-pix_fmt", "yuv420p"]
        command = [executable(), "-nostdin", "-v", "error", "-threads", "1", *source, clip]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=30).stderr.strip()
        except OSError as error:
            told = str(error)
        if told or not Path(clip).is_file():
            return [fail("decoders", f"no clip could be made: {told}", "see the check of ffmpeg")]
        for name, in_process in (("av", True), ("imageio-ffmpeg", False)):
            try:
                got = decode(Request(path=clip, frames=2, size=32, in_process=in_process))
            except (DecodeError, OSError, ImportError) as error:
                return [fail("decoders", f"{name}: {error}", f"pip install --force-reinstall {name}")]
            if got.frames is None or got.audio is None or not got.frames.any() or not got.audio.any():
                return [fail("decoders", f"{name} decodes nothing", INSTALL)]
    return [ok("decoders", "PyAV and ffmpeg decode H.264 and AAC")]


def check_gpu() -> list[Finding]:
    """What torch computes on; a GPU that the driver has and torch does not is a fault."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        free, total = torch.cuda.mem_get_info()
        torch.ones(8, device="cuda").sum().item()
        return [
            ok(
                "gpu",
                f"{', '.join(names)}; {free / GB:.0f} of {total / GB:.0f} GB free; CUDA {torch.version.cuda}",
            )
        ]
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists():
        remedy = f"install an NVIDIA driver for CUDA {torch.version.cuda}, or unset CUDA_VISIBLE_DEVICES"
        return [fail("gpu", "there is an NVIDIA driver, but torch sees no GPU", remedy)]
    return [ok("gpu", f"none: training runs on the CPU ({torch.get_num_threads()} threads)")]


def check_disk(folders: list[Path], gigabytes: float) -> list[Finding]:
    """Room for runs, and for Ray, which stops where a disk is 95 % full."""
    findings = []
    for folder in folders:
        usage = shutil.disk_usage(existing(folder))
        found = f"{folder}: {usage.free / GB:.1f} GB free of {usage.total / GB:.0f}"
        if usage.free < gigabytes * GB / 10:
            findings.append(fail("disk", found, "make room, or name a folder elsewhere"))
        elif usage.free < gigabytes * GB or usage.free < 0.05 * usage.total:
            findings.append(warn("disk", found, "make room; Ray stops where a disk is 95 % full"))
        else:
            findings.append(ok("disk", found))
    return findings


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = Path(folder).absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def check_open_files(enough: int = 8192, least: int = 1024) -> list[Finding]:
    """Ray holds several files per worker and connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if soft == resource.RLIM_INFINITY else f"{soft} at a time"
    if soft == resource.RLIM_INFINITY or soft >= enough:
        return [ok("open files", found)]
    remedy = "ulimit -n 65536" + ("" if hard == resource.RLIM_INFINITY or hard >= 65536 else " (as root)")
    return [(fail if soft < least else warn)("open files", f"only {found}", f"{remedy}, before Ray starts")]


def check_shared_memory(place: Path = Path("/dev/shm"), gigabytes: float = 2.0) -> list[Finding]:
    """Ray's object store lies in /dev/shm; where that is small it moves to a disk, and is slow."""
    if not place.is_dir():
        return [skip("shared memory", f"no {place} on this system")]
    free = shutil.disk_usage(place).free / GB
    if free < gigabytes:
        remedy = "start the container with --shm-size=8g, or mount a larger tmpfs"
        return [warn("shared memory", f"{place} has {free:.2f} GB free: Ray's objects go to the disk", remedy)]
    return [ok("shared memory", f"{place} has {free:.1f} GB free")]
