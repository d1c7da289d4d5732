// The choice in the address: ?order=… and ?driver=…, which survive a sign-in and the back button.

/** The order and driver that the address names; null for none. */
export function chosenInAddress() {
  const parameters = new URLSearchParams(location.search);
  return { orderId: parameters.get("order"), driverId: parameters.get("driver") };
}

/** Name the choice in the address, as a new entry of the history if it is another one. */
export function nameInAddress(orderId, driverId) {
  const parameters = new URLSearchParams(location.search);
  for (const [name, value] of [["order", orderId], ["driver", driverId]]) {
    if (value) parameters.set(name, value);
    else parameters.delete(name);
  }
  const query = parameters.toString();
  const address = location.pathname + (query ? `?${query}` : "");
  if (address !== location.pathname + location.search) history.pushState(null, "", address);
}
