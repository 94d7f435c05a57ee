"""VGGish: sound of 0.96 s to 128 numbers, with its own log-mel; public weights load by name.

Hershey et al., *CNN Architectures for Large-Scale Audio Classification*, ICASSP 2017; module names and order
of the flattened places are those of harritaylor/torchvggish, whose weights are the published TensorFlow
ones. As in MUSIC-AVQA's released extraction, features are the embedding layer's after its ReLU, and the PCA
and 8-bit quantisation of AudioSet's release are an option, off by default.

Shapes: S sound samples at 16 kHz, R windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.public import load_exactly

SAMPLE_RATE, WINDOW, HOP, FFT = 16000, 400, 160, 512  # Hz; 25 ms, 10 ms and FFT length in samples
FRAMES, BINS, LOWEST, HIGHEST, OFFSET = 96, 64, 125.0, 7500.0, 0.01  # of a window; edges in Hz
SAMPLES = (FRAMES - 1) * HOP + WINDOW  # sound behind the frames of one window: 0.975 s
_POOLED = 16  # the four max-poolings halve both sides
_QUANTISED = (-2.0, 2.0)  # what the released post-processing clips to


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hertz / 700.0)


@cache
def _filters() -> Tensor:
    """HTK triangles in mel, [257, 64] float64; the constant part of the spectrum gets nothing."""
    bins = _mel(torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1, dtype=torch.float64))[:, None]
    first, last = _mel(torch.tensor([LOWEST, HIGHEST], dtype=torch.float64)).tolist()
    edges = torch.linspace(first, last, BINS + 2, dtype=torch.float64)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    weights = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    weights[0] = 0
    return weights


def log_mel(sound: Tensor) -> Tensor:
    """Log-mel as VGGish was trained on: magnitudes of 25 ms windows (periodic Hann) every 10 ms, 64 mel bins
    of 125-7500 Hz, log(mel + 0.01).

    Args:
        sound: [R, S], samples in -1..1 at 16 kHz.

    Returns:
        float32 [R, 1 + (S - 400) // 160, 64].
    """
    pieces = sound.double().unfold(-1, WINDOW, HOP)
    window = torch.hann_window(WINDOW, periodic=True, dtype=torch.float64)
    spectrum = torch.fft.rfft(pieces * window, FFT).abs()
    return torch.log(spectrum @ _filters() + OFFSET).float()


class VGGish(nn.Module):
    """The published network; its widths are read off the weights.

    Args:
        widths: of the six convolutions.
        hidden: of the two fully connected layers.
        dim: of the embedding.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128, 256, 256, 512, 512),
        hidden: tuple[int, int] = (4096, 4096),
        dim: int = 128,
    ):
        super().__init__()
        self.dim = dim
        self.pca_matrix: Tensor | None
        self.pca_means: Tensor | None
        layers: list[nn.Module] = []
        inputs = 1
        for number, width in enumerate(widths):
            layers += [nn.Conv2d(inputs, width, kernel_size=3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if number in (0, 1, 3, 5) else []
            inputs = width
        self.features = nn.Sequential(*layers)
        places = (FRAMES // _POOLED) * (BINS // _POOLED)
        sizes = [places * inputs, *hidden, dim]
        full = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.embeddings = nn.Sequential(*full)
        self.register_buffer("pca_matrix", None)
        self.register_buffer("pca_means", None)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [R, 128] of log-mel windows [R, 96, 64]."""
        maps = self.features(x.unsqueeze(1))  # [R, C, 6, 4]
        out = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        if self.pca_matrix is None or self.pca_means is None:
            return out
        return _postprocess(out, self.pca_matrix, self.pca_means)


def _postprocess(x: Tensor, matrix: Tensor, means: Tensor) -> Tensor:
    """PCA with whitening, then 8-bit levels 0..255, as AudioSet's released embeddings."""
    low, high = _QUANTISED
    rotated = (x - means) @ matrix.T
    return torch.round((rotated.clamp(low, high) - low) * (255.0 / (high - low)))


def import_vggish(state: Mapping[str, Tensor], pca: Mapping[str, Tensor] | None = None) -> VGGish:
    """A VGGish with public weights (`features.N`, `embeddings.N`), in evaluation mode.

    Args:
        pca: `pca_eigen_vectors` [128, 128] and `pca_means` [128], for post-processing.

    Raises:
        ValueError: names missing, unknown or of another shape, listed.
    """
    convolutions = [f"features.{n}.weight" for n in (0, 3, 6, 8, 11, 13)]
    full = [f"embeddings.{n}.weight" for n in (0, 2, 4)]
    if absent := [name for name in [*convolutions, *full] if name not in state]:
        raise ValueError(f"not weights of VGGish: missing {', '.join(absent[:4])}")
    first, second, dim = (len(state[name]) for name in full)
    net = VGGish(tuple(len(state[name]) for name in convolutions), (first, second), dim)
    load_exactly(net, state, "VGGish")
    if pca is not None:
        _set_pca(net, pca)
    return net.eval().requires_grad_(False)


def _set_pca(net: VGGish, pca: Mapping[str, Tensor]) -> None:
    if set(pca) != {"pca_eigen_vectors", "pca_means"}:
        raise ValueError(f"not PCA parameters of VGGish: {', '.join(sorted(pca)[:4])}")
    vectors, means = (torch.as_tensor(pca[name]).float() for name in ("pca_eigen_vectors", "pca_means"))
    if vectors.shape != (net.dim, net.dim) or means.numel() != net.dim:
        raise ValueError(f"PCA of {tuple(vectors.shape)}, {tuple(means.shape)}; the embedding has {net.dim}")
    net.pca_matrix, net.pca_means = vectors, means.flatten()
