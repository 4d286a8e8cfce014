package main

import (
	"errors"
	"flag"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/lanmanager"
)

// configure reads the command line. Guided tells that the end of standard input
// ends the program.
func configure() (config lanmanager.Config, guided bool, err error) {
	directory := flag.String("directory", ".", "directory that holds .allexlanmanager with the LAN manager's files")
	listen := flag.String("listen", "", "host:port of one WebSocket listener, instead of what the file boot says, and without the page")
	page := flag.String("page", "", "host:port of the page, or - for none, instead of what the file boot says")
	flag.BoolVar(&guided, "until-stdin-ends", false, "end with standard input; Ctrl-C is left to who has started it")
	level := flag.String("log-level", "info", "trace, debug, info, warn or error")
	flag.Parse()
	logLevel := hclog.LevelFromString(*level)
	if flag.NArg() > 0 || logLevel == hclog.NoLevel {
		return lanmanager.Config{}, false, errors.New("no arguments are taken, and --log-level is trace, debug, info, warn or error")
	}
	config = lanmanager.Config{
		Directory: *directory, Page: *page, Version: version,
		Logger: hclog.New(&hclog.LoggerOptions{Name: "lanmanager", Level: logLevel}),
	}
	if *listen != "" {
		config.Listeners = []lanmanager.Listener{{Envelope: lanmanager.WebSocket, Address: *listen}}
	}
	return config, guided, nil
}
