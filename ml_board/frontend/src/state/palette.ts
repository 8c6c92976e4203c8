// Colours that belong to experiments: the same experiment has the same one on every chart, page and day.

/** Okabe and Ito's colour-blind-safe colours without black (jfly.uni-koeln.de/color), darkened for white paper. */
const SAFE = { light: ["#0072b2", "#c14a00", "#007a57", "#a2407a", "#8a6d00", "#2c7fb0", "#5b3fa0", "#4d4d4d"],
  dark: ["#56b4e9", "#ff8a47", "#2fc99a", "#e59ac9", "#f0e442", "#7fd1ff", "#b39cf0", "#c0c0c0"] };
/** More and brighter ones, for those who tell them apart. */
const VIVID = { light: ["#1f6fe0", "#d6336c", "#2b8a3e", "#b35c00", "#7048e8", "#0b7285", "#c2255c", "#5c940d", "#862e9c", "#495057"],
  dark: ["#74a9ff", "#ff7aa8", "#69db7c", "#ffb15c", "#b197fc", "#3bc9db", "#faa2c1", "#a9e34b", "#e599f7", "#ced4da"] };

export const PALETTES = { safe: SAFE, vivid: VIVID };
export type Palette = keyof typeof PALETTES;
export type Theme = "light" | "dark";

const DASHES: (number[] | null)[] = [null, [8, 4], [2, 3], [8, 3, 2, 3]];

/** The colour of an experiment. Neighbours differ, and so does its dash from those that share the colour. */
export function colour(experiment: number, theme: Theme, palette: Palette = "safe"): string {
  const colours = PALETTES[palette][theme];
  return colours[experiment % colours.length] as string;
}

/** How its line is dashed: colour and dash together tell 32 experiments apart. null: not at all. */
export function dash(experiment: number, palette: Palette = "safe"): number[] | null {
  const colours = PALETTES[palette].light.length;
  return DASHES[Math.floor(experiment / colours) % DASHES.length] ?? null;
}
