#include "../isa.h"
const frugal_isa *const fr_isa_rvv = NULL;
