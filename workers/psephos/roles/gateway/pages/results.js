// The results page. `Follower` brings frames, `show…` functions put them on the page; nothing else is kept.
// A frame is a full snapshot, so only the newest matters: (epoch, version) says which that is.

import { $, FIRST_RETRY_MS, MOST_RETRY_MS, between, element, loadInfo, pause, span } from "/assets/shared.js";

const SESSION = document.documentElement.dataset.session;
const BASE = `/v1/sessions/${encodeURIComponent(SESSION)}`;
const POLL_MS = 2_000, POLLS_BEFORE_LIVE = 30;
const SILENT_MS = 45_000; // a connection that says nothing for so long is checked by a plain request
const SUMMARY_MS = 15_000; // screen readers hear of changes no more often than that
const REASONS = { malformed: "unreadable", "invalid-ballot": "not valid", quota: "above the allowance", late: "too late" };
const SHOWN = 12; // options shown before "show all"
const FEW = 10; // so few options that bars can show shares; with more, bars compare with the leader's

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

// --- Following: WebSocket, else server-sent events, else polling

class Follower {
  constructor(onFrame, onConnected) {
    this.onFrame = onFrame;
    this.onConnected = onConnected;
    this.frame = null;
    this.failures = 0; // in a row
    this.unopened = 0; // connections of this kind in a row that never opened
    this.heard = Date.now();
    this.kind = this.socket;
  }

  start() {
    this.kind();
    setInterval(() => this.check(), 10_000);
  }

  // A version never goes backwards within an epoch; another epoch means: forget.
  take(frame) {
    this.heard = Date.now();
    this.failures = 0;
    const known = this.frame;
    if (known && known.epoch === frame.epoch && frame.version < known.version) return;
    this.frame = frame;
    this.onFrame(frame);
    if (frame.final) this.stop();
  }

  get since() {
    return this.frame ? `?since=${this.frame.epoch}:${this.frame.version}` : "";
  }

  socket() {
    const socket = new WebSocket(new URL(`${BASE}/live${this.since}`, location.href.replace(/^http/, "ws")));
    let opened = false;
    this.close = () => { socket.onclose = null; socket.close(); };
    socket.onopen = () => { opened = true; this.opened(); };
    socket.onmessage = (message) => this.take(JSON.parse(message.data));
    socket.onclose = (event) => this.again(opened, this.events, /^retry=(\d+)$/.exec(event.reason)?.[1]);
  }

  events() {
    const source = new EventSource(`${BASE}/events${this.since}`);
    let opened = false;
    this.close = () => source.close();
    source.onopen = () => { opened = true; this.opened(); };
    source.onmessage = (event) => this.take(JSON.parse(event.data));
    source.onerror = () => { source.close(); this.again(opened, this.poll); };
  }

  async poll() {
    let left = POLLS_BEFORE_LIVE, going = true;
    this.close = () => { going = false; };
    while (going && left-- > 0) {
      const frame = await fetchResults();
      if (!going) return;
      if (frame) { this.onConnected(true); this.take(frame); } else { this.onConnected(false); }
      if (!going) return;
      await pause(between(POLL_MS, 2 * POLL_MS));
    }
    if (going) { this.kind = this.socket; this.kind(); }
  }

  opened() {
    this.unopened = 0;
    this.heard = Date.now();
    this.onConnected(true);
  }

  // After a lost connection: at a random time below a limit that doubles, or when the server said.
  again(opened, fallback, serverMs) {
    this.onConnected(false);
    this.unopened = opened ? 0 : this.unopened + 1;
    if (this.unopened >= 2) { this.kind = fallback; this.unopened = this.failures = 0; }
    const limit = Math.min(MOST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.failures++);
    this.timer = setTimeout(() => this.kind(), serverMs ? Number(serverMs) : between(0, limit));
  }

  async check() {
    if (this.stopped || Date.now() - this.heard < SILENT_MS) return;
    this.heard = Date.now();
    const frame = await fetchResults();
    if (!frame || this.stopped || (this.frame && frame.epoch === this.frame.epoch && frame.version <= this.frame.version)) return;
    this.take(frame); // the live connection has missed it
    if (this.stopped) return;
    this.close();
    this.again(true, this.kind);
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    this.close?.();
    this.kind = () => {};
  }
}

