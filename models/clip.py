"""CLIP through open_clip: every token of a picture and of a question, in the joint space.

Radford et al., ICML 2021; OpenAI's public weights by their state-dict names, tower sizes read off them. As
PSTP-Net has it, not only the class token (the end-of-text token) but all tokens go through the last norm and
the projection.

Shapes: R pictures, P patches, Q questions, L words (77), D width of the joint space (512).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

TEXT_LENGTH = 77  # ids of a question: start, byte pairs, end, zeros
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def import_clip(state: Mapping[str, Tensor]) -> Any:
    """open_clip's model of OpenAI's ViT weights, float32, in evaluation mode.

    Raises:
        ValueError: not such weights.
    """
    from open_clip.model import build_model_from_openai_state_dict

    if "visual.proj" not in state:
        raise ValueError("not OpenAI's weights of a CLIP with a ViT: missing visual.proj")
    try:
        net = build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32)
    except (KeyError, RuntimeError, AttributeError) as error:
        raise ValueError(f"not OpenAI's weights of a CLIP with a ViT: {error}") from None
    return net.float().eval().requires_grad_(False)


def sizes(net: Any) -> tuple[int, int, int]:
    """Picture side in pixels, patches P, width D."""
    visual = net.visual
    side = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    return side, len(visual.positional_embedding) - 1, visual.proj.shape[1]


def encode_pictures(net: Any, x: Tensor) -> Tensor:
    """Frame token and patches row by row, [R, 1 + P, D], of normalised pictures [R, 3, S, S]; row 0 is
    open_clip's `encode_image`."""
    found = net.visual.forward_intermediates(
        x,
        indices=1,
        normalize_intermediates=True,
        intermediates_only=True,
        output_fmt="NLC",
        output_extra_tokens=True,
    )
    frame, patches = found["image_intermediates_prefix"][-1], found["image_intermediates"][-1]
    return torch.cat([frame, patches], dim=1) @ net.visual.proj


def encode_questions(net: Any, questions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Words [Q, L, D] and whole questions [Q, D] (the end-of-text token's row, open_clip's `encode_text`);
    longer questions are cut."""
    from open_clip import tokenize

    ids = tokenize(list(questions), net.context_length)
    place = net.token_embedding.weight.device
    found = net.forward_intermediates(
        text=ids.to(place), text_indices=1, normalize_intermediates=True, intermediates_only=True
    )
    words = found["text_intermediates"][-1] @ net.text_projection
    return words, words[torch.arange(len(words)), ids.argmax(dim=1).to(place)]


def text_tower(width: int = 512, heads: int = 8, layers: int = 12, dim: int = 512, words: int = 49408) -> Any:
    """CLIP's text tower alone, frozen, by OpenAI's names; sizes are those of ViT-B/32's.

    Args:
        width, heads, layers: of its transformer.
        dim: D.
        words: byte pairs that it knows.
    """
    from open_clip.transformer import QuickGELU, TextTransformer

    sizes: dict[str, Any] = {"width": width, "heads": heads, "layers": layers, "output_dim": dim}
    tower = TextTransformer(TEXT_LENGTH, words, **sizes, act_layer=QuickGELU)
    return tower.requires_grad_(False)


def text_weights(state: Mapping[str, Tensor]) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Sizes and weights (float32) of the text tower in OpenAI's weights, for `text_tower`.

    Raises:
        ValueError: not such weights.
    """
    names = ("token_embedding.weight", "positional_embedding", "text_projection", "ln_final.weight", "ln_final.bias")
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"not OpenAI's weights of CLIP: missing {', '.join(missing)}")
    blocks = {name: x for name, x in state.items() if name.startswith("transformer.resblocks.")}
    words, width = state["token_embedding.weight"].shape
    layers = len({name.split(".")[2] for name in blocks})
    sizes = {"width": width, "heads": max(1, width // 64), "layers": layers, "dim": state["text_projection"].shape[1]}
    weights = {name: state[name].float() for name in names} | {name: x.float() for name, x in blocks.items()}
    return {**sizes, "words": words}, weights


def end_of_text(ids: Tensor) -> Tensor:
    """Position of the end of each text, int64 [Q]: its id is the greatest of all."""
    return ids.argmax(dim=1)


def encode_text_ids(tower: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Words [Q, L, D] and whole texts [Q, D] of ids int64 [Q, L]; see `encode_questions`."""
    x = tower.token_embedding(ids) + tower.positional_embedding[: ids.shape[1]]
    x = tower.transformer(x, attn_mask=tower.attn_mask)
    words = tower.ln_final(x) @ tower.text_projection
    return words, words[torch.arange(len(ids), device=ids.device), end_of_text(ids)]
