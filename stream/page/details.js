// What opens on a click: a CCD's frames, a frame, an alert, a track. The address says which, so that it can be sent on.

import { by, el, put, say } from "./elements.js";
import { cutout, framePicture } from "./drawing.js";
import { alertRow, frameLink, known, objectRow } from "./sections.js";
import { count, day, fixed, frameName, heading, place, when } from "./words.js";

const dialog = by("details");
let opener = null;

const get = async (path) => {
  const answer = await fetch(path, { cache: "no-store" });
  return answer.ok ? answer.json() : null;
};

const facts = (rows) => el("dl", { class: "facts" }, rows.filter(([, value]) => value !== null && value !== undefined).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

const frameFacts = (frame) => facts([
  ["Exposure", frame.exposure ?? "–"], ["CCD", el("a", { href: `#ccd/${encodeURIComponent(frame.ccd ?? "(no CCD named)")}` }, frame.ccd ?? "(no CCD named)")],
  ["Field", frame.field], ["Band", frame.band], ["Survey", frame.survey], ["Mid-exposure", frame.mid === null ? null : `${day(frame.mid)} UTC`],
  ["Exposure time", fixed(frame.exposure_s, 1, " s")], ["Examined", when(frame.at, { full: true })],
  ["Latency", frame.arrived === null ? null : fixed(frame.at - frame.arrived, 1, " s from arrival")],
  ["Streaks", count(frame.streaks)], ["Lenses", count(frame.lenses)], ["Mergers", count(frame.mergers)], ["Sky", `${fixed(frame.background, 1)} e⁻, noise ${fixed(frame.noise, 1)} e⁻`], ["PSF", fixed(frame.fwhm, 2, " px")],
  ["Flags", frame.flags.join(" ") || "none"],
  ["Dropped", Object.entries(frame.dropped).map(([reason, n]) => `${n} ${reason}`).join(", ") || "nothing"],
  ["Time spent", Object.entries(frame.seconds).map(([stage, s]) => `${stage} ${fixed(s, 2)} s`).join(", ")],
  ["Replayed", frame.replayed], ["File", frame.source], ["Message", `${frame.topic}/${frame.frame.split("/").slice(0, 2).join("/")}, HDU ${frame.frame.split("/")[2]}`],
]);

const marks = () => {
  const button = el("button", { type: "button", "aria-pressed": "true" }, "Marks");
  button.addEventListener("click", () => {
    const hidden = by("details-body").classList.toggle("unmarked");
    button.setAttribute("aria-pressed", String(!hidden));
  });
  const legend = "Boxes: streaks (orange: at the border), dashed: candidates below the threshold. Circles: lenses (yellow), mergers (blue).";
  return el("p", { class: "note" }, button, ` ${legend}`);
};

const gone = (what) => [what, el("p", {}, "It is not remembered any more: only the newest are.")];

const showFrame = async (key) => {
  const seen = await get(`frame/${key}`);
  if (!seen?.summary) return gone("Frame");
  const rows = seen.streaks.map(alertRow);
  const objects = seen.objects.map(objectRow);
  return [`Frame ${frameName(seen.summary)}`,
    el("div", { class: "two" }, el("div", {}, marks(), framePicture({ ...seen, key }, { size: "large", alt: `Frame ${frameName(seen.summary)}` })), frameFacts(seen.summary)),
    rows.length ? el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, rows))) : el("p", {}, "No streaks in it."),
    objects.length ? el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, objects))) : null];
};

const showObject = async (key, id) => {
  const seen = await get(`frame/${key}`);
  const one = seen?.objects.find((other) => other.id === id);
  if (!one) return gone("Candidate");
  const name = one.kind === "lens" ? "Lens" : "Merger";
  return [`${name} ${id.slice(0, 8)}`,
    el("div", { class: "two" },
      el("div", {}, one.ends ? el("p", {}, cutout(key, one.ends, { single: true, alt: `Cut-out around the ${one.kind} candidate` })) : null, marks(),
        framePicture({ ...seen, key }, { size: "large", chosen: id, alt: "The frame, this candidate in white" })),
      facts([["Kind", `${one.kind} candidate`], ["Probability", `${fixed(one.score, 4)}, spread ${fixed(one.spread, 4)}`],
        ["Information", one.content === null ? null : fixed(one.content, 0)], ["Rank in its frame", one.rank === null ? null : String(one.rank)],
        ["RA, Dec", place(one.ra, one.dec)], ["Place", `${fixed(one.x, 1)}, ${fixed(one.y, 1)}`], ["Flags", one.flags.join(" ") || "none"],
        ["Mid-exposure", one.mid === null ? null : `${day(one.mid)} UTC`], ["Published", when(one.at, { full: true })],
        ["Frame", el("a", { href: frameLink(key) }, frameName(one))],
        ["CCD", el("a", { href: `#ccd/${encodeURIComponent(one.ccd ?? "(no CCD named)")}` }, one.ccd ?? "(no CCD named)")],
        ["Model", one.model], ["Object", one.object], ["Alert id", id]]))];
};