async function fetchResults() {
  const answer = await fetch(`${BASE}/results`).catch(() => null);
  return answer?.ok ? answer.json().catch(() => null) : null;
}

// --- What is on the page

let info = null, newest = null, connected = false, showAll = false, skew = 0;
let summarised = { at: 0, text: "" };
const rows = new Map(); // option id -> its list item

function showFrame(frame) {
  newest = frame;
  showPhase(frame.phase);
  showConnection();
  showTurnout(frame.turnout, frame.asOf);
  showSegments(frame.segments);
  showBars(frame);
  showOutcome(frame);
  summarise(frame);
}

function showPhase(phase) {
  $("phase").textContent = phase;
  $("phase").dataset.phase = phase;
  $("phase").hidden = false;
  $("publication").hidden = phase !== "Final";
  const notices = {
    Pending: "Voting has not begun.",
    Paused: "Voting is paused and goes on later.",
    Disputed: "The recount found differences. People are looking into them; the figures below may change.",
    Void: "This vote was declared void.",
  };
  $("notice").textContent = notices[phase] ?? "";
  $("notice").hidden = !(phase in notices);
  if (phase === "Void") showReason();
}

async function showReason() {
  for (;;) {
    ({ info } = await loadInfo(BASE));
    if (info.phase === "Void") break;
    await pause(POLL_MS); // a cache is some seconds behind
  }
  if (info.reason) $("notice").textContent = `This vote was declared void: ${info.reason}`;
}

function showConnection() {
  const [state, text] = connectionState();
  $("connection").dataset.state = state;
  if ($("connection-text").textContent !== text) $("connection-text").textContent = text;
  document.body.classList.toggle("stale", state === "stale" || state === "lost");
}

function connectionState() {
  if (newest?.final) return ["final", "Final result"];
  const at = newest ? clock.format(newest.asOf) : "";
  if (!connected) return newest ? ["lost", `Reconnecting · as of ${at}`] : ["waiting", "Connecting"];
  if (!newest) return ["waiting", "Waiting for results"];
  return newest.stale ? ["stale", `Delayed · as of ${at}`] : ["live", "Live"];
}

function showTurnout(turnout, asOf) {
  const rejected = Object.entries(turnout.rejected).filter(([, number]) => number > 0);
  const figures = {
    counted: turnout.accepted - turnout.superseded,
    superseded: turnout.superseded,
    duplicate: turnout.duplicate,
    rejected: rejected.reduce((sum, [, number]) => sum + number, 0),
    received: turnout.received,
  };
  for (const [id, number] of Object.entries(figures)) $(id).textContent = count.format(number);
  $("superseded-figure").hidden = info.revote !== "last";
  $("rejected-detail").hidden = rejected.length === 0;
  $("rejected-detail").textContent =
    "Rejected: " + rejected.map(([reason, number]) => `${count.format(number)} ${REASONS[reason] ?? reason}`).join(", ");
  $("as-of").textContent = `as of ${clock.format(asOf)}`;
}

function showSegments(segments) {
  $("segment-label").hidden = !segments;
  if (!segments || $("segment").options.length) return;
  $("segment").append(new Option("all", ""), ...Object.keys(segments).map((name) => new Option(name, name)));
}

function showBars(frame) {
  const chosen = frame.segments && $("segment").value;
  const totals = chosen ? frame.segments[chosen] : frame.totals;
  $("waiting").hidden = true;
  $("sealed").hidden = totals !== null;
  $("results-title").textContent = { ranked: "First preferences", score: "Sums of scores" }[info.ballot.type] ?? "Votes";
  const sorted = totals ? info.ballot.options.toSorted((a, b) => totals[b.id] - totals[a.id]) : [];
  const visible = showAll ? sorted : sorted.slice(0, SHOWN);
  const whole = shareOf(totals, frame, chosen);
  $("bars").toggleAttribute("data-plain", whole === null);
  const most = sorted.length ? totals[sorted[0].id] : 0;
  const before = new Map([...$("bars").children].map((row) => [row, row.getBoundingClientRect().top]));
  const items = visible.map((option) => fillRow(option, totals[option.id], whole, most));
  items.forEach((row, place) => row.toggleAttribute("data-first", place === 0 && most > 0));
  reorder($("bars"), items);
  glide(before);
  $("more").hidden = sorted.length <= SHOWN;
  $("more").setAttribute("aria-expanded", String(showAll));
  $("more").textContent = showAll ? `Show the first ${SHOWN}` : `Show all ${sorted.length} options`;
}

