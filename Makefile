# The targets of the project; `make` alone lists them. Sections of work are in scripts/, so that each can be run by hand.

PREFIX ?= /usr/local
DESTDIR ?=
# Only recipes that call make have its jobserver, and cargo would warn that it is closed.
CARGO ?= env -u MAKEFLAGS -u MFLAGS cargo
CARGO_FLAGS ?= --locked
# More arguments for the integration tests, for example TEST_ARGS="kill --nocapture".
TEST_ARGS ?=
# Seconds that the guest may take, and more environment for the tests in it (NAME=value ...).
GUEST_TIMEOUT ?= 1800
GUEST_ENV ?=
# The guest's security module: apparmor or selinux.
GUEST_LSM ?= apparmor
# More flags of scripts/guest.sh, and the log of the target that uses them.
GUEST_FLAGS ?=
GUEST_LOG ?= guest$(if $(filter selinux,$(GUEST_LSM)),-selinux)

# Asked by the shell, since make would ask before scripts/setup.sh has run.
TARGET := $$(scripts/target.sh)
BIN := $(abspath $(or $(CARGO_TARGET_DIR),target))/$(TARGET)/release/runtime
RELEASE := --release $(CARGO_FLAGS) --target $(TARGET)
BUSYBOX ?= /bin/busybox
# Where scripts/criu.sh puts it, for checkpoint and restore.
CRIU := $(abspath .cache/criu/bin)
# For `runtime --version`.
export COMMIT := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
# What the runs of the tests print is kept here for scripts/spec-musts.sh.
LOGS := $(or $(CARGO_TARGET_DIR),target)/tests
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

.DEFAULT_GOAL := help
# On two cores, targets side by side only disturb each other. But a guest has one thread.
ifneq ($(MAKECMDGOALS),guests)
.NOTPARALLEL:
endif
.PHONY: help build check test unit seccomp seccomp-bench fuzz fuzz-short integration guest guest-selinux guest-systemd guest-legacy guest-rootless guest-criu guests hostile conformance peer-tests peer-tests-guest callers callers-guest crash load costs-record bench where run install clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

build: ## the static release binary
	@scripts/setup.sh build
	$(CARGO) build $(RELEASE) --bin runtime
	@ls -l $(BIN)

check: ## formatting, lints, documentation, forbidden arrows between rooms, dependencies, and that docs/spec.md names tests
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(CARGO_FLAGS) --no-deps --document-private-items
	scripts/arrows.sh
	scripts/dependencies.sh
	scripts/spec-musts.sh exist

test: unit seccomp fuzz-short integration ## unit tests, seccomp, fuzz targets for seconds and integration tests here, then in six guests: cgroup v2, SELinux, systemd with v2, with v1, not as root, and with criu (root)
	@scripts/setup.sh guest-systemd
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=recurse guests
	$(if $(TEST_ARGS)$(RUNTIME),@echo "spec-musts: not asked: only all tests of our own runtime show it",scripts/spec-musts.sh ran $(LOGS))

unit:
	@scripts/setup.sh build
	@mkdir -p $(LOGS)
	$(CARGO) test $(CARGO_FLAGS) --bin runtime 2>&1 | tee $(LOGS)/unit.log

seccomp: ## our seccomp programs against libseccomp's: the same decisions on every architecture
	@scripts/setup.sh seccomp
	@scripts/seccomp-profiles.sh .cache/seccomp
	@mkdir -p $(LOGS)
	$(CARGO) test $(CARGO_FLAGS) -p seccomp-equal -- --nocapture 2>&1 | tee $(LOGS)/seccomp.log

seccomp-bench: ## compiling and loading Docker's profile: ours, libseccomp, seccompiler, into a table
	@scripts/setup.sh seccomp
	@scripts/seccomp-profiles.sh .cache/seccomp
	$(CARGO) bench $(CARGO_FLAGS) -p seccomp-equal

FUZZ_TIME ?= 600
FUZZ_PARSERS = config process resources seccomp state mount cgroup dbus netlink criu fault kernel
FUZZ_TARGETS ?= $(FUZZ_PARSERS) seccomp-equal
fuzz: ## what reads untrusted input, and seccomp against libseccomp, by libFuzzer: FUZZ_TIME=600 seconds each; FUZZ_TARGETS="config state"
	@scripts/setup.sh fuzz
	scripts/fuzz.sh $(FUZZ_TIME) $(FUZZ_TARGETS)

# The comparison has tests of its own (`make seccomp`).
fuzz-short:
	@scripts/setup.sh fuzz
	scripts/fuzz.sh 3 $(FUZZ_PARSERS)

integration: ## the integration tests on this host (root); RUNTIME=/usr/sbin/runc tests another runtime
	@scripts/setup.sh integration
	@scripts/setup.sh criu
	@scripts/criu.sh
	$(CARGO) build $(RELEASE) --bin runtime
	@mkdir -p $(LOGS)
	PATH=$(CRIU):$$PATH RUNTIME=$(or $(RUNTIME),$(BIN)) BUSYBOX=$(BUSYBOX) $(CARGO) test $(RELEASE) --test integration -- $(TEST_ARGS) \
	  2>&1 | tee $(LOGS)/integration.log

