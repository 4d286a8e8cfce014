package state

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestFileName(t *testing.T) {
	a100 := strings.Repeat("a", 100)
	for instance, want := range map[string]string{
		"Time":          "Time",
		"a-b_c.D9":      "a-b_c.D9",
		"../../x":       "%2E.%2F..%2Fx",
		".":             "%2E",
		"..":            "%2E.",
		".hidden":       "%2Ehidden",
		"a/b\\c":        "a%2Fb%5Cc",
		"ä \x01~%":      "%C3%A4%20%01%7E%25",
		"%2E":           "%252E",
		a100:            a100,
		a100 + "a":      strings.Repeat("a", 35) + "~9d0793397991b57a99a07c6e6b4a92bab68dbf605345cd0b87f385a448a726bc",
		"/" + a100[:97]: "%2F" + a100[:97],
		"\u00fc" + a100: "%C3%BC" + strings.Repeat("a", 29) + "~676c6e1e2b88f516ccac3fdf001588c095ad76685b8925347388063781e64ad0",
	} {
		got, err := FileName(instance)
		if err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", instance, got, err, want)
		}
	}
	for instance, want := range map[string]string{
		"":                       "an instance has no name; wanted 1 to 255 bytes",
		strings.Repeat("b", 256): "the instance name " + `"` + strings.Repeat("b", 40) + `"... has 256 bytes; wanted 1 to 255`,
		"a\xffb":                 `the instance name "a\xffb" is not UTF-8`,
		"a\x00b":                 `the instance name "a\x00b" has a NUL character, which no environment can hold`,
	} {
		if got, err := FileName(instance); err == nil || err.Error() != want || got != "" {
			t.Errorf("%.10q: got %q, %v, want %s", instance, got, err, want)
		}
	}
}

// names are instances, among them many that are alike.
func names() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		beginning := strings.Repeat(rapid.SampledFrom([]string{"", "a", ".", "/", "%2F"}).Draw(t, "letter"), rapid.IntRange(0, 85).Draw(t, "times"))
		return beginning + rapid.OneOf(rapid.StringMatching(`[a./%~F2E]{1,3}`), rapid.StringN(1, 5, 15)).Draw(t, "end")
	}).Filter(func(s string) bool { _, err := FileName(s); return err == nil })
}

// A file name is a plain, visible, bounded one, and tells instances apart.
func TestFileNameProperties(t *testing.T) {
	safe := regexp.MustCompile(`^[A-Za-z0-9_%-][A-Za-z0-9_.%~-]{0,99}$`)
	instances := map[string]string{}
	rapid.Check(t, func(t *rapid.T) {
		instance := names().Draw(t, "instance")
		name, err := FileName(instance)
		if err != nil || !safe.MatchString(name) {
			t.Fatalf("%q: %q, %v", instance, name, err)
		}
		if other, ok := instances[name]; ok && other != instance {
			t.Fatalf("%q and %q are both %q", instance, other, name)
		}
		instances[name] = instance
	})
}