// What shares are shares of: all votes, or for approval all ballots; null where a share says nothing.
function shareOf(totals, frame, segment) {
  if (!totals || info.ballot.type === "score") return null;
  if (info.ballot.type !== "approval") return Object.values(totals).reduce((sum, votes) => sum + votes, 0);
  return info.weighted || segment ? null : frame.turnout.accepted - frame.turnout.superseded;
}

function fillRow(option, votes, whole, most) {
  const row = rows.get(option.id) ?? newRow(option);
  const share = whole ? votes / whole : 0;
  row.votes.textContent = count.format(votes);
  row.share.textContent = whole === null ? "" : percent.format(share);
  row.share.hidden = whole === null;
  const full = whole !== null && info.ballot.options.length <= FEW ? whole : most;
  const length = full > 0 ? votes / full : 0;
  row.fill.style.transform = `scaleX(${Math.min(1, Math.max(0, length))})`;
  return row.item;
}

function newRow(option) {
  const item = element("li", "bar"), track = element("div", "bar-track"), fill = element("div", "bar-fill");
  item.dataset.option = option.id;
  track.append(fill);
  track.setAttribute("aria-hidden", "true");
  const votes = element("span", "bar-votes"), share = element("span", "bar-share");
  item.append(element("span", "bar-label", option.label), votes, share, track);
  const row = { item, votes, share, fill };
  rows.set(option.id, row);
  return row;
}

// Moves only what is out of place, so that focus and transitions survive.
function reorder(list, items) {
  items.forEach((item, place) => {
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
  while (list.children.length > items.length) list.lastChild.remove();
}

// Rows that changed places slide there.
function glide(before) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const [row, top] of before) {
    const moved = row.isConnected ? top - row.getBoundingClientRect().top : 0;
    if (Math.abs(moved) > 1) {
      row.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }], { duration: 450, easing: "cubic-bezier(.2,.7,.2,1)" });
    }
  }
}

// --- The outcome

function showOutcome(frame) {
  const outcome = frame.final ? frame.outcome : null;
  $("winner").hidden = !outcome;
  $("rounds").hidden = !outcome || !hasRounds(outcome);
  if (!outcome) return;
  const names = outcome.winners.map(label);
  $("winner-label").textContent = names.length ? "Winner" : "Outcome";
  $("winner-name").textContent = names.length ? names.join(", ") : "Nobody was voted for";
  $("winner-detail").textContent = winnerDetail(outcome);
  if (hasRounds(outcome)) showRounds(outcome);
  showTies(outcome.tieBreaks ?? []);
}

// Where the count is more than the bars above: several rounds, points, means.
function hasRounds(outcome) {
  return outcome.rounds.length > 1 || outcome.method === "borda" || outcome.method === "mean";
}

function winnerDetail(outcome) {
  const last = outcome.rounds.at(-1)?.tally ?? {};
  const [winner] = outcome.winners;
  const others = Object.keys(last).filter((id) => id !== winner).sort((a, b) => last[b] - last[a]);
  if (!winner || !(winner in last)) return "";
  const unit = { borda: "points", mean: "on average", sum: "in sum" }[outcome.method] ?? "votes";
  const ahead = others.length ? `, ahead of ${label(others[0])} with ${count.format(last[others[0]])}` : "";
  const rounds = outcome.rounds.length > 1 ? ` after ${outcome.rounds.length} rounds` : "";
  return `${count.format(last[winner])} ${unit}${rounds}${ahead}`;
}

