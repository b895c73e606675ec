/* What the C sources here share. native.py compiles them with REAL as float or double. */

#include <stdint.h>
#include <string.h>

#ifndef REAL
#define REAL float
#endif

typedef REAL real;
typedef int64_t size;

static inline size least(size a, size b) { return a < b ? a : b; }
