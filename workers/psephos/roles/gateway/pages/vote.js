// The voting page. `cast` sends a ballot until ingest has said what became of it; `follow` asks the gateway what
// became of a receipt. A ballot keeps its Idempotency-Key until there is an answer, so sending it again is safe.

import { BallotError, ballotForm, instruction } from "/assets/ballots.js";
import { $, between, element, loadInfo, pause, span } from "/assets/shared.js";

const SESSION = document.documentElement.dataset.session;
const BASE = `/v1/sessions/${encodeURIComponent(SESSION)}`;
const ANSWER_MS = 20_000;
const TRIES = 8, FIRST_LIMIT_MS = 1_000, MOST_LIMIT_MS = 20_000; // full jitter below a doubling limit
const LOOK_MS = 30_000, PAUSED_LOOK_MS = 5_000, OPENING_MS = 2_000; // how often the phase is asked for
const CHECK_MS = 1_000, MOST_CHECK_MS = 15_000;

// What a voter should know and do, by the last part of a problem's type.
const PROBLEMS = {
  "session-not-open": ["Voting has not begun.", "Nothing was recorded. Try again when it has begun."],
  "session-closed": ["Voting is over.", "This vote came too late and was not recorded."],
  "session-paused": ["Voting is paused.", "Nothing was recorded. Your choices stay here: send them when voting goes on."],
  "invalid-token": ["Your voting link is not valid, or it has expired.", "Nothing was recorded. Ask those who sent it to you for a new one."],
  "not-eligible": ["You can't vote here.", "Your link is genuine, but it gives no vote in this election. Ask those who sent it to you."],
  "invalid-ballot": ["This ballot is not valid.", "Nothing was recorded. Change it and send it again."],
  "rate-limited": ["Too many votes from here at the moment.", "Nothing was recorded. Your choices stay here."],
  overloaded: ["There is a rush at the moment.", "Nothing was recorded so far. Your choices stay here: send them again in a moment."],
  unconfirmed: ["Your vote was sent, but not confirmed.", "It may count. Send it again: it counts once, however often it is sent."],
  "no-answer": ["No answer arrived.", "Your vote may have been recorded. Check your connection and send it again: it counts once, however often it is sent."],
  "internal-error": ["Something went wrong at the other end.", "Your vote may have been recorded. Send it again: it counts once, however often it is sent."],
  "idempotency-key-in-use": ["Your vote is still under way.", "Send it again in a moment: it counts once."],
  "request-timeout": ["Your connection is too slow at the moment.", "Nothing was recorded. Send it again."],
  "unknown-session": ["This election is not served here.", "Nothing was recorded. Check the address of this page."],
};
const OTHER = ["This vote was not taken.", "Nothing was recorded."];
const TRIED_AGAIN = new Set(["overloaded", "unconfirmed", "no-answer", "internal-error", "idempotency-key-in-use", "request-timeout"]);
const MAY_COUNT = new Set(["unconfirmed", "no-answer", "internal-error", "idempotency-key-in-use"]);
const ENDED = { "session-closed": "Closing", "session-not-open": "Pending", "session-paused": "Paused" };
const OVER = new Set(["Closing", "Recounting", "Final", "Disputed", "Void"]);

// --- What is known

// Kept over a reload where the browser has storage, else as long as the page is open.
class Memory {
  constructor(storage, prefix) {
    this.prefix = prefix;
    this.here = new Map();
    try { this.storage = storage(); } catch { this.storage = null; }
  }

  get(name) {
    try {
      return JSON.parse(this.storage?.getItem(this.prefix + name) ?? this.here.get(name) ?? "null");
    } catch {
      return null;
    }
  }

  set(name, value) {
    this.here.set(name, JSON.stringify(value));
    try { this.storage?.setItem(this.prefix + name, JSON.stringify(value)); } catch { /* full: it is in `here` */ }
  }

  forget(name) {
    this.here.delete(name);
    this.storage?.removeItem(this.prefix + name);
  }
}

let token = null, receipt = null;
takeFragment(); // first of all: nobody should read a token from the address bar
let { info, skew } = await loadInfo(BASE);
const open = info.eligibility === "open";
const tab = new Memory(() => sessionStorage, `psephos ${info.uid} `);
const browser = new Memory(() => localStorage, `psephos ${info.uid} `); // open sessions: one vote a browser
const keeper = open ? browser : tab;
let lookAnew = () => {}; // the phase has changed: when to look again is another question now
let form = null, sending = false, waiting = 0; // waiting: the timer of a refusal that passes
let asked = null, asking = 0; // the receipt that is followed, and by which call of `follow`
if (open) token = browser.get("token");

