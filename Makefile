# The two commands: `make demo` and `make test`. Both make .venv first, from the lock.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# uv trusts what this machine trusts, as pip does: a registry may have a certificate of the company's own.
export UV_SYSTEM_CERTS ?= true
# Python keeps what it has compiled, whatever this shell says: a process imports Feast in a third of the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check soak kafka bench-peers lock clean

help:
	@echo "make demo                  the whole job on this machine; Ctrl-C stops it"
	@echo "make demo ONCE=1           the same, ending after the second answer (JSON on the last line)"
	@echo "make demo EVENTS=FILE      the same with real ad clicks (Parquet)"
	@echo "make test                  lint, types, import rules and all tests"
	@echo "make check                 lint, types and import rules only"
	@echo "make soak                  the long tortures"
	@echo "make kafka                 a local Apache Kafka broker; then export the line that it prints"
	@echo "make bench-peers           what the benchmarks compare with and nothing else needs"
	@echo "make lock                  pin the dependencies of pyproject.toml anew"

demo: $(INSTALLED)
	@$(BIN)/actor-risk demo $(if $(ONCE),--once) $(if $(EVENTS),--events $(EVENTS))

test: check
	$(BIN)/pytest -m "not soak" -n 3 --dist loadfile --no-loadscope-reorder

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(INSTALLED)
	$(BIN)/pytest -m soak --timeout=3600

kafka: $(INSTALLED)
	@$(BIN)/python -m actor_risk.local.kafka up

bench-peers: $(INSTALLED)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --target .bench-peers --require-hashes -r bench/peers/requirements.lock

$(INSTALLED): requirements.lock bootstrap.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name it with make PYTHON=…")'
	@echo "making .venv (once) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r bootstrap.lock
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock bootstrap.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(INSTALLED)

UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-emit-index-url --generate-hashes
lock: $(INSTALLED)
	$(UV_COMPILE) --all-extras -o requirements.lock pyproject.toml
	echo uv | $(UV_COMPILE) -o bootstrap.lock -
	$(UV_COMPILE) -c requirements.lock --extra avro --extra jwt --extra local --extra otel --extra train -o deploy/requirements.lock pyproject.toml
	$(UV_COMPILE) -o bench/peers/requirements.lock bench/peers/requirements.in

clean:
	rm -rf .venv .bench-peers
	find actor_risk bench feature_repo materialize models serving tests -name __pycache__ -prune -exec rm -rf {} +
