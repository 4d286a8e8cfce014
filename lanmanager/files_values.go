package lanmanager

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// form is a need as a file has it. Of other keys the original takes no notice.
type form struct {
	InstanceName json.RawMessage `json:"instancename"`
	ModuleName   json.RawMessage `json:"modulename"`
	PropertyHash json.RawMessage `json:"propertyhash"`
	Strategies   json.RawMessage `json:"strategies"`
	Closed       json.RawMessage `json:"closed"`
	IPAddress    json.RawMessage `json:"ipaddress"`
	TCPPort      json.RawMessage `json:"tcpport"`
	TCPOptions   json.RawMessage `json:"tcpoptions"`
	HTTPPort     json.RawMessage `json:"httpport"`
	HTTPOptions  json.RawMessage `json:"httpoptions"`
	WSPort       json.RawMessage `json:"wsport"`
	WSOptions    json.RawMessage `json:"wsoptions"`
	PID          json.RawMessage `json:"pid"`
	Debug        json.RawMessage `json:"debug"`
	DebugBrk     json.RawMessage `json:"debug_brk"`
	Prof         json.RawMessage `json:"prof"`
	Gate         json.RawMessage `json:"gate"`
	Timeout      json.RawMessage `json:"timeout"`
}

// What becomes of entries in which something is wrong. A need with a wrong value
// is a need, as on the original: a slip in one value must not take a service
// away.
const (
	noneSkipped = "of the needs with a mistake holds what is right"
	someSkipped = "entries that are no needs of their own are skipped; of the other needs with a mistake holds what is right"
)

// loadNeeds is loadFile for needs and needs.overlay. The problem has the wrong
// values in the entries, too.
func loadNeeds(path, nothing string, held *[]fields, parse func(string, []byte) ([]fields, error), module moduleRule) problem {
	var wrong []jsonfile.Mistake
	p := loadFile(path, nothing, held, func(name string, text []byte) ([]fields, error) {
		entries, err := parse(name, text)
		if !isBroken(err) {
			wrong = wrongValues(name, text, err, module)
		}
		return entries, err
	})
	if len(wrong) == 0 {
		return p
	}
	p.consequence = noneSkipped
	var skipped *jsonfile.Error
	if errors.As(p.err, &skipped) {
		p.consequence = someSkipped
		wrong = append(wrong, skipped.Mistakes...)
		slices.SortStableFunc(wrong, func(a, b jsonfile.Mistake) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
	}
	p.err = &jsonfile.Error{File: path, Mistakes: wrong}
	return p
}

// wrongValues are the mistakes in the entries of needs or needs.overlay, but for
// those entries that are skipped.
func wrongValues(name string, text []byte, skipped error, module moduleRule) []jsonfile.Mistake {
	var forms []form
	doc := jsonfile.Read(name, text, &forms)
	bad := places(skipped)
	for i, f := range forms {
		if !bad[i] {
			f.check(doc, fmt.Sprintf("[%d]", i), module)
		}
	}
	var all *jsonfile.Error
	if !errors.As(doc.Err(), &all) {
		return nil
	}
	return slices.DeleteFunc(all.Mistakes, func(m jsonfile.Mistake) bool { return bad[place(m)] })
}

// moduleRule tells whether an entry for a need has to have a modulename, where
// value, nil or null, is what it has.
type moduleRule func(need string, value json.RawMessage) bool

// check adds what is wrong with the values of the entry at path. A null is no
// value, and a propertyhash may be anything.
func (f *form) check(doc *jsonfile.Document, path string, module moduleRule) {
	f.checkModule(doc, path+".modulename", module)
	f.checkAddress(doc, path+".ipaddress")
	f.checkStrategies(doc, path+".strategies")
	number := func(key string, value json.RawMessage, most int, wanted string) {
		if isSet(value) && !isWhole(value, most) {
			doc.Add(path+"."+key, "found %s, wanted %s", named(value), wanted)
		}
	}
	const port = "a port from 1 to 65535; until it is mended, or left out, any port will do"
	number("tcpport", f.TCPPort, mostPort, port)
	number("httpport", f.HTTPPort, mostPort, port)
	number("wsport", f.WSPort, mostPort, port)
	number("timeout", f.Timeout, year, fmt.Sprintf(
		"seconds from 1 to %d; until it is mended, or left out, it is %d", year, usualSeconds))
}

func (f *form) checkModule(doc *jsonfile.Document, path string, module moduleRule) {
	const wanted = "wanted the name of a module; until it has one no machine can serve the need"
	entry := fields{"instancename": f.InstanceName, "modulename": f.ModuleName}
	switch {
	case !isSet(f.ModuleName) && !module(entry.name(), f.ModuleName):
	case f.ModuleName == nil:
		doc.Add(path, "missing, %s", wanted)
	case entry.text("modulename") == "":
		doc.Add(path, "found %s, %s", named(f.ModuleName), wanted)
	}
}

func (f *form) checkAddress(doc *jsonfile.Document, path string) {
	var address string
	effect := "no machine may serve the need"
	if json.Unmarshal(f.IPAddress, &address) != nil {
		effect = "any machine may serve the need"
	}
	_, noAddress := netip.ParseAddr(address)
	_, noNetwork := netip.ParsePrefix(address)
	if isSet(f.IPAddress) && string(f.IPAddress) != `""` && noAddress != nil && noNetwork != nil {
		doc.Add(path, "found %s, wanted an address or a network such as 192.168.1.0/24; until it is mended, or left out, %s",
			named(f.IPAddress), effect)
	}
}

func (f *form) checkStrategies(doc *jsonfile.Document, path string) {
	const effect = "until it is mended, or left out, only who is admitted anyway is let in"
	strategies, isObject := inner(f.Strategies)
	var list []json.RawMessage
	switch ip := strategies["ip"]; {
	case isSet(f.Strategies) && !isObject:
		doc.Add(path, "found %s, wanted an object; %s", named(f.Strategies), effect)
	case isSet(ip) && json.Unmarshal(ip, &list) != nil:
		doc.Add(path+".ip", "found %s, wanted an array; %s", named(ip), effect)
	}
}

// named is a value in a message, in one line.
func named(value json.RawMessage) string {
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	default:
		return excerpt(value)
	}
}

func isSet(value json.RawMessage) bool { return value != nil && string(value) != "null" }

// isWhole tells whether a value is a whole number from 1 to most.
func isWhole(value json.RawMessage, most int) bool {
	var number float64
	return json.Unmarshal(value, &number) == nil && number == math.Trunc(number) && 1 <= number && number <= float64(most)
}

// complete are the needs that have no use for a modulename in needs: that is in
// needs.overlay or needs.runtime, or the need was removed.
func (f *files) complete() map[string]bool {
	overlay := f.held.overlay
	if text, err := readPlain(f.overlay); err == nil && json.Valid(text) {
		overlay = nil
		_ = json.Unmarshal(text, &overlay) // a mistake is found when it is loaded
	}
	var runtime []fields
	if text, err := readPlain(f.runtime); err == nil {
		_ = json.Unmarshal(text, &runtime) // that one, too
	}
	names := map[string]bool{}
	for _, need := range slices.Concat(overlay, runtime) {
		if need.text("modulename") != "" || string(need[removed]) == "true" {
			names[need.name()] = true
		}
	}
	return names
}
