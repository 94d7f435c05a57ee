"""Missing-AVQA's weights, as VisualAIKHU/Missing-AVQA saves them (`weight_epoch_N.pt`, `best.pt`)."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from models.avqa.recovery.diffusion import Diffusion
from shards.errors import InputError
from trainers.imports.names import Names, shape_of
from trainers.imports.published.avst import PARTS, UNUSED, avst
from trainers.imports.published.network import PublishedNetwork
from trainers.imports.weights import State

WHAT = "Missing-AVQA"
LEVELS = 2  # of the U-Net: multipliers 1 and 2
RESIDUAL = {
    "mlp.1": "time",
    "block1.proj": "first",
    "block1.norm": "norms.0",
    "block2.proj": "second",
    "block2.norm": "norms.1",
    "res_conv": "shortcut",
}
FULL = {"norm.g": "norm.gain", "mem_kv": "memory", "to_qkv": "qkv", "to_out": "out"}
LINEAR = {**FULL, "to_out.1.g": "out.1.gain"}
SAME_SCHEDULE = 1e-5


def missing_avqa(path: Path, state: State, arguments: argparse.Namespace) -> PublishedNetwork:
    """The network of a file of Missing-AVQA's weights: AVST, memory, entrance and exit, U-Net.

    Raises:
        InputError: it holds something else, or a diffusion with another schedule.
    """
    inside = avst(path, state, arguments)
    dim = inside.spec.visual
    slots, length = shape_of(path, WHAT, state, "memory_network.visual_memory", 2)
    width = shape_of(path, WHAT, state, "unet.init_conv.weight", 4)[0]
    timesteps = shape_of(path, WHAT, state, "diffusion.betas", 1)[0]
    _check_schedule(path, state, timesteps)
    spec = replace(inside.spec, places=length // dim)
    sizes = {**inside.sizes, "slots": slots, "width": width, "timesteps": timesteps}
    names = Names({**PARTS, **_inner_parts()}, (*UNUSED, "conv_sm", "diffusion"))
    converted = {**state, "memory_network.visual_memory": _places_first(state, slots, dim)}
    return replace(
        inside,
        what=WHAT,
        network="missing_avqa",
        sizes=sizes,
        state=converted,
        names=names,
        spec=spec,
        recovery="masking",
    )


def _places_first(state: State, slots: int, dim: int) -> torch.Tensor:
    """Slots of the picture from [D, places] to [places, D], each flat."""
    memory = state["memory_network.visual_memory"]
    return memory.unflatten(1, (dim, -1)).transpose(1, 2).flatten(1)


def _check_schedule(path: Path, state: State, timesteps: int) -> None:
    ours, theirs = Diffusion(timesteps).signal[1:], state.get("diffusion.alphas_cumprod")
    if theirs is None or not torch.allclose(ours, theirs, rtol=0, atol=SAME_SCHEDULE):
        remedy = "import weights of the released code, whose schedule is sigmoid"
        raise InputError("its diffusion has another schedule", file=path, field="alphas_cumprod", remedy=remedy)


def _inner_parts() -> dict[str, str]:
    memory = {f"memory_network.{m}_memory": f"memory.slots.{m}" for m in ("question", "audio", "visual")}
    doors = {"kr": "enhance.entrance", "kr2": "enhance.exit"}
    net = "enhance.denoiser.unet"
    return {**memory, **doors, **{f"unet.{theirs}": f"{net}.{ours}" for theirs, ours in unet_parts().items()}}


def unet_parts() -> dict[str, str]:
    """Names of denoising-diffusion-pytorch's U-Net of two levels to those of `ReleasedUNet`."""
    parts = {"init_conv": "stem", "time_mlp.1": "time.0", "time_mlp.3": "time.2", "final_conv": "out"}
    blocks = {"mid_block1": "middle.0", "mid_block2": "middle.1", "final_res_block": "last"}
    attentions = {"mid_attn": ("attention", FULL)}
    for i in range(LEVELS):
        for side, full in (("downs", i == LEVELS - 1), ("ups", i == 0)):
            level = f"{side}.{i}"
            blocks |= {f"{level}.{k}": f"{level}.blocks.{k}" for k in (0, 1)}
            attentions[f"{level}.2"] = (f"{level}.attention", FULL if full else LINEAR)
            parts[f"{level}.3"] = f"{level}.change"
    for theirs, ours in blocks.items():
        parts |= {f"{theirs}.{a}": f"{ours}.{b}" for a, b in RESIDUAL.items()}
    for theirs, (ours, names) in attentions.items():
        parts |= {f"{theirs}.{a}": f"{ours}.{b}" for a, b in names.items()}
    return parts
