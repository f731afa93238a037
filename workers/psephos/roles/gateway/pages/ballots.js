// The four kinds of ballot. Each form puts its controls into `place`, tells changes to `say` (for screen
// readers), gives back what is filled in (`read`, which throws BallotError) and takes it again (`fill`).
// The rules are those of the session; ingest checks them again.

import { element } from "/assets/shared.js";

const MOST_RADIOS = 11; // longer scales are typed

// Says what is wrong with a ballot; `field` is where to mend it.
export class BallotError extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

export function ballotForm(ballot, place, say) {
  const Form = { single: Choice, approval: Choice, ranked: Ranking, score: Scores }[ballot.type];
  return new Form(ballot, place, say);
}

// What the voter is to do, in a sentence.
export function instruction({ type, min, max, options, scale }) {
  const number = numberRule(min, Math.min(max, options.length), options.length, type);
  const blank = min === 0 ? " You may also leave the ballot blank." : "";
  if (type === "ranked") return `Put options in your order: the first is the one that you like best. ${number}${blank}`;
  if (type === "score") return `Give scores from ${scale.min} to ${scale.max}. ${number}${blank}`;
  return number + blank;
}

function numberRule(min, max, all, type) {
  const verb = { ranked: "Rank", score: "Score" }[type] ?? "Choose";
  if (type === "single") return "Choose one option.";
  if (min <= 1 && max === all) return `${verb} as many as you like.`;
  if (min === max) return `${verb} exactly ${max}.`;
  return min <= 1 ? `${verb} up to ${max}.` : `${verb} ${min} to ${max}.`;
}

function requireNumber({ type, min, max }, number, field) {
  const done = { ranked: "ranked", score: "scored" }[type] ?? "chosen";
  const some = (count) => `${count} ${count === 1 ? "option" : "options"}`;
  if (number < min && min === 1 && number === 0) throw new BallotError("Choose an option first.", field);
  if (number < min) throw new BallotError(`You have ${done} ${some(number)}. This ballot needs at least ${min}.`, field);
  if (number > max) throw new BallotError(`You have ${done} ${some(number)}. This ballot takes at most ${max}.`, field);
}

// --- Single: radio buttons. Approval: check boxes.

class Choice {
  constructor(ballot, place, say) {
    this.ballot = ballot;
    this.say = say;
    const kind = ballot.type === "single" ? "radio" : "checkbox";
    this.boxes = ballot.options.map((option) => box(kind, "choice", option.id));
    place.replaceChildren(...ballot.options.map((option, place) => {
      const row = element("label", "choice");
      row.append(this.boxes[place], element("span", "", option.label));
      return row;
    }));
    if (kind === "checkbox") place.addEventListener("change", (event) => this.changed(event.target));
  }

  get chosen() {
    return this.boxes.filter((box) => box.checked);
  }

  changed(box) {
    const number = this.chosen.length, { max, options } = this.ballot;
    if (number > max) {
      box.checked = false;
      this.say(`You can choose at most ${max}. Take one back first.`, true);
    } else if (max < options.length) {
      this.say(`${number} of at most ${max} chosen.`);
    }
  }

  read() {
    requireNumber(this.ballot, this.chosen.length, this.boxes[0]);
    return { choices: this.chosen.map((box) => box.value) };
  }

  fill({ choices = [] }) {
    for (const box of this.boxes) box.checked = choices.includes(box.value);
  }
}

// --- Ranked: options go from one list into another, with buttons; dragging is not needed

class Ranking {
  constructor(ballot, place, say) {
    this.ballot = ballot;
    this.say = say;
    this.order = [];
    this.ranked = element("ol", "ranked");
    this.rest = element("ul", "unranked");
    this.empty = element("p", "quiet", "Nothing so far. Pick your first choice below.");
    const mine = element("h3", "", "Your order"), others = element("h3", "", "Not ranked");
    this.othersTitle = others;
    name(this.ranked, mine, "ranked-title");
    name(this.rest, others, "unranked-title");
    this.rows = new Map(ballot.options.map((option) => [option.id, this.row(option)]));
    place.replaceChildren(mine, this.empty, this.ranked, others, this.rest);
    this.show();
  }

  row(option) {
    const row = { option, item: element("li", "rank"), place: element("span", "rank-place") };
    row.item.dataset.option = option.id;
    row.add = button(option.label, `Rank ${option.label}`, () => this.add(row), "rank-add");
    row.label = element("span", "rank-label", option.label);
    row.up = button("↑", `Move ${option.label} up`, () => this.move(row, -1), "step");
    row.down = button("↓", `Move ${option.label} down`, () => this.move(row, 1), "step");
    row.out = button("×", `Take ${option.label} out`, () => this.remove(row), "step");
    return row;
  }

  add(row) {
    const { max } = this.ballot;
    if (this.order.length >= max) {
      this.say(`You can rank at most ${max}. Take one out first.`, true);
      return;
    }
    const next = this.neighbour(row);
    this.order.push(row.option.id);
    this.show();
    this.say(this.placeOf(row));
    (next?.add ?? row.up).focus();
  }

