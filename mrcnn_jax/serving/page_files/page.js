// The panel, the requests and the events.

const RETRIES = 20; // while the server is busy, or compiles the model

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Shows everything again that depends on the threshold, the classes or the image. */
function update() {
  $("shown-threshold").value = threshold().toFixed(2);
  const objects = state.image ? state.image.objects : [], shown = shownObjects();
  if (!shown.includes(state.selected)) state.selected = null;
  if (!shown.includes(state.hovered)) state.hovered = null;
  $("class-section").hidden = $("object-section").hidden = !objects.length;
  const counts = new Map(objects.map((o) => [o.category, 0]));
  for (const o of objects) if (o.score >= threshold()) counts.set(o.category, counts.get(o.category) + 1);
  const boxes = [...counts].sort(([a], [b]) => a.localeCompare(b)).map(([name, count]) => {
    const box = element("input", {type: "checkbox", checked: !state.hidden.has(name), value: name});
    box.addEventListener("change", () => {
      box.checked ? state.hidden.delete(name) : state.hidden.add(name);
      refresh(box, "#classes input");
    });
    const number = element("span", {className: "score quiet"}, String(count));
    return element("label", {}, box, element("span", {}, name), number);
  });
  $("classes").replaceChildren(...boxes);
  const someAreHidden = [...counts.keys()].some((name) => state.hidden.has(name));
  $("all-classes").textContent = someAreHidden ? "Show all" : "Hide all";
  $("objects").replaceChildren(...shown.map((object) => {
    const score = element("span", {className: "score quiet"}, object.score.toFixed(2));
    const button = element("button", {}, element("span", {}, object.category), score);
    button.setAttribute("aria-pressed", object === state.selected);
    button.style.setProperty("--color", `rgb(${colorOf(object)})`);
    const hover = (value) => () => { state.hovered = value; show(); };
    button.addEventListener("click", () => { select(object); refresh(button, "#objects button"); });
    for (const type of ["pointerenter", "focus"]) button.addEventListener(type, hover(object));
    for (const type of ["pointerleave", "blur"]) button.addEventListener(type, hover(null));
    return element("li", {}, button);
  }));
  if (state.image) {
    const {width, height} = state.image;
    say(`${shown.length} of ${objects.length} objects shown, in ${width} × ${height} pixels`);
  }
  show();
}

/** Updates, and keeps the focus on the control at the same place of its list. */
function refresh(control, list) {
  const place = [...document.querySelectorAll(list)].indexOf(control);
  update();
  document.querySelectorAll(list)[place]?.focus();
}

function select(object) {
  state.selected = state.selected === object ? null : object;
}

function say(text, problem = false) {
  $("status").textContent = text;
  $("status").classList.toggle("problem", problem);
}

/** The answer to a request, which is made again while the server is busy; throws Error with its reason. */
async function ask(path, options) {
  for (let left = RETRIES; ; left--) {
    const answer = await fetch(path, options);
    if (answer.ok) return answer;
    const {error} = await answer.json().catch(() => ({error: `the server answered ${answer.status}`}));
    if (answer.status !== 503 || !left) throw new Error(error);
    const seconds = Math.min(Number(answer.headers.get("Retry-After")) || 1, 10);
    say(`Waiting: ${error}`);
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    options.signal?.throwIfAborted();
  }
}

/** Finds the objects of a file, and shows them; a later file takes its place. */
async function detect(file) {
  state.request?.abort();
  const request = state.request = new AbortController(), signal = request.signal;
  const body = () => { const form = new FormData(); form.append("image", file); return form; };
  say(`Looking at ${file.name} …`);
  $("stage").setAttribute("aria-busy", "true");
  try {
    const {limits, lowest_score: lowest} = state.model ?? await describe();
    if (file.size > limits.bytes) {
      throw new Error(`the file has ${size(file.size)}; at most ${size(limits.bytes)} are taken`);
    }
    const url = "predict?score_threshold=";
    const answer = await ask(url + lowest, {method: "POST", body: body(), signal});
    const {images: [image]} = await answer.json();
    // Of formats that the browser does not know, such as TIFF, the server makes a picture without objects.
    const photo = await createImageBitmap(file).catch(async () => {
      const drawn = await ask(`${url}1&format=png`, {method: "POST", body: body(), signal});
      return createImageBitmap(await drawn.blob());
    });
    if (signal.aborted) return;
    const name = file.name.replace(/\.[^.]*$/, "");
    Object.assign(state, {image, photo, name, layers: [], selected: null, hovered: null});
    $("invitation").hidden = true;
    $("picture").hidden = $("save").hidden = false;
    update();
  } catch (error) {
    if (!signal.aborted) say(`${file.name}: ${error.message}`, true);
  } finally {
    if (request === state.request) $("stage").removeAttribute("aria-busy");
  }
}