function showRounds(outcome) {
  const { rounds, winners } = outcome;
  const survived = (id) => rounds.findLastIndex((round) => id in round.tally);
  const ids = info.ballot.options.map((option) => option.id).filter((id) => survived(id) >= 0);
  ids.sort((a, b) => survived(b) - survived(a) || rounds[survived(b)].tally[b] - rounds[survived(a)].tally[a]);
  const heads = rounds.map((_, index) => header("col", rounds.length > 1 ? `Round ${index + 1}` : "Count"));
  const table = $("rounds-table");
  table.replaceChildren(
    section("thead", [tableRow([element("td"), ...heads])]),
    section("tbody", ids.map((id) => roundsRow(id, rounds, winners))),
    section("tfoot", [tableRow([header("row", "No further choice"), ...rounds.map((r) => element("td", "", count.format(r.exhausted)))])]),
  );
  $("rounds-text").textContent = {
    irv: "In each round the lowest go out, and their ballots go to the next choice on them.",
    borda: "A first preference gives most points, each later one a point less.",
    mean: "The mean of the scores that an option was given.",
  }[outcome.method] ?? "";
}

function roundsRow(id, rounds, winners) {
  const won = winners.includes(id);
  const cells = rounds.map((round, index) => roundCell(id, round, won && index === rounds.length - 1));
  const line = tableRow([header("row", label(id)), ...cells]);
  line.toggleAttribute("data-won", won);
  return line;
}

function roundCell(id, round, won) {
  if (!(id in round.tally)) return element("td", "over", "–");
  const cell = element("td", "", count.format(round.tally[id])), bar = element("span", "cell-bar");
  bar.style.transform = `scaleX(${Math.max(0, round.tally[id]) / (Math.max(...Object.values(round.tally)) || 1)})`;
  cell.append(bar);
  if (round.eliminated.includes(id)) cell.append(element("span", "out", "eliminated"));
  if (won) cell.append(element("span", "won", "winner"));
  return cell;
}

function showTies(ties) {
  const rule = { declared: "the declared order", lot: "lot" };
  $("ties").hidden = ties.length === 0;
  $("ties").replaceChildren(...ties.map((tie) => element("li", "",
    `Round ${tie.round}: ${tie.tied.map(label).join(" and ")} were level; ` +
    `${label(tie.chosen)} ${tie.purpose === "win" ? "won" : "went out"} by ${rule[tie.rule] ?? tie.rule}.`)));
}

// --- Small things

const label = (id) => info.ballot.options.find((option) => option.id === id)?.label ?? id;

function header(scope, text) {
  const made = element("th", "", text);
  made.scope = scope;
  return made;
}

const tableRow = (cells) => section("tr", cells);

function section(name, children) {
  const made = element(name);
  made.append(...children);
  return made;
}

function summarise(frame) {
  const text = summaryOf(frame);
  if (text === summarised.text || (!frame.final && Date.now() - summarised.at < SUMMARY_MS)) return;
  summarised = { at: Date.now(), text };
  $("summary").textContent = text;
}

function summaryOf(frame) {
  const counted = `${count.format(frame.turnout.accepted - frame.turnout.superseded)} votes counted`;
  if (frame.final && frame.outcome?.winners.length) return `Final result: ${frame.outcome.winners.map(label).join(", ")} won. ${counted}.`;
  if (!frame.totals) return `${frame.phase}. ${counted}.`;
  const [first] = info.ballot.options.toSorted((a, b) => frame.totals[b.id] - frame.totals[a.id]);
  return `${frame.phase}. ${first.label} leads with ${count.format(frame.totals[first.id])}. ${counted}.`;
}

function showCountdown() {
  const phase = newest?.phase ?? info?.phase;
  const opens = phase === "Pending" && info.opensAt ? Date.parse(info.opensAt) : null;
  const closes = phase === "Open" ? newest?.closesAt ?? (info.closesAt ? Date.parse(info.closesAt) : null) : null;
  const at = opens ?? closes;
  $("countdown").hidden = at === null;
  if (at === null) return;
  const left = Math.max(0, Math.ceil((at - (Date.now() + skew)) / 1000));
  $("countdown").textContent = left === 0 ? (opens ? "opens now" : "closes now") : `${opens ? "opens" : "closes"} in ${span(left)}`;
}

({ info, skew } = await loadInfo(BASE));
showPhase(info.phase);
setInterval(showCountdown, 1000);
const follower = new Follower(showFrame, (now) => { connected = now; showConnection(); });
$("segment").addEventListener("change", () => showBars(newest));
$("more").addEventListener("click", () => { showAll = !showAll; showBars(newest); });
const first = await fetchResults();
if (first) follower.take(first);
if (!follower.stopped) follower.start();
