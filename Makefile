# Each verb is a command of dev.py, which also works without make: python3 dev.py test -k users
# More arguments: make test ARGS="-k users"
PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: develop start test sure format lint types lock load-test bench openapi breaking clean help

develop: ; @$(PYTHON) dev.py develop
# `exec`, so that a signal meant for the server does not stop at a shell.
start: ; @exec $(PYTHON) dev.py start
test: ; @$(PYTHON) dev.py test $(ARGS)
sure: ; @$(PYTHON) dev.py sure $(ARGS)
format: ; @$(PYTHON) dev.py format
lint: ; @$(PYTHON) dev.py lint
types: ; @$(PYTHON) dev.py types
lock: ; @$(PYTHON) dev.py lock $(ARGS)
load-test: ; @$(PYTHON) dev.py load-test $(ARGS)
bench: ; @$(PYTHON) dev.py bench $(ARGS)
openapi: ; @$(PYTHON) dev.py openapi
breaking: ; @$(PYTHON) dev.py breaking
clean: ; @$(PYTHON) dev.py clean
help: ; @$(PYTHON) dev.py --help
