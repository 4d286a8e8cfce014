package config

import "reflect"

// keys are those of the file, with what each becomes. live is set where an agent
// can change it while it runs.
var keys = []struct {
	key  string
	of   func(*Config) any // a pointer into it
	live bool
}{
	{"lanmanager*", func(c *Config) any { return &c.LANManager }, false},
	{"address", func(c *Config) any { return &c.Address }, false},
	{"portrangestart, portrangesize", func(c *Config) any { return &c.PortRanges }, false},
	{"portquarantine", func(c *Config) any { return &c.PortQuarantine }, false},
	{"runtimedirectory", func(c *Config) any { return &c.RuntimeDirectory }, false},
	{"socket", func(c *Config) any { return &c.Socket }, false},
	{"statedirectory", func(c *Config) any { return &c.StateDirectory }, false},
	{"moduledirectory", func(c *Config) any { return &c.ModuleDirectory }, true},
	{"name", func(c *Config) any { return &c.Name }, false},
	{"maxprocesses", func(c *Config) any { return &c.MaxProcesses }, true},
	{"orphangrace", func(c *Config) any { return &c.OrphanGrace }, true},
	{"stopunneeded", func(c *Config) any { return &c.StopUnneeded }, true},
	{"endstrays", func(c *Config) any { return &c.EndStrays }, false},
	{"log.level", func(c *Config) any { return &c.Log.Level }, true},
	{"log.format", func(c *Config) any { return &c.Log.Format }, false},
	{"log.maxtotal", func(c *Config) any { return &c.Log.MaxTotal }, false},
	{"metricsaddress", func(c *Config) any { return &c.MetricsAddress }, false},
	{"tracing", func(c *Config) any { return &c.Tracing }, false},
}

// Take makes c what next says, as far as that can change while an agent runs. It
// tells the keys that changed, and those that differ and have to wait for a start.
func (c *Config) Take(next Config) (changed, waiting []string) {
	for _, k := range keys {
		now, new := reflect.ValueOf(k.of(c)).Elem(), reflect.ValueOf(k.of(&next)).Elem()
		switch same := reflect.DeepEqual(now.Interface(), new.Interface()); {
		case same:
		case k.live:
			now.Set(new)
			changed = append(changed, k.key)
		default:
			waiting = append(waiting, k.key)
		}
	}
	return changed, waiting
}
