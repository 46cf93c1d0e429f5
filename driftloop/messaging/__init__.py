"""Messages on Kafka and in memory: producers, readers, dead letters, and hearts hosted behind Faust.

What needs Faust is imported by its own name (`driftloop.messaging.faust_worker`), so that services without it need not have it.
"""

from driftloop.messaging.backlog import Backlog
from driftloop.messaging.dead_letters import Malformed, Origin, RawRecord, Refused, dead_letter, read_record
from driftloop.messaging.errors import DeliveryFailed, MessagingError, QueueFull, ReadFailed, Stalled, TopicsMissing
from driftloop.messaging.interfaces import Offsets, OnAck, Producer, Reader, TopicPartition
from driftloop.messaging.memory import MemoryBus, MemoryProducer, MemoryReader
from driftloop.messaging.partitioner import murmur2, partition_of
from driftloop.messaging.polled import Answers, LoopProducer, PolledProducer
from driftloop.messaging.producer import KafkaProducer
from driftloop.messaging.reader import KafkaReader
from driftloop.messaging.settings import KafkaSettings
from driftloop.messaging.waiting import await_topics

__all__ = [
    "Answers",
    "Backlog",
    "DeliveryFailed",
    "KafkaProducer",
    "KafkaReader",
    "KafkaSettings",
    "LoopProducer",
    "Malformed",
    "MemoryBus",
    "MemoryProducer",
    "MemoryReader",
    "MessagingError",
    "Offsets",
    "OnAck",
    "Origin",
    "PolledProducer",
    "Producer",
    "QueueFull",
    "RawRecord",
    "ReadFailed",
    "Reader",
    "Refused",
    "Stalled",
    "TopicPartition",
    "TopicsMissing",
    "await_topics",
    "dead_letter",
    "murmur2",
    "partition_of",
    "read_record",
]
