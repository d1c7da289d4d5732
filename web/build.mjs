// Builds the pages into dist/: `npm run build`. Neither the build nor the pages fetch anything from other hosts.
//
// A file whose name has the hash of its content is cached for ever; the pages name the current ones.
// Text is compressed here once, beside the original (.br, .gz).
import { createHash } from "node:crypto";
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { build } from "esbuild";

const PAGES = ["fleet", "track", "series", "observe", "sign-in", "admin", "drive", "join", "restaurant", "reports"];
const maplibre = "node_modules/maplibre-gl/dist";
const options = {
  outdir: "dist",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  splitting: true,
  target: "es2022",
  legalComments: "linked",
  logLevel: "warning",
  metafile: true,
};
const LICENSE = "/*! MapLibre GL JS: see maplibre-gl.LICENSE.txt */\n";
const addresses = {}; // of the built files, by the source's name

// In a script, `import … from "/assets/NAME"` is the built file NAME, and
// `import address from "address:NAME"` is where it is.
const builtFiles = {
  name: "built-files",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^\/assets\// }, ({ path }) => ({ path: addresses[basename(path)], external: true }));
    onResolve({ filter: /^address:/ }, ({ path }) => ({ path: path.slice(8), namespace: "address" }));
    onLoad({ filter: /./, namespace: "address" }, ({ path }) => ({
      contents: `export default ${JSON.stringify(addresses[path])}`,
    }));
  },
};

await rm("dist", { recursive: true, force: true });
await mkdir("dist");
await write("icon.svg", await readFile("src/icon.svg"));
await write("icon-maskable.svg", await readFile("src/icon-maskable.svg"));
await buildMapLibre();
await bundle(["src/map.css"]);
for (const page of PAGES) {
  const imported = await bundle([`src/${page}.js`, `src/${page}.css`]);
  const html = await readFile(`src/${page}.html`, "utf-8");
  await writeFile(`dist/${page}.html`, withAddresses(withPreloads(html, imported)));
}
await installCourierPage();
await cp("src/track/service-worker.js", "dist/track-service-worker.js");
await cp(`${maplibre}/LICENSE.txt`, "dist/maplibre-gl.LICENSE.txt");
await compressAll();

/** Bundle sources. Returns the addresses of the files that the first one imports at once. */
async function bundle(sources) {
  const { metafile } = await build({ ...options, entryPoints: sources, plugins: [builtFiles] });
  const address = (path) => (path.startsWith("/") ? path : `/assets/${basename(path)}`);
  for (const [path, { entryPoint }] of Object.entries(metafile.outputs)) {
    if (sources.includes(entryPoint)) addresses[basename(entryPoint)] = address(path);
  }
  const [first] = Object.values(metafile.outputs).filter(({ entryPoint }) => entryPoint === sources[0]);
  return first.imports.filter(({ kind }) => kind === "import-statement").map(({ path }) => address(path));
}

/** The courier's page is installable: its manifest, and a service worker that names its files. */
async function installCourierPage() {
  const manifest = withAddresses(await readFile("src/drive.webmanifest", "utf-8"));
  await writeFile("dist/drive.webmanifest", manifest);
  const html = await readFile("dist/drive.html", "utf-8");
  const assets = [...html.matchAll(/"(\/assets\/[\w.-]+)"/g)].map(([, address]) => address);
  const shell = [...new Set(["/drive", "/drive/manifest.webmanifest", ...assets])];
  const version = createHash("sha256").update(html).update(manifest).digest("hex").slice(0, 16);
  const worker = (await readFile("src/drive/service-worker.js", "utf-8"))
    .replace("__VERSION__", version)
    .replace('"__SHELL__"', shell.map((address) => JSON.stringify(address)).join(", "));
  await writeFile("dist/drive-service-worker.js", worker);
}

/** Have the browser fetch what a page's script imports together with the script. */
function withPreloads(html, imported) {
  const links = imported.map((href) => `<link rel="modulepreload" href="${href}">\n    `);
  return html.replace("<script", `${links.join("")}<script`);
}

/** Replace "/assets/NAME" by the built file's address. */
function withAddresses(html) {
  return html.replace(/"\/assets\/([\w.-]+)"/g, (link, name) => `"${addresses[name] ?? `/assets/${name}`}"`);
}

/**
 * MapLibre in three files: what the page and its worker share, and the rest of each. Its own files for
 * pages with a strict content security policy have the shared part twice (370 kB).
 */
async function buildMapLibre() {
  const source = await readFile(`${maplibre}/maplibre-gl.js`, "utf-8");
  const defined = [...source.matchAll(/^define\("(\w+)",\[[^\]]*\],(\(function.*\))\);$/gm)];
  const { shared, worker, index } = Object.fromEntries(defined.map(([, name, code]) => [name, code]));
  if (!shared || !worker || !index) throw new Error("MapLibre's file has other parts than expected");
  await write("maplibre-shared.js", `${LICENSE}globalThis.maplibreShared={};${shared}(maplibreShared);`);
  const address = JSON.stringify(addresses["maplibre-shared.js"]);
  await write("maplibre-worker.js", `${LICENSE}importScripts(${address});${worker}(maplibreShared);`);
  await write(
    "maplibre.js",
    `${LICENSE}import ${address};const maplibregl={};${index}(maplibregl,maplibreShared);export default maplibregl;`,
  );
}

async function write(name, content) {
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 8).toUpperCase();
  addresses[name] = `/assets/${name.replace(".", `-${hash}.`)}`;
  await writeFile(`dist/${basename(addresses[name])}`, content);
}

async function compressAll() {
  for (const name of await readdir("dist")) {
    if (!/\.(js|css|html|svg)$/.test(name)) continue;
    const content = await readFile(`dist/${name}`);
    await writeFile(`dist/${name}.gz`, gzipSync(content, { level: 9 }));
    await writeFile(`dist/${name}.br`, brotliCompressSync(content));
  }
}
