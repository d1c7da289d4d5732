// Web push: notifications while the page is closed.

/** Whether this browser can be notified, and has not refused. */
export function isPushPossible({ push_key: key }) {
  return Boolean(key) && "serviceWorker" in navigator && "PushManager" in globalThis && Notification.permission !== "denied";
}

/** Subscribe this browser. Throws where it, or the customer, refuses. */
export async function subscribe(key) {
  if ((await Notification.requestPermission()) !== "granted") throw new Error("denied");
  const worker = await navigator.serviceWorker.register("/t/service-worker.js", { scope: "/t/" });
  await navigator.serviceWorker.ready.catch(() => worker);
  const applicationServerKey = Uint8Array.from(atob(key.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
  const subscription = await worker.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey });
  return subscription.toJSON();
}
