// The symbol of a driver's state: a shape, a colour and a letter, on canvases and in the legend.
const LETTER_FROM_RADIUS = 6; // CSS px; a smaller letter is not legible

/** Draw a symbol centred at (x, y). `radius` is in canvas pixels, `ratio` the pixels per CSS px. */
export function drawSymbol(context, { shape, colour, letter, isHollow }, x, y, radius, ratio = 1) {
  const edge = Math.max(1, radius / 5);
  context.beginPath();
  if (shape === "diamond") {
    const reach = radius * 1.25;
    for (const [dx, dy] of [[0, -reach], [reach, 0], [0, reach], [-reach, 0]]) context.lineTo(x + dx, y + dy);
    context.closePath();
  } else if (shape === "square") {
    const half = radius * 0.9;
    context.rect(x - half, y - half, 2 * half, 2 * half);
  } else {
    context.arc(x, y, shape === "ring" ? radius * 0.8 : radius, 0, 2 * Math.PI);
  }
  const isOpen = isHollow || shape === "ring";
  context.lineWidth = shape === "ring" ? radius * 0.45 : isHollow ? radius * 0.35 : edge;
  context.fillStyle = isOpen ? "#fff" : colour;
  context.strokeStyle = isOpen ? colour : "#fff";
  context.fill();
  context.stroke();
  if (!letter || radius < LETTER_FROM_RADIUS * ratio) return;
  context.fillStyle = isHollow || isLight(colour) ? "#16202c" : "#fff";
  context.font = `700 ${Math.round(radius * 1.3)}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(letter, x, y + radius * 0.08);
}

/** Draw the tip of an arrow behind a symbol centred at (middle, middle), `angle` from north. */
export function drawPointer(context, { colour }, middle, radius, angle) {
  context.save();
  context.translate(middle, middle);
  context.rotate(angle);
  context.beginPath();
  for (const [x, y] of [[0, -1.95], [0.75, -0.85], [-0.75, -0.85]]) context.lineTo(x * radius, y * radius);
  context.closePath();
  context.lineWidth = Math.max(1, radius / 5);
  context.lineJoin = "round";
  context.fillStyle = colour;
  context.strokeStyle = "#fff";
  context.stroke();
  context.fill();
  context.restore();
}

/** A symbol as an element of 18 x 18 px. */
export function symbolElement(symbol) {
  const ratio = 2;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 18 * ratio;
  canvas.className = "symbol";
  canvas.setAttribute("aria-hidden", "true");
  drawSymbol(canvas.getContext("2d"), symbol, 9 * ratio, 9 * ratio, 7 * ratio, ratio);
  return canvas;
}

function isLight(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}