async function describe() {
  const model = state.model = await (await ask("model", {})).json();
  $("name").textContent = document.title = model.name;
  const names = model.categories.map((c) => c.name), few = names.slice(0, 8).join(", ");
  const others = names.length > 8 ? ` and ${names.length - 8} more` : "";
  const step = model.step === null ? "" : `step ${model.step}, `;
  $("about").textContent = `${step}finds ${few}${others}`;
  $("masks").parentElement.hidden = !model.masks;
  $("keypoints").parentElement.hidden = !model.categories.some((c) => c.keypoints);
  const {bytes, pixels} = model.limits;
  $("limits").textContent = `up to ${size(bytes)} and ${Math.floor(pixels / 1e6)} megapixels`;
  $("threshold").min = model.lowest_score;
  $("threshold").value = model.score_threshold;
  update();
  return model;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function save(blob, ending) {
  const href = URL.createObjectURL(blob), download = `${state.name || "photograph"}-objects.${ending}`;
  const link = element("a", {href, download});
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

$("file").addEventListener("change", ({target}) => {
  if (target.files.length) detect(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
addEventListener("dragover", (event) => { event.preventDefault(); $("stage").classList.add("dropping"); });
addEventListener("dragleave", (event) => event.relatedTarget || $("stage").classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("dropping");
  if (event.dataTransfer.files.length) detect(event.dataTransfer.files[0]);
});
addEventListener("paste", ({clipboardData}) => clipboardData.files.length && detect(clipboardData.files[0]));
addEventListener("resize", show);
addEventListener("keydown", ({key}) => { if (key === "Escape") { state.selected = null; update(); } });
for (const id of ["masks", "boxes", "keypoints", "labels"]) $(id).addEventListener("change", show);
$("threshold").addEventListener("input", update);
$("all-classes").addEventListener("click", () => {
  const names = state.image.objects.map((o) => o.category);
  state.hidden = new Set(names.some((name) => state.hidden.has(name)) ? [] : names);
  update();
});

function under({offsetX, offsetY}) {
  const scale = state.image.width / $("picture").clientWidth;
  return objectAt(offsetX * scale, offsetY * scale);
}
$("picture").addEventListener("pointermove", (event) => {
  const found = under(event);
  $("picture").classList.toggle("pointing", Boolean(found));
  if (found !== state.hovered) { state.hovered = found; show(); }
});
$("picture").addEventListener("pointerleave", () => { state.hovered = null; show(); });
$("picture").addEventListener("click", (event) => { select(under(event)); update(); });

$("save-png").addEventListener("click", () => {
  const {width, height} = state.image, canvas = newCanvas(1, 1);
  const scale = enlargement(state.image);
  state.hovered = null;
  draw(canvas, scale, Math.max(12, Math.sqrt(width * height) * scale / 58 + 3));
  canvas.toBlob((blob) => save(blob, "png"));
});
$("save-json").addEventListener("click", () => {
  const image = {...state.image, objects: shownObjects()};
  const content = {score_threshold: threshold(), images: [image]};
  save(new Blob([JSON.stringify(content, null, 1)], {type: "application/json"}), "json");
});

$("example").textContent = `curl -F image=@photo.jpg ${new URL("predict", location.href)}`;
update();
describe().catch((error) => say(`The server does not answer: ${error.message}`, true));
