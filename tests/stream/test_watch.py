"""The live page without a browser: what it remembers, what it draws, and whom it answers."""

import http.client
import io
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from detector.frame import FrameHeader
from detector.survey import GENERIC
from stream.alerts import candidate_lists, examined_summary, streak_alerts
from stream.candidatealerts import candidate_alerts
from stream.framing import CONTAINERS, SCHEMA_VERSION
from stream.messages import CANDIDATES, EXAMINED, REJECTED, STREAKS, TRACKS, Message, mjd_tai
from stream.settings import load_settings
from stream.watching import night as remembered
from stream.watching.night import Night
from stream.watching.pictures import PictureCache, cut_out, cut_out_square, frame_picture, told
from stream.watching.pixels import NoPixelsError
from stream.watching.records import refusal
from stream.watching.series import Series
from stream.watching.server import HEADERS, Content, server
from tests.stream.stand_in import findings, objects, streaks
from tests.stream.test_schemas import some, text_of

NOW = 1_800_000_000.0


def header(ccd, exposure="E1"):
    return FrameHeader("f", 0, (96, 128), GENERIC, exposure=exposure, ccd=ccd, mid_time_mjd_tai=60_000.0)


def messages(offset, *, ccd="7", count=2, lenses=0, at_s=NOW):
    """What a worker publishes about one frame, as the page gets it."""
    came = Message("frames", 0, offset, b"k", b"x", (), int(at_s * 1000) - 1500)
    found = findings(header(ccd, f"E{offset}"), streaks(count, seed=offset))
    found = replace(found, candidates=streaks(3, seed=-offset - 1 + 1000))
    found = replace(found, lenses=objects(lenses, seed=1), mergers=objects(2 * lenses, seed=2))
    outputs = (
        candidate_alerts(found, came, b"x", mjd_tai(at_s))
        + streak_alerts(found, came, b"x", mjd_tai(at_s))
        + candidate_lists(found, came, b"x", mjd_tai(at_s))
    )
    said = {"seconds": {"read": 0.1}, "program_version": "0", "weights_versions": {}}
    outputs.append(examined_summary(found, came, now_mjd_tai=mjd_tai(at_s), **said))
    return [Message(one.topic, 0, 0, one.key, one.value, one.headers, int(at_s * 1000)) for one in outputs]


def dead_letter(key=b"E9/7", at_s=NOW + 5, **headers):
    said = {"reason": "not-fits", "detail": "no", "input-partition": "0", "input-offset": "9", **headers}
    return Message(REJECTED, 0, 0, key, b"bytes", tuple((k, v.encode()) for k, v in said.items()), int(at_s * 1000))


def take(night, came):
    for message in came:
        night.take(message)


def test_a_frame_is_shown_with_its_streaks_its_candidates_and_its_latency():
    night = Night()
    take(night, messages(4))
    shown = night.shown(NOW)
    (frame,) = shown["frames"]
    assert (frame["summary"]["frame"], frame["shape"]) == ("0/4/0", (96, 128))
    assert (len(frame["streaks"]), len(frame["candidates"])) == (2, 3)
    assert shown["totals"] == {"examined": 1, "rejected": 0, "streaks": 2, "lenses": 0, "mergers": 0, "tracks": 0}
    assert [value for value in shown["series"]["latency"] if value is not None] == [pytest.approx(1.5, abs=0.02)]
    assert {alert["id"] for alert in shown["alerts"]} == {streak["id"] for streak in frame["streaks"]}
    json.dumps(shown, allow_nan=False)


