//go:build unix

package page

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// screenshots names the environment variable of the directory that gets the
// screenshots, for people to look at.
const screenshots = "PAGE_SCREENSHOTS"

// startBrowser starts a headless Chromium of its own profile, in a process group
// of its own, which is gone when the test is over.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		const missing = "no Chromium in PATH looks at the page: install it (apt-get install chromium fonts-dejavu-core)"
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	var command *exec.Cmd
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.ModifyCmdFunc(func(c *exec.Cmd) {
			command = c
			c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		}),
		chromedp.WSURLReadTimeout(time.Minute),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	browser, _ := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		chromedp.Cancel(browser)
		end()
		if command != nil && command.Process != nil {
			endGroup(t, command.Process.Pid)
		}
	})
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("%s does not start: %v", path, err)
	}
	return browser
}

func endGroup(t *testing.T, group int) {
	deadline := time.Now().Add(10 * time.Second)
	for !errors.Is(syscall.Kill(-group, syscall.SIGKILL), syscall.ESRCH) {
		if time.Now().After(deadline) {
			t.Errorf("processes of the browser are left in group %d", group)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// look is how somebody looks at the page.
type look struct {
	width int
	theme string // light, dark
}

func (l look) String() string { return fmt.Sprintf("%s-%d", l.theme, l.width) }

// window is the window of the browser, in which the tests look one after the
// other, each at a page of its own. It notes what must not happen in any.
type window struct {
	*testing.T
	ctx    context.Context
	source *source
	server *httptest.Server
	page   atomic.Pointer[Page]
	lost   atomic.Bool // the server can not be reached

	mu     sync.Mutex
	faults []string
}

func openWindow(t *testing.T, browser context.Context) *window {
	w := &window{T: t, ctx: browser}
	w.server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.lost.Load() {
			panic(http.ErrAbortHandler)
		}
		w.page.Load().ServeHTTP(rw, r)
	}))
	w.server.Start()
	t.Cleanup(w.server.Close)
	if err := chromedp.Listen(browser, w.note); err != nil {
		t.Fatal(err)
	}
	call(w, network.Enable, network.EnableParams{})
	call(w, log.Enable, cdp.Empty{})
	return w
}

// test looks at the page of a LAN.
func (w *window) test(name string, s Snapshot, l look, test func(*window)) {
	all, ctx := w.T, w.ctx
	all.Run(name, func(t *testing.T) {
		var limit context.CancelFunc
		w.T, w.source = t, newSource(s)
		w.ctx, limit = context.WithTimeout(ctx, time.Minute)
		page := New(Config{Source: w.source})
		w.page.Store(page)
		defer func() {
			w.run(chromedp.Navigate("about:blank"))
			page.Close()
			limit()
			w.T, w.ctx = all, ctx
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, fault := range w.faults {
				t.Error(fault)
			}
			w.faults = nil
		}()
		w.resize(l)
		test(w)
	})
}

func (w *window) resize(l look) {
	w.Helper()
	w.run(chromedp.EmulateViewport(int64(l.width), 900))
	call(w, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.theme}},
	})
}

// note is called with what the browser reports.
func (w *window) note(event any) {
	fault := ""
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		fault = fmt.Sprintf("on the console: %s", e.Args[0].Value)
	case *runtime.EventExceptionThrown:
		fault = "in the script: " + e.ExceptionDetails.Text
	case *log.EventEntryAdded:
		fault = "in the log: " + e.Entry.Text + " " + e.Entry.URL
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, w.server.URL+"/") && e.Request.URL != "about:blank" {
			fault = "a request to elsewhere: " + e.Request.URL
		}
	}
	if fault != "" && !w.lost.Load() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.faults = append(w.faults, fault)
	}
}

func (w *window) run(steps ...chromedp.Action[chromedp.Void]) {
	w.Helper()
	if err := chromedp.Do(w.ctx, steps...); err != nil {
		w.Fatal(err)
	}
}

// get is the value of an action.
func get[T any](w *window, a chromedp.Action[T]) T {
	w.Helper()
	value, err := chromedp.Run(w.ctx, a)
	if err != nil {
		w.Fatal(err)
	}
	return value
}