const showAlert = async (key, id) => {
  const seen = await get(`frame/${key}`);
  const alert = seen?.streaks.find((one) => one.id === id);
  if (!alert) return gone("Alert");
  return [`Alert ${id.slice(0, 8)}`,
    el("div", { class: "two" },
      el("div", {}, el("p", {}, cutout(key, alert.ends, { single: true, alt: "Cut-out around the streak" })), marks(),
        framePicture({ ...seen, key }, { size: "large", chosen: id, alt: "The frame, this streak in white" })),
      facts([["Kind", alert.kind], ["Score", fixed(alert.score, 3)], ["SNR", fixed(alert.snr, 1)], ["Magnitude", fixed(alert.mag, 2)],
        ["RA, Dec", place(alert.ra, alert.dec)], ["Rate", fixed(alert.rate, 2, "″/h")], ["Length", fixed(alert.length, 1, " px")],
        ["Ends", alert.ends.slice(0, 2).join(", ") + " to " + alert.ends.slice(2).join(", ")],
        ["Flags", alert.flags.join(" ") || "none"], ["Mid-exposure", alert.mid === null ? null : `${day(alert.mid)} UTC`],
        ["Published", when(alert.at, { full: true })], ["Frame", el("a", { href: frameLink(key) }, frameName(alert))],
        ["CCD", el("a", { href: `#ccd/${encodeURIComponent(alert.ccd ?? "(no CCD named)")}` }, alert.ccd ?? "(no CCD named)")], ["Alert id", id]]))];
};

const showTrack = (id, state) => {
  const track = state.tracks.find((one) => one.id === id);
  if (!track) return gone("Track");
  return [`Track ${track.name}`,
    facts([["Score", fixed(track.score, 3)], ["Seen", `${track.sightings.length} of ${track.exposures ?? "?"} exposures`], ["Field", track.field],
      ["RA, Dec", place(track.ra, track.dec)], ["Rate", fixed(track.rate, 2, "″/h")], ["Direction", heading(track.angle)], ["Known as", known(track)],
      ["Published", when(track.at, { full: true })], ["Version", String(track.version)], ["Track id", id]]),
    el("div", { class: "row" }, track.sightings.map((one) => el("figure", {},
      cutout(one.frame, one.ends, { alt: `Sighting in ${frameName(one)}` }),
      el("figcaption", {}, el("a", { href: frameLink(one.frame) }, frameName(one)), el("br"), `${day(one.mid)} UTC`, el("br"), `mag ${fixed(one.mag, 2)}, SNR ${fixed(one.snr, 1)}, score ${fixed(one.score, 2)}`))))];
};

const showCcd = async (name, state) => {
  const frames = (await get(`ccd?name=${encodeURIComponent(name)}`)) ?? [];
  const ccd = state.ccds.find((one) => one.name === name);
  if (!ccd) return gone(`CCD ${name}`);
  const seen = await Promise.all(frames.slice(0, 12).map((frame) => get(`frame/${frame.frame}`)));
  return [`CCD ${name}`,
    ccd.refused ? el("p", {}, el("b", {}, `The last frame was refused: ${ccd.refused.reason}. `), ccd.refused.detail ?? "") : null,
    el("p", {}, `${count(ccd.frames)} frames examined; the newest ${Math.min(12, frames.length)} of ${frames.length} that are remembered:`),
    el("div", { class: "row" }, seen.filter((one) => one?.summary).map((one) => el("figure", {}, framePicture({ ...one, key: one.summary.frame }, { alt: "" }),
      el("figcaption", {}, el("a", { href: frameLink(one.summary.frame) }, frameName(one.summary)), el("br"),
        one.summary.mid === null ? "" : `${day(one.summary.mid)} UTC, `, `${one.summary.streaks} streaks, noise ${fixed(one.summary.noise, 1)} e⁻, `, when(one.summary.at)))))];
};

// Opens what the address names, if it names something.
export const route = async (state) => {
  const parts = location.hash.slice(1).split("/").map(decodeURIComponent);
  const shows = {
    frame: () => showFrame(parts.slice(1, 4).join("/")), alert: () => showAlert(parts.slice(1, 4).join("/"), parts[4]),
    object: () => showObject(parts.slice(1, 4).join("/"), parts[4]),
    track: () => showTrack(parts[1], state), ccd: () => showCcd(parts.slice(1).join("/"), state),
  };
  if (!Object.hasOwn(shows, parts[0])) {
    if (dialog.open) dialog.close();
    return;
  }
  if (!dialog.open) opener = document.activeElement;
  const asked = location.hash;
  const [title, ...content] = await shows[parts[0]]();
  if (location.hash !== asked) return;
  say(by("details-title"), title);
  by("details-body").classList.remove("unmarked");
  put(by("details-body"), content);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  by("details-title").focus();
};

dialog.addEventListener("close", () => {
  history.replaceState(null, "", location.pathname + location.search);
  const there = opener?.isConnected ? opener : opener?.hash && document.querySelector(`a[href="${CSS.escape(opener.hash)}"]`);
  (there || by("main")).focus({ preventScroll: true });
});
by("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