def test_lenses_and_mergers_are_drawn_into_their_frame_and_counted():
    night = Night()
    take(night, messages(4, count=0, lenses=2))
    shown = night.shown(NOW)
    (frame,) = shown["frames"]
    assert [one["kind"] for one in frame["objects"]] == ["lens"] * 2 + ["merger"] * 4
    assert (frame["shape"], frame["streaks"]) == ((96, 128), [])
    assert (shown["totals"]["lenses"], shown["totals"]["mergers"]) == (2, 4)
    assert {one["id"] for one in shown["objects"]} == {one["id"] for one in frame["objects"]}
    lens, merger = frame["objects"][0], frame["objects"][-1]
    assert [cut_out_square(one["ends"])[2] for one in (lens, merger)] == [64, 128]
    assert cut_out_square(lens["ends"])[0] + 32 == pytest.approx(lens["x"], abs=1.1)
    json.dumps(shown, allow_nan=False)
    take(night, messages(4, count=0, lenses=2))
    assert len(night.shown(NOW)["objects"]) == 6


def test_a_track_says_which_known_object_it_is():
    record = some(json.loads(text_of(f"{SCHEMA_VERSION}/track.avsc"))) | {"withdrawn": False, "knownAs": "Vesta"}
    sent = CONTAINERS.output(TRACKS, b"F", record)
    night = Night()
    night.take(Message(TRACKS, 0, 0, sent.key, sent.value, sent.headers, 0))
    (track,) = night.shown(NOW)["tracks"]
    assert (track["known"], track["known_also"]) == ("Vesta", record["knownAlso"])


def test_memory_is_bounded_and_what_moved_last_stays(monkeypatch):
    for name, most in {"MOST_FRAMES": 5, "MOST_CCDS": 4, "MOST_ALERTS": 6, "MOST_REFUSALS": 3}.items():
        monkeypatch.setattr(remembered, name, most)
    night = Night()
    for offset in range(12):
        take(night, messages(offset, ccd=str(offset), at_s=NOW + offset))
        night.take(dead_letter(at_s=NOW + offset))
    shown = night.shown(NOW)
    assert [frame["summary"]["frame"] for frame in shown["frames"]] == [f"0/{n}/0" for n in (11, 10, 9, 8, 7)]
    assert [ccd["name"] for ccd in shown["ccds"]] == ["8", "9", "10", "11"]
    assert (len(shown["alerts"]), len(shown["refusals"])) == (6, 3)
    assert (shown["totals"]["examined"], shown["totals"]["rejected"]) == (12, 12)
    assert night.frame((0, 0, 0)) is None


def test_a_refused_frame_marks_its_ccd_until_the_next_one_is_examined():
    night = Night()
    take(night, messages(1))
    night.take(dead_letter())
    assert night.shown(NOW)["ccds"][0]["refused"]["reason"] == "not-fits"
    take(night, messages(2, at_s=NOW + 9))
    assert night.shown(NOW)["ccds"][0]["refused"] is None


def test_what_strangers_write_is_cut_and_numbers_that_are_none_are_none():
    told_of = refusal(dead_letter(name="n" * 5000, **{"input-offset": "9" * 40, "extension": "-1"}))
    assert len(told_of["source"]) == 200
    assert (told_of["offset"], told_of["extension"]) == (None, None)


@pytest.mark.parametrize("topic", [EXAMINED, STREAKS, CANDIDATES])
def test_a_message_that_is_no_container_is_told_as_such(topic):
    with pytest.raises(ValueError, match="no records"):
        Night().take(Message(topic, 0, 0, b"k", b"Obj\x01rubbish"))


def test_the_last_hour_is_kept_in_steps_and_no_more():
    series = Series()
    for second in range(0, 60_000, 10):
        series.examined(NOW + second, 1, 2.0)
    shown = series.shown(NOW + 60_000 - 10)
    assert sum(shown["frames"]) == 360
    assert shown["latency"] == [2.0] * 120
    assert sum(series.shown(NOW - 10_000)["frames"]) == 0


def picture(made):
    return np.asarray(Image.open(io.BytesIO(made[1])))


def test_a_cut_out_is_turned_upwards_and_black_outside_the_frame():
    pixels = np.random.default_rng(1).normal(0, 1, (60, 80)).astype(np.float32)
    pixels[50, 70] = 100
    grey = picture(cut_out(pixels, (69.0, 50.0, 71.0, 50.0)))
    left, bottom, side = cut_out_square((69.0, 50.0, 71.0, 50.0))
    assert grey.shape == (side, side)
    row, column = np.argwhere(grey == 255)[0]
    assert (side - 1 - row + bottom, column + left) == (50, 70)
    assert not grey[:, 80 - left :].any()
    assert not grey[: side - (60 - bottom)].any()


