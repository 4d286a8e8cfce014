// Package table is what an agent and a LAN manager keep and tell each other
// about (lan/PROTOCOL.md section 6): records of four schemas, filters, and
// tables with continuous queries.
//
//   - A Record is an immutable value of a Schema. Need, Service and NAT are its
//     readable forms.
//   - A Filter chooses records; it is bounded in what it may cost.
//   - A Table is the original, on the LAN manager. It answers queries with items
//     and goes on telling what changes. Continuous queries that ask for the same
//     share a view, for which each change is looked at once.
//   - A Mirror is the copy that those items keep, on the agent.
//
// Items and records stay JSON texts that are taken apart only where somebody
// looks. The package knows neither units nor sessions. Tables and mirrors belong
// to one goroutine each; records and filters may be shared. The agent and the
// LAN manager import it.
package table
