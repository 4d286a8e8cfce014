// Package wire is the language between an agent and a LAN manager
// (lan/PROTOCOL.md): units, calls and sessions, and the envelope in which they
// travel.
//
//   - A Unit is one message of the grammar (sections 2, 4, 5). ParseRequest and
//     ParseReply read it, AppendJSON writes it.
//   - A Conn carries units in an envelope: WebSocket (section 1.1; Dial, Upgrade)
//     or SignalR (section 1.3; DialSignalR, SignalR). The grammar knows nothing of
//     the envelope, nor the envelope of the grammar.
//   - A Client is the calling side of one connection, with its Sessions.
//   - A Gate is the answering side.
//
// The package knows no tables and decides nothing. The agent's link and the LAN
// manager import it.
package wire
