// Photos of deliveries: made small, without metadata, and kept on the phone until the platform has them.
import { request } from "./api.js";
import { mustWait } from "./commands.js";

const DATABASE = "doorstep-drive-photos";
const STORE = "photos";
const MAX_BYTES = 512 * 1024; // of the platform
const SIDES_PX = [1600, 1200, 800, 400];
const QUALITY = 0.8;

/** Draw a photo again, no larger than the platform takes. Its metadata stay behind. */
export async function shrink(file) {
  const image = await createImageBitmap(file, { imageOrientation: "from-image" });
  for (const side of SIDES_PX) {
    const scale = Math.min(1, side / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    if (blob && blob.size <= MAX_BYTES) return blob;
  }
  throw new Error("the photo stays too large");
}

export class Photos {
  #sending = null;
  #onChange;
  waiting = 0;

  /** `onChange(answer)` gets the answer that settled a photo, or nothing when the number has changed. */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  /** Keep a photo, and send it: { path, blob }. */
  async add(photo) {
    await this.#run("readwrite", (store) => store.add(photo));
    return this.send();
  }

  /** Send what waits, until there is no answer. */
  send() {
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = null;
    });
    return this.#sending;
  }

  async clear() {
    await this.#run("readwrite", (store) => store.clear()).catch(() => {});
    this.waiting = 0;
  }

  async #sendAll() {
    const keys = await this.#run("readonly", (store) => store.getAllKeys()).catch(() => []);
    this.#count(keys.length);
    for (const key of keys) {
      const { path, blob } = await this.#run("readonly", (store) => store.get(key));
      const answer = await request(path, { method: "POST", blob }).catch(() => null);
      if (mustWait(answer)) return;
      await this.#run("readwrite", (store) => store.delete(key));
      this.waiting -= 1;
      this.#onChange(answer);
    }
  }

  #count(waiting) {
    const hasChanged = waiting !== this.waiting;
    this.waiting = waiting;
    if (hasChanged) this.#onChange();
  }

  #run(mode, work) {
    return new Promise((resolve, reject) => {
      const opening = indexedDB.open(DATABASE, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { autoIncrement: true });
      opening.onerror = () => reject(opening.error);
      opening.onsuccess = () => {
        const transaction = opening.result.transaction(STORE, mode);
        const asked = work(transaction.objectStore(STORE));
        transaction.oncomplete = () => resolve(asked.result);
        transaction.onabort = () => reject(transaction.error);
        opening.result.close();
      };
    });
  }
}
