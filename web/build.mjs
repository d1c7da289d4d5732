// Builds the pages into dist/: `npm run build`. Neither the build nor the pages fetch anything from other hosts.
import { cp, mkdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const maplibre = "node_modules/maplibre-gl/dist";

await rm("dist", { recursive: true, force: true });
await mkdir("dist");
await build({
  entryPoints: ["fleet", "track", "series", "sign-in"].flatMap((one) => [`src/${one}.js`, `src/${one}.css`]),
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "linked",
  logLevel: "warning",
});
// MapLibre's build for pages with a strict content security policy: its worker is a file.
await cp(`${maplibre}/maplibre-gl-csp-worker.js`, "dist/maplibre-gl-csp-worker.js");
await cp(`${maplibre}/LICENSE.txt`, "dist/maplibre-gl.LICENSE.txt");
for (const page of ["fleet.html", "track.html", "series.html", "sign-in.html", "icon.svg"]) {
  await cp(`src/${page}`, `dist/${page}`);
}
