# The few commands of a day's work. Each installs first what it needs: see .ci/setup.

# rustup adds its folder to PATH in new shells only.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
# Queries are checked against the committed .sqlx, not against a database.
export SQLX_OFFLINE := true

.DEFAULT_GOAL := help
# How long `make chaos` breaks things.
SECONDS ?= 600
.PHONY: help dev test chaos setup fmt lint sqlx audit image

help: ## show this list
	@sed -nE 's/^([a-z]+): ## (.*)/  make \1\t\2/p' Makefile | expand -t 16

dev: ## start Quittance with a local chain and a database, and pay one payment (ARGS="--block-time 2")
	@.ci/setup
	@.ci/dev $(ARGS)

test: ## run every check that CI runs
	@.ci/setup --tests
	@.ci/test

chaos: ## break everything around three replicas, and check what is left (SEED=7 SECONDS=600)
	@.ci/setup --tests
	@CHAOS_SEED=$(SEED) CHAOS_SECONDS=$(SECONDS) cargo nextest run --locked --test chaos --no-capture

setup: ## install what is missing for dev and test
	@.ci/setup --tests

fmt: ## format the code
	@cargo fmt

lint: ## check format, lints and dependencies
	@.ci/setup --tests
	cargo fmt --check
	cargo clippy --locked --all-targets --all-features -- -D warnings
	cargo fetch --locked
	cargo deny --offline check --hide-inclusion-graph licenses bans sources

sqlx: ## write .sqlx anew, after a change of a query or a migration
	@.ci/setup
	@.ci/sqlx

audit: ## look for known vulnerabilities in our dependencies (fetches the advisory database)
	cargo deny check advisories

image: ## build the container image and start it once
	@deploy/build-image
