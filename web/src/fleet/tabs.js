// On a narrow screen one column shows at a time.
const buttons = () => [...document.querySelectorAll("#tabs button")];

export function showTab(name) {
  document.body.dataset.tab = name;
  for (const one of buttons()) one.setAttribute("aria-pressed", String(one.dataset.tab === name));
}

export function installTabs() {
  for (const one of buttons()) one.addEventListener("click", () => showTab(one.dataset.tab));
  showTab(document.body.dataset.tab);
}
