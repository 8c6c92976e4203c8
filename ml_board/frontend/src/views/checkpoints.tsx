// The checkpoints of an experiment: to download, to verify, and to delete.

import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import * as format from "../state/format";
import type { Experiment } from "../state/fold";
import type { Session } from "../state/session";
import type { ExperimentDetail } from "../wire/answers";
import { Dialog, Seq, useSession } from "./parts";

const FEW = 20; // that are listed at first

/** Changes when checkpoints come or go. */
export function checkpointsKey({ checkpoints }: Experiment): string {
  let sum = 0;
  for (const seq of checkpoints.values()) sum += seq;
  return `${checkpoints.size} ${sum}`;
}

type Files = ExperimentDetail["checkpoints"][number]["files"];

export function Checkpoints({ session, experiment, detail }: { session: Session; experiment: Experiment; detail: ExperimentDetail | undefined }): JSX.Element {
  useSession(session);
  const [deleting, setDeleting] = useState<number | null>(null);
  const [all, setAll] = useState(false);
  const id = experiment.experiment_id;
  const past = session.readonly.value;
  const file = session.rest.file !== null;
  const epochs = useMemo(() => [...experiment.checkpoints].sort(([a], [b]) => b - a), [experiment, checkpointsKey(experiment)]);
  const files = (epoch: number): Files => detail?.checkpoints.find((one) => one.epoch === epoch)?.files ?? [];
  const table = useMemo(
    () => (
      <div class="scroll" tabIndex={0} role="region" aria-label="checkpoints">
        <table class="checkpoints">
          <thead>
            <tr>
              <th class="number">epoch</th>
              <th>files</th>
              <th class="number">size</th>
              {!file && <td />}
            </tr>
          </thead>
          <tbody>
            {(all ? epochs : epochs.slice(0, FEW)).map(([epoch, seq]) => (
              <tr key={epoch}>
                <td class="number">
                  <Seq of={seq}>{epoch}</Seq>
                </td>
                <td>
                  <FileList session={session} experiment={id} epoch={epoch} files={files(epoch)} />
                </td>
                <td class="number">{format.bytes(size(files(epoch)))}</td>
                {!file && (
                  <td>
                    <button type="button" class="danger" disabled={past} title={past ? "nothing can be changed in replay" : ""} onClick={() => setDeleting(epoch)}>
                      delete …
                    </button>
                  </td>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    ),
    [epochs, detail, past, all],
  );
  if (!epochs.length) {
    return <p class="muted">There is none{past && !file ? " as of this moment" : ""}. Which are kept is up to the checkpointing strategy of the run.</p>;
  }
  return (
    <>
      {file && <p class="muted">Their names, sizes and digests; the weights themselves are with the event storage.</p>}
      {past && !file && <p class="muted">Nothing can be deleted in replay, and what was kept then may be gone now.</p>}
      {table}
      {!all && epochs.length > FEW && (
        <button type="button" onClick={() => setAll(true)}>
          show all {epochs.length}
        </button>
      )}
      {deleting !== null && <Delete session={session} experiment={id} epoch={deleting} files={files(deleting)} newest={deleting === epochs[0]?.[0]} close={() => setDeleting(null)} />}
    </>
  );
}

function size(files: Files): number {
  return files.reduce((sum, file) => sum + file.size, 0);
}

function FileList({ session, experiment, epoch, files }: { session: Session; experiment: number; epoch: number; files: Files }): JSX.Element {
  const [digests, setDigests] = useState<Record<string, string> | string | null>(null);
  const ask = (): void => {
    session.rest.manifest(session.id, experiment, epoch).then(
      (manifest) => setDigests(Object.fromEntries(manifest.files.map(({ name, sha256 }) => [name, sha256]))),
      (error: Error) => setDigests(error.message),
    );
  };
  return (
    <>
      {files.map(({ name, size }) => (
        <div key={name}>
          {session.rest.file ? (
            name
          ) : (
            <a href={session.rest.fileUrl(session.id, experiment, epoch, name)} download={`${session.id}-${experiment}-${epoch}-${name}`}>
              {name}
            </a>
          )}{" "}
          <span class="muted">{format.bytes(size)}</span>
          {digests && typeof digests === "object" && <code class="digest">{digests[name]}</code>}
        </div>
      ))}
      {typeof digests === "string" ? (
        <span class="bad" role="alert">
          {digests}
        </span>
      ) : (
        files.length > 0 && !digests && (
          <button type="button" class="plain small muted" onClick={ask}>
            show sha256
          </button>
        )
      )}
    </>
  );
}

function Delete(props: { session: Session; experiment: number; epoch: number; files: Files; newest: boolean; close: () => void }): JSX.Element {
  const { session, experiment, epoch, files, newest, close } = props;
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  return (
    <Dialog title={`Delete the checkpoint of epoch ${epoch}?`} close={close}>
      <p>
        The weights and the state of experiment {experiment} after epoch {epoch} will be lost
        {files.length > 0 && `: ${files.length} files, ${format.bytes(size(files))}`}. This cannot be undone; its scores stay.
      </p>
      {newest && <p class="notice warned">It is the newest one: a warm start would begin from an older checkpoint, or from the start.</p>}
      {error && (
        <p class="notice failed" role="alert">
          {error}
        </p>
      )}
      <div class="row">
        <button
          type="button"
          class="danger"
          disabled={busy || session.readonly.value}
          onClick={() => {
            setBusy(true);
            session.rest.deleteCheckpoint(session.id, experiment, epoch).then(close, (problem: Error) => {
              setError(`It was not deleted: ${problem.message}.`);
              setBusy(false);
            });
          }}
        >
          delete
        </button>
        <button type="button" onClick={close}>
          keep
        </button>
      </div>
    </Dialog>
  );
}
