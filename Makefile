# The verbs. Each deploy verb is one playbook of playbooks/; INVENTORY says which fleet, ARGS goes to ansible-playbook as it is.
INVENTORY ?= inventories/local
ARGS ?=
VENV := .venv
# Ansible begins a process for each task, which would compile plugins again and again where no bytecode is kept
unexport PYTHONDONTWRITEBYTECODE
COLLECTION := .ansible/collections/ansible_collections/fba/stack
# Hashes for every platform, and no index: whoever installs has their own
UV_COMPILE = $(VENV)/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-emit-index-url --custom-compile-command 'make lock'
# What a verb shows is its own table; of the tasks only those that change or fail
QUIET = export ANSIBLE_DISPLAY_OK_HOSTS=false
# molecule keeps its state in VIRTUAL_ENV and has a configuration of its own; without borders its output is not wrapped
TEST = . $(VENV)/bin/activate && export MOLECULE_COMMAND_BORDERS=false ANSIBLE_COLLECTIONS_PATH=$(CURDIR)/.ansible/collections \
    ANSIBLE_CALLBACKS_ENABLED=fba.stack.fork_tuning &&
# Why it is done, for the lock, the record and the deploy log; wait=600 waits that long for somebody else
WHY = -e '{"release_reason": "$(reason)", "release_wait": $(or $(wait),0)}'
# What molecule knows of the hosts; some scenarios share theirs. Outside the checkout: pytest would take its pyproject.toml for that of the
# scenarios
HOSTS_DIR = $(HOME)/.ansible/tmp/fba-hosts
HOSTS = MOLECULE_EPHEMERAL_DIRECTORY=$(HOSTS_DIR)
STORE = $(HOSTS)/store
DEFAULT = $(HOSTS)/default
SINGLE = $(HOSTS)/single
FLEET = $(HOSTS)/fleet
SCALE = $(HOSTS)/scale
UPGRADE = $(HOSTS)/upgrade
# Its account stays
FAULTS = FBA_FAULTS_REPORT=$(CURDIR)/.cache/faults.json $(FLEET) molecule verify -s faults
REMOVE_HOSTS = ansible-playbook -i localhost, tests/hosts/remove.yml && rm -rf $(HOSTS_DIR)
# A line that names $(MAKE) is run by --dry-run too, all of it
DRY = $(findstring n,$(firstword -$(MAKEFLAGS)))
UNLESS_DRY = $(if $(DRY),exit;)
WITH_ENGINE = $(if $(DRY),,bin/with-engine)
CLEAN_HOSTS = $(UNLESS_DRY) trap '$(REMOVE_HOSTS)' EXIT && $(REMOVE_HOSTS)
PLAY = . $(VENV)/bin/activate && ansible-playbook -i $(INVENTORY)

.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

tools: $(VENV)/.deploy $(COLLECTION) ## Install the pinned tools into .venv

$(VENV)/.deploy: requirements.lock bin/make-venv
	bin/make-venv $(VENV) requirements.lock
	@touch $@

$(VENV)/.test: requirements-test.lock bin/make-venv $(VENV)/.deploy
	bin/make-venv $(VENV) requirements-test.lock
	@touch $@

# Roles are found as fba.stack.<role>, from a checkout as when installed
$(COLLECTION):
	@mkdir -p $(@D) && ln -sfn $(CURDIR) $@

deploy: tools ## Take the hosts of INVENTORY to a running stack
	$(PLAY) playbooks/site.yml $(WHY) $(ARGS)

release: tools ## Release the application: its image, migrations, workers, servers, beat; reason="new prices"
	$(PLAY) playbooks/release.yml $(WHY) $(ARGS)

rollback: tools ## Back to the release before; release=9be3dbb83132 for an older one
	$(PLAY) playbooks/rollback.yml -e fba_release=$(release) $(WHY) $(ARGS)

plan: tools ## What a deploy would replace, reload or leave, and why; nothing is touched
	@$(QUIET) && $(PLAY) playbooks/site.yml --check --diff $(ARGS)

unlock: tools ## Take the stack's lock away from a run that is dead
	@$(QUIET) && $(PLAY) playbooks/unlock.yml $(ARGS)

dev: tools ## The same with the source mounted: a saved Python file starts what runs it anew; deploy goes back
	$(PLAY) playbooks/site.yml -e '{"fba_app_mount_source": true}' $(ARGS)

passwords: tools ## Show the generated passwords
	@. $(VENV)/bin/activate && ansible-vault view $(INVENTORY)/group_vars/all/fba_secrets.yml

status: tools ## The services of all hosts in one table, the queues, and where beat runs
	@$(QUIET) && $(PLAY) playbooks/status.yml $(ARGS)

logs: tools ## Logs of all services; service=worker for one, follow=1 to go on
	@$(QUIET) && $(PLAY) playbooks/logs.yml -e '{"logs_service": "$(service)", "logs_follow": $(if $(follow),true,false)}' $(ARGS)