func call[P any](w *window, command cdp.Command[P, cdp.Empty], params P) {
	w.Helper()
	if _, err := chromedp.Call(w.ctx, command, params); err != nil {
		w.Fatal(err)
	}
}

// visit loads a URL, and waits until the page follows the changes.
func (w *window) visit(path string) {
	w.Helper()
	w.run(chromedp.Navigate(w.server.URL + path))
	w.await(`document.querySelector("#link.live")`)
}

// await waits until an expression is true.
func (w *window) await(expression string) {
	w.Helper()
	err := chromedp.Do(w.ctx, chromedp.Poll[chromedp.Void]("!!("+expression+")", chromedp.WithPollingTimeout(15*time.Second)))
	if err != nil {
		w.Fatalf("%v; it never came that %s; the page says: %s", err, expression, w.text("body"))
	}
}

// text is what an element shows; empty if it is not there.
func (w *window) text(selector string) string {
	w.Helper()
	return get(w, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)))
}

func (w *window) number(expression string) int {
	w.Helper()
	return get(w, chromedp.Evaluate[int](expression))
}

// rows awaits what the page says about its rows.
func (w *window) rows(says string) {
	w.Helper()
	w.await(fmt.Sprintf("document.querySelector('.rows').textContent === %q", says))
}

// shoot saves a screenshot, if somebody wants to look.
func (w *window) shoot(name string) {
	w.Helper()
	directory := os.Getenv(screenshots)
	if directory == "" {
		return
	}
	png := get(w, chromedp.CaptureScreenshot())
	if err := os.WriteFile(filepath.Join(directory, name+".png"), png, 0o644); err != nil {
		w.Fatal(err)
	}
}

var looks = []look{{1440, "light"}, {390, "light"}, {1440, "dark"}, {390, "dark"}}

func TestBrowser(t *testing.T) {
	w := openWindow(t, startBrowser(t))
	wide, narrow := look{1440, "light"}, look{390, "light"}
	for n, summary := range map[int]string{
		0:      "Nothing is needed. No machine connected.",
		50:     "2 of 50 needs open. 1 machine away. 1 file has a mistake.",
		10_000: "3 of 10,000 needs open. 1 machine away. 1 file has a mistake.",
	} {
		w.test(fmt.Sprintf("%d needs", n), lan(n, time.Now()), wide, func(w *window) { testLooks(w, n, summary) })
	}
	w.test("tabs", lan(50, time.Now()), wide, testTabs)
	w.test("filter, sort and pages", lan(10_000, time.Now()), wide, testMoves)
	w.test("changes", lan(50, time.Now()), wide, testChanges)
	w.test("connection lost", lan(50, time.Now()), narrow, testLost)
	w.test("names from the wire", hostile(), look{390, "dark"}, testHostileNames)
	w.test("without script", lan(10_000, time.Now()), wide, testWithoutScript)
}

func testLooks(w *window, n int, summary string) {
	w.visit("/")
	if got, want := w.number("document.querySelectorAll('tbody tr').length"), min(n, 50); got != want {
		w.Errorf("%d rows are shown, want %d", got, want)
	}
	if got := strings.Join(strings.Fields(w.text(".summary")), " "); got != summary {
		w.Errorf("the summary is %q, want %q", got, summary)
	}
	if n > 0 {
		if first := w.text("tbody tr"); !strings.Contains(first, "open") || !strings.Contains(first, "in its catalogue") {
			w.Errorf("the first row is %q, want an open need and why it is open", first)
		}
	}
	for _, width := range []int{1440, 1024, 390, 320} {
		for dark, theme := range []string{"light", "dark"} {
			l := look{width, theme}
			w.resize(l)
			w.fits(l)
			if got := w.number("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] < 128)"); got != dark {
				w.Errorf("in the theme %s, dark is %d", theme, got)
			}
			w.shoot(fmt.Sprintf("needs-%d-%v", n, l))
		}
	}
}

