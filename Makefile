# batchdedup: make, make install, make installcheck as with every extension.
#
#   make PG_CONFIG=/path/to/pg_config   build for another installation
#   make WERROR=1                       warnings are errors (CI)
#   make with_llvm=yes                  install bitcode for the JIT too
#
#   make demo          see it work on real data, beside plain SQL
#   make check-all     install what is missing, build, run every test
#   make check-assert  the same on a server built with assertions
#   make check-version V=18   the same on another version, in a chroot
#   make prove         the TAP tests alone
#   make torture MINUTES=10   a server that is killed again and again
#   make coverage      the lines of src/ that the tests run
#   make replay DATA=file.csv KEY=col,...   any CSV through the buffer
#   make replay-prices DATA=file.csv   running figures of daily stock prices
#   make bench [QUICK=1] [OUT=file.json]    how fast it is, beside plain SQL
#   make reference     docs/reference.md, of what the extension says of itself
#   make format, make lint

EXTENSION = batchdedup
MODULE_big = batchdedup
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*/*.c)))
DATA = batchdedup--1.0.sql

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
ISOLATION = $(patsubst specs/%.spec,%,$(sort $(wildcard specs/*.spec)))

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

ifneq ($(wildcard $(PGXS)),)
include $(PGXS)

# PGXS does not track headers.
$(OBJS): $(wildcard src/*/*.h)
else
# The targets below must work on a machine where PostgreSQL is still missing.
all install uninstall installcheck clean:
	@echo >&2 "$(PG_CONFIG) or the server headers were not found:"
	@echo >&2 "run dev/install-deps, or set PG_CONFIG"
	@false
.PHONY: all install uninstall installcheck clean
endif

export PG_CONFIG

demo check-all check-assert coverage reference replay replay-prices lint torture:
	@dev/$@

check-version:
	@dev/check-version $(V)

bench:
	@bench/run

prove:
	@dev/check-all build install tap

format:
	clang-format -i src/*/*.[ch] bench/*.c

.PHONY: bench demo check-all check-assert check-version coverage reference replay replay-prices lint torture prove format
