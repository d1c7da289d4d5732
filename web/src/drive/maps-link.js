// A link that opens the phone's maps app with a place as the destination.
export function mapsLink({ lon_deg: lon, lat_deg: lat }, userAgent = navigator.userAgent) {
  const place = `${lat},${lon}`;
  if (/Android/.test(userAgent)) return `geo:${place}?q=${place}`;
  if (/iPhone|iPad|iPod/.test(userAgent)) return `https://maps.apple.com/?daddr=${place}`;
  return `https://www.openstreetmap.org/directions?to=${place}`;
}
