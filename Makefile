# Needs Go, make and git; everything else comes through Go. `make` lists the targets.

GO       ?= go
FUZZTIME ?= 30s
FUZZJOBS ?= 1

VERSION := $(or $(shell git describe --tags --always --dirty 2>/dev/null),devel)
# As packages number versions: v1.2.3-4-gabc is 1.2.3+4.gabc, and before there is a
# tag it is 0.0.0+abc.
PACKAGED := $(shell echo $(VERSION) | sed -E 's/^v//; /^[0-9]+[.]/!s/^/0.0.0-/; s/-/+/; s/-/./g')
# Without grpc's trace pages, which nobody serves here, the linker can leave out
# what only templates could call: 3 MiB less in every process.
TAGS    := grpcnotrace

BUF      = $(GO) tool -modfile=tools/buf/go.mod buf
NFPM     = $(GO) tool -modfile=tools/nfpm/go.mod nfpm

# The race detector needs a C compiler with its headers, and a system that it knows.
RACE = $(shell $(GO) list -race runtime >/dev/null 2>&1 && \
	printf '\043include <stdlib.h>\n' | $$($(GO) env CC) -fsyntax-only -x c - 2>/dev/null && echo -race)

.PHONY: help build package demo test lint lint-go lint-proto generate bench fuzz faults soak thief clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

build: ## agentd, agentctl, lanmanager and the example children, into bin/
	$(GO) build -trimpath -buildvcs=false -tags $(TAGS) -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/... ./examples/...

package: build ## a deb and an rpm of them with the systemd unit, into bin/
	for kind in deb rpm; do \
		BIN=bin VERSION=$(PACKAGED) GOARCH=$$($(GO) env GOARCH) $(NFPM) package --config packaging/nfpm.yaml --packager $$kind --target bin/ || exit; \
	done

demo: build ## a LAN manager and an agent at work for a few seconds, in a temporary directory
	$(GO) run ./e2e/demo

# In e2e the race detector would see the tests alone, not the programs that they run, and
# slow down the hundreds of processes that are the test binary in a role. The time is for
# a slow machine that has compiled nothing yet.
test: build ## all tests, those of the packages with the race detector where there is a C compiler
	$(GO) test -timeout 20m $(RACE) $$($(GO) list ./... | grep -v /e2e$$)
	$(GO) test -timeout 20m ./e2e

lint: lint-go lint-proto ## gofmt, go vet for three operating systems, buf lint

lint-go:
	@unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l .); \
	if [ -n "$$unformatted" ]; then printf 'run gofmt -w on:\n%s\n' "$$unformatted"; exit 1; fi
	GOOS=linux $(GO) vet ./...
	GOOS=windows $(GO) vet ./...
	GOOS=darwin $(GO) vet ./...

lint-proto:
	$(BUF) lint
	$(BUF) format --diff --exit-code

generate: ## the Go code of proto/, the checksums by which the tests know that it is current, and what docs tell of it
	$(BUF) generate
	$(GO) test -count=1 -run '^(TestGeneratedCode|TestAPIPage|TestErrorsPage)$$' . -update

bench: build ## the figures of design section 10, and those of the peers in BENCH_HOME (bench/peers)
	$(GO) run ./bench
	@measured=$(BENCH_HOME)/log/results.jsonl; if [ -f "$$measured" ]; then python3 bench/peers/table.py "$$measured"; \
	else echo "no figures of peers: bench/peers/README.md tells how to measure them"; fi

fuzz: ## every fuzz target for FUZZTIME (30s), FUZZJOBS (1) of them at a time
	@grep -r --include='*_test.go' '^func Fuzz' . | \
	sed 's|^\(.*\)/[^/]*:func \(Fuzz[A-Za-z0-9_]*\).*|\1 \2|' | sort | \
	xargs -n 2 -P $(FUZZJOBS) sh -c '\
		if said=$$($(GO) test -run "^$$" -fuzz "^$$2$$" -fuzztime $(FUZZTIME) "$$1" 2>&1 </dev/null); \
		then printf "%s %s\n%s\n" "$$1" "$$2" "$$(printf "%s\n" "$$said" | tail -n 3)"; \
		else printf "%s %s\n%s\n" "$$1" "$$2" "$$said"; exit 255; fi' fuzz

faults: ## 500 random schedules of faults; SEED=n for others, of which it prints the first
	$(GO) test ./e2e -count 1 -v -timeout 3h -run '^TestFaults$$' -schedules 500 $(if $(SEED),-seed $(SEED))

thief: ## two minutes of 300 needs beside programs that steal every port they can
	$(GO) test ./e2e -count 1 -v -timeout 1h -run '^TestThieves$$' -thieves 2m -robbed 300

soak: ## 20 minutes of deaths, link losses and restarts, and upgrades with 200 children
	$(GO) test ./e2e -count 1 -v -timeout 3h -run '^TestUpgrade$$' -upgrade-children 200
	$(GO) test ./e2e -count 1 -v -timeout 3h -run '^TestSoak$$' -soak 20m

clean: ## remove bin/
	rm -rf bin
