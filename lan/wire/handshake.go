package wire

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
)

// HandshakeError is an HTTP answer where a WebSocket was to be opened.
type HandshakeError struct {
	URL    string
	Code   int    // such as 403
	Status string // such as "403 Forbidden"
	Body   string // the beginning of a plain text, on one line; else empty
}

func (e *HandshakeError) Error() string {
	says := fmt.Sprintf("%s does not speak WebSocket: it answered %q", e.URL, e.Status)
	if e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden {
		says = fmt.Sprintf("%s refused us: it answered %q", e.URL, e.Status)
	}
	if e.Body != "" {
		says += ": " + e.Body
	}
	return says
}

// handshakeError reads what there is of the answer's body, which is bounded.
func handshakeError(url string, r *http.Response) *HandshakeError {
	const most = 200 // characters that people should have to read
	e := &HandshakeError{URL: url, Code: r.StatusCode, Status: r.Status}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") && r.Header.Get("Content-Type") != "" {
		return e
	}
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1024)) // what came before an error is as good
	text := strings.FieldsFunc(strings.ToValidUTF8(string(body), "?"), func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) })
	e.Body = strings.Join(text, " ")
	if runes := []rune(e.Body); len(runes) > most {
		e.Body = string(runes[:most]) + "..."
	}
	return e
}
