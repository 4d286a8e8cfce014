package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

var names = list[string, *wrapperspb.StringValue]{name: "names", key: func(s string) string { return s }, convert: wrapperspb.String}

func numbered(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%06d", i)
	}
	return all
}

// collect reads all pages; between two of them, change may change the items.
func collect(t *testing.T, items []string, size int32, change func([]string) []string) (all []string, pages int) {
	t.Helper()
	for token := ""; ; pages++ {
		page, next, err := names.page(items, &pb.ListProcessesRequest{PageSize: size, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page {
			all = append(all, p.GetValue())
		}
		if token = next; token == "" {
			return all, pages + 1
		}
		items = change(items)
	}
}

func same(items []string) []string { return items }

func TestPages(t *testing.T) {
	for _, test := range []struct {
		items int
		size  int32
		pages int
	}{
		{0, 0, 1}, {1, 0, 1}, {1000, 0, 1}, {1001, 0, 2}, {10000, 0, 10}, {2500, 5000, 3}, {10, 3, 4}, {9, 3, 3}, {5, 1, 5},
	} {
		items := numbered(test.items)
		all, pages := collect(t, items, test.size, same)
		if !slices.Equal(all, items) || pages != test.pages {
			t.Errorf("%d items by %d: %d items in %d pages, want %d", test.items, test.size, len(all), pages, test.pages)
		}
	}
}

// Items that go, also the last one of a page, and items that come in front of it
// change nothing for the rest.
func TestPagesWhileItemsChange(t *testing.T) {
	items := numbered(10)
	all, _ := collect(t, items, 4, func(rest []string) []string {
		if len(rest) == 10 {
			return append([]string{"000000a"}, slices.Delete(slices.Clone(rest), 3, 4)...)
		}
		return rest
	})
	if !slices.Equal(all, items) {
		t.Errorf("got %q", all)
	}
}

func TestPagesAreOfBoundedSize(t *testing.T) {
	items := numbered(20)
	for i := range items {
		items[i] += strings.Repeat("x", pageBytes/4)
	}
	all, pages := collect(t, items, 0, same)
	if !slices.Equal(all, items) || pages != 5 {
		t.Errorf("%d items in %d pages", len(all), pages)
	}
}

func TestGarbageTokens(t *testing.T) {
	other := names
	other.name = "others"
	good := names.token("000001")
	for _, token := range []string{"?", "x", "AAAA", "AAAAAA", good[:len(good)-1], good + "A", "B" + good[1:], good + "=", good + "\n", "\x00",
		other.token("000001"), strings.Repeat("A", 1<<16)} {
		_, _, err := names.page(numbered(3), &pb.ListProcessesRequest{PageToken: token})
		if status.Code(err) != codes.InvalidArgument || !strings.HasPrefix(status.Convert(err).Message(), "page_token: ") {
			t.Errorf("token %.20q: %v", token, err)
		}
	}
}

func FuzzPageToken(f *testing.F) {
	f.Add("")
	f.Add(names.token(""))
	f.Add(names.token("web\x00\xff"))
	f.Add("AAAAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if key, ok := names.parseToken(token); ok && token != "" && names.token(key) != token {
			t.Errorf("%q is taken for the token of %q, which is %q", token, key, names.token(key))
		}
		if key, ok := names.parseToken(names.token(token)); !ok || key != token {
			t.Errorf("the token of %q gives back %q, %v", token, key, ok)
		}
	})
}
