// Stands in for the list of all transports of engine.io-client: engine.js names the one that there is.

export const transports = {};
