const HEAD = 300; // octets that browsers count for the fields of any response (Resource Timing, "transferSize")

/** Where the browser has a file from: its own cache, its cache after the server said 304, or the network. */
export function origin(entry) {
  if (entry.transferSize === 0) return "kept";
  return entry.transferSize <= HEAD ? "validated" : "fetched";
}
