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
	url := "http://" + net.JoinHostPort(host, strconv.Itoa(port)) + path
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{
		Transport: transport, Timeout: oneTry,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return Question{url + " is not answered with success", func(ctx context.Context) error {
		if err := get(ctx, client, url); err != nil {
			return err
		}
		return whose(port)
	}}
}

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "machine-agent")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	const excerpt = 200 // bytes, of what the process says about its refusal
	body, _ := io.ReadAll(io.LimitReader(response.Body, excerpt))
	if response.StatusCode >= 200 && response.StatusCode <= 299 {
		return nil
	}
	if text := strings.TrimSpace(string(body)); text != "" {
		return fmt.Errorf("it answers %s: %q", response.Status, text)
	}
	return fmt.Errorf("it answers %s", response.Status)
}