// fits checks that one need not scroll sideways.
func (w *window) fits(l look) {
	w.Helper()
	if got := w.number("document.documentElement.scrollWidth"); got > l.width {
		w.Errorf("the page is %d pixels wide in a window of %d", got, l.width)
	}
	if got := w.number("Math.ceil(document.querySelector('table').getBoundingClientRect().right - document.querySelector('main').getBoundingClientRect().right)"); got > 0 {
		w.Errorf("the table is %d pixels too wide in a window of %d", got, l.width)
	}
}

func testTabs(w *window) {
	w.visit("/")
	for _, c := range []struct{ title, rows, holds string }{
		{"Services", "48 services", "16000"},
		{"Machines", "5 machines", "neptune"},
		{"NAT", "2 NAT records", "15000-15999"},
		{"Events", "10 events", "address already in use"},
	} {
		w.run(chromedp.Click(fmt.Sprintf("//nav//a[contains(., '%s')]", c.title)))
		w.rows(c.rows)
		if body := w.text("table"); !strings.Contains(body, c.holds) {
			w.Errorf("the table %s holds %q, want %q in it", c.title, body, c.holds)
		}
		if title := w.text("[aria-current]"); !strings.HasPrefix(title, c.title) {
			w.Errorf("the current tab is %q, want %q", title, c.title)
		}
		for _, l := range []look{{390, "dark"}, {1440, "light"}} {
			w.resize(l)
			w.run(chromedp.Evaluate[chromedp.Void]("reveal()"))
			w.fits(l)
			w.shoot(strings.ToLower(c.title) + "-" + l.String())
		}
	}
}

func testMoves(w *window) {
	w.visit("/")
	w.rows("1–50 of 10,000 needs")
	w.run(chromedp.Click("[aria-label='Next page']"))
	w.rows("51–100 of 10,000 needs")
	w.run(chromedp.Click(".below [aria-label='Last page']"))
	w.rows("9,951–10,000 of 10,000 needs")
	w.run(chromedp.NavigateBack())
	w.rows("51–100 of 10,000 needs")
	w.run(chromedp.Reload())
	w.rows("51–100 of 10,000 needs")

	w.run(chromedp.SendKeys("#filter", "ECHO node99"))
	w.rows("23 found in 10,000 needs")
	w.run(chromedp.Click("//thead//a[contains(., 'Instance')]"))
	w.await("document.querySelector('[aria-sort]').textContent === 'Instance'")
	w.run(chromedp.Click("//thead//a[contains(., 'Instance')]"))
	w.await("document.querySelector('[aria-sort=descending]')")
	if first := w.text("tbody th"); first != "Node9999" {
		w.Errorf("the first instance is %q, want Node9999", first)
	}
	address := get(w, chromedp.Location())
	if want := w.server.URL + "/?filter=ECHO+node99&sort=-instance"; address != want {
		w.Errorf("the URL is %q, want %q", address, want)
	}
	w.run(chromedp.Reload())
	w.rows("23 found in 10,000 needs")
	w.shoot("filter-light-1440")
	w.run(chromedp.SendKeys("#filter", " nowhere"))
	w.rows("None found in 10,000 needs")
}

func testChanges(w *window) {
	w.visit("/")
	w.run(chromedp.Evaluate[chromedp.Void]("loadedOnce = true"), chromedp.Focus("#filter"))
	w.source.change(func(s *Snapshot) {
		s.Needs = append([]Need{{Instance: "Fresh", Module: "echo", Open: true, Why: "It was added just now.", Source: "needs.runtime"}}, s.Needs...)
		s.Problems = nil
	})
	w.await("document.querySelector('tbody').textContent.includes('It was added just now.')")
	if got, want := w.text(".summary .warn"), "3 of 51 needs open."; got != want {
		w.Errorf("the summary is %q, want %q", got, want)
	}
	for _, holds := range []string{"loadedOnce", "document.activeElement.id === 'filter'", "!document.querySelector('.problems')",
		"document.title === '3 open · LAN manager'", "document.querySelectorAll('tbody tr').length === 50"} {
		w.await(holds)
	}
	// A row is the same element wherever it goes, and keeps the focus.
	w.run(chromedp.Focus("[data-key=Fresh] a"), chromedp.Evaluate[chromedp.Void]("fresh = document.querySelector('[data-key=Fresh]'); 0"))
	w.source.change(func(s *Snapshot) {
		s.Needs = slices.Clone(s.Needs)
		s.Needs[0].Open = false
	})
	w.await("fresh.textContent.includes('served')")
	w.await("fresh.isConnected && document.activeElement.textContent === 'Fresh'")
	// What is not looked at is not loaded, but it is there when it is looked at.
	w.run(chromedp.Click("//nav//a[contains(., 'Events')]"))
	w.rows("10 events")
	w.source.change(func(s *Snapshot) {
		s.Events = append(slices.Clone(s.Events), Event{time.Now(), ServiceDown, "Fresh", "signal: killed"})
	})
	w.rows("11 events")
	if first := w.text("tbody tr"); !strings.Contains(first, "signal: killed") {
		w.Errorf("the first event is %q, want the newest", first)
	}
}

