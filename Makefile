# Countersign: every command a contributor needs. `make` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: generate
generate: ## make the generated code from proto/
	@scripts/generate

.PHONY: generate-check
generate-check: ## fail when the generated code is not what proto/ makes
	@scripts/generate --check
