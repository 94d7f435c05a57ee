"""A finished run as a Python object that is asked about clips: files, or arrays in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch

from models.settings import MODALITIES, Modality
from pipelines.arrays import decoded_arrays
from pipelines.causes import DecodeError
from pipelines.decode import Decoded
from pipelines.decoder_process import Decoder
from pipelines.manifest import Clip
from pipelines.preprocessing import recorded_ingestion
from pipelines.settings import IngestConfig
from pipelines.shard_job import long_enough, process_decoder, request_for, sample_arrays, sample_meta
from serving.features import FeatureMaker, feature_maker, refuse_imported
from serving.prediction import Failure, Prediction, from_error, nothing_left
from serving.sources import clip_of, unlabelled
from shards.errors import InputError
from shards.reader import Sample
from shards.schema import DatasetInfo, StreamInfo
from shards.store import Place, absolute
from trainers.calibration import Calibration, read_calibration
from trainers.data import dataset_info
from trainers.evaluate import common_task
from trainers.recipe import ClipAnswer, LoadedRun
from trainers.runs import read_run

ValueT = TypeVar("ValueT")
BATCH = 16
Media = Sample | Failure  # one clip, or why it can't be had
Array = Any  # numpy array, or a CPU tensor


def load(
    run: str | Place,
    device: str | None = None,
    *,
    data: str | Path | None = None,
    backbone: str | Path | None = None,
    weights: str | Path | None = None,
    abstain_below: float | None = None,
) -> Model:
    """A finished run, ready to be asked.

    Args:
        run: its folder, or its address on a store.
        device: as torch names it; None: a GPU if there is one, else the CPU.
        data: folder of its shards (of a question-answering run: of its features), if that was moved; only its
            dataset.json is read.
        backbone: the `finetune` or `dense` run behind the features of a question-answering run; None: looked for beside
            the run.
        weights: the folder of public weights behind such features.
        abstain_below: probability (0..1) below which a `Prediction` abstains.

    Raises:
        InputError: no finished run, one that answers nothing by itself, or what it depends on is not here.
    """
    if abstain_below is not None and not 0 <= abstain_below <= 1:
        raise InputError(f"{abstain_below:g} is no probability", field="abstain_below", remedy="give 0 to 1")
    found = read_run(run)
    if data is not None:
        found = replace(found, config=found.config.model_copy(update={"data": absolute(Path(data))}))
    task = common_task([found])
    assert found.recipe.load is not None
    if task.features is not None:
        refuse_imported(found, task.features(found))
    where = _device(device)
    media = task.media(found)
    ingestion = recorded_ingestion(_info(media), media)
    loaded: LoadedRun = found.recipe.load(found, where)
    features = None
    if task.features is not None and loaded.extractor is not None:
        folders = (None if path is None else Path(path) for path in (backbone, weights))
        features = feature_maker(found, task.features(found), media, loaded.extractor, where, *folders)
    return Model(loaded, ingestion, features, read_calibration(found), abstain_below)


def _info(media: Path) -> DatasetInfo:
    try:
        return dataset_info(media)
    except InputError as error:
        remedy = "give --data (data=), the folder of the run's shards; its dataset.json says how clips are decoded"
        raise InputError(error.message, file=error.file, field="data", remedy=remedy) from None


def _device(name: str | None) -> torch.device:
    there = torch.cuda.is_available()
    try:
        device = torch.device(name or ("cuda" if there else "cpu"))
    except RuntimeError:
        raise InputError(f"'{name}' is no device", field="device", remedy="give cpu, cuda or cuda:1") from None
    if device.type == "cuda" and not there:
        raise InputError("this machine has no GPU that torch can use", field="device", remedy="give cpu")
    return device


@dataclass(frozen=True)
class Model:
    """A finished run that is asked about clips, by one thread at a time: a process has one decoder.

    Attributes:
        loaded: the run's networks.
        ingestion: how clips become samples, as the run's own data were made.
        features: how samples become features; None: the run takes samples.
        calibration: the run's temperatures; None: it was not calibrated.
        abstain_below: probability below which a prediction abstains; None: it never does.
    """

    loaded: LoadedRun
    ingestion: IngestConfig
    features: FeatureMaker | None = None
    calibration: Calibration | None = None
    abstain_below: float | None = None

    @property
    def name(self) -> str:
        """The run's folder name."""
        return self.loaded.run.folder.absolute().name

    @property
    def answers(self) -> tuple[str, ...]:
        """All that it can answer, [A]: labels, or the answers to questions."""
        return self.loaded.answers

    @property
    def asks(self) -> bool:
        """Every clip comes with a question."""
        return self.loaded.run.recipe.task.asks

    @overload
    def predict(
        self,
        clips: str | Path | None = None,
        *,
        audio: Array | None = None,
        sample_rate: float | None = None,
        frames: Array | None = None,
        question: str | None = None,
        batch_size: int = BATCH,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        clips: list[str] | list[Path] | list[str | Path] | tuple[str | Path, ...],
        *,
        question: str | Sequence[str] | None = None,
        batch_size: int = BATCH,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        clips: None = None,
        *,
        audio: list[Any] | None = None,
        sample_rate: float | None = None,
        frames: list[Any] | None = None,
        question: str | Sequence[str] | None = None,
        batch_size: int = BATCH,
    ) -> list[Prediction]: ...

    def predict(
        self,
        clips: Any = None,
        *,
        audio: Any = None,
        sample_rate: float | None = None,
        frames: Any = None,
        question: Any = None,
        batch_size: int = BATCH,
    ) -> Prediction | list[Prediction]:
        """The answer about a clip; of a list of clips a list of answers.

        Args:
            clips: a file with sound, picture or both; or a list of them.
            audio: in place of a file, [samples] or [channels, samples], one or two channels, int16 or float of -1..1;
                or a list of such, with None where there is no sound.
            sample_rate: of `audio`, Hz.
            frames: pictures at even distances over the clip, uint8 [N, H, W, 3] RGB, N = 1 for a still one; or a
                list of such, with None where there is no picture.
            question: about the clip, of a question-answering run; of a list one for all, or a list of as many.
            batch_size: clips that go through the network together; of a list.

        Raises:
            InputError: what can't be asked; a single clip that can't be decoded, has nothing that the run looks at.
                Of a list, such clips have their `Prediction.failure`.
            FloatingPointError: logits are NaN.
        """
        single = not isinstance(clips, (list, tuple)) and not isinstance(audio, list) and not isinstance(frames, list)
        if clips is not None and (audio is not None or frames is not None):
            raise InputError("both files and arrays", field="clips", remedy="give either clips or audio= and frames=")
        if clips is not None:
            named = [clip_of(clip) for clip in ([clips] if single else clips)]
            names = [clip.id for clip in named]
            readers: list[Callable[[], Media]] = [partial(read_clip, clip, self.ingestion) for clip in named]
        else:
            sounds, pictures = ([x] if single else x for x in (audio, frames))
            count = len(sounds if sounds is not None else pictures or [])
            pairs = zip(_listed(sounds, count, "audio"), _listed(pictures, count, "frames"), strict=True)
            readers = [partial(read_arrays, sound, sample_rate, picture, self.ingestion) for sound, picture in pairs]
            names = [""] * len(readers)
        questions = self._questions(question, len(readers))
        found: list[Prediction] = []
        for at in range(0, len(readers), max(batch_size, 1)):
            part = slice(at, at + max(batch_size, 1))
            found += self.answer(names[part], [read() for read in readers[part]], questions[part])
        if not single:
            return found
        found[0].answer  # noqa: B018  raises what failed
        return found[0]

    def answer(self, names: Sequence[str], media: Sequence[Media], questions: Sequence[str] = ()) -> list[Prediction]:
        """One prediction per clip that was read, as one batch.

        Raises:
            FloatingPointError: logits are NaN.
        """
        asked: list[str | None] = list(questions) or [None] * len(media)
        failures = [self._failure(clip) for clip in media]
        left = [i for i, failure in enumerate(failures) if failure is None]
        samples = [sample for i in left if isinstance(sample := media[i], Sample)]
        if self.features is not None:
            made = {id(sample): self.features(sample) for sample in {id(s): s for s in samples}.values()}
            samples = [made[id(sample)] for sample in samples]
        answers = self.loaded.ask(samples, [text for i in left if (text := asked[i]) is not None]) if left else []
        given = dict(zip(left, answers, strict=True))
        return [self._prediction(names[i], media[i], asked[i], given.get(i), failures[i]) for i in range(len(media))]

    def _failure(self, clip: Media) -> Failure | None:
        if isinstance(clip, Failure):
            return clip
        if any(getattr(clip.meta, m).present for m in self.loaded.modalities):
            return None
        return nothing_left(self.loaded.modalities)

    def _prediction(
        self, name: str, clip: Media, question: str | None, answer: ClipAnswer | None, failure: Failure | None
    ) -> Prediction:
        streams: dict[Modality, StreamInfo] = {}
        if isinstance(clip, Sample):
            streams = {m: getattr(clip.meta, m) for m in MODALITIES}
        if answer is None:
            logits = np.empty(0, np.float32)
            return Prediction(name, self.name, self.answers, logits, streams, question, failure=failure)
        values = {selection: logits.numpy() for selection, logits in answer.logits.items()}
        if any(np.isnan(logits).any() for logits in values.values()):
            raise FloatingPointError(f"{self.name}: logits of '{name}' are NaN")
        group = None if self.calibration is None else self.calibration.group(answer.selection, answer.observed)
        return Prediction(
            name,
            self.name,
            self.answers,
            values.pop(answer.selection),
            streams,
            question,
            answer.selection,
            answer.case,
            answer.ruined,
            values,
            answer.notes,
            several=answer.several,
            calibrated=group[0] if group else None,
            temperature=group[1] if group else 1.0,
            abstain_below=self.abstain_below,
        )

    def _questions(self, question: Any, count: int) -> list[str]:
        if question is None and not self.asks:
            return []
        if question is None or not self.asks:
            message = "needs a question" if self.asks else "takes no question"
            remedy = "give --question (question=)" if self.asks else "leave the question out"
            raise InputError(f"{self.name} {message}", field="question", remedy=remedy)
        texts = [question] * count if isinstance(question, str) else list(question)
        if len(texts) != count or not all(isinstance(text, str) and text.strip() for text in texts):
            message = f"{len(texts)} questions about {count} clips, or empty ones"
            raise InputError(message, field="question", remedy="give one for all, or one for each clip")
        return texts


