"""Public extractors: VGGish, ResNet-18 and CLIP against independent computations; their files by name.

Weights are random, of the public names; where sizes are free they are small.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from configs.public import load_clip, load_resnet18, load_vggish
from models import clip, resnet, vggish
from pipelines.features import extract
from pipelines.sequences import VGGishAudio
from pipelines.settings import FeatureConfig
from shards.errors import InputError
from shards.reader import Sample, ShardDataset
from shards.schema import DatasetInfo
from shards.sequence import sequence_spec
from shards.verify import verify
from tests.fixtures.builders import meta, randomise
from tests.test_sequences import STEPS, records, write_media

pytestmark = pytest.mark.integration
WIDTHS, HIDDEN = (4, 4, 6, 6, 8, 8), (10, 12)


def small_vggish() -> dict[str, torch.Tensor]:
    return randomise(vggish.VGGish(WIDTHS, HIDDEN, 16)).state_dict()


def small_clip() -> dict[str, torch.Tensor]:
    """ViT of one block with 2x2 patches of 16 pixels, a text tower of one block, width 64."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    with torch.random.fork_rng():
        torch.manual_seed(0)
        picture = CLIPVisionCfg(layers=1, width=64, patch_size=16, image_size=32)
        text = CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=1)
        net = CLIP(16, picture, text, quick_gelu=True)
    return net.half().state_dict()  # as public files are, in which rounding then changes nothing


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A folder as a user fills it."""
    from torchvision.models import resnet18

    folder = tmp_path_factory.mktemp("weights")
    torch.save(small_vggish(), folder / "vggish-10086976.pth")
    rng = np.random.default_rng(1)
    pca = {"pca_eigen_vectors": rng.normal(size=(16, 16)), "pca_means": rng.normal(size=(16, 1))}
    np.savez(folder / "vggish_pca_params.npz", **pca)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(resnet18().state_dict(), folder / "resnet18-f37072fd.pth")
    torch.save(small_clip(), folder / "ViT-B-32.pt")
    return folder


def test_vggish_log_mel_is_what_torchaudio_computes():
    """Spectrum and framing are torchaudio's; the filters are numpy's, below (torchaudio's slope in Hz)."""
    from torchaudio.transforms import Spectrogram

    sound = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, vggish.SAMPLES)).float()
    window = {"n_fft": 512, "win_length": 400, "hop_length": 160, "power": 1.0, "center": False}
    padded = torch.cat([torch.zeros(56), sound, torch.zeros(56)])  # it centres its window in the FFT
    spectrum = Spectrogram(**window)(padded).T.double().numpy()
    assert spectrum.shape == (96, 257)
    want = np.log(spectrum @ mel_filters() + 0.01)
    found = vggish.log_mel(sound[None])[0].numpy()
    assert found.shape == (96, 64)
    np.testing.assert_allclose(found, want, atol=2e-4)


def mel_filters() -> np.ndarray:
    """64 triangles between 125 and 7500 Hz, even in mel, bin by bin."""

    def mel(hertz: float) -> float:
        return 1127.0 * np.log(1 + hertz / 700.0)

    edges = np.linspace(mel(125.0), mel(7500.0), 66)
    out = np.zeros((257, 64))
    for b in range(1, 257):
        for m in range(64):
            low, centre, high = edges[m : m + 3]
            at = mel(b * 16000 / 512)
            out[b, m] = max(0.0, min((at - low) / (centre - low), (high - at) / (high - centre)))
    return out


