/* avx512vnni.c - placeholder until its kernels arrive. */
#include "../isa.h"

const frugal_isa *const fr_isa_avx512vnni = NULL;