dead-letters: tools ## The messages that RabbitMQ has given up on; replay=1 sends them again, empty=<stack name> forgets them, task=<name> for one
	$(PLAY) playbooks/dead_letters.yml -e '{"dead_letters_replay": $(if $(replay),true,false), "dead_letters_empty": "$(empty)", "dead_letters_task": "$(task)"}' $(ARGS)

backup: tools ## Back everything up now, as the timer does; full=1 PostgreSQL in full
	$(PLAY) playbooks/backup.yml -e '{"backup_full": $(if $(full),true,false)}' $(ARGS)

verify-backup: tools ## Read what a restore would take; time="2026-11-22 03:15:00+00:00" for other than the latest
	$(PLAY) playbooks/verify_backup.yml -e '{"restore_time": "$(time)"}' $(ARGS)

restore: tools ## Bring the data back from backups; time="…", database=<its name> to overwrite one, only=postgres,redis,rabbitmq,volumes
	$(PLAY) playbooks/restore.yml -e '{"restore_time": "$(time)", "restore_database": "$(database)", "restore_only": "$(only)"}' $(WHY) $(ARGS)

restart: tools ## Restart one service: service=worker
	$(PLAY) playbooks/restart.yml -e restart_service=$(service) $(ARGS)

stop: tools ## Stop the stack; deploy starts it again
	$(PLAY) playbooks/stop.yml $(ARGS)

upgrade: tools ## Give PostgreSQL, Redis and RabbitMQ the wanted images, with a backup first; service=postgres for one
	$(PLAY) playbooks/upgrade.yml -e upgrade_service=$(service) $(ARGS)

destroy: tools ## Remove the stack, keep its volumes; volumes=<stack name> removes them too
	$(PLAY) playbooks/destroy.yml -e destroy_volumes=$(volumes) $(ARGS)

maintenance-on: tools ## Answer every request with a page that says so, until maintenance-off
	$(PLAY) playbooks/maintenance.yml -e maintenance=on $(ARGS)

maintenance-off: tools ## Serve again
	$(PLAY) playbooks/maintenance.yml -e maintenance=off $(ARGS)

remove-host: tools ## Take a host out of the stack: host=work3; drain=60 to wait no longer than that for its tasks
	$(PLAY) playbooks/remove_host.yml -e remove_host=$(host) -e remove_host_drain=$(or $(drain),0) $(ARGS)

rotate-authority: tools ## Put another internal authority in the place of the present one, while everything goes on
	$(PLAY) playbooks/rotate_authority.yml $(ARGS)

test: $(VENV)/.test .cache/app-venv/.made $(COLLECTION) ## Everything that must hold: lint, unit tests, the app's tests, and the stack on bare test hosts
	$(TEST) $(WITH_ENGINE) $(MAKE) test-hosts

test-quick: $(VENV)/.test .cache/app-venv/.made $(COLLECTION) ## Lint and unit tests; no container
	$(MAKE) --jobs=3 --output-sync=target quick-lint quick-unit quick-application

quick-lint: FORCE
	$(TEST) yamllint .
	$(TEST) ansible-lint --offline

quick-unit: FORCE
	$(TEST) ruff check && ruff format --check
	$(TEST) mypy
	$(TEST) bin/make-variables --check
	$(TEST) pytest tests/unit -q -n 2 --dist loadfile

quick-application: FORCE
	cd app && . ../.cache/app-venv/bin/activate && ruff check && ruff format --check && mypy && pytest -q tests/unit ../tests/worker

test-app: tools ## The application's tests against the running stack's data services; tests="-k storage" for some
	$(PLAY) tests/app/run.yml -e '{"app_tests": "$(tests)"}' $(ARGS)

# Each host is a bare machine with systemd. The first one is deployed while what needs no host is tested, because its deploy leaves a core
# idle. The second one pulls the images that the first one has built; both are verified at once. What a restore has brought back is what the
# inventory says, so the second deploy comes after it. What is fast is measured while nothing else runs. The six of the cluster come after
# them, and releases and faults are tried on these. For one of them alone: molecule converge, molecule verify.
test-hosts: $(VENV)/.test $(COLLECTION)
	$(TEST) ansible-playbook -i inventories/local tests/hosts/browser.yml
	$(TEST) $(CLEAN_HOSTS) && $(MAKE) --jobs=2 converge-default test-quick && \
	$(MAKE) --jobs=2 idempotence-default converge-registry && $(MAKE) --jobs=2 verify-default verify-registry && \
	$(SINGLE) molecule destroy -s registry && $(MAKE) bench-quick && \
	$(FLEET) molecule converge -s cluster && $(FLEET) molecule idempotence -s cluster && $(FLEET) molecule verify -s cluster && \
	$(FAULTS) && $(FLEET) molecule verify -s release

