// What is seen at first sight: one function a section, each puts the state into its place.

import { by, el, keyed, put, say } from "./elements.js";
import { bars, cutout, framePicture, lines, sky } from "./drawing.js";
import { clock, count, fixed, frameName, heading, now, place, span, when } from "./words.js";

const QUIET_S = 600;
const MANY_CCDS = 40;
const FRESH_S = 20;
const link = (...parts) => `#${parts.map(encodeURIComponent).join("/")}`;
export const frameLink = (frame) => `#frame/${frame}`;
export const alertLink = (alert) => `#alert/${alert.frame}/${encodeURIComponent(alert.id)}`;
export const objectLink = (one) => `#object/${one.frame}/${encodeURIComponent(one.id)}`;

// --- status ----------------------------------------------------------------------------------------------------------

// How it stands, worst first: [class, words].
export const standing = (state, lostSince) => {
  if (lostSince) return ["bad", `Disconnected: needlestream watch has not answered for ${span(now() - lostSince)}. What is shown is as it was then.`];
  const { link: broker, totals } = state;
  if (!broker.up) return ["bad", `The broker is away for ${span(now() - broker.since_s)}: ${broker.why}. What is shown is as it was then.`];
  if (broker.reading) return ["waiting", "Reading what is in the topics…"];
  const last = state.frames[0]?.summary.at;
  const idle = now() - Math.max(last ?? 0, state.waiting_since ?? now());
  if (state.lag > 0 && idle > 90) return ["warn", `${count(state.lag)} messages wait and nothing was examined for ${span(idle)}: is a worker running?`];
  if (broker.missing.includes(`${state.prefix}frames.examined`)) return ["waiting", `Following; nothing came yet: there is no topic ${state.prefix}frames.examined.`];
  if (!totals.examined && !totals.rejected) return ["waiting", `Following; nothing came yet in the last ${span(state.past_s)}.`];
  return ["good", last === undefined ? "Following." : `Following. The last frame was examined ${span(now() - last)} ago.`];
};

export const status = (state, lostSince) => {
  const [kind, words] = state || lostSince ? standing(state, lostSince) : ["waiting", "Asking the server…"];
  if (by("status").className !== kind) by("status").className = kind;
  say(by("status"), words);
  return kind === "bad" ? words : null;
};

export const totals = (state) => {
  say(by("prefix"), state.prefix && `· ${state.prefix}*`);
  const capped = (topic) => (state.link.capped.includes(state.prefix + topic) ? "+" : "");
  const rows = [
    ["examined", count(state.totals.examined) + capped("frames.examined")],
    ["refused", count(state.totals.rejected) + capped("frames.rejected")],
    ["streaks", count(state.totals.streaks) + capped("frames.examined")],
    ["tracks", count(state.totals.tracks)],
    ...["lenses", "mergers"].filter((kind) => state.totals[kind]).map((kind) => [kind, count(state.totals[kind])]),
  ];
  keyed(by("totals"), rows, ([name]) => name, ([name, value]) => el("div", { id: `total-${name}` }, el("dt", {}, name), el("dd", {}, value)));
  by("totals").title = `Of the last ${span(state.past_s)}; + means that older ones were not read`;
};

// --- is it keeping up ------------------------------------------------------------------------------------------------

const last = (values, steps) => values.slice(-steps).filter((value) => value !== null);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const middle = (values) => (values.length ? [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] : null);

export const gauges = (state) => {
  const s = state.series;
  const minutes = 2;
  const steps = Math.round((60 * minutes) / s.step_s);
  const rate = (values) => sum(last(values.slice(0, -1), steps)) / minutes;
  const highest = (values) => Math.max(0, ...values.filter((value) => value !== null));
  const worst = last(s.latency98, 20);
  const tiles = [
    ["Frames a minute", fixed(rate(s.frames), 1), "over two minutes", bars(s.frames, `Frames in the last hour, ${sum(s.frames)} in all`), highest(s.frames) * (60 / s.step_s)],
    ["Waiting", count(state.lag), state.lag === null ? "not known" : `frame messages, group ${state.group}`, lines([s.lag], `Messages waiting in the last hour, now ${count(state.lag)}`), highest(s.lag)],
    ["Latency", fixed(middle(last(s.latency, 20)), 1, " s"), worst.length ? `arrival to answer; 98 %: ${fixed(Math.max(...worst), 1, " s")}` : "arrival to answer; nothing in ten minutes", lines([s.latency, s.latency98], "Latency in the last hour, median and 98 %"), highest(s.latency98)],
    ["Streaks a minute", fixed(rate(s.streaks), 1), "over two minutes", bars(s.streaks, `Streaks in the last hour, ${sum(s.streaks)} in all`), highest(s.streaks) * (60 / s.step_s)],
  ];
  put(by("gauges"), tiles.map(([name, value, note, drawing, top]) => el("div", { class: "gauge" },
    el("h2", {}, name), el("b", {}, value), el("p", { class: "note" }, note), drawing,
    el("div", { class: "scale" }, el("span", {}, "1 h ago"), el("span", {}, `highest ${top >= 10 ? count(Math.round(top)) : fixed(top, 1)}`), el("span", {}, "now")))));
};

