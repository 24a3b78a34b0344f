/* isa.c - which instruction sets this build and this CPU have, and finding one by name.  No state: the CPU is asked each time. */
#include <string.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "isa.h"

#if defined(__x86_64__) || defined(__i386__)
/* __builtin_cpu_supports also asks whether the operating system saves the registers. */
static int has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
static int has_avx512vnni(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}
#endif
#if defined(__aarch64__)
/* The kernel tells it on Linux; elsewhere we do not ask, and neon, which every aarch64 CPU has, is used. */
static int has_dotprod(void) {
#if defined(__linux__) && defined(HWCAP_ASIMDDP)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
    return 0;
#endif
}
static int has_i8mm(void) {
#if defined(__linux__) && defined(HWCAP2_I8MM)
    return has_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#else
    return 0;
#endif
}
#endif
static int has_all(void) { return 1; }

/* Best first. */
static const struct {
    const frugal_isa *const *isa; /* *isa is NULL when its file was compiled without the instructions */
    int (*has)(void);
} entries[] = {
#if defined(__x86_64__) || defined(__i386__)
    {&fr_isa_avx512vnni, has_avx512vnni},
    {&fr_isa_avx2, has_avx2},
#endif
#if defined(__aarch64__)
    {&fr_isa_i8mm, has_i8mm},
    {&fr_isa_dotprod, has_dotprod},
    {&fr_isa_neon, has_all},
#endif
    {&fr_isa_scalar, has_all},
};
enum { ENTRIES = sizeof entries / sizeof entries[0] };

const char *frugal_isa_list(uint32_t i) {
    for (int k = 0; k < ENTRIES; k++) {
        if (*entries[k].isa && entries[k].has() && i-- == 0) {
            return (*entries[k].isa)->name;
        }
    }
    return NULL;
}

const frugal_isa *frugal_isa_find(const char *name) {
    for (int k = 0; name && k < ENTRIES; k++) {
        const frugal_isa *isa = *entries[k].isa;
        if (isa && (!strcmp(name, "auto") || !strcmp(name, isa->name)) && entries[k].has()) {
            return isa;
        }
    }
    return NULL;
}

const char *frugal_isa_name(const frugal_isa *isa) { return isa ? isa->name : ""; }
