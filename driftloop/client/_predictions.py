"""Asks serving for predictions: one, a batch, or many at once; and waits for the loop's clock."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc

from driftloop.client._channel import ClientSettings, metadata, open_channel
from driftloop.client._errors import ClientError, ClockBehind, translated
from driftloop.client._wire import PlainValue, wire_fields
from driftloop.contracts.monitor.v1.monitor_pb2 import Release
from driftloop.contracts.serving.v1 import serving_pb2 as pb
from driftloop.contracts.serving.v1.serving_pb2_grpc import PredictionServiceStub
from driftloop.usecase import UseCase


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """What to predict. `request_id` is yours: asking again with it gives the same prediction. Empty: one is made up."""

    entity: str
    fields: Mapping[str, PlainValue] = field(default_factory=dict)
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh a feature view's values were. Times in microseconds; `age_us` by the use-case clock."""

    view: str
    found: bool
    known_at_us: int
    event_time_us: int
    age_us: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer. `defaulted`: inputs that no value was known for.

    `score`: the probability that the label is true; regression: the predicted number; multiclass: the probability of
    `predicted_class`, one of `class_probabilities`, which are by class in declared order and empty for other tasks.
    `arm` is the role of the model that answered, `as_of_us` the clock of its features (or when the newest of them was known,
    where that is later), `vector` there if it was asked for.
    """

    prediction_id: str
    model_id: str
    arm: str
    score: float
    as_of_us: int
    freshness: tuple[Freshness, ...]
    defaulted: tuple[str, ...]
    vector: pb.Vector | None = None
    class_probabilities: Mapping[str, float] = field(default_factory=dict)

    @property
    def predicted_class(self) -> str | None:
        """Multiclass: the most likely class; of two that are as likely, the one declared first. None for other tasks."""
        return max(self.class_probabilities, key=self.class_probabilities.__getitem__, default=None)

    @property
    def value(self) -> float:
        """Regression: the predicted number."""
        return self.score


@dataclass(frozen=True, slots=True)
class ReachedClock:
    """Where serving is: its clock in microseconds, its newest release revision, and whether any model answers."""

    clock_us: int
    revision: int
    has_champion: bool


def _prediction(response: pb.PredictResponse) -> Prediction:
    return Prediction(
        response.prediction_id,
        response.model_id,
        response.arm,
        response.score,
        response.as_of_us,
        tuple(Freshness(f.view, f.found, f.known_at_us, f.event_time_us, f.age_us) for f in response.freshness),
        tuple(response.defaulted),
        response.vector if response.HasField("vector") else None,
        dict(zip(response.classes, response.class_probabilities, strict=False)),
    )


class PendingPrediction:
    """A call under way."""

    def __init__(self, future: grpc.Future) -> None:
        self._future = future

    def result(self) -> Prediction:
        """Waits for the answer, within the call's deadline; raises as `PredictionsClient.predict`."""
        try:
            return _prediction(self._future.result())
        except grpc.RpcError as error:
            raise translated(error) from error

    def cancel(self) -> None:
        """Gives the call up."""
        self._future.cancel()


class PredictionsClient:
    """Speaks to serving on `address` (host:port). With a UseCase rather than its name, fields are sent as they are declared.

    Threads may share it. Every call raises Unreachable if the service does not answer within the deadline, NoModel before the
    first release, and InvalidCall for missing or mistyped fields.
    """

    def __init__(
        self,
        address: str,
        use_case: UseCase | str,
        settings: ClientSettings | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._declared = use_case.request_fields if isinstance(use_case, UseCase) else {}
        self._use_case = use_case.name if isinstance(use_case, UseCase) else use_case
        self._settings = settings or ClientSettings()
        self._channel = open_channel(address, self._settings, credentials)
        self._stub = PredictionServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        self._channel.close()

    def wire(self, request: PredictionRequest, include_vector: bool = False) -> pb.PredictRequest:
        """The request as it is sent."""
        return pb.PredictRequest(
            use_case=self._use_case,
            entity=request.entity,
            request_id=request.request_id or uuid.uuid4().hex,
            fields=wire_fields(request.fields, self._declared),
            include_vector=include_vector,
        )

    def predict(self, request: PredictionRequest, include_vector: bool = False) -> Prediction:
        """One prediction."""
        return self.predict_soon(request, include_vector).result()

    def predict_soon(self, request: PredictionRequest, include_vector: bool = False) -> PendingPrediction:
        """Starts a call and returns at once; bound how many are under way, or use `predict_many`."""
        wire = self.wire(request, include_vector)
        return PendingPrediction(
            self._stub.Predict.future(wire, timeout=self._settings.deadline_s, metadata=metadata())
        )

    def predict_many(
        self, requests: Iterable[PredictionRequest], in_flight_max: int = 32
    ) -> Iterator[Prediction | ClientError]:
        """Answers in the order of the requests, `in_flight_max` calls under way at once; a failed call yields its error."""
        pending: deque[PendingPrediction] = deque()

        def oldest() -> Prediction | ClientError:
            try:
                return pending.popleft().result()
            except ClientError as error:
                return error

        try:
            for request in requests:
                pending.append(self.predict_soon(request))
                if len(pending) >= in_flight_max:
                    yield oldest()
            while pending:
                yield oldest()
        finally:
            for call in pending:
                call.cancel()

    def predict_batch(self, requests: Iterable[PredictionRequest], include_vector: bool = False) -> list[Prediction]:
        """Predictions in one call, in order: the cheapest way for many. InvalidCall names the first invalid one's position."""
        wire = pb.PredictBatchRequest(requests=[self.wire(request, include_vector) for request in requests])
        try:
            answer = self._stub.PredictBatch(wire, timeout=self._settings.deadline_s, metadata=metadata())
        except grpc.RpcError as error:
            raise translated(error) from error
        return [_prediction(response) for response in answer.responses]

    def wait_for_clock(self, clock_us: int, timeout_s: float | None = None) -> ReachedClock:
        """Returns once the whole loop has reached `clock_us` (microseconds) and no retraining is open.

        `timeout_s` instead of the deadline: a retraining takes minutes. Raises ClockBehind, which says what is behind.
        """
        wire = pb.WaitForClockRequest(use_case=self._use_case, clock_us=clock_us)
        try:
            answer = self._stub.WaitForClock(wire, timeout=timeout_s or self._settings.deadline_s, metadata=metadata())
        except grpc.RpcError as error:
            raise translated(error, {grpc.StatusCode.DEADLINE_EXCEEDED: ClockBehind}) from error
        return ReachedClock(answer.clock_us, answer.revision, answer.has_champion)

    def release(self) -> Release:
        """The release that the replica answers by."""
        wire = pb.GetReleaseRequest(use_case=self._use_case)
        try:
            answer = self._stub.GetRelease(wire, timeout=self._settings.deadline_s, metadata=metadata())
        except grpc.RpcError as error:
            raise translated(error) from error
        return answer.release
