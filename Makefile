# Commands for people who use and people who change RedFS. `make demo` and `make test` each work on a clean checkout.

VENV := .venv
BIN := $(VENV)/bin

.PHONY: proto
proto: ## regenerate proto/gen from proto/*.proto
	$(BIN)/python -m grpc_tools.protoc -I redfs/proto/gen=proto --python_out=. --pyi_out=. --grpc_python_out=. redfs/proto/gen/cluster.proto
