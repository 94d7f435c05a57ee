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
