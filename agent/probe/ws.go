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
	client := newClient()
	return Question{"ws" + url[len("http"):] + " takes no WebSocket", func(ctx context.Context) error {
		if err := shakeHands(ctx, client, url); err != nil {
			return err
		}
		return whose(port)
	}}
}

func shakeHands(ctx context.Context, client *http.Client, url string) error {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	key := base64.StdEncoding.EncodeToString(random[:])
	response, err := send(ctx, client, url, http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {key},
	})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		return refusal(response)
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if got := response.Header.Get("Sec-Websocket-Accept"); got != base64.StdEncoding.EncodeToString(sum[:]) {
		return fmt.Errorf("it answers %s, but not to our key", response.Status)
	}
	return nil
}
