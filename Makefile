# batchdedup: make, make install, make installcheck as with every extension.
#
#   make PG_CONFIG=/path/to/pg_config   build for another installation
#   make WERROR=1                       warnings are errors (CI)
#   make TESTING=1                     with what only tests and benchmarks call
#   make with_llvm=yes                  install bitcode for the JIT too
#   make -f /path/to/Makefile           build in another directory, this one
#                                       (VPATH=/path/to works, too)
#
#   make demo          see it work on real data, beside plain SQL
#   make check-all     install what is missing, build, run every test
#   make check-assert  the same on a server built with assertions
#   make check-version V=18   the same on another version, in a chroot
#   make check-install   the first two on fresh systems, in chroots
#   make prove         the TAP tests alone
#   make torture MINUTES=10   a server that is killed again and again
#   make coverage      the lines of src/ that the tests run
#   make replay DATA=file.csv KEY=col,...   any CSV through the buffer
#   make replay-prices DATA=file.csv   running figures of daily stock prices
#   make bench [QUICK=1] [OUT=file.json]    how fast it is, beside plain SQL
#   make reference     docs/reference.md, of what the extension says of itself
#   make format, make lint

# Where the sources are: in this file's directory, which need not be the
# current one. PGXS says so in srcdir, but not before it is included.
source := $(patsubst %/,%,$(or $(VPATH),$(dir $(firstword $(MAKEFILE_LIST)))))

EXTENSION = batchdedup
MODULE_big = batchdedup
OBJS := $(patsubst $(source)/%.c,%.o,$(sort $(wildcard $(source)/src/*/*.c)))
ifeq ($(OBJS),)
$(error no sources in $(source)/src)
endif
# Functions for tests and benchmarks alone: src/testing.
ifndef TESTING
OBJS := $(filter-out src/testing/%.o,$(OBJS))
endif

# The script of the extension: the parts of the folders, in the order of the
# folders. The control file is the one place for its version.
version := $(shell sed -n "s/^default_version = '\(.*\)'$$/\1/p" $(source)/batchdedup.control)
script := batchdedup--$(version).sql
script_parts := $(wildcard $(foreach folder,$(shell sed -n '/^[a-z]/p' $(source)/src/LAYERS), \
	$(source)/src/$(folder)/$(folder).sql))
stray_parts := $(filter-out $(script_parts),$(wildcard $(source)/src/*/*.sql))
ifneq ($(stray_parts),)
$(error not src/FOLDER/FOLDER.sql, or not a folder of src/LAYERS: $(stray_parts))
endif
DATA_built = $(script)

# In the order of running: what a test needs is tested before it. observing and
# privileges stand before the first one that switches the buffer on: with the kill
# switch they see that there is no worker. batches stands before events, which leaves
# a batch behind. dev/check-names finds the files that stand in no list.
REGRESS = init script targets rows given keys keys_icu read subxacts xact \
	apply flush observing privileges big dead_letters direct \
	rules versions audit groups journal health \
	ddl_alter ddl_parents ddl_drop guard rls security \
	view redirect \
	canonical batches events imports \
	syncs_create syncs_run syncs_failures

ISOLATION = two_writers publish_seal flush_writers pause_resume read_apply row_locks \
	view_overlay ddl_writers detach \
	event_key event_order event_poll event_notify \
	batch_upload batch_claims batch_barrier \
	import_upserts import_finalize \
	sync_clock sync_sequence sync_runs

# Every file in sql/ needs the extension, which init creates: a list that was
# narrowed down begins with it, too.
ifneq ($(strip $(REGRESS)),)
override REGRESS := init $(filter-out init,$(REGRESS))
endif

# What runs with the kill switch, too. Not big, which is about the buffer's
# memory: a million single statements instead would say nothing.
REGRESS_DIRECT = $(filter-out big,$(REGRESS))

# objects and bitcode of files that are no longer there
EXTRA_CLEAN = $(wildcard src/*/*.o src/*/*.bc)

# Includes name the folder: #include "buffer/memtable.h".
PG_CPPFLAGS = -I$(srcdir)/src -DBDD_VERSION='"$(version)"'

ifdef WERROR
PG_CFLAGS += -Werror
endif

# Servers are often built with a clang that the machine at hand does not have,
# and there is little for the JIT to inline here: no bitcode unless asked for.
ifneq ($(origin with_llvm),command line)
override with_llvm = no
endif

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
# Packages may bring pg_config and PGXS for clients, without these headers.
server_header := $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)/postgres.h

ifneq ($(and $(wildcard $(PGXS)),$(wildcard $(server_header))),)
include $(PGXS)

# PGXS does not track headers, and makes no directories for objects. Absolute,
# as make would find those of the sources in VPATH otherwise.
$(OBJS): $(wildcard $(source)/src/*/*.h) $(source)/batchdedup.control
object_dirs := $(sort $(dir $(abspath $(OBJS))))
$(OBJS) $(OBJS:.o=.bc): | not-built-there $(object_dirs)
$(object_dirs):
	@mkdir -p $@

# For the same reason objects there would be taken for those to be built here.
not-built-there:
ifneq ($(and $(filter-out $(realpath .),$(realpath $(source))),$(wildcard $(source)/src/*/*.o $(source)/$(script))),)
	@echo >&2 "The sources in $(source) were built there: run make clean there first"
	@false
endif
.PHONY: not-built-there

$(script): $(script_parts) $(source)/src/LAYERS $(source)/batchdedup.control | not-built-there
	@awk 'FNR == 1 && NR > 1 { print "" } { print }' $(script_parts) >$@.new
	@mv $@.new $@
else
# The targets below must work on a machine where PostgreSQL is still missing.
all install uninstall installcheck clean:
ifeq ($(PGXS),)
	@echo >&2 "$(PG_CONFIG) was not found:"
else
	@echo >&2 "$(PG_CONFIG) is there, but not what builds extensions for its server"
	@echo >&2 "(Debian's postgresql-server-dev-NN, elsewhere postgresql-devel):"
	@echo >&2 "there is no $(firstword $(filter-out $(wildcard $(PGXS)),$(PGXS)) $(server_header));"
endif
	@echo >&2 "run dev/install-deps, or set PG_CONFIG"
	@false
.PHONY: all install uninstall installcheck clean
endif

export PG_CONFIG

# A list of tests, for dev/steps.sh and dev/check-names.
show-%:
	@echo $($*)

demo check-all check-assert coverage reference replay replay-prices lint torture check-install:
	@$(source)/dev/$@

check-version:
	@$(source)/dev/check-version $(V)

bench:
	@$(source)/bench/run

prove:
	@$(source)/dev/check-all build install tap

format:
	cd $(source) && clang-format -i src/*/*.[ch] bench/*.c

.PHONY: bench demo check-all check-assert check-install check-version coverage reference replay replay-prices lint torture prove format
