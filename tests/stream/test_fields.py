"""Open fields and their tracks, without a broker: what is gathered, linked, named, closed."""

import contextlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.linking import link
from detector.sightings import catalogue
from stream.fields import UNKNOWN, Fields, Published, UnreadableError, identities, sheets, tracklet_name
from stream.framing import encode
from stream.messages import CANDIDATES, STREAKS, Message
from tests.detector.test_linking import SHAPES, Fits
from tests.stream.nights import exposures_of, findings_of, latest, night, outputs_of, places_in, places_of

SCORER = Fits()
TIMEOUT_S = 3600.0


def messages_of(outputs, first_offset=0, stamp_s=1000.0):
    return [
        Message(out.topic, 0, first_offset + n, out.key, out.value, out.headers, int(stamp_s * 1000))
        for n, out in enumerate(outputs)
    ]


def fed(outputs, fields=None, *, stamp_s=1000.0):
    fields = fields or Fields(TIMEOUT_S)
    for message in messages_of(outputs, stamp_s=stamp_s):
        fields.add(message, 0)
    return fields


def published_by(fields):
    return [record for _, record in fields.linked(SCORER, 60_000.0)]


def test_the_tracks_are_those_that_link_gives_on_the_same_streaks():
    table = night()
    fields = fed([out for exposure in exposures_of(table) for out in outputs_of(table, exposure)])
    ours = {places_of(record) for record in published_by(fields)}
    assert ours == {places_in(table, track) for track in link(catalogue(table, SHAPES), SCORER).tracks}
    assert len(ours) == 6


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)))
def test_whatever_order_exposures_come_in_the_end_is_the_same_and_names_stay(order):
    table = night(movers=3)
    fields, records, names = Fields(TIMEOUT_S), [], {}
    for number in order:
        fed(outputs_of(table, exposures_of(table)[number]), fields)
        records += published_by(fields)
        for record in latest(records):
            for sighting in record["sightings"]:
                assert names.setdefault(sighting["alertId"], record["trackId"]) == record["trackId"]
    ours = {places_of(record) for record in latest(records)}
    assert ours == {places_in(table, track) for track in link(catalogue(table, SHAPES), SCORER).tracks}


def test_a_track_that_gets_a_sighting_keeps_its_id_and_its_mpc_name_and_gets_a_higher_version():
    table = night(movers=1, background=0)
    fields, seen = Fields(TIMEOUT_S), []
    for exposure in exposures_of(table):
        fed(outputs_of(table, exposure), fields)
        seen += published_by(fields)
    assert len({(record["trackId"], record["trkSub"]) for record in seen}) == 1
    assert [(record["version"], record["nSightings"]) for record in seen] == [(1, 2), (2, 3), (3, 4)]
    assert published_by(fields) == []


def test_a_message_that_comes_twice_changes_nothing():
    table = night(movers=2)
    outputs = [out for exposure in exposures_of(table) for out in outputs_of(table, exposure)]
    fields = fed(outputs)
    assert published_by(fields)
    fed(outputs, fields)
    assert published_by(fields) == []


def test_a_track_of_which_nothing_is_left_is_withdrawn_once():
    table = night(movers=1, background=0)
    fields = fed([out for exposure in exposures_of(table) for out in outputs_of(table, exposure)])
    (track,) = published_by(fields)

    class Nothing(Fits):
        def accepts(self, _, score):
            return np.zeros(len(score), bool)

    for field in fields:
        field.changed_ms = 1
    ((key, gone),) = fields.linked(Nothing(), 60_000.0)
    assert (key, gone["trackId"], gone["version"]) == ("F1", track["trackId"], 2)
    assert gone["withdrawn"]
    assert gone["sightings"] == []
    encode("track", gone)
    for field in fields:
        field.changed_ms = 1
    assert fields.linked(Nothing(), 60_000.0) == []
    for field in fields:
        field.changed_ms = 1
    (back,) = published_by(fields)
    assert (back["trackId"], back["version"], back["withdrawn"]) == (track["trackId"], 3, False)


def test_what_was_published_before_is_not_published_again_by_who_learns_of_it():
    table = night(movers=3)
    outputs = [out for exposure in exposures_of(table)[:3] for out in outputs_of(table, exposure)]
    first = published_by(fed(outputs))
    fields = Fields(TIMEOUT_S)
    for record in first:
        fields.learn(record)
    fed(outputs, fields)
    assert published_by(fields) == []
    fed(outputs_of(table, exposures_of(table)[3]), fields)
    again = published_by(fields)
    assert {record["trackId"] for record in again} <= {record["trackId"] for record in first}
    assert {record["version"] for record in again} == {2}


def test_a_field_is_due_when_it_has_rested_or_when_it_never_does():
    table = night(movers=1)
    fields = fed(outputs_of(table, "e0"), stamp_s=1000.0)
    assert not fields.due(1_009_000.0, 10.0)
    assert fields.due(1_010_000.0, 10.0)
    for second in range(1005, 1065, 5):
        fed(outputs_of(table, "e1"), fields, stamp_s=second)
        fed(outputs_of(night(movers=1, seed=second), "e1"), fields, stamp_s=second)
    assert fields.due(1_060_000.0, 10.0)
    published_by(fields)
    assert not fields.due(9_999_000.0, 10.0)


