# make demo: set everything up and watch it work. make test: set everything up and run the tests.
# Both need Python 3.11 or newer and git, nothing else. Without make: sh tools/dev.sh demo.

TARGETS := setup dashboard demo test lint format docs scenarios lock clean

.PHONY: help $(TARGETS)

help:
	@echo "make demo    set up (once) and run the demo: a real Kafka, live series, faults, explained anomalies"
	@echo "make test    set up (once), lint, check types and run every test but the long ones"
	@echo "make setup   only install into .venv, from requirements.lock"
	@echo "make dashboard  build the pages of the dashboard (setup does it too)"
	@echo "make lint    ruff and mypy        make format  let ruff rewrite"
	@echo "make docs    generate the reference pages and build the documentation site into site/"
	@echo "make scenarios  score the verdicts on simulated weeks of ordinary operation (some minutes)"
	@echo "make lock    resolve requirements.lock again from pyproject.toml"
	@echo "make clean   remove .venv and caches"

$(TARGETS):
	@sh tools/dev.sh $@
