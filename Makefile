# The two commands that a newcomer needs: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
QUICKSTART_DIR ?= results/quickstart
# Processes of the test suite. Each holds some 2 GB; the files of one are run by one, since they share what they made,
# in the order of tests/conftest.py.
WORKERS ?= 2
PYTEST := -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test test-fast test-lowest test-beam lint docs clean

# The stamp is newer than requirements.txt and setup.cfg once everything is installed.
$(VENV)/.installed: requirements.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "Installing TensorFlow and the other packages into $(VENV) (about a minute on a fast line) ..."
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/python -m mvtec_tf.bin.quickstart --run_dir=$(QUICKSTART_DIR)

test: $(VENV)/.installed
	$(BIN)/python -m ruff check .
	$(BIN)/python $(PYTEST) $(PYTEST_ARGS)

test-fast: $(VENV)/.installed
	$(BIN)/python -m ruff check .
	$(BIN)/python $(PYTEST) -m "not slow" $(PYTEST_ARGS)

# The fast tests with the lowest version of every direct dependency that setup.cfg allows.
LOWEST := .venv-lowest
$(LOWEST)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	@echo "Installing the lowest versions into $(LOWEST) ..."
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable ".[test]"
	touch $@

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python $(PYTEST) -m "not slow" $(PYTEST_ARGS)

# What needs Apache Beam, which needs an older protobuf and Pillow than the newest: it gets these in a venv of its own
# that looks into the first one for all the rest.
BEAM := .venv-beam
SITE := -c "import site; print(site.getsitepackages()[0])"
$(BEAM)/.installed: $(VENV)/.installed setup.cfg
	$(PYTHON) -m venv $(BEAM)
	$(BIN)/python $(SITE) > "$$($(BEAM)/bin/python $(SITE))/rest.pth"
	$(BEAM)/bin/python -m pip install --quiet --editable ".[beam]"
	touch $@

test-beam: $(BEAM)/.installed
	$(BEAM)/bin/python -m pytest tests/beam tests/serving/test_sharded.py $(PYTEST_ARGS)

lint: $(VENV)/.installed
	$(BIN)/python -m ruff check .

# The site, from docs/ into site/. Names and signatures are read from the source: TensorFlow is not loaded.
$(VENV)/.docs: $(VENV)/.installed setup.cfg
	@echo "Installing MkDocs into $(VENV) ..."
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m tools.draw_rooms
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(LOWEST) $(BEAM) site build dist *.egg-info .pytest_cache .ruff_cache
