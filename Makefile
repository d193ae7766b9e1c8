# batchdedup: make, make install, make installcheck as with every extension.
#
#   make PG_CONFIG=/path/to/pg_config   build for another installation
#   make WERROR=1                       warnings are errors (CI)
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
DATA = batchdedup--1.0.sql

REGRESS = $(patsubst $(source)/sql/%.sql,%,$(sort $(wildcard $(source)/sql/*.sql)))
ISOLATION = $(patsubst $(source)/specs/%.spec,%,$(sort $(wildcard $(source)/specs/*.spec)))

# objects and bitcode of files that are no longer there
EXTRA_CLEAN = $(wildcard src/*/*.o src/*/*.bc)

# Includes name the folder: #include "buffer/memtable.h".
PG_CPPFLAGS = -I$(srcdir)/src

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
$(OBJS): $(wildcard $(source)/src/*/*.h)
object_dirs := $(sort $(dir $(abspath $(OBJS))))
$(OBJS) $(OBJS:.o=.bc): | not-built-there $(object_dirs)
$(object_dirs):
	@mkdir -p $@

# For the same reason objects there would be taken for those to be built here.
not-built-there:
ifneq ($(and $(filter-out $(realpath .),$(realpath $(source))),$(wildcard $(source)/src/*/*.o)),)
	@echo >&2 "The sources in $(source) were built there: run make clean there first"
	@false
endif
.PHONY: not-built-there
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

demo check-all check-assert coverage replay replay-prices lint torture check-install:
	@$(source)/dev/$@

check-version:
	@$(source)/dev/check-version $(V)

bench:
	@$(source)/bench/run

prove:
	@$(source)/dev/check-all build install tap

format:
	cd $(source) && clang-format -i src/*/*.[ch] bench/*.c

.PHONY: bench demo check-all check-assert check-install check-version coverage replay replay-prices lint torture prove format