// --- focal plane -----------------------------------------------------------------------------------------------------

const natural = new Intl.Collator("en", { numeric: true });

// CCDs whose names say row and column (3-4, with a quadrant or not) lie where they are; others are in the order of names.
const laidOut = (ccds) => {
  const places = ccds.map((ccd) => /^(\d)-(\d)$/.exec(ccd.name));
  if (ccds.length && places.every(Boolean)) {
    const columns = Math.max(...places.map((found) => Number(found[2])));
    return { columns, note: "by row and column, as the names say", at: (ccd) => { const [, row, column] = /^(\d)-(\d)$/.exec(ccd.name); return `${row} / ${column}`; } };
  }
  return { columns: Math.ceil(Math.sqrt(ccds.length * 1.2)) || 1, note: "in the order of their names", at: () => "" };
};

export const ccdState = (ccd) => {
  if (ccd.refused) return "refused";
  if (!ccd.last || now() - ccd.last.at > QUIET_S) return "quiet";
  return ccd.last.flags.includes("many-streaks") ? "crowded" : "working";
};

export const plane = (state) => {
  const ccds = [...state.ccds].sort((a, b) => natural.compare(a.name, b.name)).map((ccd) => ({ ...ccd, state: ccdState(ccd) }));
  const { columns, note, at } = laidOut(ccds);
  const words = ["working", "crowded", "refused", "quiet"].map((word) => [word, ccds.filter((ccd) => ccd.state === word).length]).filter(([, n]) => n);
  say(by("plane-note"), ccds.length ? `${ccds.length} CCDs ${note}: ${words.map(([word, n]) => `${n} ${word}`).join(", ")}. Quiet: no frame for ten minutes.` : "No CCD was heard of yet.");
  const list = by("ccds");
  list.style.setProperty("--columns", Math.min(columns, 14));
  list.classList.toggle("many", ccds.length > MANY_CCDS);
  keyed(list, ccds, (ccd) => ccd.name, (ccd) => {
    const item = el("li", {}, el("a", { href: link("ccd", ccd.name), class: ccd.state },
      el("b", {}, ccd.name),
      el("span", { class: "word" }, ccd.refused ? `refused: ${ccd.refused.reason}` : `${ccd.state}, ${count(ccd.last?.streaks)} streaks`),
      el("span", { class: "age" }, ccd.last ? when(ccd.last.at) : "–")));
    item.style.gridArea = at(ccd);
    return item;
  });
};

// --- frames, alerts, tracks, refusals --------------------------------------------------------------------------------

const found = (summary) => [["streaks", 0], ["lenses", 1], ["mergers", 1]].filter(([kind, least]) => summary[kind] >= least).map(([kind]) => `${summary[kind]} ${kind}`).join(", ");

// Pictures cost the broker a whole frame each: no new ones before the last have come.
export const newest = (state) => {
  if ([...by("frames").querySelectorAll("img")].some((image) => !image.complete && image.loading !== "lazy")) return;
  const frames = state.frames.slice(0, 8).map((seen) => ({ ...seen, key: seen.summary.frame }));
  keyed(by("frames"), frames, (seen) => seen.key, (seen) => el("li", {}, el("figure", {},
    framePicture(seen, { alt: "" }),
    el("figcaption", {}, el("a", { href: frameLink(seen.key) }, frameName(seen.summary)), ` ${found(seen.summary)}, `, when(seen.summary.at)))));
};

const cell = (label, content, kind = null) => el("td", { "data-label": label, class: kind }, content);

