package probe

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// HTTP asks whether a GET of path on a port of host (an address) is answered with
// a status of 200 to 299, by the right hands. Redirects are not followed: they
// may lead to somebody else.
func HTTP(host string, port int, path string, whose Owner) Question {
	url := pageURL(host, port, path)
	request, wrong := written(url, http.Header{"Connection": {"close"}})
	return Question{url + " is not answered with success", func(ctx context.Context) error {
		if wrong != nil {
			return wrong
		}
		err := get(ctx, host, port, request, func(r *http.Response) error {
			if r.StatusCode >= 200 && r.StatusCode <= 299 {
				return nil
			}
			return refusal(r)
		})
		if err != nil {
			return err
		}
		return whose(port)
	}}
}

func pageURL(host string, port int, path string) string {
	return "http://" + net.JoinHostPort(host, strconv.Itoa(port)) + path
}

// written is a GET of url as it goes over the wire.
func written(url string, header http.Header) ([]byte, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	header.Set("User-Agent", "machine-agent")
	request.Header = header
	var b bytes.Buffer
	err = request.Write(&b)
	return b.Bytes(), err
}

// get sends a request on a connection of its own, and has look look at the answer.
// An http.Client would have goroutines for each connection, which is most of what a
// check costs.
func get(ctx context.Context, host string, port int, request []byte, look func(*http.Response) error) error {
	err := with(ctx, host, port, func(conn connection) error { return exchange(conn, request, look) })
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// readers are kept for the next answer.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 1<<10) }}

// exchange passes over answers that announce another one.
func exchange(conn connection, request []byte, look func(*http.Response) error) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	const most = 64 << 10 // bytes of an answer
	answer := readers.Get().(*bufio.Reader)
	defer readers.Put(answer)
	answer.Reset(io.LimitReader(conn, most))
	defer answer.Reset(nil)
	for {
		response, err := http.ReadResponse(answer, nil) // to a GET
		if err != nil {
			return err
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return look(response)
		}
	}
}

// refusal is an answer that is no success, in words, with what the process says
// about it.
func refusal(response *http.Response) error {
	const excerpt = 200 // bytes
	body, _ := io.ReadAll(io.LimitReader(response.Body, excerpt))
	if text := strings.TrimSpace(string(body)); text != "" {
		return fmt.Errorf("it answers %s: %q", response.Status, text)
	}
	return fmt.Errorf("it answers %s", response.Status)
}