def test_a_field_of_which_nothing_comes_is_closed_and_forgotten_with_its_tracks():
    table = night(movers=2)
    fields = fed([out for exposure in exposures_of(table) for out in outputs_of(table, exposure)])
    assert fields.close(1e12) == 0  # not before it was linked
    published_by(fields)
    assert fields.close((1000.0 + TIMEOUT_S) * 1000.0 - 1) == 0
    assert fields.close((1000.0 + TIMEOUT_S) * 1000.0) == 1
    assert not list(fields)
    assert not fields.published


def test_an_exposure_that_comes_after_the_time_out_makes_a_field_of_its_own():
    table = night(movers=1)
    fields = fed([out for exposure in ("e0", "e1", "e2") for out in outputs_of(table, exposure)])
    published_by(fields)
    fed(outputs_of(table, "e3"), fields, stamp_s=1000.0 + TIMEOUT_S)
    assert len(list(fields)) == 2
    assert published_by(fields) == []


def test_a_field_of_the_same_name_in_another_night_is_another_field():
    table = night(movers=1)
    later = night(movers=1)
    later["mid_time_utc"] = np.array([text.replace("-01T", "-02T") for text in later["mid_time_utc"]])
    later["exposure"] = np.char.add("n", later["exposure"])
    both = [out for exposure in exposures_of(table) for out in outputs_of(table, exposure)]
    both += [out for exposure in exposures_of(later) for out in outputs_of(later, exposure)]
    fields = fed(both)
    assert sorted(len(field.sheets) > 3 for field in fields) == [True, True]
    assert sorted(record["nSightings"] for record in published_by(fields)) == [4, 4]


def test_what_is_a_copy_for_a_neighbouring_cell_is_published_by_its_own_field_only():
    table = night(movers=2)
    home, neighbour = Fields(TIMEOUT_S), Fields(TIMEOUT_S)
    for exposure in exposures_of(table):
        found = replace_field(findings_of(table, exposure), cells=("cell-a", "cell-b"))
        for out in found:
            fields = home if out.key == b"cell-a" else neighbour
            fed([out], fields)
    assert len(published_by(home)) == 2
    assert published_by(neighbour) == []


def replace_field(found, cells):
    """The messages of a frame without a field, in `cells`."""
    from stream import alerts  # noqa: PLC0415

    before = alerts.field_keys
    alerts.field_keys = lambda _: cells
    try:
        at = Message("frames", 0, int(found.header.name[1:]), b"k", b"x")
        return alerts.streak_alerts(found, at, b"x", 1.0) + alerts.candidate_lists(found, at, b"x", 1.0)
    finally:
        alerts.field_keys = before


def known(*ids, version=1):
    return Published(version, frozenset(ids), frozenset(ids))


def test_a_track_is_the_published_one_with_which_it_shares_most():
    mine = {"old": known("a", "b"), "other": known("c")}
    assert identities([["z", "a", "b", "c"], ["c2", "c"]], mine, mine) == ["old", "other"]


def test_a_new_track_is_named_by_its_first_sighting_and_by_all_where_that_is_taken():
    (name,) = identities([["a", "b"]], {}, {})
    assert identities([["a", "c", "d"]], {}, {}) == [name]
    split = identities([["a", "b"], ["c", "d"]], {name: known("a", "b", "c", "d")}, {name: known("a", "b", "c", "d")})
    assert split[0] == name
    taken = {name: known("x", "y")}
    (other,) = identities([["a", "b"]], {}, taken)
    assert other != name
    assert identities([["b", "a"]], {}, {identities([["b", "a"]], {}, {})[0]: known("q")}) == [other]
    assert UNKNOWN.version == 0


def test_the_name_for_the_mpc_is_eight_letters_and_figures_and_follows_the_id():
    names = {tracklet_name(f"id-{n}") for n in range(1000)}
    assert len(names) == 1000
    assert all(len(name) == 8 and name.isalnum() and name.isascii() for name in names)


@pytest.mark.parametrize("odd", [b"", b"4100", b"a,b", b"-1,5", b"1e3,5", "\u0661,5".encode(), b"9999999,5"])
def test_a_shape_that_is_none_is_not_believed(odd):
    (out,) = outputs_of(night(movers=1), "e0")[-1:]
    (told,) = sheets(Message(CANDIDATES, 0, 0, out.key, out.value, out.headers))
    assert told.shape == (2000.0, 2000.0)
    (other,) = sheets(Message(CANDIDATES, 0, 0, out.key, out.value, (("frame-shape", odd),)))
    assert other.shape is None


@pytest.mark.parametrize("topic", [STREAKS, CANDIDATES])
@given(rubbish=st.binary(max_size=300))
def test_what_is_no_container_is_unreadable(topic, rubbish):
    with pytest.raises(UnreadableError):
        sheets(Message(topic, 0, 0, b"k", rubbish))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4000), st.integers(1, 255))
def test_a_container_with_a_changed_byte_is_streaks_or_unreadable(place, change):
    whole = bytearray(outputs_of(night(movers=1, background=3), "e0")[-1].value)
    whole[place % len(whole)] ^= change
    fields = Fields(TIMEOUT_S)
    with contextlib.suppress(UnreadableError):
        fields.add(Message(CANDIDATES, 0, 0, b"k", bytes(whole)), 0)
    assert published_by(fields) == []


def test_a_record_of_another_kind_is_unreadable():
    record = dict(next(iter(published_by(fed(list(itertools.chain(*(outputs_of(night(), e) for e in ("e0", "e1")))))))))
    with pytest.raises(UnreadableError, match="KeyError"):
        sheets(Message(STREAKS, 0, 0, b"k", encode("track", record)))
