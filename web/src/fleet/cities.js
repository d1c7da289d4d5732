// The cities that are served, and the one whose map is shown: ?city= of the address, else the last one.
import { el } from "../elements.js";

const STORED = "doorstep-city";
const RETRY_MS = 1000;

/** Fetch the cities and draw their menu. Resolves to the selected one; `onChange` gets a later choice. */
export async function selectCity(onChange) {
  const cities = await fetchCities();
  const find = (name) => cities.find((one) => one.name === name);
  const requested = new URLSearchParams(location.search).get("city");
  const selected =
    find(requested) ?? find(localStorage.getItem(STORED)) ?? cities.find((one) => one.map_url) ?? cities[0];
  const menu = document.getElementById("city");
  menu.replaceChildren(...cities.map(({ name, title }) => el("option", { value: name }, title)));
  menu.value = selected.name;
  menu.parentElement.hidden = cities.length < 2;
  menu.addEventListener("change", () => {
    localStorage.setItem(STORED, menu.value);
    onChange(find(menu.value));
  });
  return selected;
}

async function fetchCities() {
  for (;;) {
    try {
      const response = await fetch("/cities");
      if (response.ok) return (await response.json()).cities;
    } catch {
      // The connection was lost, perhaps.
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
