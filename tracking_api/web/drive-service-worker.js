// Keeps the page on the phone, so that it opens without a network. The build sets the two constants: a
// new build is a new worker, with a cache of its own.
const VERSION = "cd2708213f65e84a";
const SHELL = ["/drive", "/drive/manifest.webmanifest", "/assets/icon-7437B820.svg", "/assets/drive-YBX2Q23U.css", "/assets/drive-REIKI7BN.js"];
const CACHE = `doorstep-drive-${VERSION}`;

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll(SHELL))
      .then(() => self.skipWaiting()),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => names.filter((name) => name.startsWith("doorstep-drive-") && name !== CACHE))
      .then((old) => Promise.all(old.map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  );
});

// Everything else, the platform's answers above all, goes to the network only.
self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  const { origin, pathname } = new URL(url);
  if (method !== "GET" || origin !== location.origin || !SHELL.includes(pathname)) return;
  event.respondWith(caches.match(pathname).then((kept) => kept ?? fetch(event.request)));
});