# The longest first. All of them run, whatever fails.
guests: guest-systemd guest guest-legacy guest-criu guest-rootless guest-selinux

guest: ## the integration tests in a QEMU guest with pure cgroup v2 and AppArmor (no KVM needed)
	@scripts/setup.sh guest
	$(CARGO) build $(RELEASE) --bin runtime
	@mkdir -p $(LOGS)
	@tests=$$($(CARGO) test $(RELEASE) --test integration --no-run --message-format=json \
	  | sed -n 's/.*"executable":"\([^"]*\/integration-[^"]*\)".*/\1/p' | tail -n 1); \
	scripts/guest.sh --timeout $(GUEST_TIMEOUT) --lsm $(GUEST_LSM) $(GUEST_FLAGS) --file $(or $(RUNTIME),$(BIN)):/runtime --file "$$tests":/integration \
	  -- env RUNTIME=/runtime BUSYBOX=/bin/busybox $(GUEST_ENV) /integration $(TEST_ARGS) \
	  2>&1 | tee $(LOGS)/$(GUEST_LOG).log

guest-selinux: ## the tests of labels in such a guest with SELinux, enforcing scripts/guest/selinux.cil
	@$(MAKE) --no-print-directory guest GUEST_LSM=selinux TEST_ARGS="$(or $(TEST_ARGS),lsm::)"

# Bundles are on the disk, whose file system can be mounted with other ids. The long loops are not about cgroups, and what is
# refused before anything is made (errors::) the other guest shows.
SYSTEMD_ENV = TMPDIR=/var/tmp RUNTIME_TEST_SYSTEMD=1 RUNTIME_TEST_DEADLINE=60 RUNTIME_TEST_SCALE=20 $(GUEST_ENV)

guest-systemd: ## the integration tests with --systemd-cgroup, in a guest where systemd is process 1 (root)
	@scripts/setup.sh guest-systemd
	@$(MAKE) --no-print-directory guest GUEST_FLAGS=--systemd GUEST_LOG=guest-systemd GUEST_ENV="$(SYSTEMD_ENV)" \
	  TEST_ARGS="--include-ignored --skip user_session:: --skip crash::every_ --skip crash::downgrade::every_ --skip crash::costs:: --skip load:: --skip errors:: $(TEST_ARGS)"

guest-legacy: ## the tests systemd:: in such a guest, where systemd has cgroup v1 (root)
	@scripts/setup.sh guest-systemd
	@$(MAKE) --no-print-directory guest GUEST_FLAGS="--systemd --legacy" GUEST_LOG=guest-legacy GUEST_ENV="$(SYSTEMD_ENV)" \
	  TEST_ARGS="--include-ignored $(or $(TEST_ARGS),systemd::)"

guest-rootless: ## the tests user_session:: and rootless:: in such a guest, by an unprivileged user with a systemd of its own
	@scripts/setup.sh guest-systemd
	@$(MAKE) --no-print-directory guest GUEST_FLAGS="--systemd --user" GUEST_LOG=guest-rootless GUEST_ENV="TMPDIR=/var/tmp RUNTIME_TEST_DEADLINE=60 $(GUEST_ENV)" \
	  TEST_ARGS="--include-ignored $(or $(TEST_ARGS),user_session:: rootless::)"

# criu needs more of a kernel than the cloud kernel has. The files are looked for when scripts/criu.sh has made them.
CRIU_FILES = $(foreach file,$(shell cd $(CRIU)/.. && find bin lib -type f),--file $(dir $(CRIU))$(file):/criu/$(file))

guest-criu: ## the tests checkpoint:: in a guest with pure cgroup v2 whose kernel can track memory and send it later
	@scripts/setup.sh criu
	@scripts/criu.sh
	@$(MAKE) --no-print-directory guest GUEST_FLAGS='--kernel amd64 --memory 2000 $(CRIU_FILES)' GUEST_LOG=guest-criu \
	  GUEST_ENV="PATH=/criu/bin:/bin:/sbin:/usr/bin:/usr/sbin RUNTIME_TEST_DEADLINE=60 RUNTIME_TEST_SCALE=20 $(GUEST_ENV)" TEST_ARGS="$(or $(TEST_ARGS),checkpoint::)"

hostile: ## the races with a hostile container, of the integration tests, with 1,000 containers each (root)
	@RUNTIME_TEST_SCALE=5000 $(MAKE) --no-print-directory integration LOGS=$(LOGS)/hostile TEST_ARGS="race --test-threads=1"

conformance: ## the OCI validation programs with ours, runc and crun, here and in a guest (root); writes docs/conformance.md
	@scripts/setup.sh conformance
	@scripts/setup.sh guest
	$(CARGO) build $(RELEASE) --bin runtime
	scripts/conformance.sh $(BIN)

