"""Other programs' batches of records: every way of packing, odd names, bombs, and bytes that make no sense."""

import gzip
import tracemalloc

import cramjam
import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from stream.batches import MAX_HEADERS, Batch, Unread, read_with_limit

LIMIT = 5_000
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)


def raw_snappy(data):
    return bytes(cramjam.snappy.compress_raw(data))


def xerial(data):
    """As Java writes it: blocks of 32 kB, each with its length before it."""
    pieces = [raw_snappy(data[place : place + 32_768]) for place in range(0, len(data), 32_768)]
    return b"\x82SNAPPY\0" + b"\0\0\0\1\0\0\0\1" + b"".join(len(p).to_bytes(4, "big") + p for p in pieces)


PACKINGS = [
    (NONE, bytes),
    (GZIP, gzip.compress),
    (GZIP, lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:])),
    (SNAPPY, raw_snappy),
    (SNAPPY, xerial),
    (LZ4, lz4.frame.compress),
    (LZ4, lambda data: lz4.frame.compress(data, block_linked=False)),
    (ZSTD, zstandard.compress),
    (ZSTD, lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data)),
]
packings = pytest.mark.parametrize(("codec", "pack"), PACKINGS)


def batch_of(records, codec=NONE, pack=bytes):
    """The bytes of a batch: records are key, value, headers."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 2**31)
    for number, (key, value, headers) in enumerate(records):
        builder.append(number, 1_700_000_000_000 + number, key, value, headers)
    size = builder.header_size_in_bytes()
    builder._buffer[size:] = pack(bytes(builder._buffer[size:]))
    builder.write_header()
    return bytes(builder._buffer)


def read(content, limit=LIMIT):
    """The records as a consumer gets them."""
    read_with_limit(limit)
    memory = MemoryRecords(content)
    batch = memory.next_batch()
    assert isinstance(batch, Batch)
    assert batch.validate_crc()
    return list(batch)


def plain(records):
    return [(record.key, record.value, record.headers) for record in records]


def reasons(records):
    return [record.value.why.reason if isinstance(record.value, Unread) else None for record in records]


fields = st.none() | st.binary(max_size=200)
headers = st.lists(st.tuples(st.text(max_size=20), fields), max_size=5)


@packings
@settings(max_examples=40)
@given(records=st.lists(st.tuples(fields, fields, headers), min_size=1, max_size=20))
def test_every_packing_is_read_as_the_clients_own_reader_reads_it(codec, pack, records):
    read_back = read(batch_of(records, codec, pack))
    assert plain(read_back) == records
    own = list(DefaultRecordBatch(batch_of(records)))
    assert [(r.offset, r.timestamp, r.size_in_bytes) for r in read_back] == [
        (r.offset, r.timestamp, r.size_in_bytes) for r in own
    ]


def test_a_name_that_is_not_utf8_comes_out_as_it_went_in():
    class Odd(str):
        __slots__ = ()

        def encode(self, *_):
            return b"\xff\xfename"

    ((_, value, [(name, told)]),) = plain(read(batch_of([(b"k", b"v", [(Odd("x"), b"y")])])))
    assert (value, told) == (b"v", b"y")
    assert name.encode("utf-8") == b"\xff\xfename"
    assert batch_of([(b"k", b"v", [(name, told)])]) == batch_of([(b"k", b"v", [(Odd("x"), b"y")])])


@packings
def test_of_a_value_over_the_limit_only_the_reason_is_left_and_the_next_record_follows(codec, pack):
    records = [(b"a", b"1", []), (b"b", b"2" * (LIMIT + 1), [("h", b"3")]), (b"c", b"4" * LIMIT, [])]
    read_back = read(batch_of(records, codec, pack))
    assert [record.key for record in read_back] == [b"a", b"b", b"c"]
    assert read_back[1].headers == [("h", b"3")]
    # What is not packed is in memory anyway.
    assert reasons(read_back) == [None, None if codec == NONE else "too-large", None]


@pytest.mark.parametrize(("codec", "pack"), [each for each in PACKINGS if each[0] not in {NONE, SNAPPY}])
def test_a_bomb_is_not_unpacked_into_memory(codec, pack):
    bomb = batch_of([(b"k", bytes(60_000_000), []), (b"k", b"frame", [])], codec, pack)
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    read_back = read(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reasons(read_back) == ["too-large", None]
    assert peak < 5_000_000


def test_a_snappy_block_that_says_too_much_is_not_unpacked():
    assert reasons(read(batch_of([(b"k", bytes(60_000_000), [])] * 2, SNAPPY, raw_snappy))) == ["damaged"] * 2


@packings
def test_too_many_headers_are_left_out_and_the_value_is_kept(codec, pack):
    many = [("h", b"")] * (MAX_HEADERS + 1)
    large = [("h", b"x" * 600_000)] * 2
    read_back = read(
        batch_of([(b"a", b"1", many), (b"b", b"2", large), (b"c", b"3", many[1:])], codec, pack), 2_000_000
    )
    assert reasons(read_back) == ["too-large", "too-large", None]
    assert [bytes(record.value) for record in read_back] == [b"1", b"2", b"3"]
    assert [len(record.headers) for record in read_back] == [0, 0, MAX_HEADERS]


@packings
@settings(max_examples=40)
@given(data=st.data())
def test_bytes_that_make_no_sense_give_as_many_records_as_were_promised(codec, pack, data):
    content = batch_of([(b"k", b"value", [("h", b"v")])] * 9, codec, pack)
    place = data.draw(st.integers(DefaultRecordBatchBuilder.header_size_in_bytes(), len(content) - 1))
    damaged = content[:place] + data.draw(st.binary(max_size=9)) + content[place + data.draw(st.integers(0, 9)) :]
    read_with_limit(LIMIT)
    told = reasons(Batch(damaged))
    assert len(told) == 9
    if "damaged" in told:
        assert set(told[told.index("damaged") :]) == {"damaged"}