def test_a_large_frame_is_drawn_small_with_its_holes_black():
    pixels = np.random.default_rng(1).normal(0, 1, (300, 200)).astype(np.float32)
    pixels[:100] = np.nan
    grey = picture(frame_picture(pixels, 150))
    assert grey.shape == (150, 100)
    assert grey[110:].mean() < 10 < grey[:90].mean()


def test_the_cache_of_pictures_forgets_what_was_looked_at_least():
    cache = PictureCache(most_bytes=25)
    for key in (1, 2, 1, 3):
        cache.get(key, lambda: ("image/png", b"0123456789"))
    assert cache.get(1, lambda: ("image/png", b"new"))[1] == b"0123456789"
    assert cache.get(2, lambda: ("image/png", b"new"))[1] == b"new"


def no_pixels(*_):
    raise NoPixelsError("the file <b> & more is gone")


@pytest.fixture
def answer():
    """Asks the server; gives status, headers and body."""
    settings = load_settings(None, {"watch_port": 0, "watch_past_s": 60})
    content = Content(
        state=lambda: ('"v1"', {"numbers": [0] * 2000}),
        frame=lambda key: {"key": key} if key == (1, 2, 0) else None,
        frames_of=lambda ccd: [ccd],
        picture=no_pixels,
        cutout=lambda key, ends: ("image/png", repr((key, ends)).encode()),
    )
    http_server = server(content, settings.watch_address, settings.watch_port)
    threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True).start()

    def ask(path, method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", http_server.server_port, timeout=5)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        found = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return found

    yield ask
    http_server.shutdown()
    http_server.server_close()


@pytest.mark.parametrize("path", ["/", "/page.js", "/state", "/nothing", "/picture/1/2/0", "/frame/9/9/9"])
def test_every_answer_forbids_the_browser_what_is_not_ours(answer, path):
    _, headers, _ = answer(path)
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    ["/../settings.py", "/%2e%2e/settings.py", "/page/../../etc/passwd", "//etc/passwd", "/__init__.py", "/frame/1"],
)
def test_no_path_leads_out_of_the_list_of_files(answer, path):
    assert answer(path)[0] == 404


def test_it_only_reads(answer):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert answer("/state", method)[0] == 501
    status, headers, body = answer("/state", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 4000


def test_it_answers_only_for_this_machines_own_names(answer):
    assert answer("/state", Host="evil.example:8010")[0] == 421
    assert answer("/state", Host="localhost:8010")[0] == 200


def test_what_has_not_changed_is_not_sent_again(answer):
    _, headers, _ = answer("/state")
    assert answer("/state", If_None_Match=headers["ETag"])[0] == 304
    assert len(answer("/state", Accept_Encoding="gzip")[2]) < 200


def test_where_there_are_no_pixels_a_picture_says_why(answer):
    status, headers, body = answer("/picture/1/2/0?size=small")
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "image/svg+xml", "no-store")
    assert b"&lt;b&gt; &amp; more" in body
    assert told("x" * 10_000)[1].count(b"<tspan") == 9


def test_a_cut_out_wants_four_finite_numbers(answer):
    assert answer("/cutout/1/2/0?ends=1,2,3,4")[2] == b"((1, 2, 0), (1.0, 2.0, 3.0, 4.0))"
    for ends in ("", "1,2,3", "1,2,3,nan", "1,2,3,1e300", "a,b,c,d"):
        assert answer(f"/cutout/1/2/0?ends={ends}")[0] == 400


def test_the_names_of_ccds_may_hold_anything(answer):
    assert json.loads(answer("/ccd?name=a%2Fb%20%26c")[2]) == ["a/b &c"]
