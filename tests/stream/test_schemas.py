"""The published schemas: each says what it holds, none is ever edited, and every version reads every other."""

import hashlib
import io
import json
import re
from importlib import resources

import fastavro
import pytest

from stream.framing import SCHEMA_VERSION, SCHEMAS, decode, encode

ROOT = resources.files("stream.schema")

# SHA-256 of what was published. A change goes into a new MINOR (nullable fields with defaults) or MAJOR, not in here.
PUBLISHED = {
    "1/0/examined.avsc": "179b98dd5f9bcc27512c014059182c148c39c10dacb227f6383f34ec6ceadbb0",
    "1/0/streak.avsc": "7059fb6b7c4cc677231f9078aa62b7274030acdfa81438f4718cb43bd2f90fd1",
    "1/0/track.avsc": "3934d38a4bd729261c6f58c8e3ea14078c4fc59c14f2e3208c33575b058a75eb",
    "1/1/examined.avsc": "d40cd1d36fce1de2ef61e7f3d628d83f9cb57b5c7e6be3d50b692f4fb8e5e314",
    "1/1/lens.avsc": "0e137719071663cc2b4f68af495f0eecccacfbb2d95a6b6721979bd146a5247e",
    "1/1/merger.avsc": "82a04d6ac9f5001f45fd29aeee29a145b6db0b7cb19a5cb272c3b5c26be4aed6",
    "1/1/streak.avsc": "0d0deeb52b0726be6b2838aceb9a6080f8cfdfb482fa6083fcedf9d771f906df",
    "1/1/track.avsc": "466d70f4fd69a0fda1044562d4a38b779d895e5bcf65d2f0b340cb57ecbf9f9a",
}


def text_of(name):
    return ROOT.joinpath(name).read_text(encoding="utf-8")


def versions(name):
    """The schemas of that name in all versions of the newest one's major version."""
    major = ROOT / SCHEMA_VERSION.partition("/")[0]
    files = [minor / f"{name}.avsc" for minor in major.iterdir()]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


def some(kind):
    """A value of an Avro type: of a union with null the other one, so that nothing is left to its default."""
    if isinstance(kind, list):
        return some(kind[-1])
    if isinstance(kind, str):
        return {"string": "s", "int": 1, "long": 2, "double": 0.5, "boolean": True, "bytes": b"b"}[kind]
    if kind["type"] == "array":
        return [some(kind["items"])]
    if kind["type"] == "map":
        return {"k": some(kind["values"])}
    return {field["name"]: some(field["type"]) for field in kind["fields"]}


def shared(a, b):
    """What two versions of a record have in common."""
    if isinstance(a, dict):
        return {name: shared(a[name], b[name]) for name in a.keys() & b.keys()}
    return [shared(x, y) for x, y in zip(a, b, strict=True)] if isinstance(a, list) else a


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_schema_is_never_edited(name):
    assert hashlib.sha256(text_of(name).encode()).hexdigest() == PUBLISHED[name]


@pytest.mark.parametrize("name", sorted(set(SCHEMAS.values())))
def test_every_version_of_a_schema_reads_the_records_of_every_other(name):
    every = versions(name)
    for writer in every:
        record = some(writer)
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, fastavro.parse_schema(writer), record)
        for reader in every:
            buffer.seek(0)
            read = fastavro.schemaless_reader(buffer, fastavro.parse_schema(writer), fastavro.parse_schema(reader))
            assert shared(read, record) == shared(record, read)
            assert read.keys() == {field["name"] for field in reader["fields"]}


def test_what_an_older_program_wrote_is_read_with_the_new_fields_empty():
    old = json.loads(text_of("1/0/track.avsc"))
    buffer = io.BytesIO()
    fastavro.writer(buffer, fastavro.parse_schema(old), [some(old)])
    (record,) = decode(buffer.getvalue())
    assert (record["replayed"], record["knownAs"], record["knownAlso"]) == (None, None, [])
    assert record["sightings"][0]["replayed"] is None


def test_a_program_that_knows_only_the_first_version_reads_what_this_one_writes():
    newest = json.loads(text_of(f"{SCHEMA_VERSION}/streak.avsc"))
    first = fastavro.parse_schema(json.loads(text_of("1/0/streak.avsc")))
    (record,) = fastavro.reader(io.BytesIO(encode("streak", some(newest))), reader_schema=first)
    assert "replayed" not in record
    assert record["trailRa"] == 0.5


@pytest.mark.parametrize("name", sorted(set(SCHEMAS.values())))
def test_every_field_says_what_it_is_and_what_may_be_unknown_is_null_by_default(name):
    for field in json.loads(text_of(f"{SCHEMA_VERSION}/{name}.avsc"))["fields"]:
        assert field["doc"]
        if isinstance(field["type"], list):
            assert field["type"][0] == "null"
            assert field["default"] is None
        if field["type"] == ["null", "double"] and not re.search("ratio|Chi2|Probability|Correlation", field["doc"]):
            assert re.search(r"\[.+\]", field["doc"]), field["name"]
