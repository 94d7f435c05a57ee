"""Time and peak memory of a piece of training, on a GPU or on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _resident(field: str) -> int:
    """A figure of /proc/self/status in bytes (VmRSS now, VmHWM the peak)."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {field}")


def _give_back() -> None:
    """Return what was freed to the system; the allocator keeps it, where it is of one kind that can be asked."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Meter:
    """Seconds and peak bytes since it was made or reset.

    On a GPU: allocated bytes. On a CPU: growth of the process's resident memory over where it stood at the
        reset, at which freed memory is given back to the system, so that a second training in the process shows
        what it takes, not what it takes beyond the first one's peak. It holds the pages of mapped shards
        (`trainers.avqa.clips`) that were read, and, in the first training, what libraries keep for good.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.reset()

    def reset(self) -> None:
        """Measure memory from here on."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        elif _STATUS.exists():
            _give_back()
            with contextlib.suppress(OSError):  # not permitted in some containers: the peak is the process's
                _CLEAR.write_text("5")  # the kernel's way to start VmHWM anew
        self._floor = self._now()
        self.reset_clock()

    def reset_clock(self) -> None:
        """Measure time from here on."""
        self._start = time.perf_counter()

    def _now(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return _resident("VmRSS") if _STATUS.exists() else 0

    @property
    def seconds(self) -> float:
        """Since the clock was reset; waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - self._start

    @property
    def peak_bytes(self) -> int:
        """Most memory since `reset`: allocated on a GPU, the process's growth elsewhere."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if _STATUS.exists():
            return max(0, _resident("VmHWM") - self._floor)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Stopwatch:
    """Seconds that a method takes for its answers, batch by batch; loading is not in it."""

    def __init__(self, device: torch.device):
        self.device = device
        self._laps: dict[str, list[tuple[float, int]]] = {}

    @contextlib.contextmanager
    def lap(self, samples: int, part: str = "") -> Iterator[None]:
        """Time what runs inside, for so many samples; `part` names what only some ways of answering need."""
        start = self._now()
        yield
        self._laps.setdefault(part, []).append((self._now() - start, samples))

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def per_sample(self, *parts: str) -> float:
        """Seconds for a sample: the median over batches, summed over the parts that were timed; NaN for none. The
        median, because a batch that waits for another process, or is the first, says little."""
        known = [self._laps[part] for part in parts or ("",) if part in self._laps]
        return sum(statistics.median(s / n for s, n in laps) for laps in known) if known else float("nan")

    def per_clip(self, clips: int, *parts: str) -> float:
        """Seconds for a clip, of so many that were answered by several looks at some: `per_sample` of all looks."""
        looks = sum(n for _, n in self._laps.get(parts[0] if parts else "", ()))
        return self.per_sample(*parts) * (looks / clips)
