"""What a replica does with requests: decode, ruin, ask every run. Plain functions of one process; no Ray here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from models.settings import MODALITIES, Modality
from pipelines.causes import MachineError
from pipelines.settings import IngestConfig
from serving.look import Look, View, look_of, ruined
from serving.model import Media, Model, load
from serving.prediction import NOTHING_LEFT, Failure, Prediction
from serving.refusal import AWAY, UNFIT, Refusal, of_failure
from serving.request import PredictRequest
from serving.settings import ServeConfig
from serving.text import SAID, clip_record
from serving.uploads import Decoders
from shards.errors import InputError, nearest
from shards.reader import Sample

Read = dict[IngestConfig, Media]  # a clip by the way of decoding


@dataclass(frozen=True)
class Asked:
    """A request whose clip was decoded."""

    request: PredictRequest
    read: Read


@dataclass(frozen=True)
class ServedRun:
    """A run that is asked; `ingestion` is its own with the service's limits."""

    model: Model
    ingestion: IngestConfig
    look: Look

    @property
    def name(self) -> str:
        """The run's folder name."""
        return self.model.name

    def meet(self, asked: Asked) -> Media:
        """The clip as the run meets it, ruined as the request has it; or why it does not."""
        media, request = asked.read[self.ingestion], asked.request
        if isinstance(media, Failure):
            return media
        if self.model.asks and not request.question:
            return Failure("needs a question", "this run answers questions about clips", "send the field 'question'")
        try:
            return ruined(media, request.ruin, self.look)
        except ValueError as error:
            return Failure("takes no noise", f"this run {error}", "leave noise_audio out, or take the sound away")


