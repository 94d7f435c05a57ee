"""TorchScript archives: their tensors as torch reads them, their code never run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from configs.public import load_clip, read_state
from shards.errors import InputError

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")]


class Inner(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.small = torch.nn.Parameter(torch.randn(4).half())
        self.register_buffer("resolution", torch.tensor(32))
        self.register_buffer("turned", torch.randn(3, 5).t())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.resolution


class Outer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.tied = self.inner.layer.weight
        self.sizes = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + self.sizes[0]


class Writes(torch.nn.Module):
    """Writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = bool(torch.from_file(self.path, shared=True, size=4).fill_(7).sum() > 0)


def test_tensors_are_those_that_torch_reads(tmp_path):
    path = tmp_path / "m.pt"
    torch.jit.save(torch.jit.script(Outer()), path)
    want, found = torch.jit.load(path).state_dict(), read_state(path)
    assert found.keys() == want.keys()
    for name, tensor in want.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_a_class_that_restores_itself_is_refused_and_its_code_is_not_run(tmp_path):
    touched, path = tmp_path / "touched", tmp_path / "ViT-B-32.pt"
    torch.jit.save(torch.jit.script(Writes(str(touched))), path)
    torch.jit.load(path)
    assert touched.exists(), "the archive does what it is meant to"
    touched.unlink()
    with pytest.raises(InputError, match="restores itself by code"):
        load_clip(tmp_path)
    assert not touched.exists()


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return exec, (f"open({self.path!r}, 'w')",)


def rewritten(source: Path, target: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.namelist():
            new.writestr(member, content if member.endswith(name) else old.read(member))


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_pickle_in_an_archive_or_alone_runs_nothing(tmp_path, suffix):
    touched, path = tmp_path / "touched", tmp_path / "good.pt"
    torch.jit.save(torch.jit.script(Outer()), path)
    attack = pickle.dumps(Runs(touched), protocol=2)
    rewritten(path, tmp_path / f"archive{suffix}", "/data.pkl", attack)
    (tmp_path / f"bare{suffix}").write_bytes(attack)
    torch.save({"x": Runs(touched)}, tmp_path / f"saved{suffix}")
    for name in ("archive", "bare", "saved"):
        with pytest.raises(Exception, match=r"exec|Unsupported|[Ww]eights only"):
            read_state(tmp_path / f"{name}{suffix}")
    assert not touched.exists()


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    path, other = tmp_path / "good.pt", tmp_path / "other.pt"
    torch.jit.save(torch.jit.script(Outer()), path)
    rewritten(path, other, "/data/0", b"\0" * 4)
    with pytest.raises(pickle.UnpicklingError, match="is not"):
        read_state(other)


def test_only_one_module_reads_files_of_weights_and_none_runs_their_code():
    """Every torch.load is weights_only, np.load without pickles; nothing else that executes a file."""
    root = Path(__file__).resolve().parent.parent
    rooms = ("configs", "models", "pipelines", "shards", "trainers", "tuning", "serving")
    for path in (path for room in rooms for path in (root / room).rglob("*.py")):
        for line in path.read_text().splitlines():
            where = f"{path}: {line.strip()}"
            assert "torch.jit.load(" not in line, where
            assert "torch.load(" not in line or "weights_only=True" in line, where
            assert "np.load(" not in line or "allow_pickle=False" in line, where
            assert "pickle.load" not in line, where
