"""RMM, the Relation-aware Missing Modal generator: slots recall a modality from the other and the question.

*Learning Trimodal Relation for AVQA with Missing Modality* (Park, Lee, Kim, ECCV 2024), section 3.1. Three
tables of L slots; slot j is one memory seen thrice: its sound G_a[j], its picture G_v[j], its question
G_t[j]. What is there addresses the slots, their average answers. The tables serve both directions.

Three ways of addressing:

- `paper`, Eq. 1-2 as printed: a_v = softmax(f_v G_v^T / sqrt(c)), likewise a_t; weights softmax(a_v * a_t).
  A product of two distributions lies in [0, 1], so no slot can weigh more than e / (e + L - 1), 0.035 at
  L = 75: whatever the input, about the mean of all slots comes out.
- `released`: the same with cosines for scores, as the authors' code has it; weights leave 1 / L by less
  than 1e-6 at L = 75.
- `product` (ours, the default): softmax(s_v + s_t), the normalised product of both distributions. Scores are
  divided by the square root of the whole vector's length (w h c for the picture, where Eq. 1 has c), so
  that slots drawn from N(0, 1) start with scores of unit variance at any grid.

Shapes: B questions, T time steps, L slots, Da and Dv widths, R rows of a visual step (frame token included),
Dt question width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Losses, Recovered
from models.avqa.recovery.filling import filled
from models.host import take
from models.modality import OTHER, all_present, complete, lacking
from models.noise import generator
from models.settings import Modality

Addressing = Literal["product", "paper", "released"]
QUESTION = "question"


class QuestionEncoder(nn.Module):
    """A question's feature [B, Dt] from its word ids [B, words]: an LSTM's state after the last word.

    Padding is left out wherever it stands: by the vocabulary's rule `released+clip` also between words and CLIP's ids.
    The state is brought to unit scale (LayerNorm): an LSTM's is near 0 at first, and scores with it too.
    """

    def __init__(self, words: int, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(words, dim, padding_idx=0)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, question: Tensor) -> Tensor:
        """Word ids [B, L] to the state after the last word, normalised."""
        last = (question != 0).sum(dim=1).clamp_min(1) - 1
        question = question.gather(1, (question == 0).int().sort(dim=1, stable=True).indices)  # padding goes last
        states, _ = self.lstm(self.embedding(question))  # what follows the last word can't reach its state
        return self.norm(states[torch.arange(len(question), device=question.device), last])


class RMM(nn.Module):
    """Recalls what is missing, step by step, and leaves what is there as it is.

    Args:
        spec: sizes of the features.
        words: size of the vocabulary.
        slots: L; 75 was the best of 25, 50, 75, 100 (Table 5).
        question: Dt.
        addressing: see above.
        temperature: learn a factor per table on the scores of `product` (ours, not the paper's).

    Its loss `rmmr` (Eq. 3-4) has the paper's weight 1.

    Raises:
        ValueError: no such addressing, no slots, or a temperature for an addressing that has none.
    """

    loss_names: ClassVar[Mapping[str, float]] = {"rmmr": 1.0}

    def __init__(
        self,
        spec: FeatureSpec,
        words: int,
        slots: int = 75,
        question: int = 512,
        addressing: Addressing = "product",
        temperature: bool = False,
    ):
        super().__init__()
        if addressing not in get_args(Addressing):
            raise ValueError(f"addressing {addressing!r}: one of {', '.join(get_args(Addressing))}")
        if slots < 1:
            raise ValueError(f"{slots} slots: at least one")
        if temperature and addressing != "product":
            raise ValueError(f"addressing {addressing!r} has no temperature: only product has")
        self.spec, self.addressing = spec, addressing
        self.encoder = QuestionEncoder(words, question)
        self.channels = {"audio": spec.audio, "visual": spec.visual, QUESTION: question}  # c of Eq. 1
        lengths = {"audio": spec.audio, "visual": spec.rows * spec.visual, QUESTION: question}
        self.slots = nn.ParameterDict({k: nn.Parameter(torch.randn(slots, n)) for k, n in lengths.items()})
        self.log_temperature = nn.ParameterDict(
            {k: nn.Parameter(torch.zeros(())) for k in lengths} if temperature else {}
        )

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        """`audio` [B, T, Da] and `visual` [B, T, R, Dv], recalled where `present` [B, 2] lacks them."""
        values: dict[str, Tensor] = {"audio": audio, "visual": visual}
        recalled: dict[str, Tensor] = {
            m: filled(values[m], rows, self.recall(m, values[OTHER[m]][rows], question[rows]))
            for m, rows in lacking(present).items()
        }

        def losses() -> Losses:
            rows = complete(present)
            return self.losses(*(take(x, rows) for x in (audio, visual, question))) if len(rows) else {}

        values |= recalled
        return Recovered(values["audio"], values["visual"], all_present(len(present), present.device), losses)

    def recall(self, modality: Modality, other: Tensor, question: Tensor) -> Tensor:
        """Eq. 2: `modality` from the other one's features and the words [B, words] of the question."""
        return self._answer(modality, self.address(modality, other, question))

    def address(self, modality: Modality, other: Tensor, question: Tensor) -> Tensor:
        """Weights [B, T, L] of the slots that recall `modality`; they sum to 1."""
        scores = self._scores(OTHER[modality], other.flatten(2))
        return self.weights(scores, self._question(question))

    def losses(self, audio: Tensor, visual: Tensor, question: Tensor) -> dict[str, Tensor]:
        """RMMR (Eq. 3-4) of complete samples, [B]: each modality's mean squared error when recalled from the
        other, added; means over steps and channels."""
        values: dict[Modality, Tensor] = {"audio": audio, "visual": visual}
        scores = {m: self._scores(m, x.flatten(2)) for m, x in values.items()}
        asked = self._question(question)
        recalled = {m: self._answer(m, self.weights(scores[OTHER[m]], asked)) for m in values}
        errors = [(recalled[m] - x).square().flatten(1).mean(dim=1) for m, x in values.items()]
        return {"rmmr": errors[0] + errors[1]}

    def weights(self, other: Tensor, question: Tensor) -> Tensor:
        """Weights [B, T, L] from the scores of the other modality [B, T, L] and of the question [B, 1, L]."""
        if self.addressing == "product":
            return (other + question).softmax(dim=-1)
        return (other.softmax(dim=-1) * question.softmax(dim=-1)).softmax(dim=-1)

    @torch.no_grad()
    def memorise(self, audio: Tensor, visual: Tensor, question: Tensor, seed: int = 0) -> None:
        """Start from the data (ours): each slot becomes one step of one of the samples [B, T, ...] given.

        The paper's N(0, 1) slots first have to travel to where the data are, which costs most of a short
        training.
        """
        slots = len(self.slots["audio"])
        steps = audio.shape[1]
        picks = torch.from_numpy(generator("slots", seed).permutation(max(slots, len(audio) * steps))[:slots])
        picks = picks.to(audio.device) % (len(audio) * steps)
        asked = self.encoder(question).repeat_interleave(steps, dim=0)
        for name, x in (("audio", audio.flatten(0, 1)), ("visual", visual.flatten(0, 1)), (QUESTION, asked)):
            self.slots[name].copy_(x[picks].flatten(1))

    def _question(self, question: Tensor) -> Tensor:
        """Scores [B, 1, L]: the same at every step of a sample, its own question's."""
        return self._scores(QUESTION, self.encoder(question)[:, None])

    def _scores(self, name: str, x: Tensor) -> Tensor:  # [B, T, N] -> [B, T, L]
        slots = self.slots[name]
        if self.addressing == "released":
            return F.normalize(x, dim=-1) @ F.normalize(slots, dim=-1).T
        length = self.channels[name] if self.addressing == "paper" else slots.shape[1]
        scores = x @ slots.T / length**0.5
        return scores * self.log_temperature[name].exp() if self.log_temperature else scores

    def _answer(self, modality: Modality, weights: Tensor) -> Tensor:
        flat = weights @ self.slots[modality]
        return flat if modality == "audio" else flat.unflatten(-1, (self.spec.rows, self.spec.visual))
