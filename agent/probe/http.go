package probe

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// HTTP asks whether a GET of path on a port of host (an address) is answered with
// a status of 200 to 299, by the right hands. Redirects are not followed: they
// may lead to somebody else.
func HTTP(host string, port int, path string, whose Owner) Question {
	url := pageURL(host, port, path)
	client := newClient()
	return Question{url + " is not answered with success", func(ctx context.Context) error {
		if err := get(ctx, client, url); err != nil {
			return err
		}
		return whose(port)
	}}
}

func pageURL(host string, port int, path string) string {
	return "http://" + net.JoinHostPort(host, strconv.Itoa(port)) + path
}

func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true}, Timeout: oneTry,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func get(ctx context.Context, client *http.Client, url string) error {
	response, err := send(ctx, client, url, http.Header{})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 200 && response.StatusCode <= 299 {
		return nil
	}
	return refusal(response)
}

func send(ctx context.Context, client *http.Client, url string, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	header.Set("User-Agent", "machine-agent")
	request.Header = header
	return client.Do(request)
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