# Hours: every fault three times and 20,000 tasks, ten releases and ten rollbacks, upgrades of the data services between real versions
soak: $(VENV)/.test $(COLLECTION) ## The long versions of the tests
	$(TEST) $(WITH_ENGINE) $(MAKE) soak-hosts

soak-hosts: FORCE
	$(TEST) $(CLEAN_HOSTS) && $(STORE) molecule converge -s store && $(DEFAULT) molecule converge && $(FLEET) molecule converge -s cluster && \
	FBA_FAULTS_ROUNDS=2 FBA_FAULTS_TASKS=20000 FBA_FAULTS_RATE=8 $(FAULTS) && \
	FBA_RELEASE_ROUNDS=9 $(FLEET) molecule verify -s release && $(FLEET) molecule destroy -s cluster && \
	$(DEFAULT) molecule converge && $(UPGRADE) molecule test -s upgrade

bench: $(VENV)/.test .cache/bench-venv/.made $(COLLECTION) ## Measure the stack beside what people run today; the tables are in docs/performance.md
	$(TEST) $(WITH_ENGINE) $(MAKE) bench-hosts
	.cache/bench-venv/bin/python -m bench.report

# Workers, servers and playbooks on one machine; then playbooks on more and more hosts. What is measured is shown when it is
bench-hosts bench-fleet-hosts bench-quick: export PYTEST_ADDOPTS = --capture=no
bench-hosts: FORCE
	$(TEST) $(CLEAN_HOSTS) && $(STORE) molecule converge -s store && $(DEFAULT) molecule converge && \
	FBA_BENCH_ROUNDS=3 $(DEFAULT) molecule verify -s bench && $(SCALE) molecule create -s scale && $(SCALE) molecule prepare -s scale && \
	$(SCALE) molecule verify -s scale

bench-fleet: $(VENV)/.test .cache/bench-venv/.made $(COLLECTION) ## Measure playbooks on up to eight hosts of workers
	$(TEST) $(WITH_ENGINE) $(MAKE) bench-fleet-hosts
	.cache/bench-venv/bin/python -m bench.report

bench-fleet-hosts: FORCE
	$(TEST) $(CLEAN_HOSTS) && $(STORE) molecule converge -s store && $(DEFAULT) molecule converge && $(SCALE) molecule create -s scale && \
	$(SCALE) molecule prepare -s scale && FBA_BENCH_HOSTS=8 $(SCALE) molecule verify -s scale

bench-quick: $(VENV)/.test $(COLLECTION) ## Fail if the stack's lead has fallen by half; on the host of the scenario default
	$(TEST) $(DEFAULT) molecule verify -s bench

converge-default: FORCE
	$(TEST) $(STORE) molecule converge -s store && $(DEFAULT) molecule converge

idempotence-default: FORCE
	$(TEST) $(DEFAULT) molecule idempotence

converge-registry: FORCE
	$(TEST) $(SINGLE) molecule converge -s registry

verify-default: FORCE
	$(TEST) $(DEFAULT) molecule verify

verify-registry: FORCE
	$(TEST) $(SINGLE) molecule verify -s restore && $(SINGLE) molecule idempotence -s registry && $(SINGLE) molecule verify -s registry

FORCE:

.cache/app-venv/.made: app/requirements-dev.lock bin/make-venv
	bin/make-venv .cache/app-venv app/requirements-dev.lock
	@touch $@

.cache/bench-venv/.made: bench/requirements.lock bin/make-venv
	bin/make-venv .cache/bench-venv bench/requirements.lock
	@touch $@

lock: tools ## Write the lock files anew from what they are made of
	$(UV_COMPILE) requirements.in -o requirements.lock
	$(UV_COMPILE) requirements-test.in -o requirements-test.lock
	$(UV_COMPILE) app/pyproject.toml -o app/requirements.lock
	$(UV_COMPILE) app/pyproject.toml --group app/pyproject.toml:dev -c app/requirements.lock -o app/requirements-dev.lock
	$(UV_COMPILE) bench/requirements.in -o bench/requirements.lock
	$(UV_COMPILE) bench/worker/requirements/celery-5.7.in -c app/requirements.lock -o bench/worker/requirements/celery-5.7.lock
	$(UV_COMPILE) bench/api/requirements/uvicorn.in -c app/requirements.lock -o bench/api/requirements/uvicorn.lock
	for name in celery-5.6 dramatiq taskiq; do \
	    $(UV_COMPILE) bench/worker/requirements/$$name.in -o bench/worker/requirements/$$name.lock || exit; done
	for name in flower supervisor uv; do \
	    $(UV_COMPILE) roles/images/files/$$name/requirements.in -o roles/images/files/$$name/requirements.lock || exit; done

.PHONY: help tools deploy release rollback plan unlock dev passwords backup verify-backup restore status logs dead-letters restart stop upgrade destroy maintenance-on maintenance-off remove-host rotate-authority test test-quick quick-lint quick-unit quick-application test-app test-hosts soak bench bench-fleet bench-quick lock FORCE
