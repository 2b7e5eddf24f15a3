# Commands for people who use and people who change RedFS. `make demo` and `make test` each work on a clean checkout.

BIN := .venv/bin
PYTEST := $(BIN)/pytest -q
BESIDE := --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test test-cluster check format setup dev proto bench clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## a pool on this machine with a volume mounted, filled and snapshotted
	@scripts/setup run --mount
	@scripts/demo start

demo-stop: ## unmount and stop the demo's pool, and remove it
	@scripts/demo stop

test: dev ## format, lint, types, layering, and all tests with real mounts but those in containers
	@scripts/setup dev --mount
	@$(MAKE) --no-print-directory lint
	$(PYTEST) $(BESIDE) -n auto -m "not cluster and not browser"
	$(PYTEST) -m browser

test-cluster: ## the tests with every part in a container of its own; installs Docker where it is missing
	@scripts/setup dev --mount --containers
	$(PYTEST) -m cluster

check: dev lint ## format, lint, strict types, import layering, and the fast tests
	$(PYTEST) $(BESIDE) -n logical -m "not slow and not mount"

.PHONY: lint
lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPYPATH=$(CURDIR) $(BIN)/mypy -p redfs
	MYPYPATH=$(CURDIR) $(BIN)/mypy tests bench
	$(BIN)/lint-imports

format: dev ## put the code into its one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: ## install what RedFS needs to run: system packages and .venv
	@scripts/setup run

dev:
	@scripts/setup dev

proto: dev ## regenerate proto/gen from proto/*.proto
	$(BIN)/python -m grpc_tools.protoc -I redfs/proto/gen=proto --python_out=. --pyi_out=. --grpc_python_out=. redfs/proto/gen/cluster.proto

bench: ## measure a mount against a plain folder on the same disk
	@scripts/setup run --mount
	$(BIN)/python bench/run.py

clean: ## remove caches and the virtual environment
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
