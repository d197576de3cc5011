# The commands of this project. On a fresh machine: `make demo`, then `make test`.
#
#   make install    a virtual environment in .venv with exactly what requirements.lock pins
#   make demo       build, deploy to a local agent and benchmark a real model; writes a report
#   make test       lint and the tests (installs the Debian packages they need where it is root)
#   make test-quick the tests that take no more than a few seconds each
#   make ci-long    other runtimes and interpreters, in environments of their own
#   make perf       ratios against peers, measured in one run
#   make faults     long fault injection
#   make lint       ruff and mypy
#   make lock       pin everything anew (needs uv)

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed-from-lock
RUNS := edgesdk-runs
PYTEST := $(BIN)/python -m pytest
# two workers: the tests spend much of their time waiting for agents
WORKERS ?= 2

.PHONY: install demo test test-quick ci-long lint perf faults lock debian-packages long-packages clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "edgesdk needs Python 3.11 or newer: install it, or name it with PYTHON=..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo "cannot make $(VENV): on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install
	$(BIN)/edgesdk deploy configs/demo/digits_cnn.onnx \
		--calib configs/demo/calib.npz --data configs/demo/test.npz \
		--baseline -o $(RUNS)/demo

# a browser, 400 MB with all it needs: the report page is opened in it
long-packages:
	@$(MAKE) --no-print-directory debian-packages \
		MORE="$$(command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
			command -v google-chrome >/dev/null || echo chromium)"

debian-packages:
	@missing="$(MORE)"; \
	test -x /usr/sbin/sshd || missing="$$missing openssh-server"; \
	command -v ssh-keygen >/dev/null || missing="$$missing openssh-client"; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	command -v unshare >/dev/null || missing="$$missing util-linux"; \
	command -v mount >/dev/null || missing="$$missing mount"; \
	command -v login >/dev/null || missing="$$missing login"; \
	command -v ip >/dev/null || missing="$$missing iproute2"; \
	command -v systemd-analyze >/dev/null || missing="$$missing systemd"; \
	test -f /usr/share/keyrings/debian-archive-keyring.gpg || missing="$$missing debian-archive-keyring"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
		echo "missing Debian packages:$$missing; the tests that need them are skipped" >&2; \
	fi

test: install debian-packages lint
	$(PYTEST) -n $(WORKERS) -m "not perf and not faults and not hardware and not long"

test-quick: install
	$(PYTEST) -n $(WORKERS) -m "not slow and not perf and not faults and not hardware and not long"

ci-long: install long-packages
	$(PYTEST) -m long

perf: install
	$(PYTEST) -m perf -s

faults: install debian-packages
	$(PYTEST) -m faults

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --all-extras --group dev \
		--custom-compile-command "make lock" -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) $(RUNS) .mypy_cache .pytest_cache .ruff_cache .hypothesis
