// The page as one script and one sheet, which ml_board/one_file.py puts into a file together with the data of a grid
// search. No socket.io, and no pieces that are loaded later: such a file can load nothing. (As a library, because only then
// no helper comes along that would load them.)
import { defineConfig } from "vite";

export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  publicDir: false,
  build: {
    outDir: "../one_file_page",
    emptyOutDir: true,
    target: "es2022",
    minify: true,
    lib: { entry: "src/one_file.tsx", formats: ["iife"], name: "ml_board", fileName: () => "page.js", cssFileName: "page" },
  },
});
