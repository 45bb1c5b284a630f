# A thin wrapper: every target is make.py's. Options go through ARGS: make serve ARGS="--port 8001"
PYTHON ?= $(shell command -v python3 || command -v python)
TARGETS := help setup book test serve lint notebooks publish verify clean

.DEFAULT_GOAL := help
.PHONY: $(TARGETS)

$(TARGETS):
	@"$(PYTHON)" make.py $@ $(ARGS)
