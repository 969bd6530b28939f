// What is shown of an answer, and how it is drawn.
//
// Text of the model and of files is only ever written as text (textContent, append), never as HTML.
const $ = (id) => document.getElementById(id);

// The colours of mrcnn_jax/inference/draw.py, by an object's place in the answer.
const COLORS = [
  "255 64 80", "30 144 255", "255 200 20", "20 180 100", "190 90 255", "255 130 30", "0 200 215",
  "255 100 190", "150 205 40", "100 110 245", "205 120 80", "70 215 160", "215 50 150", "150 160 175",
];

const state = {
  model: null,
  name: "", // of the file, without its ending
  photo: null, // ImageBitmap
  image: null, // of the answer: height, width, objects
  layers: [], // of layerOf, by object
  hidden: new Set(), // names of classes
  selected: null, // an object
  hovered: null,
  request: null, // AbortController of the latest
};

function colorOf(object) {
  return COLORS[state.image.objects.indexOf(object) % COLORS.length];
}

function threshold() {
  return Number($("threshold").value);
}

function shownObjects() {
  const objects = state.image ? state.image.objects : [];
  return objects.filter((o) => o.score >= threshold() && !state.hidden.has(o.category));
}

function area(object) {
  return object.bbox[2] * object.bbox[3];
}

/** An object's mask in its colour, made when it is first needed; null if it has none. */
function layerOf(object) {
  const index = state.image.objects.indexOf(object);
  if (state.layers[index] === undefined) {
    const mask = object.segmentation ? decodeMask(object.segmentation) : null;
    state.layers[index] = mask && paintMask(mask, state.image, colorOf(object));
  }
  return state.layers[index];
}

/** The smallest shown object at a point of the image, by its mask or else by its box. */
function objectAt(x, y) {
  const inMask = (o) => {
    const mask = $("masks").checked && layerOf(o);
    if (!mask) return false;
    const column = Math.floor(x) - mask.left, row = Math.floor(y) - mask.top;
    return column >= 0 && row >= 0 && column < mask.width && row < mask.height
      && mask.bits[row * mask.width + column] === 1;
  };
  const inBox = ({bbox: [left, top, width, height]}) =>
    x >= left && y >= top && x <= left + width && y <= top + height;
  const objects = shownObjects().sort((a, b) => area(a) - area(b));
  return objects.find(inMask) ?? objects.find(inBox) ?? null;
}

/** Draws the photograph and its objects; `scale` is from pixels of the image to those of the canvas. */
function draw(canvas, scale, font) {
  const {image, photo} = state, context = canvas.getContext("2d");
  canvas.width = Math.round(image.width * scale);
  canvas.height = Math.round(image.height * scale);
  context.imageSmoothingQuality = "high";
  if (photo) context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  const line = Math.max(1, font / 8), active = state.hovered ?? state.selected;
  const objects = shownObjects().sort((a, b) => area(b) - area(a));
  const faintOf = (object) => (active && active !== object ? 0.35 : 1);
  for (const object of objects) {
    context.globalAlpha = faintOf(object);
    if ($("masks").checked) drawMask(context, object, scale);
    const width = object === active ? 2 * line : line;
    if ($("boxes").checked || object === active) drawBox(context, object, scale, width);
    if ($("keypoints").checked && object.keypoints) drawKeypoints(context, object, scale, line);
  }
  for (const object of objects.sort((a, b) => a.score - b.score)) {
    context.globalAlpha = faintOf(object);
    if ($("labels").checked || object === active) drawName(context, object, scale, font);
  }
  context.globalAlpha = 1;
}

function drawMask(context, object, scale) {
  const mask = layerOf(object);
  if (!mask) return;
  const {layer, left, top, edge} = mask, zoom = scale / mask.scale;
  const x = left * scale - edge * zoom, y = top * scale - edge * zoom;
  context.drawImage(layer, x, y, layer.width * zoom, layer.height * zoom);
}

function drawBox(context, object, scale, line) {
  context.strokeStyle = `rgb(${colorOf(object)})`;
  context.lineWidth = line;
  context.strokeRect(...object.bbox.map((value) => value * scale));
}

function drawKeypoints(context, object, scale, line) {
  const category = state.model.categories.find((c) => c.id === object.category_id);
  const point = (index) => [object.keypoints[3 * index] * scale, object.keypoints[3 * index + 1] * scale];
  const bones = (category?.skeleton ?? []).map(([a, b]) => [point(a - 1), point(b - 1)]);
  for (const [color, width] of [["rgb(0 0 0 / .6)", line + 2], [`rgb(${colorOf(object)})`, line + 0.5]]) {
    context.strokeStyle = color;
    context.lineWidth = width;
    for (const [from, to] of bones) {
      context.beginPath();
      context.moveTo(...from);
      context.lineTo(...to);
      context.stroke();
    }
  }
  const discs = [["rgb(0 0 0 / .6)", 1.8], [`rgb(${colorOf(object)})`, 1.4], ["white", 0.7]];
  for (const [color, radius] of discs) {
    context.fillStyle = color;
    for (let index = 0; index < object.keypoints.length / 3; index++) {
      context.beginPath();
      context.arc(...point(index), radius * line + 1, 0, 2 * Math.PI);
      context.fill();
    }
  }
}

function drawName(context, object, scale, font) {
  const text = `${object.category} ${object.score.toFixed(2)}`, margin = font / 4, height = font * 1.4;
  context.font = `${font}px system-ui, sans-serif`;
  const width = context.measureText(text).width + 2 * margin;
  const x = Math.max(0, Math.min(object.bbox[0] * scale, context.canvas.width - width));
  const above = object.bbox[1] * scale - height, y = above < 0 ? object.bbox[1] * scale : above;
  const [red, green, blue] = colorOf(object).split(" ").map(Number);
  context.fillStyle = `rgb(${red} ${green} ${blue} / .9)`;
  context.fillRect(x, y, width, height);
  context.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "black" : "white";
  context.textBaseline = "middle";
  context.fillText(text, x + margin, y + height / 2);
}

/** Draws on the screen, as large as fits. */
function show() {
  if (!state.image) return;
  const {width, height} = state.image, zoom = window.devicePixelRatio || 1;
  const across = $("stage").clientWidth, high = Math.max(240, window.innerHeight * 0.75);
  const scale = Math.min(across / width, high / height);
  draw($("picture"), scale * zoom, 13 * zoom);
  $("picture").style.width = `${width * scale}px`;
}
