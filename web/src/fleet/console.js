// What the console and the browser tests read of the fleet's page.

/** `isTiled()` says whether the drivers are drawn from tiles. */
export function consoleOf({ markers }, { onFrame, isTiled }) {
  const symbolOf = (id) => markers?.symbols[markers.index.get(id)];
  return {
    frames: 0,
    first: null, // the number of markers after the first snapshot
    onFrame,
    get drawMs() {
      return markers?.drawMs;
    },
    get redraws() {
      return markers?.redraws;
    },
    get changes() {
      return markers?.changes;
    },
    get drawn() {
      return markers?.drawn;
    },
    get known() {
      return markers?.keys.length;
    },
    get isTiled() {
      return isTiled();
    },
    placeOf: (id) => markers?.placeOf(id),
    directionOf: (id) => symbolOf(id)?.direction,
    symbolOf: (id) => symbolOf(id)?.symbol,
    drawNow: () => markers?.drawNow(),
  };
}
