package lanmanager

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/allexgo/machine-agent/internal/jsonfile"
	"github.com/allexgo/machine-agent/lan/table"
)

// parseEach reads the JSON array in the file called name and gives each element
// of which the form is right to take. What take returns is a mistake of that
// element.
func parseEach(name string, text []byte, take func(json.RawMessage) error) error {
	var elements []json.RawMessage
	doc := jsonfile.Read(name, text, &elements)
	bad := places(doc.Err())
	for i, element := range elements {
		if bad[i] {
			continue
		}
		if err := take(element); err != nil {
			doc.Add(fmt.Sprintf("[%d]", i), "%s", err)
		}
	}
	return doc.Err()
}

// places are those of the elements of an array that have mistakes in err.
func places(err error) map[int]bool {
	bad := map[int]bool{}
	var mistakes *jsonfile.Error
	if errors.As(err, &mistakes) {
		for _, m := range mistakes.Mistakes {
			bad[place(m)] = true
		}
	}
	return bad
}

// place is that of the element of an array that has a mistake.
func place(m jsonfile.Mistake) (i int) {
	fmt.Sscanf(m.Path, "[%d]", &i)
	return i
}

// parseNeeds reads needs or needs.runtime, in which names are unique.
func parseNeeds(name string, text []byte) ([]fields, error) {
	needs := []fields{}
	seen := map[string]bool{}
	err := parseEach(name, text, func(element json.RawMessage) error {
		need, err := parseNeed(element)
		if err != nil {
			return err
		}
		if seen[need.name()] {
			return fmt.Errorf("there is a need %q before this one; give each a name of its own", need.name())
		}
		seen[need.name()] = true
		needs = append(needs, need)
		return nil
	})
	return needs, err
}

// parseLayer reads needs.overlay, of which several entries may concern one need.
// One that concerns none does nothing, as on the original, which is seldom what
// was meant.
func (c *contents) parseLayer(name string, text []byte) ([]fields, error) {
	layer := []fields{}
	known := map[string]bool{}
	for _, need := range c.static {
		known[need.name()] = true
	}
	err := parseEach(name, text, func(element json.RawMessage) error {
		need, err := parseNeed(element)
		switch {
		case err != nil:
			return err
		case c.static != nil && !known[need.name()]:
			return fmt.Errorf("there is no need %q in needs", need.name())
		}
		layer = append(layer, need)
		return nil
	})
	return layer, err
}

// parseNeed reads an entry of needs, needs.overlay or needs.runtime.
func parseNeed(text json.RawMessage) (fields, error) {
	var need fields
	if json.Unmarshal(text, &need) != nil || need.name() == "" {
		return nil, errors.New("a need is an object with an instancename")
	}
	if err := checkName(need.name()); err != nil {
		return nil, err
	}
	_, err := table.Needs.Parse(text)
	return need, err
}

func parseNATs(name string, text []byte) ([]table.Record, error) {
	nats := []table.Record{}
	seen := map[string]bool{}
	err := parseEach(name, text, func(element json.RawMessage) error {
		record, err := table.NATs.Parse(element)
		switch {
		case err != nil:
			return err
		case seen[record.Key()]:
			return fmt.Errorf("there is an entry for %s before this one", record.Key())
		}
		seen[record.Key()] = true
		nats = append(nats, record)
		return nil
	})
	return nats, err
}
