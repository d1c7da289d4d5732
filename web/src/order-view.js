// What the map of an order shows: the way that the courier has yet to go.
import { PICKED_UP_STATES } from "./labels.js";

// For `fitBounds`. The padding at the bottom is for a marker's name, the card's edge and the attribution.
export const VIEW = { padding: { top: 50, right: 80, bottom: 100, left: 80 }, maxZoom: 16 };

// A link that a customer shares shows neither place.
export const restaurantOf = ({ restaurant: it }) => it && [it.lon_deg, it.lat_deg];
export const doorOf = ({ destination: it }) => it && [it.lon_deg, it.lat_deg];

/** The door, the courier, and the restaurant until the order is picked up. */
export function placesInView({ state, position, ...track }) {
  const courier = position?.geometry.coordinates;
  const isPickedUp = PICKED_UP_STATES.includes(state);
  const door = doorOf(track);
  const places = [door, !(isPickedUp && courier) && restaurantOf(track), courier].filter(Boolean);
  // The short way round, across ±180°.
  return places.map(([lon, lat]) => [lon + 360 * Math.round((places[0][0] - lon) / 360), lat]);
}