peer-tests: ## runc's own bats tests with runc and with ours, into docs/conformance.md (root); PEER_ARGS="kill.bats run.bats"
	@scripts/setup.sh peer
	@scripts/setup.sh criu
	@scripts/criu.sh
	$(CARGO) build $(RELEASE) --bin runtime
	scripts/peer-tests.sh --runtime runc=/usr/sbin/runc --runtime ours=$(BIN) $(or $(PEER_ARGS),--write)

peer-tests-guest: ## those of cgroups on pure cgroup v2, by cgroupfs and by systemd, in the guest with systemd (root)
	@scripts/setup.sh peer
	@scripts/setup.sh guest-systemd
	$(CARGO) build $(RELEASE) --bin runtime
	scripts/peer-tests.sh --runtime runc=/usr/sbin/runc --runtime ours=$(BIN) --guest $(or $(PEER_ARGS),--write)

callers: ## containerd, CRI, Docker and Podman with runc and with ours, into docs/callers.md (root); CALLERS_ARGS="--engine docker"
	@scripts/setup.sh callers
	$(CARGO) build $(RELEASE) --bin runtime
	scripts/callers.sh $(or $(CALLERS_ARGS),--write) $(BIN)

callers-guest: ## containerd, CRI, Docker and Podman of sid on cgroup v2 with systemd's cgroups, in the guest, into docs/callers.md (root)
	@scripts/setup.sh callers
	@scripts/setup.sh guest-systemd
	$(CARGO) build $(RELEASE) --bin runtime
	scripts/callers.sh --guest $(or $(CALLERS_ARGS),--write) $(BIN)

# Every test of the kind, on a file system without a disk: each point writes and flushes the state.
crash: ## kill each command at each of its system calls, let each of these fail, and print a table; an hour (root)
	$(CARGO) build $(RELEASE) --bin runtime
	@mkdir -p $(LOGS)
	@TMPDIR=/dev/shm RUNTIME=$(or $(RUNTIME),$(BIN)) BUSYBOX=$(BUSYBOX) $(CARGO) test $(RELEASE) --test integration -- --ignored crash:: $(TEST_ARGS) \
	  2>&1 | tee $(LOGS)/crash.log; status=$$?; \
	echo; grep -ohE '(CRASH|DOWNGRADE) .*findings' $(LOGS)/crash.log | sort; exit $$status

# LOAD="1000 10000" is the whole of it.
LOAD ?= 100 1000
load: ## as many containers at once, and as many one after the other, as LOAD says; what the host has before and after (root)
	$(CARGO) build $(RELEASE) --bin runtime
	TMPDIR=/dev/shm RUNTIME_TEST_LOAD="$(LOAD)" RUNTIME=$(BIN) BUSYBOX=$(BUSYBOX) \
	  $(CARGO) test $(RELEASE) --test integration -- --ignored --test-threads=1 load:: $(TEST_ARGS)

costs-record: ## count what each command costs, here and in the guest, into integration/costs.txt, with which `make test` compares (root)
	@RUNTIME_TEST_RECORD=all $(MAKE) --no-print-directory integration LOGS=$(LOGS)/costs TEST_ARGS=crash::costs
	@$(MAKE) --no-print-directory guest LOGS=$(LOGS)/costs GUEST_ENV=RUNTIME_TEST_RECORD=calls TEST_ARGS=crash::costs
	scripts/costs.sh $(LOGS)/costs/integration.log $(LOGS)/costs/guest.log

bench: ## measure against the floor, runc and crun of Debian 12 and sid, into README.md and docs/performance.md (root); YOUKI=1 for youki, too; BENCH_ARGS=--quick to try
	@scripts/setup.sh bench
	@scripts/peers.sh
	$(CARGO) build $(RELEASE) --bin runtime
	@floor=$$($(CARGO) bench $(CARGO_FLAGS) --target $(TARGET) --bench floor --no-run --message-format=json \
	  | sed -n 's/.*"executable":"\([^"]*\/floor-[^"]*\)".*/\1/p' | tail -n 1); \
	BENCH_FLOOR=$$floor $(CARGO) bench $(CARGO_FLAGS) --target $(TARGET) --bench bench -- $(BENCH_ARGS)

where: ## where the time of `run` goes, beside the floor's, by perf (root)
	@scripts/setup.sh where
	$(CARGO) build $(RELEASE) --bin runtime
	@floor=$$($(CARGO) bench $(CARGO_FLAGS) --target $(TARGET) --bench floor --no-run --message-format=json \
	  | sed -n 's/.*"executable":"\([^"]*\/floor-[^"]*\)".*/\1/p' | tail -n 1); \
	scripts/where.sh $(BIN) "$$floor" $(BUSYBOX)

run: ## make bundle/ (a busybox root, a new config.json) and run it (root)
	@scripts/setup.sh run
	$(CARGO) build $(RELEASE) --bin runtime
	@scripts/bundle.sh $(BIN) bundle
	$(BIN) run bundle/

install: build ## install to $(DESTDIR)$(PREFIX)/bin/runtime
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/runtime

clean: ## remove what was built, the bundle and the downloads of the guest
	$(CARGO) clean
	rm -rf bundle .cache
