package state

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	maxInstance = 255 // bytes of an instance's name
	maxFileName = 100 // bytes of a name in a path, without extension
)

// FileName returns the name under which an instance has its files: letters,
// digits, '_', '-' and '.' (not at the beginning) as they are, any other byte as
// %XX. A name that would pass 100 bytes is its beginning, '~' and the SHA-256 of
// the instance. Different instances have different names. The instance is 1 to
// 255 bytes of UTF-8 without NUL: its process finds it in its environment.
func FileName(instance string) (string, error) {
	switch {
	case instance == "":
		return "", fmt.Errorf("an instance has no name; wanted 1 to %d bytes", maxInstance)
	case len(instance) > maxInstance:
		return "", fmt.Errorf("the instance name %.40q... has %d bytes; wanted 1 to %d", instance, len(instance), maxInstance)
	case !utf8.ValidString(instance):
		return "", fmt.Errorf("the instance name %q is not UTF-8", instance)
	case strings.ContainsRune(instance, 0):
		return "", fmt.Errorf("the instance name %.40q has a NUL character, which no environment can hold", instance)
	}
	return fileName(instance), nil
}

// fileName is FileName for any text.
func fileName(instance string) string {
	var b strings.Builder
	for i := range len(instance) {
		if c := instance[i]; isPlain(c) || c == '.' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	name := b.String()
	if len(name) <= maxFileName {
		return name
	}
	hash := fmt.Sprintf("~%x", sha256.Sum256([]byte(instance)))
	return name[:maxFileName-len(hash)] + hash // no short name has a '~'
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}
