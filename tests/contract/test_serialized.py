"""What serving writes in parts is, on the wire, what readers parse as one message."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from driftloop.contracts.serving.v1 import serialized_pb2, serving_pb2

TWINS = [
    (serialized_pb2.SerializedPrediction, serving_pb2.Prediction),
    (serialized_pb2.SerializedResponse, serving_pb2.PredictResponse),
    (serialized_pb2.SerializedBatchResponse, serving_pb2.PredictBatchResponse),
    (serialized_pb2.SerializedBatchResponse, serving_pb2.PredictStreamResponse),
]


def _may_stand_for(written: FieldDescriptor, read: FieldDescriptor) -> bool:
    if (written.type, written.is_repeated) == (read.type, read.is_repeated):
        return True
    packed = read.is_repeated and not written.is_repeated and read.type == FieldDescriptor.TYPE_DOUBLE
    embedded = read.type == FieldDescriptor.TYPE_MESSAGE and written.is_repeated == read.is_repeated
    return written.type == FieldDescriptor.TYPE_BYTES and (packed or embedded)


@pytest.mark.parametrize(("written", "read"), TWINS, ids=lambda message: message.DESCRIPTOR.name)
def test_every_field_that_is_written_has_the_number_name_and_wire_form_of_the_one_that_is_read(written, read):
    fields: Descriptor = read.DESCRIPTOR.fields_by_number
    for number, field in written.DESCRIPTOR.fields_by_number.items():
        assert fields[number].name == field.name
        assert _may_stand_for(field, fields[number]), f"{field.full_name} is no {fields[number].full_name} on the wire"
