package config

import (
	"flag"
	"testing"

	"github.com/allexgo/machine-agent/internal/docpage"
)

const document = "../../docs/configuration.md"

var update = flag.Bool("update", false, "write the keys of the configuration into "+document)

// docs/configuration.md has every key with its type, its default and its meaning.
func TestDocument(t *testing.T) {
	f := defaults()
	f.Name = "" // that of the machine that writes the page is not for it
	table, err := docpage.Keys("file.go", f)
	if err != nil {
		t.Fatal(err)
	}
	docpage.Keep(t, document, "configuration", table, *update)
}

// What it says of the keys that take one of a few values is what they take.
func TestDocumentSaysWhatIsAllowed(t *testing.T) {
	for key, text := range map[string]string{
		"lanmanagerprotocol": `{"lanmanagerprotocol": "?"}`,
		"log.level":          `{"log": {"level": "?"}}`,
		"log.format":         `{"log": {"format": "?"}}`,
	} {
		_, err := Parse(FileName, []byte(text), "/m")
		docpage.Allows(t, document, key, err)
	}
}