export const alertRow = (alert) => el("tr", { class: now() - alert.at < FRESH_S ? "fresh" : null },
  cell("Pixels", cutout(alert.frame, alert.ends), "pixels"),
  cell("Alert", el("a", { href: alertLink(alert) }, `${alert.kind} ${alert.id.slice(0, 8)}`)),
  cell("Score", fixed(alert.score, 2)), cell("SNR", fixed(alert.snr, 1)), cell("Mag", fixed(alert.mag, 2)),
  cell("Length", fixed(alert.length, 1, " px")), cell("Rate", fixed(alert.rate, 1, "″/h")), cell("RA, Dec", place(alert.ra, alert.dec)),
  cell("Exposure", alert.exposure ?? "–", "long"), cell("CCD", alert.ccd ?? "–"), cell("Published", when(alert.at)));

export const alerts = (state) => {
  say(by("alerts-note"), state.alerts.length ? `The ${state.alerts.length} newest of ${count(state.totals.streaks)}; each leads to its pixels.` : "No alert yet.");
  keyed(by("alert-rows"), state.alerts, (alert) => alert.id, alertRow);
};

export const objectRow = (one) => el("tr", { class: now() - one.at < FRESH_S ? "fresh" : null },
  cell("Pixels", one.ends ? cutout(one.frame, one.ends) : "–", "pixels"),
  cell("Candidate", el("a", { href: objectLink(one) }, `${one.kind} ${one.id.slice(0, 8)}`)),
  cell("Probability", fixed(one.score, 3)), cell("Spread", fixed(one.spread, 3)), cell("Information", fixed(one.content, 0)), cell("Rank", count(one.rank)),
  cell("RA, Dec", place(one.ra, one.dec)), cell("Object", one.object ? one.object.slice(0, 8) : "–"),
  cell("Exposure", one.exposure ?? "–", "long"), cell("CCD", one.ccd ?? "–"), cell("Published", when(one.at)));

export const objects = (state) => {
  const all = state.totals.lenses + state.totals.mergers;
  say(by("objects-note"), state.objects.length ? `The ${state.objects.length} newest of ${count(all)} candidates; most on a real sky are false. The same object keeps its name in every exposure.` : "None yet; workers look for them where their setting classes says so.");
  by("objects-table").hidden = !state.objects.length;
  keyed(by("object-rows"), state.objects, (one) => one.id, objectRow);
};

const mean = (values) => { const there = values.filter((value) => value !== null); return there.length ? sum(there) / there.length : null; };

// A track may be near more than one known object.
export const known = (track) => (track.known ? [track.known, ...track.known_also].join(", or ") : null);

export const tracks = (state) => {
  const fields = [...new Set(state.tracks.map((track) => track.field))];
  const select = by("field");
  const options = [["", "the newest"], ["*", "all"], ...fields.map((field) => [field, field])];
  keyed(select, options, ([value]) => value, ([value, name]) => el("option", { value }, name));
  const chosen = select.value === "" ? fields[0] : select.value;
  const shown = state.tracks.filter((track) => chosen === "*" || track.field === chosen);
  say(by("tracks-note"), shown.length ? `${shown.length} tracks${chosen === "*" ? "" : ` in ${chosen}`}, ${count(state.totals.tracks)} in all` : "No track yet.");
  const content = JSON.stringify(shown);
  if (by("sky").content !== content) {
    put(by("sky"), sky(shown, (track) => link("track", track.id)));
    by("sky").content = content;
  }
  keyed(by("track-rows"), shown, (track) => track.id, (track) => el("tr", { class: now() - track.at < FRESH_S ? "fresh" : null },
    cell("Track", el("a", { href: link("track", track.id) }, track.name)), cell("Score", fixed(track.score, 2)),
    cell("Seen", `${track.sightings.length} of ${track.exposures ?? "?"}`), cell("Mag", fixed(mean(track.sightings.map((one) => one.mag)), 2)),
    cell("Rate", fixed(track.rate, 1, "″/h")), cell("Direction", heading(track.angle)), cell("Known as", known(track) ?? "–", "long"), cell("RA, Dec", place(track.ra, track.dec)), cell("Published", when(track.at))));
};

export const refusals = (state) => {
  const reasons = Object.entries(state.reasons).map(([reason, n]) => `${n} ${reason}`).join(", ");
  say(by("refused-note"), state.refusals.length ? reasons : "None.");
  keyed(by("refusals"), state.refusals.slice(0, 12), (one) => `${one.partition}/${one.offset}/${one.extension}/${one.at}`, (one) => el("li", {},
    el("b", {}, one.reason), ` ${one.source ?? one.key} (message ${one.partition}/${one.offset}${one.extension === null ? "" : `, HDU ${one.extension}`}), `, when(one.at), el("br"), one.detail ?? ""));
};

export const clockTick = () => {
  const time = document.querySelector("#clock time");
  say(time, `${clock(now())} UTC`);
};
