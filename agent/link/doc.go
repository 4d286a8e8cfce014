// Package link is the agent's side of the wire to the LAN manager
// (lan/PROTOCOL.md section 13, design sections 4 and 8).
//
// A Link dials, introduces itself, mirrors the tables of needs and services,
// carries bids and reports, and redials for ever. It decides nothing: what it
// learns goes to its owner as events, in the order in which it happened, and
// what the owner wants done is asked for by calls that do not block.
//
// The mirrors belong to the goroutine that reads the connection; each bid has
// a goroutine of its own that ends with it. Only package agent imports it.
package link
