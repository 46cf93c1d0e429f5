"""Messages, topics and ids: the contracts that services share; generated code lives in the packages below."""

from driftloop.contracts.codec import Encoded, Envelope, decode, encode, rfc3339
from driftloop.contracts.errors import ContractError, MalformedRecord, TopicFileError
from driftloop.contracts.ids import ID_CHARACTERS, derive_id, deriver, prediction_id, prediction_ids
from driftloop.contracts.message import MAX_CAUSES, WATERMARK_KEY_PREFIX, Message, OffsetRange, Record, watermark
from driftloop.contracts.ordering import KnownTimeBuffer
from driftloop.contracts.registry import MAX_RECORD_BYTES, Topic, payload_class, topics
from driftloop.contracts.values import from_value, from_wire, to_value, to_wire
from driftloop.contracts.watermarks import UNSET_US, Watermarks

__all__ = [
    "ID_CHARACTERS",
    "MAX_CAUSES",
    "MAX_RECORD_BYTES",
    "UNSET_US",
    "WATERMARK_KEY_PREFIX",
    "ContractError",
    "Encoded",
    "Envelope",
    "KnownTimeBuffer",
    "MalformedRecord",
    "Message",
    "OffsetRange",
    "Record",
    "Topic",
    "TopicFileError",
    "Watermarks",
    "decode",
    "derive_id",
    "deriver",
    "encode",
    "from_value",
    "from_wire",
    "payload_class",
    "prediction_id",
    "prediction_ids",
    "rfc3339",
    "to_value",
    "to_wire",
    "topics",
    "watermark",
]
