// What ml_board/packing.py put into this page: lines of JSON, gzipped, in base64. First the events of the log, then the
// answers that the page cannot work out itself, by their paths, and last what the file says of itself.

/** Who takes it in. `answer`: what REST would say to a path; what the file says of itself has none. */
export interface Take {
  event(line: string): void;
  answer(path: string, text: string): void;
}

/** Hand everything that is in `base64` to `take`, in its order. */
export async function unpack(base64: string, take: Take): Promise<void> {
  const packed = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  const texts = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")).pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await texts.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = lines.pop() as string;
    for (const line of lines) {
      if (line.startsWith("{")) take.event(line);
      else take.answer(...(JSON.parse(line) as [string, string]));
    }
    if (done) return;
  }
}
