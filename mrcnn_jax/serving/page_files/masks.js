"use strict";

// Masks: from COCO's run-length encoding to layers that are drawn over the photograph.

const SMALLEST = 640; // pixels of a saved picture's long side, as of those that mrcnn-jax predict draws

/** The run lengths of COCO's compressed RLE. */
function runLengths(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, group;
    do {
      group = text.charCodeAt(at++) - 48;
      value += (group & 31) * 2 ** shift;
      shift += 5;
    } while (group & 32);
    if (group & 16) value -= 2 ** shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

/** The smallest crop with all pixels of a mask, as bytes row by row; null if it is empty. */
function decodeMask({size: [height], counts}) {
  const spans = []; // column, first row, end row
  let at = 0;
  runLengths(counts).forEach((length, index) => {
    for (let start = at, end = at + length; index % 2 && start < end;) {
      const column = Math.floor(start / height), next = Math.min(end, (column + 1) * height);
      spans.push([column, start - column * height, next - column * height]);
      start = next;
    }
    at += length;
  });
  if (!spans.length) return null;
  const left = spans[0][0], width = spans[spans.length - 1][0] + 1 - left;
  const top = spans.reduce((least, span) => Math.min(least, span[1]), height);
  const rows = spans.reduce((most, span) => Math.max(most, span[2]), 0) - top;
  const bits = new Uint8Array(width * rows);
  for (const [column, start, end] of spans) {
    for (let row = start; row < end; row++) bits[(row - top) * width + column - left] = 1;
  }
  return {left, top, width, height: rows, bits};
}

function newCanvas(width, height) {
  return Object.assign(document.createElement("canvas"), {width, height});
}

/** How many times larger than an image its picture is, so that masks of small images have smooth edges. */
function enlargement({width, height}) {
  return Math.max(1, Math.ceil(SMALLEST / Math.max(width, height)));
}

/** Makes every pixel opaque or clear, after an enlargement has blurred the edge. */
function sharpen(context) {
  const {width, height} = context.canvas, pixels = context.getImageData(0, 0, width, height);
  for (let at = 3; at < pixels.data.length; at += 4) pixels.data[at] = pixels.data[at] < 128 ? 0 : 255;
  context.putImageData(pixels, 0, 0);
}

/** A mask of an image in its colour, translucent inside and nearly opaque at its edge. */
function paintMask(mask, image, color) {
  const scale = enlargement(image);
  const edge = Math.max(2, Math.round(Math.max(image.width, image.height) * scale / 400));
  const small = newCanvas(mask.width, mask.height), pixels = new ImageData(mask.width, mask.height);
  const [red, green, blue] = color.split(" ").map(Number);
  mask.bits.forEach((bit, index) => bit && pixels.data.set([red, green, blue, 255], 4 * index));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const layer = newCanvas(mask.width * scale + 2 * edge, mask.height * scale + 2 * edge);
  const inside = newCanvas(layer.width, layer.height);
  const onLayer = layer.getContext("2d"), onInside = inside.getContext("2d");
  onLayer.drawImage(small, edge, edge, mask.width * scale, mask.height * scale);
  if (scale > 1) sharpen(onLayer);
  onInside.drawImage(layer, 0, 0);
  onInside.globalCompositeOperation = "destination-in";
  for (const [x, y] of [[edge, 0], [-edge, 0], [0, edge], [0, -edge]]) onInside.drawImage(layer, x, y);
  onLayer.globalCompositeOperation = "destination-out";
  onLayer.globalAlpha = 0.55;
  onLayer.drawImage(inside, 0, 0);
  return {...mask, layer, scale, edge};
}
