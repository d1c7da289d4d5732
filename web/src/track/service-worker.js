// Shows the notifications of the customer's page, and opens the page from them. It caches nothing.
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("push", (event) => {
  event.waitUntil(show(event.data.json()));
});

// One notification for each order: a repeat replaces it silently, news alert again.
async function show({ title, tag, url, language }) {
  const shown = await self.registration.getNotifications({ tag });
  const renotify = shown.some((one) => one.title !== title);
  await self.registration.showNotification(title, { tag, renotify, data: { url }, lang: language });
}

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data.url));
});

async function open(path) {
  const url = new URL(path, location.origin).href;
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  const page = pages.find((one) => one.url.split("#")[0] === url);
  return page ? page.focus() : self.clients.openWindow(url);
}
