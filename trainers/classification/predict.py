"""Trained runs as predictors: a batch and its condition in, logits out, per way of choosing the prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs.backbone import load_backbone
from models.adaptation.adapting import Adapting
from models.backbone import Backbone
from models.batch import AVBatch
from models.conditions import CASES, CONDITIONS, Condition, case_of, observed_condition
from models.detector import QualityDetector
from models.prompts import DualPrompts, concatenate
from models.settings import MODALITIES, Modality
from models.tuned import Tuned
from shards.checkpoint import checkpoint_meta, load_checkpoint
from shards.errors import InputError
from shards.reader import Sample
from trainers.classification.config import CaseConfig
from trainers.classification.detector import load_detector
from trainers.classification.fuse import fused_run
from trainers.classification.items import InputSpec, masked, middle_frame
from trainers.classification.stages import build_case_module, input_spec
from trainers.classification.targets import Loss
from trainers.data import collate
from trainers.recipe import ClipAnswer, FinishedRun
from trainers.resources import Stopwatch

SELECTIONS = ("situation", "concat", "detected")


Predict = Callable[[AVBatch, Condition], dict[str, Tensor]]  # logits [B, C] per selection ("" : none to choose)
Choose = Callable[[AVBatch, Condition, Stopwatch], tuple[dict[str, Tensor], list[str]]]  # also the detected cases
BY_PRESENCE = {  # (sound there, picture there) -> the condition of a clip of which nothing else is known
    (True, True): CONDITIONS["complete"],
    (False, True): CONDITIONS["audio_missing"],
    (True, False): CONDITIONS["visual_missing"],
}


@dataclass(frozen=True)
class Predictor:
    """A run ready to classify.

    Attributes:
        run: where it comes from.
        backbone: network, labels, normalisation.
        predict: logits by selection.
        trained, parameters: how many parameters were trained per case, and the backbone's.
        choose: logits by selection with the detector's verdict; None: no detector, and one module for all cases.
        loss: that it was trained by: "bce" means independent logits, of clips with several labels.
        selections: ways of choosing the module; "": there is none to choose.
        adaptable: the one network that could adapt at test time: all of it, or with the prompts of the complete case;
            None: there is none.
        adapting: it does adapt: answers depend on the batches before, until `begin`.
    """

    run: FinishedRun
    backbone: Backbone
    predict: Predict
    trained: int
    parameters: int
    choose: Choose | None = None
    loss: Loss = "ce"
    selections: tuple[str, ...] = ("",)
    adaptable: nn.Module | None = None
    adapting: Adapting | None = None

    @property
    def several(self) -> bool:
        """A clip may have several of the answers: probabilities are each answer's own."""
        return self.loss == "bce"

    @property
    def answers(self) -> tuple[str, ...]:
        """The labels, in the order of the logits."""
        return self.backbone.labels

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Both: it looks at whatever is there."""
        return MODALITIES

    @property
    def extractor(self) -> None:
        """None: it takes clips as media shards hold them."""
        return None

    @property
    def spec(self) -> InputSpec:
        """What of a clip goes into the network: its length, its size, its normalisation."""
        return input_spec(self.backbone)

    def answer(
        self, batch: AVBatch, condition: Condition, watch: Stopwatch | None = None
    ) -> tuple[dict[str, Tensor], list[str], list[str]]:
        """Logits [B, C] by selection; by sample the case that the detector names ("" without one), and what can be
        told of it without an oracle.

        Args:
            watch: times what all selections share, and under its name what a selection takes beyond that.
        """
        present, watch = batch.present.tolist(), watch or Stopwatch(batch.present.device)
        if self.choose is None:
            with watch.lap(len(batch)):
                logits = self.predict(batch, condition)
            return logits, [""] * len(batch), [observed_condition(row) for row in present]
        logits, cases = self.choose(batch, condition, watch)
        verdicts = [_ruined(case, row) for case, row in zip(cases, present, strict=True)]
        return logits, cases, [observed_condition(row, v) for row, v in zip(present, verdicts, strict=True)]

    @torch.inference_mode()
    def ask(self, samples: Sequence[Sample], questions: Sequence[str] = ()) -> list[ClipAnswer]:
        """Classify clips as media shards hold them; see `trainers.recipe.LoadedRun`. No noise is added."""
        batch = _batch_of(samples, self.spec).to(next(self.backbone.net.parameters()).device)
        out: dict[int, ClipAnswer] = {}
        there = [tuple(row) for row in batch.present.tolist()]
        for present in sorted(set(there), reverse=True):
            part = batch.select(np.array([row == present for row in there]))
            logits, cases, seen = self.answer(part, BY_PRESENCE[present])
            for row, (i, case, observed) in enumerate(zip(part.index.tolist(), cases, seen, strict=True)):
                own = {name: x[row].float().cpu() for name, x in logits.items()}
                out[i] = replace(_clip_answer(own, case, present, observed), several=self.several)
        return [out[i] for i in range(len(samples))]


class MeanLogits:
    """Logits of the mean probability over several looks at a clip (Gong et al. 2023 average ten pictures): softmax of
    them, or sigmoid where they are independent, is that mean. One look's logits stay as they are.

    Args:
        samples, classes: N, C.
        loss: that the logits were trained by.
    """

    def __init__(self, samples: int, classes: int, loss: Loss):
        self.loss = loss
        self._looks = torch.zeros(samples, dtype=torch.int64)
        self._single = torch.zeros(samples, classes)
        self._for, self._against = (torch.zeros(samples, classes, dtype=torch.float64) for _ in range(2))

    def add(self, rows: Sequence[int], logits: Tensor) -> None:
        """A look at some samples, float32 [R, C]."""
        index, x = torch.tensor(rows), logits.double()
        self._looks[index] += 1
        self._single[index] = logits
        self._for[index] += x.softmax(dim=1) if self.loss == "ce" else x.sigmoid()
        self._against[index] += (-x).sigmoid()

    def logits(self) -> Tensor:
        """Float32 [N, C]."""
        mean = (self._for / self._looks[:, None]).log() if self.loss == "ce" else (self._for / self._against).log()
        return torch.where(self._looks[:, None] > 1, mean.float(), self._single)


def _batch_of(samples: Sequence[Sample], spec: InputSpec) -> AVBatch:
    """A batch of clips without labels, each by its middle frame."""
    rows = []
    for i, sample in enumerate(samples):
        arrays = dict(sample.arrays)
        if "frames" in arrays:
            arrays["frames"] = arrays["frames"][middle_frame(len(arrays["frames"]))]
        values = spec.inputs(Sample(sample.meta, arrays))
        rows.append((*masked(values, spec.blank), torch.tensor(-1), torch.tensor(i)))
    return collate(rows)


def _clip_answer(logits: dict[str, Tensor], case: str, present: tuple[bool, ...], observed: str) -> ClipAnswer:
    if not case:
        return ClipAnswer(logits, observed=observed)
    return ClipAnswer(logits, "detected", case, _ruined(case, present), observed=observed)


def _ruined(case: str, present: Sequence[bool]) -> tuple[Modality, ...]:
    """Of what is there, what the case says is ruined."""
    there = [m for m, here in zip(MODALITIES, present, strict=True) if here]
    return tuple(m for m in CONDITIONS[case].noisy if m in there)


def load_finetuned(run: FinishedRun, device: torch.device) -> Predictor:
    """Load a finished run of `finetune`.

    Raises:
        InputError: its checkpoint is missing or damaged.
    """
    backbone = load_backbone(run.folder)
    net = backbone.net.to(device).eval()
    count = sum(p.numel() for p in net.parameters())

    def predict(batch: AVBatch, condition: Condition) -> dict[str, Tensor]:
        return {"": net(batch.audio, batch.visual, batch.present)}

    return Predictor(run, backbone, predict, 0 if run.imported else count, count, loss=backbone.loss, adaptable=net)


def load_fused(run: FinishedRun, device: torch.device) -> Predictor:
    """Load a finished run of `fuse`.

    Raises:
        InputError: its checkpoint is missing, damaged, or of other sizes than it says.
    """
    backbone, net = fused_run(run.folder)
    net = net.to(device).eval()
    count = sum(p.numel() for p in net.parameters())

    def predict(batch: AVBatch, condition: Condition) -> dict[str, Tensor]:
        return {"": net(batch.audio, batch.visual, batch.present)}

    return Predictor(run, backbone, predict, count, count, loss=backbone.loss, adaptable=net)


def load_case_wise(run: FinishedRun, device: torch.device) -> Predictor:
    """Load a finished run of prompts, LoRA or adapters, with its backbone and detector.

    Raises:
        InputError: a checkpoint is missing, damaged, or was made for another backbone.
    """
    config: Any = run.config
    backbone = load_backbone(run.locate(config.backbone))
    tuned: dict[str, Tuned] = {case: _load_case(run, config, backbone, case).to(device).eval() for case in config.cases}
    if missing := [case for case in CASES if case not in tuned]:
        message = f"was not trained on {', '.join(missing)}"
        raise InputError(message, file=run.folder, field="cases", remedy="train all four cases")
    detector = load_detector(run.folder).to(device)
    chooser = _Chooser(backbone, tuned, _concat(backbone, tuned, config, device), detector, config.depth)
    trained = sum(p.numel() for p in tuned["complete"].trained().values())
    parameters = sum(p.numel() for p in backbone.net.parameters())
    loss = checkpoint_meta(run.folder / CASES[0])[0].get("loss", "ce")
    ways = tuple(name for name in SELECTIONS if name != "concat" or chooser.concat is not None)
    return Predictor(run, backbone, chooser, trained, parameters, chooser.choose, loss, ways, tuned["complete"])


def _load_case(run: FinishedRun, config: CaseConfig, backbone: Backbone, case: str) -> Tuned:
    checkpoint = load_checkpoint(run.folder / case, kind=config.recipe)
    if checkpoint.meta["backbone_fingerprint"] != backbone.fingerprint:
        remedy = "train it again on this backbone, or put the old backbone back"
        raise InputError(f"was trained on another backbone than {config.backbone}", file=run.folder, remedy=remedy)
    tuned = Tuned(backbone.net, build_case_module(config, backbone.net), config.head)
    try:
        tuned.load_trained(checkpoint.weights)
    except ValueError as error:
        raise InputError(str(error), file=run.folder / case, remedy="train the case again") from None
    return tuned


def _concat(backbone: Backbone, tuned: dict[str, Tuned], config: CaseConfig, device: torch.device) -> Tuned | None:
    """All four sets at once; only prompts can be put side by side, and only with one head."""
    modules = [tuned[case].module for case in CASES]
    sets = [m for m in modules if isinstance(m, DualPrompts)]
    if len(sets) != len(CASES) or config.head:
        return None
    return Tuned(backbone.net, concatenate(sets, backbone.net.config)).to(device).eval()


@dataclass(frozen=True)
class _Chooser:
    """Case-wise prediction: the encoders up to `depth` run once, then every selection's choice from there."""

    backbone: Backbone
    tuned: dict[str, Tuned]
    concat: Tuned | None
    detector: QualityDetector
    depth: int

    def __call__(self, batch: AVBatch, condition: Condition) -> dict[str, Tensor]:
        return self.choose(batch, condition, Stopwatch(batch.present.device))[0]

    def choose(self, batch: AVBatch, condition: Condition, watch: Stopwatch) -> tuple[dict[str, Tensor], list[str]]:
        """Logits by selection, and the case of every sample by the detector alone."""
        count, out = len(batch), dict[str, Tensor]()
        with watch.lap(count):
            audio, visual = self.backbone.net.tokens_at(self.depth, batch.audio, batch.visual, batch.present)
        with watch.lap(count, "situation"):
            out["situation"] = self.tuned[condition.case](audio, visual, batch.present, self.depth)
        if self.concat is not None:
            with watch.lap(count, "concat"):
                out["concat"] = self.concat(audio, visual, batch.present, self.depth)
        with watch.lap(count, "detected"):
            cases = detect(self.detector, audio, visual, batch.present)
            out["detected"] = self._by_case(cases, audio, visual, batch.present)
        return out, cases

    def _by_case(self, cases: Sequence[str], audio: Tensor, visual: Tensor, present: Tensor) -> Tensor:
        """Each sample by its case's module."""
        logits = audio.new_empty(len(audio), self.backbone.net.classes)
        for case in sorted(set(cases)):
            rows = torch.tensor([c == case for c in cases], device=audio.device).nonzero().squeeze(1)
            logits[rows] = self.tuned[case](audio[rows], visual[rows], present[rows], self.depth)
        return logits


def detect(detector: QualityDetector, audio: Tensor, visual: Tensor, present: Tensor) -> list[str]:
    """The case of every sample, without an oracle: a modality is ruined if it is absent or the detector says
    so."""
    ruined = ~present
    for column, (modality, tokens) in enumerate(zip(MODALITIES, (audio, visual), strict=True)):
        there = present[:, column]
        if bool(there.any()):
            ruined[there, column] = detector(modality, tokens[there]) > 0
    return [case_of(a, v) for a, v in ruined.tolist()]
