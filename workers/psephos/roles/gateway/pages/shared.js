// What both pages use.

export const FIRST_RETRY_MS = 500, MOST_RETRY_MS = 30_000; // full jitter below a doubling limit

export const $ = (id) => document.getElementById(id);
export const between = (low, high) => low + Math.random() * (high - low);
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

// Seconds as people read them.
export function span(seconds) {
  if (seconds >= 172_800) return `${Math.floor(seconds / 86_400)} days`;
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

// The session's title, options, phase and times, and how far the server's clock is ahead of ours, in ms.
// Tries until there is an answer.
export async function loadInfo(base) {
  for (let limit = FIRST_RETRY_MS; ; limit = Math.min(2 * limit, MOST_RETRY_MS)) {
    const answer = await fetch(base).catch(() => null);
    const info = answer?.ok ? await answer.json().catch(() => null) : null;
    if (info) return { info, skew: Date.parse(answer.headers.get("Date")) - Date.now() || 0 };
    await pause(between(0, limit));
  }
}
