"""Every topic says who writes what for whom, and the code keeps to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, json_format

from driftloop.contracts import MalformedRecord, Message, OffsetRange, decode, encode, topics
from driftloop.usecase import load_use_case

ROOT = Path(__file__).resolve().parents[2]
SERVICES = {"ingest", "features", "serving", "monitor", "trainer"}
ANYONE = "anyone"
"""Who writes to a topic that is a door."""
STORED = ROOT / "proto" / "stored-descriptors.binpb"


@pytest.mark.parametrize("topic", topics().values(), ids=lambda topic: topic.name)
def test_every_topic_has_an_example_that_survives_the_wire(topic):
    payload = json_format.ParseDict(dict(topic.example), topic.payload_class())
    message = Message(topic.name, "key", payload, "id", "source", 5, 6, ("a", "b"), (OffsetRange("scores", 0, 1, 9),))
    assert decode(topic.name, *encode(message)) == message


@pytest.mark.parametrize("topic", topics().values(), ids=lambda topic: topic.name)
def test_every_topic_names_known_producers_and_consumers(topic):
    assert set(topic.producers) <= SERVICES | {"cli", ANYONE}
    assert set(topic.consumers) <= SERVICES | {"cli"}


@pytest.mark.parametrize("topic", topics().values(), ids=lambda topic: topic.name)
def test_every_producer_and_consumer_mentions_its_topic_in_code(topic):
    for name in {*topic.producers, *topic.consumers} - {ANYONE}:
        folder = ROOT / ("driftloop/cli" if name == "cli" else f"services/{name}")
        code = "\n".join(path.read_text() for path in folder.rglob("*.py"))
        mentioned = re.search(rf'"{re.escape(topic.name)}"', code)
        reads_all = name == "cli" and "in topics()" in code
        dead_letters = topic.name == "dead-letters" and "dead_letter" in code
        assert mentioned or reads_all or dead_letters, f"{name} is listed for {topic.name} but its code never names it"


def test_no_example_is_larger_than_its_schema_allows_and_flights_inputs_match_the_example():
    vector = topics()["predictions"].example["vector"]
    assert vector["inputs_digest"] == load_use_case("flights").inputs_digest


def _messages(files: descriptor_pb2.FileDescriptorSet) -> dict[str, dict[int, tuple[str, int, int, str]]]:
    found = {}
    for file in files.file:
        for message in file.message_type:
            found[f"{file.package}.{message.name}"] = {
                field.number: (field.name, field.type, field.label, field.type_name) for field in message.field
            }
    return found


def _enums(files: descriptor_pb2.FileDescriptorSet) -> dict[str, dict[int, str]]:
    return {f"{f.package}.{e.name}": {v.number: v.name for v in e.value} for f in files.file for e in f.enum_type}


def _methods(files: descriptor_pb2.FileDescriptorSet) -> dict[str, tuple[str, str, bool, bool]]:
    return {
        f"{f.package}.{s.name}/{m.name}": (m.input_type, m.output_type, m.client_streaming, m.server_streaming)
        for f in files.file
        for s in f.service
        for m in s.method
    }


def test_protos_break_nothing_against_the_stored_descriptors(tmp_path):
    from grpc_tools import protoc

    current_file = tmp_path / "current.binpb"
    protos = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--descriptor_set_out={current_file}", *protos]) == 0
    stored = descriptor_pb2.FileDescriptorSet.FromString(STORED.read_bytes())
    current = descriptor_pb2.FileDescriptorSet.FromString(current_file.read_bytes())
    now = _messages(current)
    for name, fields in _messages(stored).items():
        assert name in now, f"message {name} is gone"
        for number, field in fields.items():
            assert now[name].get(number) == field, f"field {number} of {name} was {field}, is {now[name].get(number)}"
    enums = _enums(current)
    for name, values in _enums(stored).items():
        assert values.items() <= enums.get(name, {}).items(), f"enum {name} lost or renamed a value"
    methods = _methods(current)
    for name, method in _methods(stored).items():
        assert methods.get(name) == method, f"rpc {name} changed"


@pytest.mark.parametrize(
    ("key", "value", "headers", "rule"),
    [
        (None, b"x", [], "empty"),
        (b"k", None, [], "empty"),
        (b"k", b"", [], "header"),
        (b"k", b"x" * (1 << 20) + b"y", [], "size"),
        (b"k", b"", [("ce_id", b"\xff"), ("ce_source", b"s"), ("ce_type", b"t")], "header"),
        (
            b"k",
            b"",
            [("ce_id", b"i"), ("ce_source", b"s"), ("ce_type", b"t"), ("ce_eventtime", b"x"), ("ce_knownat", b"1")],
            "header",
        ),
        (
            b"k",
            b"",
            [("ce_id", b"i"), ("ce_source", b"s"), ("ce_type", b"t"), ("ce_eventtime", b"1"), ("ce_knownat", b"1")],
            "type",
        ),
    ],
)
def test_a_record_that_is_no_message_says_which_rule_it_breaks(key, value, headers, rule):
    with pytest.raises(MalformedRecord) as refused:
        decode("events", key, value, headers)
    assert refused.value.rule == rule


def test_bytes_that_are_no_payload_are_malformed():
    example = topics()["events"]
    good = encode(
        Message("events", "k", json_format.ParseDict(dict(example.example), example.payload_class()), "i", "s", 1, 1)
    )
    with pytest.raises(MalformedRecord) as refused:
        decode("events", good.key, b"\xff\xff\xff", good.headers)
    assert refused.value.rule == "payload"
