from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Watermark(_message.Message):
    __slots__ = ("writer", "known_at_us")
    WRITER_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_US_FIELD_NUMBER: _ClassVar[int]
    writer: str
    known_at_us: int
    def __init__(self, writer: _Optional[str] = ..., known_at_us: _Optional[int] = ...) -> None: ...
