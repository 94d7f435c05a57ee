"""The backbone against the published definition, written here a second time as plain tensor functions."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.cavmae import CAVMAE, sincos_positions
from models.prompts import DualPrompts
from models.public import import_state_dict
from models.settings import BACKBONES, BackboneConfig, PromptSize
from shards.errors import InputError
from tests.fixtures.builders import SMALL, small_inputs, small_net
from tests.fixtures.tiers import told_by
from trainers.classification.published import import_public, public_state

State = dict[str, Tensor]
FAST_BASE = BackboneConfig(depth=1)
ONE_SIDED = {"multimodal": None, "audio": [True, False], "visual": [False, True]}


# --- the published classifier (methods.md section 1, Gong et al. 2023), for any state dict -----------------


def published_shapes(config: BackboneConfig, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a fine-tuned public checkpoint, without the `module.` prefix."""
    d, hidden = config.dim, int(config.dim * config.mlp_ratio)
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (d,)

    for m, channels in (("a", 1), ("v", 3)):
        shapes[f"patch_embed_{m}.proj.weight"] = (d, channels, 16, 16)
        shapes[f"patch_embed_{m}.proj.bias"] = (d,)
        shapes[f"modality_{m}"] = (1, 1, d)
    shapes["pos_embed_a"] = (1, config.target_length // 2, d)  # 8 bands x target_length / 16
    shapes["pos_embed_v"] = (1, (config.image_size // 16) ** 2, d)
    for stack, depth in (("a", config.depth), ("v", config.depth), ("u", config.joint_depth)):
        for i in range(depth):
            at = f"blocks_{stack}.{i}"
            for name in ("norm1", "norm1_a", "norm1_v", "norm2", "norm2_a", "norm2_v"):
                norm(f"{at}.{name}")
            linear(f"{at}.attn.qkv", 3 * d, d)
            linear(f"{at}.attn.proj", d, d)
            linear(f"{at}.mlp.fc1", hidden, d)
            linear(f"{at}.mlp.fc2", d, hidden)
    for name in ("norm_a", "norm_v", "norm", "mlp_head.0"):
        norm(name)
    linear("mlp_head.1", classes, d)
    return shapes


def random_state(config: BackboneConfig, classes: int, seed: int = 0) -> State:
    """Every tensor drawn, also norms, biases, positions and modality tokens."""
    rng = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in published_shapes(config, classes).items():
        x = torch.randn(shape, generator=rng)
        if len(shape) in (2, 4):
            state[name] = x / math.prod(shape[1:]) ** 0.5
        else:
            state[name] = 0.3 * x + float("norm" in name and name.endswith("weight"))
    return state


def ref_norm(x: Tensor, s: State, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * s[f"{name}.weight"] + s[f"{name}.bias"]


def ref_linear(x: Tensor, s: State, name: str) -> Tensor:
    return torch.einsum("bni,oi->bno", x, s[f"{name}.weight"]) + s[f"{name}.bias"]


def ref_block(x: Tensor, s: State, at: str, heads: int, norms: str) -> Tensor:
    width = x.shape[-1] // heads
    qkv = ref_linear(ref_norm(x, s, f"{at}.norm1{norms}"), s, f"{at}.attn.qkv")
    out = []
    for h in range(heads):  # q, k, v lie one after the other, each by head
        q, k, v = (qkv[..., (j * heads + h) * width :][..., :width] for j in range(3))
        weights = torch.softmax(torch.einsum("bqd,bkd->bqk", q, k) / width**0.5, dim=-1)
        out.append(torch.einsum("bqk,bkd->bqd", weights, v))
    x = x + ref_linear(torch.cat(out, dim=-1), s, f"{at}.attn.proj")
    hidden = ref_linear(ref_norm(x, s, f"{at}.norm2{norms}"), s, f"{at}.mlp.fc1")
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    return x + ref_linear(hidden, s, f"{at}.mlp.fc2")


def ref_encode(x: Tensor, s: State, m: str, config: BackboneConfig) -> Tensor:
    """x [B, channels, H, W]: patches, position, modality token, own blocks (with the joint norm set)."""
    b, c, h, w = x.shape
    cut = x.reshape(b, c, h // 16, 16, w // 16, 16)
    tokens = torch.einsum("bcypxq,dcpq->byxd", cut, s[f"patch_embed_{m}.proj.weight"])
    tokens = tokens.reshape(b, -1, config.dim) + s[f"patch_embed_{m}.proj.bias"]
    tokens = tokens + s[f"pos_embed_{m}"] + s[f"modality_{m}"]
    for i in range(config.depth):
        tokens = ref_block(tokens, s, f"blocks_{m}.{i}", config.heads, "")
    return tokens


def published(s: State, audio: Tensor, visual: Tensor, mode: str, config: BackboneConfig) -> Tensor:
    """Logits of CAVMAEFT in `multimodal`, or with one modality alone (`audioonly`, `videoonly`)."""
    tokens = []
    if mode != "visual":
        tokens.append(ref_encode(audio.transpose(1, 2)[:, None], s, "a", config))
    if mode != "audio":
        tokens.append(ref_encode(visual, s, "v", config))
    norms = {"multimodal": "", "audio": "_a", "visual": "_v"}[mode]
    x = torch.cat(tokens, dim=1)
    for i in range(config.joint_depth):
        x = ref_block(x, s, f"blocks_u.{i}", config.heads, norms)
    pooled = ref_norm(x, s, f"norm{norms}").mean(dim=1, keepdim=True)
    return ref_linear(ref_norm(pooled, s, "mlp_head.0"), s, "mlp_head.1")[:, 0]


@lru_cache(maxsize=1)
def imported_pair(config: BackboneConfig) -> tuple[State, CAVMAE]:
    """A checkpoint, and a fresh backbone that imported it."""
    state = random_state(config, classes=7, seed=3)
    net = CAVMAE(config, 7).eval()
    assert all(name.startswith("fusion_") for name in import_state_dict(net, state))
    return state, net


def largest_difference(config: BackboneConfig, mode: str, n: int = 2) -> float:
    """Of an imported checkpoint's logits from the published ones'."""
    state, net = imported_pair(config)
    audio, visual = small_inputs(n, config, seed=4)
    pattern = ONE_SIDED[mode]
    present = None if pattern is None else torch.tensor([pattern] * n)
    if mode != "multimodal":
        (visual if mode == "audio" else audio).fill_(float("nan"))
    with torch.no_grad():
        ours, theirs = net(audio, visual, present), published(state, audio, visual, mode, config)
    assert theirs.std() > 0.1, "the comparison must not be of constants"
    return float((ours - theirs).abs().max())


# --- tests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "mode"),
    told_by(
        lambda case: case[0] is not FAST_BASE or case[1] == "multimodal",
        [(config, mode) for config in (SMALL, BACKBONES["tiny"], FAST_BASE) for mode in ONE_SIDED],
    ),
    ids=[f"{name}-{mode}" for name in ("small", "tiny", "base cut short") for mode in ONE_SIDED],
)
def test_forward_is_the_published_one(config, mode):
    assert largest_difference(config, mode, n=1 if config is FAST_BASE else 2) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("mode", ONE_SIDED)
def test_base_forward_is_the_published_one(mode):
    assert largest_difference(BACKBONES["base"], mode) < 1e-4


@pytest.mark.unit
@pytest.mark.parametrize("name", BACKBONES)
def test_names_and_shapes_are_the_published_ones(name):
    with torch.device("meta"):
        net = CAVMAE(BACKBONES[name], 309)
    own = {n: tuple(t.shape) for n, t in net.state_dict().items() if not n.startswith("fusion_")}
    assert own == published_shapes(BACKBONES[name], 309)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    assert (160 < millions < 170) if name == "base" else (0.5 < millions < 1.05)


@pytest.mark.unit
@pytest.mark.parametrize(("rows", "columns"), [(8, 13), (14, 14)])
def test_positions_are_sine_cosine_of_column_then_row(rows, columns):
    dim = 48
    table = sincos_positions(dim, rows, columns)[0]
    for row, column in ((0, 0), (1, 0), (0, 1), (rows - 1, columns - 2)):
        expected = []
        for position in (column, row):
            angles = [position / 10000 ** (i / (dim / 4)) for i in range(dim // 4)]
            expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        torch.testing.assert_close(table[row * columns + column], torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.unit
def test_attention_prompts_act_only_once_the_fusion_is_trained():
    net = CAVMAE(SMALL, 7).eval()
    import_state_dict(net, random_state(SMALL, 7))
    prompts = DualPrompts(SMALL, PromptSize(length=4, input_level=False))
    audio, visual = small_inputs(2)
    with torch.no_grad():
        plain = net(audio, visual)
        assert torch.equal(prompts.run(net, audio, visual, None, None), plain)
        net.fusion_a.proj.weight.normal_(std=0.2)
        assert not torch.allclose(net(audio, visual), plain, atol=1e-3)
        with_prompts = prompts.run(net, audio, visual, None, None)
        assert not torch.allclose(with_prompts, net(audio, visual), atol=1e-4)


@pytest.mark.unit
def test_input_prompts_act_from_the_start():
    net = CAVMAE(SMALL, 7).eval()
    import_state_dict(net, random_state(SMALL, 7))
    prompts = DualPrompts(SMALL, PromptSize(length=4, attention_level=False))
    audio, visual = small_inputs(2)
    with torch.no_grad():
        assert not torch.allclose(prompts.run(net, audio, visual, None, None), net(audio, visual), atol=1e-5)


def pretrained(config: BackboneConfig) -> State:
    """As a public pre-trained file: no head, a decoder, the `module.` prefix."""
    state = {n: t for n, t in random_state(config, 7).items() if not n.startswith("mlp_head")}
    state |= {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, config.dim)}
    state |= {
        "decoder_blocks.0.attn.qkv.weight": torch.zeros(24, 8),
        "decoder_pos_embed_a": torch.zeros(1, 4, 8),
    }
    return {f"module.{n}": t for n, t in state.items()}


def saved(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


def take_over(net: CAVMAE, path: Path) -> None:
    """A public file's weights, as fine-tuning and import take them."""
    import_public(net, public_state(path, "public"), path, "choose backbone.preset")


def imported(path: Path, classes: int = 7) -> CAVMAE:
    torch.manual_seed(0)
    net = CAVMAE(SMALL, classes).eval()
    take_over(net, path)
    return net


@pytest.mark.unit
@pytest.mark.parametrize("prefix", ["", "module.", "state_dict", "model"])
def test_import_of_a_finetuned_file(tmp_path, prefix):
    state = random_state(SMALL, 7)
    inner = {("module." if prefix else "") + n: t for n, t in state.items()}
    net = imported(
        saved(tmp_path / "av.pth", {prefix: inner, "epoch": 3} if prefix in ("state_dict", "model") else inner)
    )
    for name, tensor in net.state_dict().items():
        assert name.startswith("fusion_") or torch.equal(tensor, state[name]), name


@pytest.mark.unit
def test_import_of_a_safetensors_file(tmp_path):
    from safetensors.torch import save_file

    state = random_state(SMALL, 7)
    save_file(state, tmp_path / "av.safetensors")
    net = imported(tmp_path / "av.safetensors")
    assert torch.equal(net.blocks_u[0].mlp.fc1.weight, state["blocks_u.0.mlp.fc1.weight"])


@pytest.mark.unit
def test_import_of_a_pretrained_file_keeps_the_fresh_head(tmp_path):
    path = saved(tmp_path / "pretrained.pth", pretrained(SMALL))
    net = imported(path)
    torch.manual_seed(0)
    fresh = CAVMAE(SMALL, 7)
    assert torch.equal(net.mlp_head[1].weight, fresh.mlp_head[1].weight)
    assert torch.equal(net.norm_v.bias, random_state(SMALL, 7)["norm_v.bias"])
    absent = import_state_dict(fresh, torch.load(path, weights_only=True))
    assert {n.split(".")[0] for n in absent} == {"fusion_a", "fusion_v", "mlp_head"}


@pytest.mark.unit
def test_import_with_an_own_label_count_starts_a_fresh_head(tmp_path):
    net = imported(saved(tmp_path / "av.pth", random_state(SMALL, 309)), classes=4)
    torch.manual_seed(0)
    fresh = CAVMAE(SMALL, 4).mlp_head.state_dict()
    assert all(torch.equal(t, fresh[n]) for n, t in net.mlp_head.state_dict().items())


def _without(state: State, name: str) -> State:
    return {n: t for n, t in state.items() if n != name}


WRONG = {
    "missing": (lambda s: _without(s, "blocks_v.1.attn.qkv.bias"), "missing blocks_v.1.attn.qkv.bias"),
    "unknown": (lambda s: s | {"cls_token": torch.zeros(1)}, "unknown cls_token"),
    "shape": (
        lambda s: s | {"pos_embed_a": torch.zeros(1, 512, 32)},
        r"pos_embed_a is \(1, 512, 32\), expected \(1, 16, 32\)",
    ),
    "half a head": (lambda s: _without(s, "mlp_head.1.weight"), "missing mlp_head.1.weight"),
    "nested elsewhere": (lambda s: {"weights": s, "epoch": 3}, "unknown weights, epoch"),
    "no tensor": (lambda s: s | {"norm.bias": 3.0}, "norm.bias is no tensor"),
    "a list": (lambda s: list(s.values()), "not a state dict but a list"),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_by_name_and_changes_nothing(tmp_path, case):
    change, message = WRONG[case]
    path = saved(tmp_path / "wrong.pth", change(random_state(SMALL, 7)))
    net = small_net(classes=7)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    with pytest.raises(InputError, match=message) as error:
        take_over(net, path)
    assert str(path) in str(error.value)
    assert error.value.remedy
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


@pytest.mark.unit
def test_a_file_of_another_size_names_keys_but_not_all_of_them(tmp_path):
    path = saved(tmp_path / "tiny.pth", random_state(BACKBONES["tiny"], 7))
    with pytest.raises(InputError, match=r"expected .* and \d+ more"):
        take_over(small_net(classes=7), path)


@pytest.mark.unit
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "text.pth").write_text("not a checkpoint")
    for name in ("text.pth", "none.pth"):
        with pytest.raises(InputError, match=name):
            take_over(small_net(classes=7), tmp_path / name)


class Payload:
    """Pickled code, as an untrusted file could hold."""

    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.unit
def test_a_file_with_code_in_it_is_refused_unrun(tmp_path, capsys):
    path = saved(tmp_path / "evil.pth", {"norm.bias": Payload()})
    with pytest.raises(InputError, match="can't be read"):
        take_over(small_net(classes=7), path)
    assert "ran" not in capsys.readouterr().out
