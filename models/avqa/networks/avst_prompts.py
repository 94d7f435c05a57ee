"""Missing-aware prompts for AVST: learned tokens that say which modality is missing.

Lee et al., *Multimodal Prompting with Missing Modalities for Visual Recognition*, CVPR 2023
(YiLunLee/missing_aware_prompts). The paper: a frozen ViLT gets a set of prompts per missing case in its first six
blocks, [6 layers, 16, d]; of *input* type they are tokens before the others, of *attention* type they join keys and
values after the projection, half as keys and half as values. Prompts, pooler and head train.

Released: prompts start at zero but for one row of ones; one fixed table of what each sample lacks serves training,
validation and test; the missing modality is a dummy (a picture of ones, empty text) that is computed and
attended to. Faults: the table's file name leaves out seed and ratio, so that an old one is used; slices are off by 16
in attention mode.

Ours, since AVST is no transformer: the prompts are prefixes of its two attentions of the question to the sound and to
the frames, where the sequences are (input type), or of their projected keys and values (attention type); not of the
means that stand beside the attentions. The case is what is present, so it needs a method that leaves absent
modalities absent (`recovery=masking`); nothing stands in for them, and the attention finds the prompts alone.
The network trains too, as in the AVQA paper's row (a frozen AVST could not give its 60 %), or, with `freeze=network`
and `network_from` a run of `avst`, prompts and answer layer alone, as in the paper of the prompts.

Shapes: B questions, T steps, N prompts, D width of the network, A answers.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.batch import FeatureSpec
from models.avqa.networks.avst import AVST, TemporalAttention
from models.settings import MODALITIES, Modality

Kind = Literal["input", "attention"]
CASES = ("complete", "audio_missing", "visual_missing")
SCALE = 0.02  # standard deviation of the prompts at first


class PromptedAVST(AVST):
    """AVST whose two question attentions look at prompts of the missing case, too.

    Args:
        spec, words, answers: as of AVST.
        prompts: N of each case and attention (paper: 16).
        kind: `input` or `attention`; of the latter half of the prompts are keys, half values.
        sizes: AVST's dim, heads, dropout.

    Raises:
        ValueError: no such kind, no prompts, or an odd number of them for `attention`.
    """

    added: ClassVar[tuple[str, ...]] = ("prompts",)  # parameters that a run of `avst` to start from has not
    still_trained: ClassVar[tuple[str, ...]] = ("prompts", "answer")

    def __init__(
        self,
        spec: FeatureSpec,
        words: int,
        answers: int,
        *,
        dim: int = 512,
        heads: int = 4,
        dropout: float = 0.1,
        prompts: int = 16,
        kind: Kind = "input",
    ):
        if kind not in get_args(Kind):
            raise ValueError(f"kind {kind!r}: one of {', '.join(get_args(Kind))}")
        if prompts < 1 or (kind == "attention" and prompts % 2):
            raise ValueError(f"prompts {prompts}: at least one, and an even number where half of them are values")
        super().__init__(spec, words, answers, dim=dim, heads=heads, dropout=dropout)
        self.kind = kind
        drawn = {f"{case}_{m}": nn.Parameter(SCALE * torch.randn(prompts, dim)) for case in CASES for m in MODALITIES}
        self.prompts = nn.ParameterDict(drawn)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freezing leaves the prompts and the answer layer to train."""
        super().requires_grad_(requires_grad)
        for name in self.still_trained:
            getattr(self, name).requires_grad_(True)
        return self

    def found(self, asked: Tensor, sound: Tensor | None, frame: Tensor | None) -> tuple[Tensor, Tensor]:
        """As AVST's, with the prompts of the case; where a sequence is absent, in the prompts alone."""
        case = "audio_missing" if sound is None else "visual_missing" if frame is None else "complete"
        return self._look("audio", asked, sound, case), self._look("visual", asked, frame, case)

    def _look(self, modality: Modality, asked: Tensor, sequence: Tensor | None, case: str) -> Tensor:
        """What the question finds in the prompts and in the sequence [B, T, D], and the sequence's mean: [B, D]."""
        look: TemporalAttention = getattr(self, f"attend_{modality}")
        prompt = self.prompts[f"{case}_{modality}"].expand(len(asked), -1, -1)
        attend = self._found_before if self.kind == "input" else self._found_within
        found = look.feed_forward(attend(look.attend, asked, prompt, sequence))
        return found if sequence is None else found + sequence.mean(dim=1)

    @staticmethod
    def _found_before(attend: nn.MultiheadAttention, asked: Tensor, prompt: Tensor, sequence: Tensor | None) -> Tensor:
        """Prompts before the sequence's tokens."""
        tokens = prompt if sequence is None else torch.cat([prompt, sequence], dim=1)
        return attend(asked[:, None], tokens, tokens, need_weights=False)[0][:, 0]

    @staticmethod
    def _found_within(attend: nn.MultiheadAttention, asked: Tensor, prompt: Tensor, sequence: Tensor | None) -> Tensor:
        """Prompts before the projected keys and values."""
        keys, values = prompt.chunk(2, dim=1)
        q, k, v = attend.in_proj_weight.chunk(3)
        of_q, of_k, of_v = attend.in_proj_bias.chunk(3)
        if sequence is not None:
            keys = torch.cat([keys, F.linear(sequence, k, of_k)], dim=1)
            values = torch.cat([values, F.linear(sequence, v, of_v)], dim=1)
        parts = (F.linear(asked[:, None], q, of_q), keys, values)
        q, k, v = (x.unflatten(-1, (attend.num_heads, -1)).transpose(1, 2) for x in parts)
        dropout = attend.dropout if attend.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)  # [B, heads, 1, D / heads]
        return attend.out_proj(found.transpose(1, 2).flatten(2))[:, 0]
