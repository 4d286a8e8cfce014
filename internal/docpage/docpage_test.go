package docpage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

const page = "above\n<!-- keys: written by: hand -->\nold\n<!-- end of keys -->\nbelow\n"

func TestKeepWritesOnlyItsPart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	Keep(t, file, "keys", "new\n", true)
	Keep(t, file, "keys", "new\n", false)
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Replace(page, "old\n", "\nnew\n\n", 1), string(got)); diff != "" {
		t.Errorf("the page is another one (-want +got):\n%s", diff)
	}
}

func TestCutWantsBothMarks(t *testing.T) {
	for _, text := range []string{"", "<!-- end of keys -->\n", "<!-- keys: x -->\n", "<!-- end of keys -->\n<!-- keys: x -->\n"} {
		if _, _, _, err := cut([]byte(text), "keys"); err == nil {
			t.Errorf("%q has a part", text)
		}
	}
}

type file struct {
	// What it is called. It may be
	// anything|everything.
	Name  string            `json:"name"`
	Wait  jsonfile.Duration `json:"wait"`  // how long
	Size  *jsonfile.Size    `json:"size"`  // how much
	Inner *inner            `json:"inner"` // what is in it
	Other inner             `json:"other"` // as inner
}

type inner struct {
	On bool `json:"on"` // whether
}

func TestKeys(t *testing.T) {
	size := jsonfile.Size(3 << 20)
	got, err := Keys("docpage_test.go", file{Name: "a", Wait: jsonfile.Duration(time.Second), Size: &size, Other: inner{On: true}})
	if err != nil {
		t.Fatal(err)
	}
	want := "| key | type | default | meaning |\n|---|---|---|---|\n" +
		"| `name` | string | `\"a\"` | What it is called. It may be anything\\|everything. |\n" +
		"| `wait` | time span | `\"1s\"` | how long |\n" +
		"| `size` | size | `\"3MiB\"` | how much |\n" +
		"| `inner` | object |  | what is in it |\n" +
		"| `inner.on` | `true` or `false` | `false` | whether |\n" +
		"| `other` | object |  | as inner |\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("another table (-want +got):\n%s", diff)
	}
}

type silent struct {
	In struct{} `json:"in"` // said
	No string   `json:"no"`
}

func TestKeysWantsComments(t *testing.T) {
	if _, err := Keys("docpage_test.go", silent{}); err == nil || !strings.Contains(err.Error(), "no has no comment") {
		t.Errorf("a key without a comment: %v", err)
	}
}

func TestSizes(t *testing.T) {
	for size, want := range map[jsonfile.Size]string{
		0: "0", 1: "1", 1023: "1023", 1024: `"1KiB"`, 1 << 20: `"1MiB"`, 10 << 30: `"10GiB"`, 1 << 42: `"4096GiB"`, 1<<20 + 1024: `"1025KiB"`,
	} {
		if got := sizeText(size); got != want {
			t.Errorf("%d is %s, want %s", size, got, want)
		}
	}
}