// The token stays in memory only. Whether there was anything for us.
function takeFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (!given.has("token") && !given.has("receipt")) return false;
  history.replaceState(null, "", location.pathname + location.search);
  token = given.get("token") ?? token;
  receipt = given.get("receipt");
  return true;
}

// Tells voters at one browser apart, so that none sees what another has filled in. No secret, no name.
function voter() {
  let text = token ?? "";
  try {
    const claims = JSON.parse(atob(text.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    text = JSON.stringify([claims.iss, claims.sub]);
  } catch { /* no JWT: ingest will say so */ }
  let hash = 0x811c9dc5;
  for (const sign of text) hash = Math.imul(hash ^ sign.codePointAt(0), 0x01000193) >>> 0;
  return hash;
}

// --- Views: one of them is on the page

function show(id, focus = false) {
  for (const view of ["message", "ballot", "receipt"]) $(view).hidden = view !== id;
  if (focus) $(`${id}-title`).focus();
}

function tell(title, text, focus) {
  $("message-title").textContent = title;
  $("message-text").textContent = text;
  show("message", focus);
}

// The view that fits what is known. `focus`: the voter asked for it.
function showView(focus = false) {
  showPhase();
  if (receipt) return showReceipt(focus);
  if (OVER.has(info.phase)) return tell("Voting is over", overText(), focus);
  if (info.phase === "Pending") return tell("Voting has not begun", "This page shows the ballot as soon as it has.", focus);
  if (!token && !open) {
    const kept = tab.get("attempt") ? " Your choices of before are kept in this tab." : "";
    return tell("You need your voting link", `Open the personal link that you were sent, in this browser tab.${kept}`, focus);
  }
  showBallot(focus);
}

function overText() {
  const attempt = tab.get("attempt");
  if (info.phase === "Void") return `This vote was declared void${info.reason ? `: ${info.reason}` : "."}`;
  return attempt?.mayCount
    ? "Your last try was not confirmed before the end. It may have been recorded in time; there is no receipt for it."
    : "No more votes are taken.";
}

function showPhase() {
  $("phase").textContent = info.phase;
  $("phase").dataset.phase = info.phase;
  $("phase").hidden = false;
  const paused = info.phase === "Paused";
  $("cast").setAttribute("aria-disabled", String(paused || sending || waiting > 0));
  if (paused && !$("ballot").hidden) showProblem("session-paused");
  if (!paused && $("problem").dataset.slug === "session-paused") clearProblem();
}

function showBallot(focus) {
  if (!form) {
    $("instruction").textContent = instruction(info.ballot);
    $("options").dataset.kind = info.ballot.type;
    form = ballotForm(info.ballot, $("options"), say);
    const attempt = keptAttempt();
    if (attempt) form.fill(JSON.parse(attempt.body));
    $("kept").hidden = !attempt?.mayCount;
  }
  show("ballot", focus);
  showPhase();
}

// Read out, and shown. `loud`: something was refused.
function say(text, loud = false) {
  clearProblem();
  $("said").textContent = loud ? "" : text;
  if (loud) showText("ballot", text, "");
}

function showProblem(slug, detail = "") {
  const [title, text] = PROBLEMS[slug] ?? OTHER;
  const told = PROBLEMS[slug] && slug !== "invalid-ballot" ? text : `${text} ${detail}`.trim();
  showText(slug, title, told);
}

function showText(slug, title, text) {
  if ($("problem").dataset.slug === slug && $("problem").textContent === title + text) return;
  $("problem").dataset.slug = slug;
  $("problem").replaceChildren(...(title ? [element("strong", "", title)] : []), ...(text ? [element("span", "", text)] : []));
}

function clearProblem() {
  delete $("problem").dataset.slug;
  $("problem").replaceChildren();
}

// --- Casting

function keptAttempt() {
  const attempt = tab.get("attempt");
  if (attempt && attempt.voter !== voter()) {
    tab.forget("attempt");
    return null;
  }
  return attempt;
}

// The same ballot of the same voter keeps its key while nobody knows what became of it.
function attemptOf(ballot) {
  const body = JSON.stringify(ballot), kept = keptAttempt();
  if (kept?.body === body) return kept;
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const key = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { key, body, voter: voter(), mayCount: false };
}

async function submit() {
  if (sending || waiting > 0 || info.phase === "Paused") return;
  clearProblem();
  $("said").textContent = "";
  try {
    const ballot = form.read();
    if (Object.values(ballot).every((named) => Object.keys(named).length === 0) && !(await confirmBlank())) return;
    await cast(attemptOf(ballot));
  } catch (error) {
    if (!(error instanceof BallotError)) throw error;
    showText("ballot", "", error.message);
    error.field?.focus();
  }
}

async function cast(attempt) {
  setSending(true);
  try {
    for (let tries = 1, limit = FIRST_LIMIT_MS; ; tries++, limit = Math.min(2 * limit, MOST_LIMIT_MS)) {
      tab.set("attempt", attempt);
      $("progress").textContent = tries === 1 ? "Sending your vote." : `Sending again, try ${tries}. Your vote counts once.`;
      const answer = await post(attempt);
      if (answer.slug === "accepted") return accepted(attempt, answer.body);
      if (MAY_COUNT.has(answer.slug)) attempt.mayCount = true;
      tab.set("attempt", attempt);
      if (!TRIED_AGAIN.has(answer.slug) || tries === TRIES) return refused(attempt, answer);
      $("progress").textContent = `${PROBLEMS[answer.slug][0]} Trying again.`;
      await pause(answer.retryAfterMs + between(0, limit));
    }
  } finally {
    setSending(false);
  }
}

// What ingest says: {slug, body, retryAfterMs}; `no-answer` when there was none, or none of its own.
async function post(attempt) {
  if (!token && open) {
    const refusal = await fetchToken();
    if (refusal) return refusal;
    attempt.voter = voter();
  }
  return ask(info.links.votes, {
    body: attempt.body,
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}`, "Idempotency-Key": attempt.key },
  });
}

// An open session: this browser's token, from ingest the first time.
async function fetchToken() {
  const answer = await ask(info.links.tokens, {});
  if (!answer.body?.token) return answer.slug === "no-answer" ? { ...answer, slug: "overloaded" } : answer;
  token = answer.body.token;
  browser.set("token", token);
  return null;
}

async function ask(url, request) {
  const silent = { slug: "no-answer", body: null, retryAfterMs: 0 };
  try {
    const signal = AbortSignal.timeout(ANSWER_MS);
    const answer = await fetch(url, { method: "POST", cache: "no-store", credentials: "omit", signal, ...request });
    const body = await answer.json();
    const retryAfterMs = 1000 * (Number(answer.headers.get("Retry-After")) || 0);
    if (answer.ok) return { slug: "accepted", body, retryAfterMs };
    return body.type ? { slug: body.type.split("/").at(-1), body, retryAfterMs } : silent;
  } catch {
    return silent;
  }
}

function accepted(attempt, answer) {
  tab.forget("attempt");
  receipt = answer.receipt;
  keeper.set("receipt", { receipt, voter: attempt.voter, mayCount: attempt.mayCount });
  showView(true);
}

function refused(attempt, answer) {
  const { slug, body, retryAfterMs } = answer;
  if (!attempt.mayCount && !TRIED_AGAIN.has(slug) && slug !== "rate-limited" && slug !== "session-paused") tab.forget("attempt");
  if (slug === "invalid-token" && open && !attempt.mayCount) {
    browser.forget("token"); // expired: the next try gets a new one
    token = null;
  }
  if (slug in ENDED) {
    info = { ...info, phase: ENDED[slug] };
    lookAnew(true);
  }
  if (slug === "session-closed" || slug === "session-not-open") {
    showView(true);
    return;
  }
  showProblem(slug, body?.detail);
  if (slug === "rate-limited") waitFor(retryAfterMs || 1000);
}

// Nothing can be sent for so long. The seconds are not read out one by one.
function waitFor(ms) {
  const until = Date.now() + ms;
  clearInterval(waiting);
  const left = element("span");
  left.setAttribute("aria-hidden", "true");
  $("problem").append(" ", left);
  const tick = () => {
    const seconds = Math.ceil((until - Date.now()) / 1000);
    left.textContent = `You can send it in ${span(Math.max(0, seconds))}.`;
    if (seconds > 0) return;
    clearInterval(waiting);
    waiting = 0;
    clearProblem();
    $("said").textContent = "You can send your vote now.";
    showPhase();
  };
  waiting = setInterval(tick, 250);
  tick();
  showPhase();
}

function setSending(now) {
  sending = now;
  $("choices").disabled = now;
  $("cast").textContent = now ? "Sending" : "Cast my vote";
  if (!now) $("progress").textContent = "";
  showPhase();
}

function confirmBlank() {
  const dialog = $("blank");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((decide) => dialog.addEventListener("close", () => decide(dialog.returnValue === "yes"), { once: true }));
}

// --- The receipt

function showReceipt(focus) {
  const text = $("receipt-text");
  text.value = receipt;
  const many = info.votesPerVoter > 1, more = many || info.revote === "last";
  $("again").hidden = !more || OVER.has(info.phase) || !(token || open);
  $("again").textContent = many ? "Cast another vote" : "Change my vote";
  show("receipt", focus);
  if (asked !== receipt) follow();
}

// Asks until the ledger has the vote. Only the newest call goes on.
async function follow() {
  const mine = ++asking;
  asked = receipt;
  showStanding("pending", "It will be counted in a moment.");
  for (let limit = CHECK_MS; ; limit = Math.min(1.5 * limit, MOST_CHECK_MS)) {
    const answer = await fetch(`${BASE}/receipts/${encodeURIComponent(receipt)}`, { cache: "no-store" }).catch(() => null);
    const found = await answer?.json().catch(() => null);
    if (mine !== asking) return;
    const [state, text] = standing(answer, found);
    showStanding(state, text);
    if (state !== "pending") return;
    await pause(1000 * (Number(answer?.headers.get("Retry-After")) || 0) + between(limit / 2, limit));
    if (mine !== asking) return;
  }
}

function showStanding(state, text) {
  $("standing").dataset.state = state;
  if ($("standing").textContent !== text) $("standing").textContent = text;
  const titles = { counted: "Your vote is counted", bad: "Your receipt" };
  $("receipt-title").textContent = titles[state] ?? "Your vote has been received";
}

// [pending | counted | bad, what to say]
function standing(answer, found) {
  const retried = keeper.get("receipt")?.mayCount;
  const reasons = { quota: "you had used all your votes", late: "it came too late", "invalid-ballot": "the ballot is not valid" };
  if (answer?.ok) {
    switch (found?.status) {
      case "counted": return ["counted", "It is in the ledger, which nobody can change afterwards."];
      case "duplicate":
        return retried
          ? ["counted", "It was sent more than once and is counted once: an earlier try had arrived."]
          : ["bad", "An earlier vote of yours counts, this one does not. If you have voted once only, it is the same vote: it was written down twice and counts once."];
      case "superseded": return ["bad", "A later vote of yours has replaced this one. The later one counts."];
      case "rejected": return ["bad", `This vote is not counted: ${reasons[found.reason] ?? found.reason}.`];
      default: return ["pending", "It will be counted in a moment."];
    }
  }
  if (answer?.status === 400) return ["bad", "This is not a receipt of this election: it is cut off or mistyped."];
  if (answer?.status === 404) return ["bad", "This receipt is of another election."];
  if (answer?.status === 409) return ["bad", "The ledger holds something else in this place. Keep the receipt and tell the election's staff: this must never happen."];
  return ["pending", "What became of it can't be seen at the moment. This page goes on asking."];
}

async function copy() {
  $("receipt-text").select();
  const done = await navigator.clipboard?.writeText(receipt).then(() => true, () => false);
  $("copied").textContent = done || document.execCommand("copy") ? "Copied." : "Press Ctrl+C to copy it.";
}

function voteAgain() {
  receipt = asked = null;
  asking++; // whoever asks for the old one stops
  keeper.forget("receipt");
  form = null;
  showView(true);
}

// --- Phase and clock

async function watch() {
  for (;;) {
    const untilOpen = info.opensAt ? Date.parse(info.opensAt) - Date.now() - skew : Infinity;
    const usual = info.phase === "Paused" ? PAUSED_LOOK_MS : LOOK_MS;
    const soon = info.phase === "Pending" && untilOpen > 0 ? Math.min(usual, untilOpen) : info.phase === "Pending" ? OPENING_MS : usual;
    const changed = new Promise((now) => { lookAnew = now; });
    if (await Promise.race([pause(soon + between(0, OPENING_MS)).then(() => false), changed])) continue;
    const before = info.phase;
    ({ info, skew } = await loadInfo(BASE));
    if (info.phase !== before && !sending) showView();
  }
}

function showCountdown() {
  const at = { Pending: info.opensAt, Open: info.closesAt }[info.phase] ?? null;
  $("countdown").hidden = at === null;
  if (at === null) return;
  const verb = info.phase === "Pending" ? "begins" : "ends";
  const left = Math.max(0, Math.ceil((Date.parse(at) - Date.now() - skew) / 1000));
  $("countdown").textContent = left ? `${verb} in ${span(left)}` : `${verb} now`;
}

// --- Put together

function begin(focus) {
  const kept = keeper.get("receipt");
  if (!receipt && kept && (open || !token || kept.voter === voter())) receipt = kept.receipt;
  showView(focus);
}

$("ballot").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("clear").addEventListener("click", () => { if (!sending) { clearProblem(); $("said").textContent = ""; form.fill({}); $("ballot-title").focus(); } });
$("copy").addEventListener("click", copy);
$("check").addEventListener("click", follow);
$("again").addEventListener("click", voteAgain);
$("blank-yes").addEventListener("click", () => $("blank").close("yes"));
$("blank-no").addEventListener("click", () => $("blank").close("no"));
addEventListener("hashchange", () => {
  if (!takeFragment() || sending) return;
  form = null;
  begin(true);
});
setInterval(showCountdown, 1000);
takeFragment(); // a link that was opened while this page was loading
begin(false);
showCountdown();
watch();
