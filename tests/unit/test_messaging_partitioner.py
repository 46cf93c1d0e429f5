"""Keys go where Java's client sends them."""

import random

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2

from driftloop.messaging import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "expected"),
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2, as unsigned numbers
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_what_kafkas_own_tests_expect(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


def test_murmur2_agrees_with_another_implementation_on_random_bytes() -> None:
    drawn = random.Random(7)
    for length in range(200):
        key = drawn.randbytes(length)
        assert murmur2(key) == aiokafka_murmur2(key) & 0xFFFFFFFF


def test_every_key_has_a_partition_in_range() -> None:
    assert {partition_of(str(n).encode(), 3) for n in range(100)} == {0, 1, 2}
