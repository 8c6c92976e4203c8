// The page is built into ml_board/static, which is committed: whoever installs from a checkout needs no Node.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const wire = (name: string): string => fileURLToPath(new URL(`src/wire/${name}`, import.meta.url));

export default defineConfig({
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  resolve: {
    alias: [
      { find: /^engine\.io-client$/, replacement: wire("engine.js") },
      { find: /^\.\/transports\/index\.js$/, replacement: wire("no-transports.js") },
    ],
  },
  build: {
    outDir: "../static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    rollupOptions: {
      output: {
        // Without digests in their names: the server says `no-cache`, and a rebuild changes as few files as it can.
        entryFileNames: "page.js",
        chunkFileNames: "[name].js",
        assetFileNames: ({ names }) => (names[0]?.endsWith(".css") ? "page.css" : "[name][extname]"),
      },
    },
  },
});
