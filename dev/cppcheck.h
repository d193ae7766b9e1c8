/* Stand-ins for PostgreSQL's macros; read by cppcheck only (dev/lint). */
#define PG_MODULE_MAGIC
#define PG_FUNCTION_INFO_V1(f) extern Datum f(PG_FUNCTION_ARGS)
#define PG_FUNCTION_ARGS FunctionCallInfo fcinfo
#define PGDLLEXPORT
#define PGDLLIMPORT
#define PG_USED_FOR_ASSERTS_ONLY
#define pg_attribute_noreturn()
#define pg_attribute_printf(f, a)
#define pg_noreturn
#define pg_unreachable() __builtin_unreachable()
#define FLEXIBLE_ARRAY_MEMBER
#define UINT64CONST(x) (x##ULL)
#define INT64CONST(x) (x##LL)
#define INT64_FORMAT "%ld"
#define UINT64_FORMAT "%lu"
#define Assert(c)
#define AssertMacro(c) ((void) 0)
#define StaticAssertStmt(c, m)
#define StaticAssertDecl(c, m)
#define PG_TRY() ((void) 0)
#define PG_CATCH() ((void) 0)
#define PG_FINALLY() ((void) 0)
#define PG_END_TRY() ((void) 0)
#define PG_RE_THROW() ((void) 0)
#define LSN_FORMAT_ARGS(lsn) 0u, 0u
#define XL_ROUTINE(...) 0
#define ereport(level, ...) do { if ((level) >= 21) __builtin_unreachable(); } while (0)
#define elog(level, ...) do { if ((level) >= 21) __builtin_unreachable(); } while (0)
#define ERROR 21
#define FATAL 22
#define PANIC 23
#define foreach(cell, list) for (cell = list_head(list); cell != 0; cell = lnext(list, cell))
#define SPI_connect_or_error() ((void) 0)
#define offsetof(t, m) __builtin_offsetof(t, m)
