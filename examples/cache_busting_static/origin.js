/** Where the browser has a file from: its own cache, a server that said "not modified", or the network. */
export function origin(entry) {
  if (entry.transferSize === 0) return "kept";
  return entry.transferSize < entry.encodedBodySize || entry.responseStatus === 304 ? "validated" : "fetched";
}
