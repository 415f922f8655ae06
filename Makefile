# What there is to do: build, test, lint, cross; fuzz, bench and soak take longer.
# Nothing but Go is needed to build; tests also take gcc (for the race detector) and
# PostgreSQL.

GO ?= go
# One set of flags for everything, so that all share one build cache.
TEST = $(GO) test -race -shuffle=on -timeout 10m
TESTFLAGS ?=
FUZZTIME ?= 5s
LINT = $(GO) tool -modfile=tools/go.mod golangci-lint

.DEFAULT_GOAL := build
.PHONY: build test lint fmt soak fuzz bench cross tools-present postgres-present

build: tools-present ## bin/keelson
	$(GO) build -o bin/ ./cmd/keelson

test: tools-present postgres-present ## vet, then all tests with the race detector
	$(GO) vet ./...
	$(GO) -C bench vet ./...
	$(TEST) $(TESTFLAGS) ./...

lint: tools-present ## the linters and formatters of .golangci.yml
	$(LINT) run ./...
	$(LINT) fmt --diff ./...

fmt: tools-present ## format everything
	$(LINT) fmt ./...

soak: tools-present postgres-present ## the long campaigns too
	KEELSON_SOAK=1 $(GO) test -race -shuffle=on -timeout 2h $(TESTFLAGS) ./...

# go test fuzzes one target at a time. It lists the targets of a package before
# the line "ok <package>".
fuzz: tools-present postgres-present ## every fuzz target for FUZZTIME (5s)
	@set -e; list=$$($(GO) test -list '^Fuzz' ./...); \
	targets=$$(echo "$$list" | \
		awk '/^Fuzz/ { names[n++] = $$1 } $$1 == "ok" { for (i = 0; i < n; i++) print $$2, names[i]; n = 0 }'); \
	echo "$$targets" | while read -r package target; do \
		[ -n "$$target" ] || continue; \
		echo "== $$package $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package"; \
	done

bench: tools-present postgres-present ## all benchmarks
	$(GO) test -run '^$$' -bench . -benchmem $(TESTFLAGS) ./...

# The tests are only type-checked: there is no Mac to run them on.
cross: tools-present ## compile for macOS
	GOOS=darwin GOARCH=amd64 $(GO) build ./...
	GOOS=darwin GOARCH=arm64 $(GO) build ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...

tools-present:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or later, https://go.dev/dl/" >&2; exit 1; }
	@command -v $$($(GO) env CC) >/dev/null || { echo "$$($(GO) env CC) is missing: the race detector needs a C compiler (Debian: apt install gcc libc6-dev)" >&2; exit 1; }

# Tests start a server of their own, from one of the places that
# internal/postgrestest looks in.
postgres-present:
	@for initdb in "$$(command -v initdb)" /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb \
		/opt/homebrew/opt/postgresql*/bin/initdb /usr/local/opt/postgresql*/bin/initdb \
		/Applications/Postgres.app/Contents/Versions/*/bin/initdb /usr/local/pgsql/bin/initdb; do \
		if [ -x "$$initdb" ]; then exit 0; fi; \
	done; \
	echo "PostgreSQL is missing: tests need it, though no server has to run (Debian: apt install postgresql, macOS: brew install postgresql)" >&2; exit 1
