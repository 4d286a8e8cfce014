package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTake(t *testing.T) {
	parse := func(text string) Config {
		c, err := Parse("f", []byte(text), t.TempDir()[:1])
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	running := parse(`{"maxprocesses": 3, "name": "a", "log": {"level": "info"}}`)
	changed, waiting := running.Take(parse(`{"maxprocesses": 4, "stopunneeded": true, "name": "b", "lanmanagerport": 7, "log": {"level": "debug", "format": "json"}}`))
	if diff := cmp.Diff("maxprocesses stopunneeded log.level / lanmanager* name log.format", strings.Join(changed, " ")+" / "+strings.Join(waiting, " ")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	want := parse(`{"maxprocesses": 4, "stopunneeded": true, "name": "a", "log": {"level": "debug"}}`)
	if diff := cmp.Diff(want, running); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if changed, waiting := running.Take(want); changed != nil || waiting != nil {
		t.Errorf("nothing changed, and it tells %q and %q", changed, waiting)
	}
}

// No field of the configuration is left out, whichever is added.
func TestTakeKnowsAllFields(t *testing.T) {
	var c Config
	covered := map[uintptr]bool{}
	for _, k := range keys {
		covered[reflect.ValueOf(k.of(&c)).Pointer()] = true
	}
	var look func(v reflect.Value, name string)
	look = func(v reflect.Value, name string) {
		switch {
		case covered[v.Addr().Pointer()] && name != "Log":
		case name == "Log":
			for i := range v.NumField() {
				look(v.Field(i), "Log."+v.Type().Field(i).Name)
			}
		default:
			t.Errorf("%s is in no key", name)
		}
	}
	for i := range reflect.TypeFor[Config]().NumField() {
		look(reflect.ValueOf(&c).Elem().Field(i), reflect.TypeFor[Config]().Field(i).Name)
	}
}
