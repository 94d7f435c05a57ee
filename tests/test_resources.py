"""Peak memory of trainings that share a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.integration
TWICE = """
import torch
from torch import nn
from trainers.resources import Meter

def train():
    meter = Meter(torch.device("cpu"))
    net = nn.Sequential(*(nn.Linear(400, 400) for _ in range(40)))
    optimizer = torch.optim.AdamW(net.parameters())
    for _ in range(2):
        net(torch.randn(200, 400)).sum().backward()
        optimizer.step()
    return meter.peak_bytes / 2**20

train()  # what libraries keep for good
print(train(), train(), train())
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc")
def test_the_same_training_shows_the_same_memory_again():
    """Weights, gradients and AdamW's two moments of 40 layers are 98 MiB."""
    done = subprocess.run([sys.executable, "-c", TWICE], cwd=ROOT, capture_output=True, text=True, check=True)
    peaks = [float(word) for word in done.stdout.split()]
    least = 4 * 40 * 400 * 401 * 4 / 2**20
    assert all(least * 0.9 < peak < 1.6 * least for peak in peaks), peaks
    assert max(peaks) < 1.2 * min(peaks), peaks
