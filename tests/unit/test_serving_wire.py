"""What serving joins from bytes is what protobuf itself would write."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from driftloop.contracts.serving.v1.serving_pb2 import Prediction, PredictResponse, Vector
from services.serving.wire import length, tag, varint


@given(st.text(max_size=300), st.lists(st.floats(allow_nan=False), min_size=1, max_size=3_000))
def test_a_text_and_packed_numbers_are_as_protobuf_writes_them(text: str, numbers: list[float]) -> None:
    written = Vector(inputs_digest=text, numbers=numbers).SerializeToString()
    data, packed = text.encode(), written[-8 * len(numbers) :]
    own = tag(Vector, "inputs_digest") + length(len(data)) + data if data else b""
    assert own + tag(Vector, "numbers") + length(len(packed)) + packed == written


@given(st.integers(min_value=1, max_value=(1 << 63) - 1))
def test_a_number_is_as_protobuf_writes_it(number: int) -> None:
    assert tag(Prediction, "as_of_us") + varint(number) == Prediction(as_of_us=number).SerializeToString()


def test_a_message_within_a_message_has_its_length() -> None:
    inner = Vector(inputs_digest="d" * 200)
    data = inner.SerializeToString()
    assert (
        tag(PredictResponse, "vector") + length(len(data)) + data == PredictResponse(vector=inner).SerializeToString()
    )