func testLost(w *window) {
	w.visit("/")
	w.lost.Store(true)
	w.server.CloseClientConnections()
	w.await("document.querySelector('#link.lost')?.textContent.includes('since')")
	if said := w.text("#said"); !strings.Contains(said, "lost") {
		w.Errorf("a screen reader says %q, want that the connection is lost", said)
	}
	w.fits(look{width: 390})
	w.shoot("lost-light-390")
	w.source.change(func(s *Snapshot) { s.Needs = s.Needs[:20] })
	w.lost.Store(false)
	w.await("document.querySelector('#link.live')")
	w.rows("20 needs")
}

// hostile is a LAN whose names want to be more than text.
func hostile() Snapshot {
	s := lan(50, time.Now())
	evil := []string{"<script>owned = 1</script>", "<img src=x onerror='owned = 2'>", "\u202etxt.exe\u202c", "line\nbreak\x00\x1b[31m\x7f", "\xff\xfe",
		`" onfocus="owned=3" autofocus="`, "{{.}}", "javascript:owned=4", strings.Repeat("M", 255), "مرحبا", "z\u0300\u0301\u0302\u0303\u0304\u0305\u0306"}
	for i, name := range evil {
		s.Needs[i].Instance, s.Needs[i].Why, s.Needs[i].Open, s.Needs[i].Module = name, "Because of "+name+".", true, name
		s.Events = append(s.Events, Event{s.Time, ServiceDown, name, name})
	}
	s.Problems[0].Text = evil[0]
	s.Machines[0].Name = evil[1]
	return s
}

func testHostileNames(w *window) {
	w.visit("/")
	for _, tab := range []string{"Needs", "Machines", "Events"} {
		w.run(chromedp.Click(fmt.Sprintf("//nav//a[contains(., '%s')]", tab)))
		w.await(fmt.Sprintf("document.querySelector('table').classList.contains('%s')", tab))
		for _, l := range []look{{1024, "dark"}, {390, "dark"}} {
			w.resize(l)
			w.fits(l)
			w.shoot("hostile-" + strings.ToLower(tab) + "-" + l.String())
		}
	}
	if body := w.text("table"); !strings.Contains(body, "<script>owned = 1</script>") || !strings.Contains(body, `\u202etxt.exe\u202c`) {
		w.Errorf("the names are not shown as they are: %q", body)
	}
	w.run(chromedp.Click("//tbody//a[contains(., 'txt.exe')]"))
	w.rows("1 found in 21 events")
	if got := w.number("typeof owned === 'undefined' ? 0 : 1"); got != 0 {
		w.Error("a name from the wire was run as a script")
	}
}

func testWithoutScript(w *window) {
	call(w, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	defer call(w, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{})
	w.run(chromedp.Navigate(w.server.URL + "/"))
	w.run(chromedp.Click("[aria-label='Next page']"), chromedp.WaitVisible("[href*='page=3']"))
	if got, want := w.text(".rows"), "51–100 of 10,000 needs"; got != want {
		w.Errorf("the second page has %q, want %q", got, want)
	}
	w.run(chromedp.SendKeys("#filter", "node777"), chromedp.Click("form button"), chromedp.WaitVisible("//p[contains(., 'found')]"))
	if got, want := w.text(".rows"), "11 found in 10,000 needs"; got != want {
		w.Errorf("the filter finds %q, want %q", got, want)
	}
	w.shoot("without-script-light-1440")
}
