# Everything a checkout can do. Each target sets up by itself what it needs, and can be run again.
# PYTHON=python3.12     the interpreter of .venv (default: the newest from 3.11 to 3.13)
# LAB_RELEASE=bookworm  the Debian release of the lab's hosts (default: trixie)

# A new requirements.txt or another interpreter means a new .venv; the same ones cost nothing.
STAMP := .venv/$(shell { cat requirements.txt; echo '$(PYTHON)'; } | sha256sum | cut -c1-12).stamp
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export MOLECULE_GLOB := molecule/*/molecule.yml
export PYTHON
SCENARIO ?= default

.PHONY: help venv lab lab-hosts lab-destroy lab-ssh lint unit sanity importer molecule test faults interrupted scale bench build lock

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): requirements.txt
	@lab/setup.sh venv $(STAMP)

venv: $(STAMP)  ## Set up .venv with the pinned tools

lab: lab-hosts  ## Make five hosts in containers and run an Airflow cluster on them
	@echo '== Run onprem.airflow.site on the lab'
	@$(BIN)/python lab/strategies.py ansible-playbook -i inventories/lab onprem.airflow.site
	@echo '== Run a DAG of mapped tasks on it'
	@pytest -q -s tests/lab -m smoke
	@$(BIN)/python lab/hosts.py login

lab-hosts: $(STAMP)  ## Make only the five bare hosts, and the secrets
	@echo '== Make the hosts of the lab'
	@lab/setup.sh lab
	@$(BIN)/python lab/hosts.py create
	@$(BIN)/python lab/hosts.py secrets

lab-destroy: $(STAMP)  ## Remove the lab's hosts
	@$(BIN)/python lab/hosts.py destroy

lab-ssh: $(STAMP)  ## Log in to a host of the lab: make lab-ssh HOST=worker1
	@$(BIN)/python lab/hosts.py ssh $(or $(HOST),$(error Say which: make lab-ssh HOST=worker1))

lint unit sanity importer: $(STAMP)
	@$(BIN)/python lab/test.py $@

lint:  ## Check style and types: ruff, yamllint, ansible-lint, mypy, antsibull-changelog
unit:  ## Run the unit tests
sanity:  ## Run ansible-test sanity
importer:  ## Build the artifact and let galaxy-importer judge it

molecule: $(STAMP)  ## Run one scenario on fresh hosts: make molecule SCENARIO=default|single|verify|workers
	@lab/setup.sh lab
	@lab/setup.sh browser
	@lab/setup.sh other
	@$(BIN)/python lab/test.py molecule:$(SCENARIO)

test: $(STAMP)  ## Run all of these; replaces the lab's hosts
	@lab/setup.sh lab
	@lab/setup.sh browser
	@lab/setup.sh other
	@$(BIN)/python lab/test.py

faults: $(STAMP)  ## Break a cluster under load in every way of docs/faults.md (RELEASE=trixie|bookworm QUEUE_TYPE=quorum|classic; an hour)
	@lab/setup.sh lab
	@$(BIN)/python lab/test.py molecule:faults

interrupted: $(STAMP)  ## Kill site.yml at ten moments, run it again, compare (half an hour; replaces the lab's hosts)
	@lab/setup.sh lab
	@$(BIN)/python lab/interrupt.py

scale: $(STAMP)  ## Measure how soon one new worker, and ten at once, take tasks (needs the lab of `make lab`)
	@$(BIN)/python lab/scale.py

bench: $(STAMP)  ## Measure site.yml beside bare commands, in turn, three rounds (half an hour; replaces the lab's hosts; PARTS='ten growth tasks' ROUNDS=1: the rest)
	@lab/setup.sh lab
	@$(BIN)/python bench/bench.py --rounds $(or $(ROUNDS),3) $(PARTS)

build: $(STAMP)  ## Build the collection's artifact in build/, install it beside, and test the copy
	@$(BIN)/python lab/test.py build

lock: $(STAMP)  ## Resolve the lock files of Airflow anew
	@$(BIN)/python lab/lock.py
