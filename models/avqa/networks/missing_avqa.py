"""Missing-AVQA as released: AVST with the slot memory and the diffusion inside it.

Park, Lee, Kim, *Learning Trimodal Relation for AVQA with Missing Modality*, ECCV 2024 (VisualAIKHU/Missing-AVQA).
There RMM and AVR work on AVST's own sound and question (after its audio MLP and its question encoder), so their
weights belong to one network; ours (`recovery=rmm_avr`) stand in front of any. Use it with `recovery=masking`, which
leaves to it what is absent.

What is missing is recalled from the other modality and the question (`RMM`, addressing `released`), the pair goes
through the released diffusion (`ReleasedAVR`), and what comes of the missing modality is grounded and attended to
like a real one; the modality that is there stays as it is. This is the path by which the released code trains. Its
test path is another: it adds noise to the *real* missing modality (leaks it), and never recalls.

Not as released: the question goes with the steps of its own sample (theirs are repeated in another order than the
features); the diffusion's noise is one fixed draw; the mean squared error of the enhanced features against the real
ones, a loss of its training, is left out.

Shapes: B questions, T steps, P places, D width of the network and of its features, A answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Losses
from models.avqa.networks.avst import AVST
from models.avqa.networks.common import places
from models.avqa.recovery.avr_released import ReleasedAVR
from models.avqa.recovery.rmm import RMM


class Memory(RMM):
    """The three tables, addressed by AVST's sound, the features' places and AVST's question [B, D]."""

    def __init__(self, spec: FeatureSpec, slots: int):
        super().__init__(spec, words=1, slots=slots, question=spec.audio, addressing="released")
        self.encoder = nn.Identity()  # type: ignore[assignment]  # the question is encoded already


class MissingAVQA(AVST):
    """AVST that recalls and enhances what is missing by the released weights.

    Args:
        spec: sizes of the features; the visual width is the network's, places are a square grid.
        words, answers: vocabulary sizes.
        dim, heads, dropout, padding: of AVST.
        slots: of the memory.
        width, multipliers, timesteps: of the diffusion.

    Its losses are AVST's `match`, `rmmr` and `ave`, weighted as in the paper's Eq. 8.

    Raises:
        ValueError: features of another width than `dim`.
    """

    loss_names: ClassVar[Mapping[str, float]] = {**AVST.loss_names, "rmmr": 1.0, "ave": 1.0}

    def __init__(
        self,
        spec: FeatureSpec,
        words: int,
        answers: int,
        *,
        dim: int = 512,
        heads: int = 4,
        dropout: float = 0.1,
        padding: int = 14,
        slots: int = 75,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2),
        timesteps: int = 10,
    ):
        if spec.visual != dim:
            raise ValueError(f"features of width {spec.visual}: the memory needs those of the network's, dim={dim}")
        super().__init__(spec, words, answers, dim=dim, heads=heads, dropout=dropout, padding=padding)
        inside = FeatureSpec(audio=dim, visual=dim, steps=spec.steps, places=spec.places)
        self.memory = Memory(inside, slots)
        diffusion: dict[str, Any] = {"channels": dim, "width": width, "multipliers": multipliers}
        self.enhance = ReleasedAVR(inside, words, **diffusion, timesteps=timesteps)

    def respond(
        self, audio: Tensor | None, visual: Tensor | None, question: Tensor, negative: Tensor | None
    ) -> tuple[Tensor, Losses]:
        """Logits; with both modalities in training the losses too."""
        asked = self.question(question)[0]
        sound = None if audio is None else self.audio(audio)
        grid = None if visual is None else places(visual, self.spec)
        if sound is None and grid is not None:
            sound = self.enhance.enhance(self.memory.recall("audio", grid, asked), grid).audio
        elif grid is None and sound is not None:
            grid = self.enhance.enhance(sound, self.memory.recall("visual", sound, asked)).visual
        assert sound is not None
        assert grid is not None
        frame = self._grounded(sound, grid)
        logits = self.answered(asked, sound, frame)
        if audio is None or visual is None or not self.training:
            return logits, {}
        losses = self.memory.losses(sound, grid, asked) | self.enhance.losses(sound, grid)
        if negative is not None:
            losses["match"] = self._match_loss(sound, frame, self._grounded(sound, places(negative, self.spec)))
        return logits, losses