def read_clip(clip: Clip, ingestion: IngestConfig, decoder: Decoder | None = None) -> Media:
    """A clip as media shards would hold it; a stream that fails is absent, with the cause, if the other one is there.

    Args:
        decoder: None: the process's own.

    Raises:
        InputError: no decoder starts.
        MachineError: the machine is at fault, not the clip.
    """
    try:
        decoder = decoder or process_decoder(ingestion.memory_mb)
        return _sample(clip, decoder.decode(request_for(clip, ingestion, "keep")), ingestion)
    except DecodeError as error:
        return from_error(error.cause, error.message, error.remedy)


def read_arrays(audio: Array, sample_rate: float | None, frames: Array, ingestion: IngestConfig) -> Media:
    """A clip of arrays, see `Model.predict`.

    Raises:
        InputError: arrays that are no sound or no pictures.
    """
    sound, pictures = (None if x is None else np.asarray(x) for x in (audio, frames))
    try:
        return _sample(unlabelled("arrays"), decoded_arrays(sound, sample_rate, pictures, ingestion), ingestion)
    except DecodeError as error:
        return from_error(error.cause, error.message, error.remedy)


def _sample(clip: Clip, decoded: Decoded, ingestion: IngestConfig) -> Sample:
    decoded = long_enough(decoded, "keep")
    return Sample(sample_meta(clip, decoded), sample_arrays(decoded, ingestion.keep_wave))


def _listed(values: Sequence[ValueT | None] | None, count: int, field: str) -> Sequence[ValueT | None]:
    if values is None:
        return [None] * count
    if len(values) != count:
        message = f"{len(values)} where the other list has {count}"
        raise InputError(message, field=field, remedy="give lists of one length, with None where there is nothing")
    return values
