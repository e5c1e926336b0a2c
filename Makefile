# Countersign: every command a contributor needs. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Builds are the same everywhere: what a developer's environment says about workspaces and flags stays outside.
# The root module replaces the contract module by ./proto, so no workspace is needed.
export GOWORK := off
unexport GOFLAGS

GO ?= go
# How long one package's tests may take, and how many packages are tested at a time.
TEST_TIMEOUT ?= 15m
TEST_PARALLEL ?= 2
# Extra arguments: make test ARGS='-run TestRedeem -v', make demo ARGS='--http 127.0.0.1:0'.
ARGS ?=

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- run ---

DEMO_FLAGS = $(if $(AUTO),--auto) $(if $(REDIS),--redis $(REDIS)) $(if $(NATS),--nats $(NATS)) \
	$(if $(SMTP),--smtp $(SMTP)) $(if $(OTLP),--otlp $(OTLP))

.PHONY: demo
demo: build ## start everything with a real request; AUTO=1 lets a simulated signer go the whole way (REDIS= NATS= SMTP= OTLP= ARGS=)
	@bin/countersign demo $(strip $(DEMO_FLAGS) $(ARGS))

.PHONY: build
build: ## build the command line and every service into bin/
	@mkdir -p bin
	@$(GO) build -o bin/ ./services/*/cmd/*

# --- check ---

.PHONY: test
test: test-tools ## all tests, against real servers; installs what they need (ARGS=)
	@scripts/test -timeout $(TEST_TIMEOUT) -p $(TEST_PARALLEL) $(ARGS)

.PHONY: test-tools
test-tools: ## install the programs that tests run against
	@scripts/install-test-tools
	@scripts/install-tools test

.PHONY: soak
soak: test-tools ## the long runs: more seeds, kills, power cuts and load (SOAK=10m is the time for each)
	@COUNTERSIGN_REQUIRE_TOOLS=1 COUNTERSIGN_SOAK=$(or $(SOAK),10m) \
		$(GO) test -count=1 -timeout 0 -p 1 -run '$(or $(RUN),.)' $(ARGS) ./...

.PHONY: bench
bench: ## rates beside the ceilings they stand on, sizes, starts; PEERS=1 adds PostgreSQL (ROUNDS=3 OF=Open ARGS=)
	@COUNTERSIGN_BENCH_PEERS=$(PEERS) scripts/install-test-tools
	@COUNTERSIGN_REQUIRE_TOOLS=1 COUNTERSIGN_BENCH_PEERS=$(PEERS) $(GO) test -run '^$$' -bench '$(or $(OF),Countersign|Replicated|Rebuild)' \
		-benchtime $(or $(ROUNDS),3)x -timeout 30m $(ARGS) ./services/countersign/bench
ifndef OF
	@COUNTERSIGN_REQUIRE_TOOLS=1 $(GO) test -run '^$$' -bench OpenLinks -benchtime 1x -timeout 30m $(ARGS) ./services/countersign/bench
endif

.PHONY: profile
profile: test-tools ## where the time of one path goes, as a table and as a file for `go tool pprof` (OF=resolve|redeem|limits CALLS=200000)
	@mkdir -p out
	@COUNTERSIGN_REQUIRE_TOOLS=1 $(GO) test -run '^$$' -bench 'Path/$(or $(OF),resolve)' -benchtime $(or $(CALLS),200000)x -timeout 10m \
		-cpuprofile out/profile.pprof -o out/bench.test ./services/countersign/bench
	@$(GO) tool pprof -top -cum -nodecount 60 out/bench.test out/profile.pprof 2>/dev/null

.PHONY: lint
lint: ## the linters, with the purity rules, on both modules; and buf on the contract
	@scripts/install-tools generate lint
	@cd proto && ../bin/buf lint
	@bin/golangci-lint run ./...

.PHONY: fmt
fmt: ## format Go and protobuf
	@scripts/install-tools generate lint
	@cd proto && ../bin/buf format -w --path countersign
	@bin/golangci-lint fmt

.PHONY: fmt-check
fmt-check: ## fail when something is not formatted
	@scripts/install-tools generate lint
	@cd proto && ../bin/buf format --diff --exit-code --path countersign
	@bin/golangci-lint fmt --diff

.PHONY: deploy-check
deploy-check: ## what of deploy/ and the Tiltfile can be checked without a cluster
	@scripts/check-deploy

# --- make ---

.PHONY: generate
generate: ## make the generated code from proto/
	@scripts/generate

.PHONY: generate-check
generate-check: ## fail when the generated code is not what proto/ makes
	@scripts/generate --check

.PHONY: tools
tools: ## build the pinned tools into bin/
	@scripts/install-tools generate lint test deploy

.PHONY: tidy
tidy: ## tidy both modules
	@$(GO) -C proto mod tidy
	@$(GO) mod tidy

.PHONY: clean
clean: ## remove what was built, and what the demo left
	@rm -rf bin out .cache