def test_vggish_is_the_published_network():
    """Its published stack written out, with the places flattened channel last."""
    state = small_vggish()
    net, x = vggish.import_vggish(state), torch.randn(3, 96, 64, generator=torch.Generator().manual_seed(0))
    y = x[:, None]
    for index in (0, 3, 6, 8, 11, 13):
        y = nn.functional.conv2d(y, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        y = y.relu()
        y = y if index in (6, 11) else nn.functional.max_pool2d(y, 2)
    y = y.transpose(1, 3).transpose(1, 2).reshape(3, -1)
    for index in (0, 2, 4):
        y = (y @ state[f"embeddings.{index}.weight"].T + state[f"embeddings.{index}.bias"]).relu()
    assert float(y.abs().max()) > 0
    torch.testing.assert_close(net(x), y, rtol=1e-4, atol=1e-5)


def test_vggish_has_the_published_sizes():
    with torch.device("meta"):
        sizes = {name: tuple(t.shape) for name, t in vggish.VGGish().state_dict().items()}
    assert sizes["features.13.weight"] == (512, 512, 3, 3)
    assert sizes["embeddings.0.weight"] == (4096, 12288)
    assert sizes["embeddings.4.weight"] == (128, 4096)
    assert sum(np.prod(shape) for shape in sizes.values()) == 72_141_184


def test_vggish_post_processing(weights):
    plain, processed = load_vggish(weights), load_vggish(weights, pca=True)
    x = torch.randn(5, 96, 64, generator=torch.Generator().manual_seed(0))
    with np.load(weights / "vggish_pca_params.npz") as pca:
        y = (plain(x).double().numpy() - pca["pca_means"].T) @ pca["pca_eigen_vectors"].T
    levels = np.round((np.clip(y, -2, 2) + 2) * 255 / 4)
    assert 0 < levels.mean() < 255
    np.testing.assert_allclose(processed(x), levels, atol=1)
    assert VGGishAudio(plain).fingerprint != VGGishAudio(processed).fingerprint


def test_vggish_windows_lie_around_the_steps_and_are_silent_beyond_the_clip():
    wave = np.random.default_rng(0).integers(-9999, 9999, 32000, dtype=np.int16)
    sample = Sample(meta("a", "bell", "train").model_copy(update={"duration": 2.0}), {"wave": wave})
    found = VGGishAudio(vggish.import_vggish(small_vggish())).inputs(sample, 2)
    sound = torch.from_numpy(np.pad(wave, 16000) / 32768.0).float()
    for t, middle in enumerate((8000, 24000)):
        at = 16000 + middle - vggish.SAMPLES // 2
        torch.testing.assert_close(found[t], vggish.log_mel(sound[at : at + vggish.SAMPLES][None])[0])
    short = Sample(sample.meta, {"wave": wave[:4000]})
    silent = VGGishAudio(vggish.import_vggish(small_vggish())).inputs(short, 2)[1]
    torch.testing.assert_close(silent, torch.full((96, 64), float(np.log(0.01))))


def test_resnet_is_torchvisions_up_to_the_stride_of_its_last_stage(weights):
    from torchvision.models import resnet18
    from torchvision.models.feature_extraction import create_feature_extractor

    state = torch.load(weights / "resnet18-f37072fd.pth")
    theirs, ours = resnet18(), load_resnet18(weights)
    theirs.load_state_dict(state)
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    nodes = create_feature_extractor(theirs.eval(), ["layer3", "layer4"])
    with torch.no_grad():
        want, found = nodes(x), resnet.maps(ours, x)
        assert found.shape == (2, 36, 512)
        by_hand = want["layer3"]
        for number, block in enumerate(theirs.layer4):
            first = number == 0
            y = nn.functional.conv2d(by_hand, block.conv1.weight, stride=1, padding=1)
            y = block.bn2(block.conv2(block.bn1(y).relu()))
            if first:
                skip = nn.functional.conv2d(by_hand, block.downsample[0].weight)
                by_hand = (y + block.downsample[1](skip)).relu()
            else:
                by_hand = (y + by_hand).relu()
        torch.testing.assert_close(found, by_hand.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)
        for module in (ours.layer4[0].conv1, ours.layer4[0].downsample[0]):
            module.stride = (2, 2)  # back to what the library computes
        torch.testing.assert_close(resnet.maps(ours, x).transpose(1, 2).view(2, 512, 3, 3), want["layer4"])


def test_clip_tokens_hold_the_librarys_own_embeddings(weights):
    net = load_clip(weights)
    assert clip.sizes(net) == (32, 4, 16)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = clip.encode_pictures(net, x)
    assert found.shape == (2, 5, 16)
    torch.testing.assert_close(found[:, 0], net.encode_image(x), rtol=1e-4, atol=1e-5)
    changed = x.clone()
    changed[0, :, 16:, 16:] = 0  # the last patch; the others see it through attention only
    rows = (clip.encode_pictures(net, changed)[0] - found[0]).norm(dim=1)
    assert int(rows.argmax()) == 4
    questions = ["Is there a piano?", "How many instruments are sounding in the video? " * 12]
    words, whole = clip.encode_questions(net, questions)
    assert words.shape == (2, 77, 16)
    from open_clip import tokenize

    torch.testing.assert_close(whole, net.encode_text(tokenize(questions)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole[0], whole[1])


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_clip_reads_a_torchscript_archive_as_openai_publishes_it(weights, tmp_path):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = nn.Module()
            self.visual.proj = nn.Parameter(torch.ones(2, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.save(torch.jit.script(Holder()), tmp_path / "ViT-B-32.pt")
    with pytest.raises(InputError, match=r"weights of a CLIP with a ViT: 'visual\.conv1\.weight'"):
        load_clip(tmp_path)


@pytest.mark.parametrize("pair", ["vggish+resnet18", "vggish+clip"])
def test_extraction_end_to_end(pair, weights, tmp_path):
    data = write_media(tmp_path / "data", {"train": records()["train"][:2]})
    out = extract(data, config=FeatureConfig(extractor=pair, workers=0), weights=weights)
    assert out.name.endswith(pair.replace("+", "-"))
    spec = sequence_spec(DatasetInfo.load(out))
    visual = (196, False, 512) if pair.endswith("resnet18") else (4, True, 16)
    assert (spec.audio, spec.steps, spec.places, spec.frame_token, spec.visual) == (16, STEPS, *visual)
    first, mute = ShardDataset(out, "train")
    assert first.arrays["audio"].shape == (STEPS, 16)
    assert first.arrays["visual"].shape == (STEPS, spec.rows, spec.visual)
    assert set(mute.arrays) == {"visual"}
    assert verify(out) == []


def test_files_that_will_not_do_are_named(weights, tmp_path):
    for load, name, wanted in (
        (load_vggish, "vggish-1.pth", "harritaylor/torchvggish"),
        (load_resnet18, "resnet18-1.pth", "resnet18-f37072fd.pth"),
        (load_clip, "ViT-B-32.pt", "openai/CLIP"),
    ):
        with pytest.raises(InputError, match=wanted):
            load(None)
        with pytest.raises(InputError, match="0 files named"):
            load(tmp_path)
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(InputError, match="can't be read"):
            load(tmp_path)
        torch.save({"wrong.weight": torch.zeros(1)}, tmp_path / name)
        with pytest.raises(InputError, match="missing") as refused:
            load(tmp_path)
        assert refused.value.file == tmp_path / name
    torch.save(small_vggish() | {"features.0.weight": torch.zeros(4, 2, 3, 3)}, tmp_path / "vggish-1.pth")
    with pytest.raises(InputError, match=r"features.0.weight is \(4, 2, 3, 3\), expected \(4, 1, 3, 3\)"):
        load_vggish(tmp_path)
