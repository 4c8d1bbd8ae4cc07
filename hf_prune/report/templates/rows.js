// The rows of a run as a table or as cards: search, filter, sort, select, copy, download. No library, no request.
// Whatever comes from the data set is put in as text, never as HTML.

const FIRST = 200; // rows at first, and with each "more"
const AT_ONCE = 2000; // rows drawn before the browser may paint again

const $ = (id) => document.getElementById(id);

/** An element with its class, attributes and content. */
function make(tag, { text, className, ...attributes } = {}, ...children) {
  const element = tag === "svg" || tag === "polyline" || tag === "title" || tag === "line"
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  if (className) element.setAttribute("class", className);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter(Boolean));
  return element;
}

/** The data that Python packed: JSON, compressed, as base64. */
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

function explorer(data) {
  const { rows, columns, values, names, losses, epochs, lists } = data;
  const ids = data.ids ?? rows;
  const places = new Map(rows.map((row, place) => [row, place]));
  const column = Object.fromEntries(columns.map((one) => [one.key, one]));
  const examples = new Map([...document.querySelectorAll(".list [data-row]")].map((card) => [Number(card.dataset.row), card]));
  const withPictures = [...examples.values()].some((card) => card.querySelector("img"));
  const reasons = Object.fromEntries([...document.querySelectorAll(".list")].map((one) => [one.dataset.list, one.querySelector("p").textContent]));
  const [lowest, highest] = [losses.flat(), losses.flat()].map((all, high) =>
    all.reduce((best, one) => (one === null ? best : high ? Math.max(best, one) : Math.min(best, one)), 0));
  const chosen = new Set();
  const state = { list: lists[0].key, sort: "", down: true, cards: matchMedia("(max-width: 640px)").matches };
  let found = [], drawn = 0, drawing = 0, words = null;

  const value = (key, place) => {
    const known = values[key]?.[place] ?? null;
    return known !== null && isLabel(key) ? names[known] : known;
  };
  const show = (known) => (known === null ? "" : String(known)); // numbers are rounded before they come here
  const isLabel = (key) => column[key]?.kind === "label"; // in a regression, it is a number
  const differs = (place) => isLabel("label") && isLabel("predicted") && values.predicted[place] !== null && values.label[place] !== null && values.label[place] !== values.predicted[place];

  // ---- Which rows, in which order ----

  const within = (list, place) =>
    list === "all" || (list === "mismatch" ? differs(place) : list === "duplicates" ? value("duplicate_group", place) !== null : values[list][place] === 1);

  function find() {
    const typed = $("search").value.trim().toLowerCase();
    words ??= rows.map((_, place) => ["label", "predicted", "text", "path"].map((key) => value(key, place) ?? "").concat(ids[place]).join(" ").toLowerCase());
    const parts = typed.split(/\s+/).filter(Boolean);
    const matches = typed.startsWith("#")
      ? (place) => `#${ids[place]}` === typed
      : (place) => parts.every((part) => words[place].includes(part));
    found = rows.map((_, place) => place).filter((place) => within(state.list, place) && matches(place) &&
      ["label", "predicted"].every((key) => !$(key).value || String(values[key][place]) === $(key).value));
    order();
  }

  function order() {
    const key = state.sort, sign = state.down ? -1 : 1;
    const of = key === "id" ? (place) => ids[place] : (place) => value(key, place);
    if (!key) found.sort((a, b) => a - b); // the order in which they came: what to look at first
    else found.sort((a, b) => {
      const [one, other] = [of(a), of(b)];
      if (one === null || other === null) return (one === null) - (other === null); // unknown ones last
      return sign * (typeof one === "string" ? one.localeCompare(other) : one - other);
    });
    redraw();
  }

  // ---- What a row looks like ----

  function sparkline(place) {
    const known = losses.map((one, epoch) => [epoch, one[place]]).filter(([, loss]) => loss !== null);
    if (known.length < 2) return null;
    const words = "Losses by epoch: " + known.map(([epoch, loss]) => `${epochs[epoch]}: ${loss}`).join(", ");
    const points = known.map(([epoch, loss]) => `${(100 * epoch) / Math.max(losses.length - 1, 1)},${30 - (30 * (loss - lowest)) / (highest - lowest || 1)}`).join(" ");
    return make("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": words },
      make("title", { text: words }), make("line", { x1: 0, y1: 30, x2: 100, y2: 30 }), make("polyline", { points }));
  }

  function picture(place) {
    return examples.get(rows[place])?.querySelector("img")?.cloneNode();
  }

  function check(place) {
    const box = make("input", { type: "checkbox", "aria-label": `select row ${ids[place]}`, "data-place": place });
    box.checked = chosen.has(place);
    return box;
  }

  function line(place) {
    const cells = columns.map(({ key, kind }) => {
      const className = (kind === "number" ? "" : kind === "text" ? "words long" : "words") + (key === "predicted" && differs(place) ? " wrong" : "");
      return make("td", { text: show(value(key, place)), className, ...(kind === "number" ? {} : { dir: "auto" }) });
    });
    const pictures = withPictures ? [make("td", {}, picture(place))] : [];
    const lines = losses.length > 1 ? [make("td", {}, sparkline(place))] : [];
    return make("tr", { id: `row-${ids[place]}` }, make("td", {}, check(place)),
      make("th", { scope: "row", text: ids[place] }), ...pictures, ...cells, ...lines);
  }

  function card(place) {
    const [given, predicted] = ["label", "predicted"].map((key) => (isLabel(key) ? value(key, place) : null));
    const head = make("div", { className: "head" }, make("label", {}, check(place), ` row ${ids[place]}`),
      given !== null && make("span", { text: given, dir: "auto" }),
      predicted !== null && make("span", { text: `predicted: ${predicted}`, dir: "auto", className: differs(place) ? "wrong" : "" }));
    const texts = [...(examples.get(rows[place])?.querySelectorAll(".text") ?? [])].map((text) => text.cloneNode(true));
    if (!texts.length && value("text", place) !== null) texts.push(make("div", { className: "text", dir: "auto", text: value("text", place) }));
    if (value("path", place) !== null) texts.push(make("div", { className: "text", dir: "auto", text: value("path", place) }));
    const notes = columns.filter(({ key, kind }) => kind === "number" && value(key, place) !== null).map(({ key, title }) => `${title} ${show(value(key, place))}`);
    return make("li", { id: `row-${ids[place]}` }, head, picture(place), ...texts, sparkline(place), make("div", { className: "note", text: notes.join(", ") }));
  }

  // ---- The list ----

  function redraw() {
    const token = ++drawing; // ends the drawing of an earlier list
    drawn = 0;
    const body = state.cards ? make("ul", { className: "rows" }) : make("tbody");
    $("grid").replaceChildren(state.cards ? body : make("table", {}, make("caption", { text: "Rows of the training set", hidden: "" }), headings(), body));
    draw(FIRST, token);
    $("view").textContent = state.cards ? "Show as table" : "Show as cards";
    $("direction").textContent = state.down ? "↓ largest first" : "↑ smallest first";
    $("direction").disabled = !state.sort;
    $("sort").value = state.sort;
    $("why").textContent = reasons[state.list] ?? lists.find((list) => list.key === state.list).about;
    tell();
  }

  function headings() {
    const head = (key, title, help, words) => {
      const button = make("button", { type: "button", text: title + (state.sort === key ? (state.down ? " ↓" : " ↑") : ""), title: help });
      button.addEventListener("click", () => { sortBy(key); $("grid").querySelector(`th[data-key="${key}"] button`).focus(); });
      return make("th", { scope: "col", "data-key": key, ...(words ? { className: "words" } : {}),
        ...(state.sort === key ? { "aria-sort": state.down ? "descending" : "ascending" } : {}) }, button);
    };
    return make("thead", {}, make("tr", {}, make("th", {}, make("span", { text: "select", hidden: "" })), head("id", "row", data.help),
      withPictures && make("th", { scope: "col", text: "picture" }),
      ...columns.map(({ key, title, help, kind }) => head(key, title, help, kind !== "number")),
      losses.length > 1 && make("th", { scope: "col", text: "loss by epoch" })));
  }

  /** Keep the widths of the columns: else each part that is drawn would measure all rows again. */
  function freeze() {
    if (state.cards) return;
    for (const head of $("grid").querySelectorAll("thead th")) head.style.width = `${head.offsetWidth}px`;
    $("grid").querySelector("table").style.tableLayout = "fixed";
  }

  function draw(count, token = drawing) {
    if (token !== drawing) return;
    const next = found.slice(drawn, drawn + Math.min(count, AT_ONCE));
    $("grid").querySelector(state.cards ? "ul" : "tbody").append(...next.map(state.cards ? card : line));
    drawn += next.length;
    const left = found.length - drawn;
    $("more").hidden = left === 0;
    $("rest").hidden = left <= FIRST;
    $("more").textContent = `Show ${Math.min(left, FIRST)} more`;
    $("rest").textContent = `Show all ${found.length.toLocaleString("en")}`;
    if (count > next.length && left) setTimeout(() => draw(count - next.length, token));
  }

  function tell(word = "") {
    const picked = found.filter((place) => chosen.has(place)).length;
    $("every").checked = picked > 0 && picked === found.length;
    $("every").indeterminate = picked > 0 && picked < found.length;
    $("count").textContent = `${found.length.toLocaleString("en")} of ${data.total.toLocaleString("en")} rows` +
      (chosen.size ? `, ${chosen.size.toLocaleString("en")} selected` : "") + (word ? `. ${word}` : "");
  }

  function sortBy(key) {
    state.down = state.sort === key ? !state.down : key !== "id" && column[key]?.kind === "number";
    state.sort = key;
    order();
  }

  // ---- What leaves the page: numbers and a file ----

  const picked = () => (chosen.size ? [...chosen].sort((a, b) => a - b) : found);

  async function copy() {
    const taken = picked(), text = taken.map((place) => ids[place]).join("\n");
    try {
      await navigator.clipboard.writeText(text);
    } catch { // older browsers, and pages that are not of a secure place
      const box = make("textarea", { text });
      document.body.append(box);
      box.select();
      document.execCommand("copy");
      box.remove();
    }
    tell(`Copied ${taken.length.toLocaleString("en")} numbers.`);
  }

  function download() {
    const isFormula = (known) => typeof known === "string" && /^([=@\t\r]|[+-](?![\d.]+$))/.test(known); // in a spreadsheet
    const safe = (known) => (isFormula(known) ? `'${known}` : String(known ?? ""));
    const quoted = (known) => (/[",\n\r]/.test(known) ? `"${safe(known).replaceAll('"', '""')}"` : safe(known));
    const lines = picked().map((place) => [ids[place], ...columns.map(({ key }) => value(key, place))].map(quoted).join(","));
    const text = [[data.name, ...columns.map(({ key }) => key)].join(","), ...lines, ""].join("\r\n");
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "rows.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href));
    tell(`Downloaded ${lines.length.toLocaleString("en")} rows.`);
  }

  // ---- Controls ----

  function options(select, entries) {
    select.replaceChildren(...entries.map(([value, text]) => make("option", { value, text })));
  }

  function choices() {
    options($("list"), lists.map(({ key, title, count }) => [key, `${title} (${count.toLocaleString("en")})`]));
    options($("sort"), [["", "what to look at first"], ["id", "row"], ...columns.map(({ key, title }) => [key, title])]);
    for (const key of ["label", "predicted"]) {
      const known = isLabel(key) ? [...new Set(values[key])].filter((code) => code !== null) : [];
      known.sort((a, b) => names[a].localeCompare(names[b], "en", { numeric: true }));
      options($(key), [["", "any"], ...known.map((code) => [code, names[code]])]);
      $(key).parentElement.hidden = known.length < 2;
    }
  }

  function reset(list) {
    for (const key of ["search", "label", "predicted"]) $(key).value = "";
    $("list").value = state.list = list;
  }

  /** Show one row alone, as where a point of the map or an address with #row-NUMBER leads. */
  function open(row) {
    if (!places.has(row)) return tell(`Row ${row} is not on this page; history.parquet has it.`);
    reset("all");
    $("search").value = `#${ids[places.get(row)]}`;
    find();
    $("rows").scrollIntoView();
    $("grid").querySelector("[data-place]").focus({ preventScroll: true });
  }

  function describe(row) {
    if (!places.has(row)) return "a row that is not in the table";
    const place = places.get(row), known = ["label", "predicted"].map((key) => value(key, place)).filter((one) => one !== null);
    const numbers = ["mean_loss", "variability", "times_trained"].map((key) => column[key] && `${column[key].title} ${show(value(key, place))}`);
    return [`row ${ids[place]}`, known.join(" → "), ...numbers].filter(Boolean).join(", ");
  }

  function fromAddress() {
    const number = Number(/^#row-(\d+)$/.exec(location.hash)?.[1] ?? NaN), place = ids.indexOf(number);
    if (place >= 0) open(rows[place]);
  }

  let waits;
  $("search").addEventListener("input", () => { clearTimeout(waits); waits = setTimeout(find, 120); });
  for (const key of ["label", "predicted"]) $(key).addEventListener("change", find);
  $("list").addEventListener("change", () => { state.list = $("list").value; find(); });
  $("sort").addEventListener("change", () => { state.sort = ""; sortBy($("sort").value); });
  $("direction").addEventListener("click", () => { state.down = !state.down; order(); });
  $("view").addEventListener("click", () => { state.cards = !state.cards; redraw(); });
  $("more").addEventListener("click", () => draw(FIRST));
  $("rest").addEventListener("click", () => { freeze(); draw(found.length); });
  $("copy").addEventListener("click", copy);
  $("download").addEventListener("click", download);
  $("every").addEventListener("change", () => {
    for (const place of found) $("every").checked ? chosen.add(place) : chosen.delete(place);
    for (const box of $("grid").querySelectorAll("[data-place]")) box.checked = $("every").checked;
    tell();
  });
  $("grid").addEventListener("change", ({ target }) => {
    target.checked ? chosen.add(Number(target.dataset.place)) : chosen.delete(Number(target.dataset.place));
    tell();
  });
  $("grid").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !("place" in event.target.dataset)) return;
    const boxes = [...$("grid").querySelectorAll("[data-place]")];
    boxes[boxes.indexOf(event.target) + step]?.focus();
    event.preventDefault();
  });
  addEventListener("hashchange", fromAddress);

  for (const list of document.querySelectorAll(".list")) list.hidden = true; // the table shows these rows too
  $("rows").hidden = false;
  choices();
  find();
  fromAddress();
  return { describe, open };
}

unpack($("data").textContent).then((data) => {
  const { describe, open } = explorer(data);
  hoverCharts(describe, open);
});
