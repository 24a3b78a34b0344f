/* avx2.c - placeholder until its kernels arrive. */
#include "../isa.h"

const frugal_isa *const fr_isa_avx2 = NULL;