  move(row, by) {
    const from = this.order.indexOf(row.option.id), to = from + by;
    if (to < 0 || to >= this.order.length) {
      this.say(`${row.option.label} is ${by < 0 ? "first" : "last"} already.`);
      return;
    }
    this.order.splice(to, 0, ...this.order.splice(from, 1));
    this.show();
    (by < 0 ? row.up : row.down).focus();
    this.say(this.placeOf(row));
  }

  remove(row) {
    this.order = this.order.filter((id) => id !== row.option.id);
    this.show();
    this.say(`${row.option.label} is not ranked any more.`);
    row.add.focus();
  }

  // The option that the keyboard goes on with when this one is ranked.
  neighbour(row) {
    const rest = [...this.rest.children], at = rest.indexOf(row.item);
    return this.rows.get((rest[at + 1] ?? rest[at - 1])?.dataset.option);
  }

  placeOf(row) {
    return `${row.option.label}: place ${this.order.indexOf(row.option.id) + 1} of ${this.order.length}.`;
  }

  show() {
    const rest = this.ballot.options.filter((option) => !this.order.includes(option.id));
    this.order.forEach((id, index) => {
      const row = this.rows.get(id);
      row.place.textContent = `${index + 1}`;
      off(row.up, index === 0);
      off(row.down, index === this.order.length - 1);
      row.item.replaceChildren(row.place, row.label, row.up, row.down, row.out);
    });
    for (const option of rest) this.rows.get(option.id).item.replaceChildren(this.rows.get(option.id).add);
    this.ranked.replaceChildren(...this.order.map((id) => this.rows.get(id).item));
    this.rest.replaceChildren(...rest.map((option) => this.rows.get(option.id).item));
    this.empty.hidden = this.order.length > 0;
    this.ranked.hidden = this.order.length === 0;
    this.rest.hidden = this.othersTitle.hidden = rest.length === 0;
  }

  read() {
    requireNumber(this.ballot, this.order.length, this.rest.querySelector("button"));
    return { choices: [...this.order] };
  }

  fill({ choices = [] }) {
    this.order = choices.filter((id) => this.rows.has(id));
    this.show();
  }
}

// --- Score: a scale an option, or a field for a number where the scale is long

class Scores {
  constructor(ballot, place) {
    this.ballot = ballot;
    const { min, max } = ballot.scale;
    const Row = max - min < MOST_RADIOS ? Scale : NumberField;
    this.rows = ballot.options.map((option, index) => new Row(option, index, ballot.scale));
    place.replaceChildren(...this.rows.map((row) => row.item));
  }

  read() {
    const given = this.rows.map((row) => [row.option.id, row.read()]).filter(([, score]) => score !== null);
    requireNumber(this.ballot, given.length, this.rows[0].field);
    return { scores: Object.fromEntries(given) };
  }

  fill({ scores = {} }) {
    for (const row of this.rows) row.fill(scores[row.option.id] ?? null);
  }
}

class Scale {
  constructor(option, index, { min, max }) {
    this.option = option;
    this.item = element("fieldset", "scale");
    this.item.append(element("legend", "", option.label));
    const values = ["", ...Array.from({ length: max - min + 1 }, (_, step) => String(min + step))];
    this.boxes = values.map((value) => box("radio", `score-${index}`, value));
    this.boxes[0].checked = true;
    this.item.append(...values.map((value, place) => {
      const step = element("label", "point");
      step.append(this.boxes[place], element("span", "", value || "none"));
      return step;
    }));
    this.field = this.boxes[0];
  }

  read() {
    const { value } = this.boxes.find((box) => box.checked);
    return value === "" ? null : Number(value);
  }

  fill(score) {
    for (const box of this.boxes) box.checked = box.value === (score === null ? "" : String(score));
  }
}

class NumberField {
  constructor(option, index, scale) {
    this.option = option;
    this.scale = scale;
    this.item = element("label", "score");
    this.field = box("text", `score-${index}`, "");
    Object.assign(this.field, { autocomplete: "off", inputMode: scale.min < 0 ? "text" : "numeric" });
    this.item.append(element("span", "", option.label), this.field);
  }

  read() {
    const text = this.field.value.trim(), { min, max } = this.scale, score = Number(text);
    const well = text === "" || (/^[+-]?\d+$/.test(text) && score >= min && score <= max);
    this.field.setAttribute("aria-invalid", String(!well));
    if (!well) {
      throw new BallotError(`The score of ${this.option.label} must be a whole number from ${min} to ${max}.`, this.field);
    }
    return text === "" ? null : score;
  }

  fill(score) {
    this.field.value = score ?? "";
  }
}

// --- Small things

function box(type, name, value) {
  return Object.assign(element("input"), { type, name, value });
}

function button(text, label, act, className) {
  const made = element("button", className, text);
  made.type = "button";
  if (text !== label) made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

// Off, but still there for the keyboard: focus must not get lost at the end of a list.
const off = (button, isOff) => button.setAttribute("aria-disabled", String(isOff));

function name(list, title, id) {
  title.id = id;
  list.setAttribute("aria-labelledby", id);
}
