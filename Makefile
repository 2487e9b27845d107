# Everything a checkout needs, with nothing but Python (3.11 or newer) and make. Environments are made once and remade when a lock changes.

VENV := .venv
PYTHON := $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
HASH := $(shell cat requirements.lock requirements-dev.lock pyproject.toml | cksum | cut -d' ' -f1)
RUN := $(VENV)/run.$(HASH)
DEV := $(VENV)/dev.$(HASH)
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
COMPILE := $(VENV)/bin/pip-compile --quiet --generate-hashes --allow-unsafe --no-strip-extras --all-build-deps \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

# Compiled modules halve the time a process needs to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve test check bench catalog docs lock clean

serve: $(RUN)  ## run the gateway; ARGS="--port 5000" passes options
	@$(VENV)/bin/python -m aigate serve $(ARGS)

test: $(DEV)  ## run the tests; ARGS="-k listener" passes options
	@$(VENV)/bin/python -m pytest $(ARGS)

check: $(DEV)  ## lint and the architecture rules
	@$(VENV)/bin/ruff check aigate tests tools
	@$(VENV)/bin/python -m pytest -q tests/test_architecture.py tests/test_docs.py

bench: $(DEV)  ## measure the gateway beside nginx
	@$(VENV)/bin/python -m bench $(ARGS)

catalog: $(DEV)  ## compile the price file from the installed genai-prices
	@$(VENV)/bin/python tools/catalog.py

docs: $(DEV)  ## write the pages that are made from the code
	@$(VENV)/bin/python -m tools.reference

lock: $(DEV)  ## resolve the dependencies anew; UPGRADE=--upgrade takes newer ones
	@$(COMPILE) $(UPGRADE) --output-file requirements.lock pyproject.toml
	@$(COMPILE) $(UPGRADE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "aigate needs Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(RUN): $(VENV)/bin/python
	@echo "Installing into $(VENV) (once)"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/run.* && touch $@

$(DEV): $(RUN)
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@rm -f $(VENV)/dev.* && touch $@