@dataclass(frozen=True)
class Service:
    """Finished runs that answer requests.

    `read` may be called by several threads, `answer` by one at a time.
    """

    runs: tuple[ServedRun, ...]
    config: ServeConfig
    decoders: Decoders = field(repr=False)

    @classmethod
    def load(cls, config: ServeConfig, device: str | None = None) -> Service:
        """The runs of a config.

        Raises:
            InputError: as `serving.model.load`; two runs have one name.
        """
        runs: list[ServedRun] = []
        for folder in config.runs:
            model = load(folder, device, data=config.data, backbone=config.backbone, weights=config.weights)
            if model.name in {run.name for run in runs}:
                remedy = "give each run once, from folders of different names"
                raise InputError("two runs of this name", file=folder, field="runs", remedy=remedy)
            runs.append(ServedRun(model, model.ingestion.model_copy(update=config.limits()), look_of(model)))
        return cls(tuple(runs), config, Decoders(config.decoders, config.memory_mb))

    def described(self) -> list[dict[str, Any]]:
        """What each run is and can answer, as json values."""
        return [
            {
                "run": run.name,
                "method": run.model.loaded.run.method,
                "answers": list(run.model.answers),
                "asks": run.model.asks,
                "modalities": list(run.model.loaded.modalities),
                "noise": [m for m in MODALITIES if m == "visual" or run.look.sound is not None],
            }
            for run in self.runs
        ]

    def read(self, request: PredictRequest) -> Asked | Refusal:
        """Decode a request's clip, once per way of decoding; why not, where no run can answer."""
        try:
            runs = self._chosen(request)
            read: Read = {}
            for run in runs:
                if run.ingestion not in read:
                    read[run.ingestion] = self.decoders.read(request, run.ingestion)
        except Refusal as refusal:
            return refusal
        except (MachineError, InputError) as error:
            said = error.message if isinstance(error, InputError) else str(error.strerror)
            remedy = "try again later; the service's machine lacks room, files, processes or a decoder"
            return Refusal(AWAY, f"clips can't be decoded here: {said}", remedy)
        failures = [media for media in read.values() if isinstance(media, Failure)]
        if len(failures) == len(read):
            return of_failure(failures[0], request.field)
        return _something_left(request, read) or Asked(request, read)

    def answer(self, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """What the runs say about decoded clips, which go through each network together."""
        said: list[list[Prediction]] = [[] for _ in asked]
        for run in self.runs:
            rows = [i for i, one in enumerate(asked) if not one.request.runs or run.name in one.request.runs]
            for i, prediction in zip(rows, _predict(run, [asked[i] for i in rows]), strict=True):
                said[i].append(prediction)
        runs = {run.name: run for run in self.runs}
        return [_reply(runs, one, found) for one, found in zip(asked, said, strict=True)]

    def _chosen(self, request: PredictRequest) -> list[ServedRun]:
        """The runs that a request asks.

        Raises:
            Refusal: an unknown run, or a question that none of them takes or lacks.
        """
        names = [run.name for run in self.runs]
        for name in request.runs:
            if name not in names:
                remedy = f"{nearest(name, names, cutoff=0.3)}choose from: {', '.join(names)}"
                raise Refusal(UNFIT, f"no run '{name[:80]}' here", remedy, "run")
        runs = [run for run in self.runs if not request.runs or run.name in request.runs]
        if request.question and not any(run.model.asks for run in runs):
            raise Refusal(UNFIT, "takes no question", "leave the question out", "question")
        if not request.question and all(run.model.asks for run in runs):
            raise Refusal(UNFIT, "needs a question", "send the field 'question'", "question")
        return runs


def _something_left(request: PredictRequest, read: Read) -> Refusal | None:
    """The refusal of a clip of which nothing is left after what is taken away."""
    there = {m for media in read.values() if isinstance(media, Sample) for m in MODALITIES if _present(media, m)}
    if there - set(request.ruin.without):
        return None
    gone = " and ".join(SAID[m] for m in request.ruin.without)
    message = f"{NOTHING_LEFT}: the clip's {gone} was taken away, and there is nothing else"
    return Refusal(UNFIT, message, "leave it something", "without", NOTHING_LEFT)


def _present(sample: Sample, modality: Modality) -> bool:
    return bool(getattr(sample.meta, modality).present)


def _predict(run: ServedRun, asked: Sequence[Asked]) -> list[Prediction]:
    """What a run says; a clip that it can't take spoils no other's answer."""
    if not asked:
        return []
    names = [one.request.name for one in asked]
    questions = [one.request.question or "" for one in asked] if run.model.asks else []
    try:
        return run.model.answer(names, [run.meet(one) for one in asked], questions)
    except (InputError, FloatingPointError) as error:
        if len(asked) > 1:
            return [_predict(run, [one])[0] for one in asked]
        message, remedy = (error.message, error.remedy) if isinstance(error, InputError) else (str(error), None)
        failure = Failure("not computable", message, remedy or "send another clip, or look at the run")
        return run.model.answer(names, [failure], questions)


def _reply(runs: Mapping[str, ServedRun], one: Asked, found: Sequence[Prediction]) -> dict[str, Any]:
    """A clip with what every run answers, as `avmend predict --json` has it, and what was done to it."""
    request, sample = one.request, next(media for media in one.read.values() if isinstance(media, Sample))
    record = clip_record(request.name, request.question, found)
    streams = {m: getattr(sample.meta, m).model_dump(mode="json", exclude_none=True) for m in MODALITIES}
    done = {m: request.ruin.said(m) if _present(sample, m) else "absent" for m in MODALITIES}
    record |= {"streams": streams, "done": done}
    for said, prediction in zip(record["runs"], found, strict=True):
        said["present"] = prediction.present
    if request.view:
        record["views"] = _views(record["runs"], runs, one)
    return record


def _views(said: Sequence[dict[str, Any]], runs: Mapping[str, ServedRun], one: Asked) -> list[dict[str, Any]]:
    """Pictures of what the runs met, each once; every run's record gets the position of its own, or None."""
    positions: dict[tuple[IngestConfig, Look], int] = {}
    views: list[dict[str, Any]] = []
    for record in said:
        run = runs[record["run"]]
        met, clean = run.meet(one), one.read[run.ingestion]
        if isinstance(met, Failure) or isinstance(clean, Failure):
            record["view"] = None
            continue
        if (key := (run.ingestion, run.look)) not in positions:
            positions[key] = len(views)
            views.append(asdict(View.of(run.look, met, clean)))
        record["view"] = positions[key]
    return views
