# A thin wrapper: every target is make.py's. Options go through ARGS: make serve ARGS="--port 8001"
# What is to be graded has a variable of its own: make grade SUBMISSIONS=folder
PYTHON ?= $(shell command -v python3 || command -v python)
TARGETS := help setup book test serve lint notebooks publish release grade solutions verify clean

.DEFAULT_GOAL := help
.PHONY: $(TARGETS)

$(TARGETS):
	@"$(PYTHON)" make.py $@ $(if $(SUBMISSIONS),--submissions "$(SUBMISSIONS)") $(ARGS)
