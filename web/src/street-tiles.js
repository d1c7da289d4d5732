// The tiles of the street map. Those of the first view are fetched while the map's code still is.
import { PMTiles } from "pmtiles";

const TILE_PX = 512;

class StreetTiles extends PMTiles {
  #prefetched = new Map(); // "z/x/y": promise, until the map requests it

  /** Fetch the tiles of a view that shows `places`, as `fitBounds` of a map of this size does. */
  async prefetch(places, { clientWidth, clientHeight }, view) {
    const { maxZoom } = await this.getHeader();
    for (const [z, x, y] of tilesInView(places, clientWidth, clientHeight, view, maxZoom)) {
      const tile = super.getZxy(z, x, y);
      tile.catch(() => {}); // fetched again for the map
      this.#prefetched.set(`${z}/${x}/${y}`, tile);
    }
  }

  async getZxy(z, x, y, signal) {
    const key = `${z}/${x}/${y}`;
    const tile = this.#prefetched.get(key);
    this.#prefetched.delete(key);
    try {
      if (tile) return await tile;
    } catch {
      // The connection was lost, perhaps.
    }
    return super.getZxy(z, x, y, signal);
  }
}

const maps = new Map(); // by city

/** The street map of a city, or null outside all of them. */
export function streetTilesOf(city) {
  if (!city) return null;
  if (!maps.has(city)) {
    maps.set(city, new StreetTiles(`${location.origin}/tiles/${encodeURIComponent(city)}.pmtiles`));
  }
  return maps.get(city);
}

/** The [z, x, y] of a view's tiles. `view` has `padding` and `maxZoom`, as for `fitBounds`. */
function tilesInView(places, width, height, { padding, maxZoom }, maxTileZoom) {
  const xs = places.map(([lon]) => lon / 360 + 0.5);
  const ys = places.map(([, lat]) => 0.5 - Math.asinh(Math.tan((lat * Math.PI) / 180)) / (2 * Math.PI));
  const [west, east] = [Math.min(...xs), Math.max(...xs)];
  const [north, south] = [Math.min(...ys), Math.max(...ys)];
  const scale = Math.min(
    (width - padding.left - padding.right) / (east - west),
    (height - padding.top - padding.bottom) / (south - north),
    TILE_PX * 2 ** maxZoom,
  ); // in px for the whole world
  const left = (west + east) / 2 - (width + padding.left - padding.right) / 2 / scale;
  const top = (north + south) / 2 - (height + padding.top - padding.bottom) / 2 / scale;
  const z = Math.min(maxTileZoom, Math.floor(Math.log2(scale / TILE_PX)));
  const [minX, minY, maxX, maxY] = [left, top, left + width / scale, top + height / scale].map((one) =>
    Math.floor(one * 2 ** z),
  );
  const tiles = [];
  const wrapped = (x) => ((x % 2 ** z) + 2 ** z) % 2 ** z; // across ±180°
  for (let x = minX; x <= maxX; x += 1) for (let y = minY; y <= maxY; y += 1) tiles.push([z, wrapped(x), y]);
  return tiles;
}
