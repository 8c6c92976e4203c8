// The colours of scores: matplotlib's viridis (van der Walt and Smith, 2015), which rises evenly in lightness and keeps
// its order for colour-blind eyes. Of it the three fifths that stand out from the paper, the best the farthest.

import type { Theme } from "../state/palette";

const VIRIDIS = [0x440154, 0x472d7b, 0x3b528b, 0x2c728e, 0x21918c, 0x28ae80, 0x5ec962, 0xaddc30, 0xfde725];

function rgb(shade: number, theme: Theme): number[] {
  const at = 8 * (theme === "dark" ? 0.4 + 0.6 * shade : 0.6 - 0.6 * shade);
  const i = Math.min(7, Math.floor(at));
  const [below = 0, above = 0] = [VIRIDIS[i], VIRIDIS[i + 1]];
  return [16, 8, 0].map((bits) => {
    const [from, to] = [(below >> bits) & 255, (above >> bits) & 255];
    return Math.round(from + (at - i) * (to - from));
  });
}

/** 0, the worst, to 1, the best. */
export function colourOf(shade: number, theme: Theme): string {
  return `rgb(${rgb(shade, theme).join(" ")})`;
}

/** Black or white, whichever is the easier to read on a shade: at least 4.58 to 1 (WCAG 2.1, relative luminance). */
export function inkOn(shade: number, theme: Theme): string {
  const [r = 0, g = 0, b = 0] = rgb(shade, theme).map((one) => (one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

/** All shades from the worst to the best, as CSS has it. */
export function ramp(theme: Theme, direction: string): string {
  return `linear-gradient(${direction},${[0, 0.25, 0.5, 0.75, 1].map((shade) => colourOf(shade, theme)).join()})`;
}
