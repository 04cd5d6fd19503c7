# The everyday commands of Landfall. `make demo` shows what it does, `make test` proves it.

SHELL := /bin/bash
.DEFAULT_GOAL := help

HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
STATIC := target/$(HOST)/release
BINARIES := landfall-controller landfall-speaker landfall-lab landfall-backend
TOOLS := $(or $(LANDFALL_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/landfall)/tools
CARGO_DENY_VERSION := 0.20.2

.PHONY: help
help: ## Say what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.PHONY: demo
demo: build kubernetes packages ## Show a Service getting its address, and surviving its node, on a real Kubernetes
	target/release/landfall-lab demo $(DEMO_FLAGS)

.PHONY: test
test: lint build kubernetes packages ## Pass every test: lints, unit and property tests, simulator, seeded mistakes, end-to-end in the lab
	@echo "== unit and property tests; simulator; inputs that nobody should believe"
	cargo test --workspace --exclude landfall-tests --lib --bins --test generated --test documented --test model --test sim --test fuzz --test kernel --test filter --test frr
	@echo "== mistakes seeded into the controller's core: each must be caught"
	cargo test -p landfall-controller --test mutants
	@echo "== the controller's drivers against a real API server"
	target/release/landfall-lab exec cargo test -p landfall-controller --test api_server
	@echo "== the lab and end-to-end tests"
	cargo test -p landfall-tests

.PHONY: sim
sim: rust ## Play random faults in the pretend world: SEEDS=n, FAULTS=n, or one of them told: SEED=n, REPLAY=file
	LANDFALL_SIM_SEEDS=$(SEEDS) LANDFALL_SIM_FAULTS=$(FAULTS) LANDFALL_SIM_SEED=$(SEED) LANDFALL_SIM_REPLAY=$(REPLAY) \
		cargo run --profile sim -p landfall-sim

.PHONY: fuzz
fuzz: rust ## Throw ten million inputs, or INPUTS=n, at everything that reads what others wrote
	LANDFALL_FUZZ_INPUTS=$(or $(INPUTS),10000000) cargo test --profile sim -p landfall-speaker --test fuzz -- --nocapture $(ONLY)

.PHONY: lab
lab: build kubernetes packages ## Open a shell in a lab with Landfall installed
	target/release/landfall-lab shell $(LAB_FLAGS)

.PHONY: bench
bench: build kubernetes packages ## Print the README's figures with goals, and ratios to the machine's own floor where there is one
	target/release/landfall-lab bench $(BENCH_FLAGS)
	$(if $(BENCH_FLAGS),,$(MAKE) bench-core bench-mind)

.PHONY: bench-core
bench-core: rust ## Print what granting costs in the deciding core alone, with 100,000 Services
	cargo bench -p landfall-controller --bench core

.PHONY: bench-mind
bench-mind: rust ## Print what the mind of a speaker costs with 100 peers and 10,000 addresses
	cargo bench -p landfall-speaker --bench mind

.PHONY: build
build: rust ## Build static binaries into target/release
	@echo "== building static binaries (several minutes the first time)"
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target $(HOST) $(addprefix --bin ,$(BINARIES))
	@mkdir -p target/release && ln -f $(addprefix $(STATIC)/,$(BINARIES)) target/release/

.PHONY: lint
lint: rust $(TOOLS)/bin/cargo-deny ## Check formatting, lints, licences and generated files
	@echo "== formatting, lints, licences"
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(TOOLS)/bin/cargo-deny --locked check licenses bans sources

.PHONY: mutants
mutants: rust ## Seed mistakes into the controller's core and see that its tests catch each
	cargo test -p landfall-controller --test mutants -- $(ONLY)

.PHONY: manifests
manifests: rust ## Write crds/*.yaml from the types in crds/src
	cargo run -p landfall-crds --bin crdgen crds

.PHONY: kubernetes
kubernetes: ## Build the Kubernetes programs of the lab, once
	@tests/kubernetes/build.sh >/dev/null

.PHONY: packages
packages: ## Install the Debian packages that the lab needs, where missing
	@tests/install.sh

.PHONY: rust
rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: install $$(sed -n 's/^channel = //p' rust-toolchain.toml) with rustup (https://rustup.rs), then run this again" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing: apt-get install build-essential, then run this again" >&2; exit 1; }

$(TOOLS)/bin/cargo-deny:
	@echo "== installing cargo-deny $(CARGO_DENY_VERSION) into $(TOOLS) (about 4 minutes, once)"
	cargo install --quiet --locked --root $(TOOLS) cargo-deny@$(CARGO_DENY_VERSION)
