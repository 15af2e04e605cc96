import { defineConfig } from "vite";

// A strict content security policy forbids inline scripts and styles, so nothing is inlined.
export default defineConfig({
  base: "/",
  build: {
    outDir: "../static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
  },
});
