package probe

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
)

// WebSocket asks whether path on a port of host (an address) takes a WebSocket
// connection (RFC 6455), by the right hands. It is closed as soon as it is open.
func WebSocket(host string, port int, path string, whose Owner) Question {
	url := pageURL(host, port, path)
	return Question{"ws" + url[len("http"):] + " takes no WebSocket", func(ctx context.Context) error {
		var random [16]byte
		_, _ = rand.Read(random[:]) // never fails
		key := base64.StdEncoding.EncodeToString(random[:])
		request, err := written(url, http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {key},
		})
		if err != nil {
			return err
		}
		if err := get(ctx, host, port, request, func(r *http.Response) error { return takes(r, key) }); err != nil {
			return err
		}
		return whose(port)
	}}
}

// takes is an error unless the answer takes the connection, and is one to our key.
func takes(r *http.Response, key string) error {
	if r.StatusCode != http.StatusSwitchingProtocols {
		return refusal(r)
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if got := r.Header.Get("Sec-Websocket-Accept"); got != base64.StdEncoding.EncodeToString(sum[:]) {
		return fmt.Errorf("it answers %s, but not to our key", r.Status)
	}
	return nil
}
