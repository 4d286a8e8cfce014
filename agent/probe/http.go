package probe

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// HTTP asks whether a GET of path on a port of host (an address) is answered with
// a status of 200 to 299, by the right hands. Redirects are not followed: they
// may lead to somebody else.
func HTTP(host string, port int, path string, whose Owner) Question {
	url := pageURL(host, port, path)
	return Question{url + " is not answered with success", func(ctx context.Context) error {
		err := get(ctx, url, http.Header{"Connection": {"close"}}, func(r *http.Response) error {
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

// get sends one request on a connection of its own, and has look look at the
// answer. An http.Client would have goroutines for each connection, which is most of
// what a check costs.
func get(ctx context.Context, url string, header http.Header, look func(*http.Response) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	header.Set("User-Agent", "machine-agent")
	request.Header = header
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", request.URL.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = exchange(conn, request, look)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// exchange passes over answers that announce another one.
func exchange(conn net.Conn, request *http.Request, look func(*http.Response) error) error {
	if err := request.Write(conn); err != nil {
		return err
	}
	const most = 64 << 10 // bytes of an answer
	answer := bufio.NewReaderSize(io.LimitReader(conn, most), 1<<10)
	for {
		response, err := http.ReadResponse(answer, request)
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
