// The websocket: tells the newest `seq` of a grid search (protocol 2 of docs/protocol.md), and how far away the board is.

import { io, type Socket } from "socket.io-client";

export interface Listener {
  connected(): void;
  lost(reason: string): void;
  /** There are events up to this one. */
  head(gridSearchId: string, seq: number): void;
  /** A message there and back took so many ms. */
  roundTrip(ms: number): void;
}

/** Whatever tells a listener of news. */
export interface Messenger {
  /** Hear of this grid search from now on, and of no other. */
  watch(gridSearchId: string | null): void;
  close(): void;
}

const PING_EVERY = 2000;

export class Link implements Messenger {
  private readonly socket: Socket;
  private room: string | null = null;
  private readonly timer: ReturnType<typeof setInterval>;

  constructor(
    base: string,
    private readonly listener: Listener,
  ) {
    this.socket = io(base || window.location.origin, {
      transports: ["websocket"],
      withCredentials: true,
      reconnectionDelay: 500,
      reconnectionDelayMax: 5000,
      forceNew: true,
    });
    this.socket.on("connect", () => {
      listener.connected();
      this.join();
      this.ping();
    });
    this.socket.on("disconnect", (reason) => listener.lost(reason));
    this.socket.on("connect_error", (error) => {
      listener.lost(error.message);
      // Refused by the board itself: socket.io does not try again by itself.
      if (!this.socket.active) setTimeout(() => this.socket.connect(), 2000);
    });
    this.socket.on("head", (data: { grid_search_id: string; head: number }) => listener.head(data.grid_search_id, data.head));
    this.socket.on("pong", (sent: number) => listener.roundTrip(performance.now() - sent));
    this.timer = setInterval(() => this.ping(), PING_EVERY);
  }

  watch(gridSearchId: string | null): void {
    if (this.room !== null && this.room !== gridSearchId && this.socket.connected) {
      this.socket.emit("leave", { rooms: [this.room] });
    }
    this.room = gridSearchId;
    this.join();
  }

  close(): void {
    clearInterval(this.timer);
    this.socket.disconnect();
  }

  private ping(): void {
    if (this.socket.connected) this.socket.volatile.emit("ping", performance.now());
  }

  private join(): void {
    const room = this.room;
    if (room === null || !this.socket.connected) return;
    this.socket.emit("join", { rooms: [room], protocol: 2 }, (answer: { head?: Record<string, number> }) => {
      const head = answer.head?.[room];
      if (head !== undefined) this.listener.head(room, head);
    });
  }
}
