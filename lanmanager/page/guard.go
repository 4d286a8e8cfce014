package page

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// guard admits reading only, and only to whoever means this page: a name that
// was made to lead here (DNS rebinding), and other sites' pages, are refused.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy",
			"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "This page changes nothing: GET and HEAD only.", http.StatusMethodNotAllowed)
		case !isHere(r):
			http.Error(w, "This is the page of a LAN manager. It answers to localhost and to the address it listens on, "+
				"not to the name that you used.", http.StatusMisdirectedRequest)
		case isForeign(r):
			http.Error(w, "Other sites may not read this page.", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isHere tells whether the Host of a request is a loopback name or address, or
// the address at which the request arrived. The port does not count: it is
// another one behind a tunnel, and tells nothing.
func isHere(r *http.Request) bool {
	host := (&url.URL{Host: r.Host}).Hostname()
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if address = address.Unmap(); address.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && local.AddrPort().Addr().Unmap().WithZone("") == address.WithZone("")
}

// isForeign tells whether the page of another site has the browser ask. That its
// user follows a link to this page is no reason to refuse.
func isForeign(r *http.Request) bool {
	for _, origin := range r.Header.Values("Origin") {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || u.Host != r.Host {
			return true
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate"
}
